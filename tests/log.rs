//! The server's log: its two formats, whose request each line belongs to, and what never stands in it.

use std::fs;

use serde_json::{Value, json};

use crate::process::wait_for;
use crate::request::{Answer, read, request, send};
use crate::test::Test;

/// A request that says what it is called.
fn called(test: &Test, id: &str, method: &str, path: &str, body: Option<&str>) -> Answer {
    read(send(test, method, path, body, &format!("close\r\nX-Request-Id: {id}")))
}

fn log(test: &Test) -> String {
    fs::read_to_string(test.home().join("server.log")).expect("a log")
}

/// The lines of a log in JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// An agent that says on stderr what it is told.
fn noisy(test: &Test) -> String {
    let folder = test.agent("noisy", "while read -r line; do echo \"stderr of it\" >&2; echo done; done\n");
    test.deploy(folder);
    test.create("noisy")
}

#[test]
fn the_log_is_text_or_an_object_a_line() {
    let test = Test::new();
    let serve = |test: &Test, flags: &[&str]| {
        let serve = test.args([&["serve"], flags].concat()).start();
        wait_for("the server", || {
            test.json(["server", "status", "--json"])["running"].as_bool().filter(|up| *up)
        });
        assert_eq!(request(test, "GET", "/agents?limit=3", None).status, 200);
        serve.interrupt();
        serve.finish().stderr
    };
    let is_json = |log: &str| {
        let all = lines(log);
        let asked = all.iter().find(|line| line["http.path"] == "/v1/agents?limit=3").expect("the request");
        assert_eq!((&asked["level"], &asked["target"]), (&json!("INFO"), &json!("request")));
        assert_eq!((&asked["http.method"], &asked["http.status"]), (&json!("GET"), &json!(200)));
        assert_eq!(asked["http.route"], "/v1/agents");
        assert!(asked["http.millis"].is_f64() && asked["timestamp"].is_string(), "{asked}");
        let id = asked["span"]["id"].as_str().expect("an ID");
        assert!(id.len() == 20 && id.starts_with("req_"), "{id}");
        assert!(
            all.iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with("listening")))
        );
    };
    let text = serve(&test, &[]);
    assert!(text.contains("listening on ") && !text.contains("http."), "{text}");
    let line = text.lines().find(|line| line.contains("/v1/agents")).expect("the request");
    let (_, rest) = line.split_once(" INFO request{id=req_").expect("the request's ID");
    assert_eq!(&rest[16..42], "}: request: GET /v1/agents");
    is_json(&serve(&test, &["--log-format", "json"]));
    fs::write(test.home().join("config.toml"), "log.format = 'json'\n").unwrap();
    is_json(&serve(&test, &[]));
    assert!(serve(&test, &["--log-format", "text"]).contains(" INFO "), "the flag goes before the setting");
    // The server that a command starts has no flag but the setting.
    test.args(["server", "start"]).any_stderr().run();
    request(&test, "GET", "/agents?limit=3", None);
    is_json(&log(&test));
    test.args(["server", "status"])
        .env("SUPERSERVE_LOG_FORMAT", "yaml")
        .stderr_part("SUPERSERVE_LOG_FORMAT: 'yaml' is not text or json")
        .status(2)
        .run();
}

#[test]
fn every_answer_names_its_request() {
    let test = Test::new();
    let id = noisy(&test);
    for (given, path) in [("5a3f7b9c-2e1d", "/health"), ("a.b:c_d", "/sessions/zzz"), ("x", "/no/such/route")]
    {
        let answer = called(&test, given, "GET", path, None);
        assert_eq!(answer.header("x-request-id"), Some(given), "{answer:?}");
    }
    for given in ["", "two words", "{}", &"x".repeat(65)] {
        let answer = called(&test, given, "GET", "/health", None);
        let made = answer.header("x-request-id").expect("an ID");
        assert!(made.len() == 20 && made.starts_with("req_"), "{given:?}: {made}");
    }
    let answer = request(&test, "GET", "/health", None);
    let other = request(&test, "GET", "/health", None);
    assert_ne!(answer.header("x-request-id").expect("an ID"), other.header("x-request-id").expect("an ID"));
    // A stream too, and what happens on its behalf afterwards.
    let sent =
        called(&test, "mine", "POST", &format!("/sessions/{id}/messages"), Some("{\"prompt\": \"go\"}"));
    assert_eq!((sent.status, sent.header("x-request-id")), (200, Some("mine")));
    let log = log(&test);
    let mine: Vec<&str> = log.lines().filter(|line| line.contains("request{id=mine}")).collect();
    assert!(mine.iter().any(|line| line.contains("agent: ") && line.contains("stderr of it")), "{log}");
    assert!(mine.iter().any(|line| line.contains("request: POST /v1/sessions/")), "{log}");
}

#[test]
fn a_failure_of_the_server_is_found_by_its_request() {
    let test = Test::new();
    let id = noisy(&test);
    test.send(&id, "go");
    let workspace = test.home().join("sessions").join(&id).join("workspace");
    fs::rename(&workspace, workspace.with_extension("gone")).expect("the workspace");
    fs::write(&workspace, "no folder").expect("a file");
    let answer = called(&test, "lost", "GET", &format!("/sessions/{id}/files?list=true"), None);
    assert_eq!(answer.status, 500, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["details"]["code"], "internal");
    let detail = body["detail"].as_str().expect("a sentence");
    assert!(detail.ends_with(" (request lost)"), "{detail}");
    let log = log(&test);
    let cause = log.lines().find(|line| line.contains("ERROR")).expect("the cause");
    assert!(cause.contains("request{id=lost}") && cause.contains("Not a directory"), "{cause}");
    assert!(cause.contains("code=\"internal\""), "{cause}");
    fs::remove_file(&workspace).expect("the file");
    fs::rename(workspace.with_extension("gone"), &workspace).expect("the workspace");
    // What is the client's fault is no error of the server's.
    request(&test, "GET", &format!("/sessions/{id}/files/nothing"), None);
    assert_eq!(self::log(&test).matches("ERROR").count(), 1);
}

#[test]
fn secrets_tokens_and_prompts_are_not_logged() {
    for format in ["text", "json"] {
        let test = Test::new().env("SUPERSERVE_LOG_FORMAT", format);
        test.deploy("echo");
        let id = test.create("echo");
        let sent = |path: &str, body: &str| request(&test, "POST", path, Some(body));
        let secret = "{\"secrets\": {\"API_KEY\": \"hunter2-in-the-clear\"}}";
        assert_eq!(request(&test, "PATCH", "/agents/echo/secrets", Some(secret)).status, 200);
        let broken = "{\"secrets\": {\"API_KEY\": \"hunter2-in-the-clear\"";
        assert_eq!(request(&test, "PATCH", "/agents/echo/secrets", Some(broken)).status, 422);
        let messages = format!("/sessions/{id}/messages");
        assert_eq!(sent(&messages, "{\"prompt\": \"my-private-question\"}").status, 200);
        assert_eq!(sent(&messages, "{\"prompt\": \"my-private-question\"").status, 422);
        let token =
            sent("/tokens", "{\"name\": \"ci\"}").json()["token"].as_str().expect("a token").to_owned();
        let authorized =
            read(send(&test, "GET", "/agents", None, &format!("close\r\nAuthorization: Bearer {token}")));
        assert_eq!(authorized.status, 200);
        let device = sent("/auth/device-code", "").json();
        let code = device["device_code"].as_str().expect("a code");
        assert_eq!(sent("/auth/device-token", &json!({ "device_code": code }).to_string()).status, 200);
        test.stop_server();
        let log = log(&test);
        assert!(log.contains(&messages), "the log has what was asked: {log}");
        for private in ["hunter2", "my-private-question", &token, code] {
            assert!(!log.contains(private), "{private}: {log}");
        }
    }
}
