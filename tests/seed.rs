//! `examples/seed`: homes with many sessions.

#[allow(dead_code)]
#[path = "../examples/seed.rs"]
mod example;

use serde_json::{Value, json};

use crate::request::request;
use crate::test::{BEGIN, Test};

/// A home with so many sessions, and these as `sessions list --json` shows them.
pub fn seeded(sessions: u64) -> (Test, Value) {
    let test = Test::new();
    let file = test.work().join("sessions.json");
    let options = example::Options { home: test.home(), sessions, now: BEGIN, json: Some(file.clone()) };
    example::seed(&options).expect("a seeded home");
    let written = std::fs::read_to_string(file).expect("the sessions");
    (test, serde_json::from_str(&written).expect("JSON"))
}

#[test]
fn a_seeded_home_is_like_any_other() {
    let (test, written) = seeded(1000);
    assert_eq!(test.json(["sessions", "list", "--json"]), written);
    let sessions = written.as_array().unwrap();
    let stats = request(&test, "GET", "/sessions/stats?sum=message_count&count_by=status", None).json();
    let messages: u64 = sessions.iter().map(|session| session["message_count"].as_u64().unwrap()).sum();
    assert_eq!((&stats["count"], &stats["sum"]["message_count"]), (&json!(1000), &json!(messages)));
    let mut words: Vec<&str> =
        stats["counts"]["status"].as_object().unwrap().keys().map(String::as_str).collect();
    words.sort_unstable();
    assert_eq!(words, ["completed", "ended", "failed", "idle"]);
    // What benchmarks ask has answers.
    let old = "status=idle&agent=notes&created_before=2026-03-07T10:15:00Z&idle_longer_than=7200";
    let found = request(&test, "GET", &format!("/sessions?{old}"), None).json()["sessions"].clone();
    assert!(found.as_array().unwrap().len() > 10, "{found}");

    let ids: Vec<&str> = found.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    let (first, rest) = ids.split_first().unwrap();
    assert_eq!(test.send(first, "hello"), "you said: hello\n");
    let answer = request(&test, "POST", "/sessions/end", Some(&json!({ "ids": rest }).to_string()));
    assert_eq!(answer.body.lines().count(), rest.len());
    assert!(answer.body.lines().all(|line| line.contains("\"status\":\"ended\"")), "{}", answer.body);
    let left = request(
        &test,
        "GET",
        "/sessions/stats?status=idle&agent=notes&created_before=2026-03-07T10:15:00Z",
        None,
    );
    let before = sessions.iter().filter(|session| {
        session["status"] == "idle"
            && session["agent_name"] == "notes"
            && session["created_at"].as_str().unwrap() < "2026-03-07T10:15:00Z"
    });
    assert_eq!(left.json()["count"].as_u64().unwrap(), (before.count() - rest.len()) as u64);
}

#[test]
fn the_same_moment_gives_the_same_sessions() {
    assert_eq!(seeded(50).1, seeded(50).1);
    let (test, _) = seeded(1);
    let again = example::Options { home: test.home(), sessions: 1, now: BEGIN, json: None };
    let error = example::seed(&again).expect_err("a database is there");
    assert!(error.to_string().contains("is there already"), "{error}");
}
