//! `superserve sessions messages`: the transcript.

use std::time::Duration;

use serde_json::json;

use crate::request::request;
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
fn of_one_run_over_the_wire() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.send(&id, "again");
    let asked = |query: &str| {
        let answer = request(&test, "GET", &format!("/sessions/{id}/messages{query}"), None);
        (answer.status, answer.json())
    };
    let all = asked("").1["messages"].as_array().expect("messages").clone();
    assert_eq!((all.len(), &all), (4, asked("?run_id=").1["messages"].as_array().expect("messages")));
    let run = all[2]["run_id"].as_str().expect("a run");
    assert_eq!(asked(&format!("?run_id={run}")).1["messages"], json!(all[2..]));
    assert_eq!(asked(&format!("?run_id=run_{}", "0".repeat(32))).1["messages"], json!([]));
    let (status, refused) = asked("?run_id=5a");
    assert_eq!((status, &refused["detail"]), (422, &json!("'5a' is not a run's ID, which run_id takes")));
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
