//! `superserve sessions messages`: the transcript.

use std::time::Duration;

use crate::test::Test;

#[test]
fn shows_who_said_what_and_when() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.pass(Duration::from_secs(90));
    test.send(&id, "and again");
    test.args(["sessions", "messages", &id])
        .stdout(
            "You, 2026-03-09 10:15:00 UTC\nhello\n\n\
             Agent, 2026-03-09 10:15:00 UTC\nyou said: hello\n\n\
             You, 2026-03-09 10:16:30 UTC\nand again\n\n\
             Agent, 2026-03-09 10:16:30 UTC\nyou said: and again\n",
        )
        .run();
}

#[test]
fn prints_json() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    let messages = messages.as_array().expect("an array");
    assert_eq!(messages.len(), 2);
    let keys: Vec<&String> = messages[0].as_object().unwrap().keys().collect();
    assert_eq!(keys[..3], ["role", "content", "at"]);
    assert_eq!((&messages[0]["role"], &messages[1]["role"]), (&"user".into(), &"agent".into()));
    assert_eq!(
        (&messages[0]["content"], &messages[1]["content"]),
        (&"hello".into(), &"you said: hello".into())
    );
    assert_eq!(messages[0]["at"], "2026-03-09T10:15:00Z");
    assert_eq!(messages[0]["run_id"], messages[1]["run_id"]);
}

#[test]
fn of_a_session_without_messages_there_is_nothing() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.create("echo");
    test.args(["sessions", "messages", &id, "--json"]).stdout("[]\n").run();
    test.args(["sessions", "messages", &id]).any_stderr().run();
}

#[test]
fn keeps_what_the_reply_was_to_the_letter() {
    let test = Test::new();
    test.deploy(
        test.agent("odd", "while read -r line; do printf '  two\\n\\nlines\\t\\033[31mred  \\n'; done"),
    );
    let id = test.begin("odd", "hello");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    assert_eq!(messages[1]["content"], "  two\n\nlines\t\u{1b}[31mred  ");
}
