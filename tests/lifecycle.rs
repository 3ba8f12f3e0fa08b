//! What a session is bound to and what it leaves: caps of its agent's owner, one writer at a time, a receipt at its end.

use serde_json::json;

use crate::process::wait_until;
use crate::test::{Test, ended, short, told};

/// Deploys an agent of one shell script with these lines in its superserve.yaml.
fn limited(test: &Test, limits: &str, script: &str) {
    test.write("limited/superserve.yaml", &format!("name: limited\ncommand: sh agent.sh\nlimits:\n{limits}"));
    test.write("limited/agent.sh", script);
    test.deploy(test.work().join("limited"));
}

const ECHO: &str = "while IFS= read -r line; do echo \"you said: $line\"; done";

#[test]
fn a_session_takes_as_many_messages_as_its_agent_allows() {
    let test = Test::new();
    limited(&test, "  turns: 2\n", ECHO);
    let output =
        test.args(["run", "limited", "one", "--single"]).stdout("Agent > you said: one\n").any_stderr().run();
    assert!(!output.stderr.contains("takes in a session"), "{}", output.stderr);
    let id = test.json(["sessions", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    test.args(["sessions", "send", &id, "two"])
        .stdout("you said: two\n")
        .stderr("! This was message 2 of 2 that this agent takes in a session\n")
        .run();
    test.args(["sessions", "send", &id, "three"])
        .stderr(told(
            "Session has had 2 messages, which is all that its agent takes",
            "Start a new one with: superserve run limited",
        ))
        .status(5)
        .run();
    assert_eq!(test.session(&id)["message_count"], 2);
}

#[test]
fn a_reply_is_as_long_as_its_agent_allows() {
    let test = Test::new();
    limited(&test, "  reply: 1KiB\n", "while read -r n; do head -c $n /dev/zero | tr '\\0' x; echo; done");
    let id = test.create("limited");
    assert_eq!(test.send(&id, "1000"), format!("{}\n", "x".repeat(1000)));
    test.args(["sessions", "send", &id, "5000"])
        .any_stdout()
        .stderr_part("The agent printed more than 1 KiB in one reply and was stopped")
        .status(7)
        .run();
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    let last = messages.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["content"].as_str().map(str::len), Some(1024), "what was allowed is kept");
    assert_eq!(test.status_of(&id), "failed");
    assert_eq!(test.send(&id, "3"), "xxx\n");
}

#[test]
fn a_run_is_as_long_as_its_agent_allows() {
    let test = Test::new();
    limited(&test, "  run: 1s\n", "while read -r line; do echo begun; while :; do sleep 0.05; done; done");
    let id = test.create("limited");
    test.args(["sessions", "send", &id, "go"])
        .any_stdout()
        .stderr_part("The agent took longer than 1 s for its reply and was stopped")
        .status(124)
        .run();
    assert_eq!(test.status_of(&id), "failed");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    assert_eq!(messages[1]["content"], "begun");
}

#[test]
fn one_message_at_a_time_and_the_other_hears_who_is_at_it() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    let refused = test.args(["sessions", "send", &id, "me too"]).any_stderr().status(5).run();
    assert!(
        refused.stderr.starts_with("✗ Session is busy: it is still working on a message since 0 s (run_"),
        "{}",
        refused.stderr
    );
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    run.finish();
    wait_until("the session to be idle", || test.status_of(&id) == "idle");
}

#[test]
fn the_end_leaves_a_receipt() {
    let test = Test::new();
    test.agent(
        "maker",
        "while read -r line; do echo 12345 > a; mkdir d; echo 1 > d/b; ln -s a c; echo hi > $HOME/h; sleep 1000 & echo made; done",
    );
    test.deploy(test.work().join("maker"));
    let id = test.begin("maker", "go");
    assert!(test.session(&id)["receipt"].is_null());
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    let session = test.session(&id);
    let receipt = &session["receipt"];
    // Its own files, those of its agent's folder, and the history and the FIFO beside them.
    assert!(receipt["files"].as_u64().unwrap() >= 5, "{receipt}");
    assert!(receipt["bytes"].as_u64().unwrap() >= 11, "{receipt}");
    assert_eq!((&receipt["processes"], &receipt["wiped_at"]), (&json!(2), &json!("2026-03-09T10:15:00Z")));
    let shown = test.args(["sessions", "get", &id]).any_stdout().run().stdout;
    let line = shown.lines().find(|line| line.starts_with("Removed")).unwrap();
    assert!(line.ends_with(", 2 processes"), "{line}");
    assert_eq!(test.json(["sessions", "list", "--json"])[0]["receipt"], *receipt, "list and get agree");
    // One that never ran had nothing.
    let other = test.create("maker");
    test.args(["sessions", "end", &other]).any_stderr().run();
    let receipt = test.session(&other)["receipt"].clone();
    assert_eq!(
        receipt,
        json!({ "files": 0, "bytes": 0, "processes": 0, "wiped_at": "2026-03-09T10:15:00Z" })
    );
}

/// The events of a message's run, as `type` and data.
fn events(test: &Test, id: &str, prompt: &str) -> Vec<(String, serde_json::Value)> {
    let body = json!({ "prompt": prompt }).to_string();
    let answer = crate::request::request(test, "POST", &format!("/sessions/{id}/messages"), Some(&body));
    answer.events().into_iter().map(|(_, name, data)| (name, data)).collect()
}

#[test]
fn the_least_recently_used_agents_make_room() {
    let test = Test::new().env("SUPERSERVE_SESSION_MAX_WARM", "2");
    test.agent(
        "counter",
        "n=0; while read -r line; do n=$((n+1)); echo $n >> all; echo \"$n, $(wc -l < all) in all\"; done",
    );
    test.deploy(test.work().join("counter"));
    let ids = [(); 3].map(|()| test.create("counter"));
    for id in &ids {
        assert_eq!(test.send(id, "go"), "1, 1 in all\n");
    }
    // The first had to make room for the third; its workspace stays, and its reader is told.
    let told = events(&test, &ids[0], "go");
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["run.started", "status", "message.delta", "run.completed"]);
    assert_eq!(told[1].1, json!({ "content": "agent restarted, in-process memory lost" }));
    assert_eq!(told[2].1["content"], "1, 2 in all");
    // The third was used last before that, and is still the same process.
    assert_eq!(test.send(&ids[2], "go"), "2, 2 in all\n");
}

#[test]
fn an_agent_that_crashes_as_it_starts_is_not_started_at_once_again() {
    let test = Test::new();
    test.agent("broken", "echo nothing works >&2; exit 3");
    test.deploy(test.work().join("broken"));
    let id = test.create("broken");
    let first = events(&test, &id, "go");
    assert_eq!(
        first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["run.started", "run.failed"]
    );
    let second = events(&test, &id, "go");
    assert_eq!(second[1].0, "status", "{second:?}");
    let told = second[1].1["content"].as_str().unwrap();
    assert!(told.starts_with("the agent has crashed as it started (1 times): trying again in 1 s"), "{told}");
    assert_eq!(second.last().unwrap().0, "run.failed");
}
