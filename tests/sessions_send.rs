//! `superserve sessions send`: one turn, the reply alone on stdout.

use serde_json::Value;

use crate::test::{Test, told};

#[test]
fn prints_the_reply_alone() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "send", &id[..12], "hello again"]).stdout("you said: hello again\n").run();
    test.args(["sessions", "send", "@last", "and again"]).stdout("you said: and again\n").run();
    assert_eq!(test.session(&id)["message_count"], 3);
}

#[test]
fn prints_json() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let output = test.args(["sessions", "send", &id, "again", "--json"]).any_stdout().run();
    let reply: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(reply["text"], "you said: again");
    assert!(reply["duration_ms"].is_u64());
}

#[test]
fn leaves_stdin_alone() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let line =
        format!("printf 'a\\nb\\n' | while read -r word; do superserve sessions send {id} \"$word\"; done");
    test.shell(&line).stdout("you said: a\nyou said: b\n").run();
}

#[test]
fn an_unknown_session_and_an_empty_message_are_refused() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "send", "zzzz", "hello"])
        .stderr(told(
            "Session not found: no session matches 'zzzz'",
            "Run superserve sessions list to see your sessions.",
        ))
        .status(3)
        .run();
    test.args(["sessions", "send", &id, ""]).stderr_part("✗ ").status(2).run();
    test.args(["sessions", "send", &id]).stderr_part("superserve sessions send").status(2).run();
    assert_eq!(test.session(&id)["message_count"], 1);
}

#[test]
fn a_crashing_agent_is_told_with_its_last_words() {
    let test = Test::new();
    test.deploy("crash");
    let id = test.begin("crash", "hello");
    let output = test
        .args(["sessions", "send", &id, "break"])
        .any_stdout()
        .stderr_part("✗ ")
        .stderr_part("first line of trouble\n")
        .stderr_part("last line of trouble\n")
        .status(7)
        .run();
    assert!(output.stderr.contains('3'), "the exit code is named: {}", output.stderr);
    let session = test.session(&id);
    assert_eq!(session["status"], "failed");
    assert!(session["error"].is_string(), "{session}");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    let last = messages.as_array().unwrap().last().unwrap();
    assert_eq!((last["content"].as_str(), last["partial"].as_bool()), (Some("half a reply"), Some(true)));
    // The next message starts it anew.
    assert_eq!(test.send(&id, "hello"), "fine: hello\n");
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn an_agent_that_leaves_after_each_reply_keeps_its_workspace() {
    let test = Test::new();
    test.deploy("oneshot");
    let id = test.create("oneshot");
    assert_eq!(test.send(&id, "a"), "answer 1: a\n");
    assert_eq!(test.status_of(&id), "completed");
    assert_eq!(test.send(&id, "b"), "answer 2: b\n");
}

#[test]
fn a_turn_that_takes_too_long_is_stopped() {
    let test = Test::new().env("SUPERSERVE_TURN_TIMEOUT", "300ms");
    test.deploy("slow");
    let id = test.create("slow");
    let output =
        test.args(["sessions", "send", &id, "wait", "--json"]).any_stdout().any_stderr().status(124).run();
    assert!(!output.error()["message"].as_str().unwrap().is_empty());
    assert_eq!(test.status_of(&id), "failed");
}
