//! Agents that are HTTP servers: their answers in every form, their failures, their ends.

use serde_json::{Value, json};

use crate::skipped::has;
use crate::test::Test;

/// A port for each test, since agents without a sandbox share the machine's.
fn deploy(test: &Test, port: u16) -> String {
    let agent = include_str!("agents/http/agent.py");
    test.write("http/superserve.yaml", &format!("name: http\ncommand: python3 agent.py\nport: {port}\n"));
    test.write("http/agent.py", agent);
    test.deploy(test.work().join("http"));
    test.create("http")
}

fn answers_in_every_form(test: &Test, port: u16) {
    let id = deploy(test, port);
    assert_eq!(test.send(&id, "json a\tb"), "a\tb\n");
    assert_eq!(test.send(&id, "text plain"), "plain\n");
    assert_eq!(test.send(&id, "chunks"), "a\u{20ac}b\n");
    assert_eq!(test.send(&id, "ndjson"), "one two\n");
    assert_eq!(test.send(&id, "sse"), "one two\n");
    let request: Value = serde_json::from_str(&test.send(&id, "request me")).expect("JSON");
    let expected = json!({
        "path": "/run", "port": port.to_string(), "prompt": "request me", "said": "request me", "session_id": id, "turn": 6,
    });
    assert_eq!(request, expected);
}

#[test]
fn an_answer_has_many_forms() {
    answers_in_every_form(&Test::new(), 21_801);
}

#[test]
fn an_answer_has_many_forms_without_a_sandbox() {
    answers_in_every_form(&Test::unsandboxed(), 21_802);
}

#[test]
fn many_turns_need_many_connections() {
    let test = Test::new();
    deploy(&test, 21_803);
    let lines: String = (0..40).map(|n| format!("text message {n}\n")).collect();
    let replies: String = (0..40).map(|n| format!("Agent > message {n}\n")).collect();
    test.args(["run", "http"]).stdin(lines).stdout(replies).any_stderr().run();
}

#[test]
fn failures_are_told() {
    let test = Test::new();
    let id = deploy(&test, 21_804);
    let send = |word: &str, part: &str| {
        test.args(["sessions", "send", &id, word]).any_stdout().stderr_part(part).status(7).run();
        assert_eq!(test.status_of(&id), "failed");
    };
    send("fail", "The agent answered with status 500: the model is away");
    send("lose", "The connection to the agent was lost");
    send("crash", "The agent exited with code 3");
    send("crash", "last words");
    // The next message starts it anew, over the same files.
    assert_eq!(test.send(&id, "keep a"), "a\n");
    test.stop_server();
    assert_eq!(test.send(&id, "keep b"), "a\nb\n");
}

#[test]
fn a_cancelled_answer_ends() {
    let test = Test::new();
    deploy(&test, 21_805);
    let (run, id) = test.wait_in("http");
    run.interrupt();
    let output = run.finish();
    assert!(output.stdout.contains("\"run.cancelled\""), "{output:?}");
    assert_eq!(test.status_of(&id), "idle");
    assert_eq!(test.send(&id, "text again"), "again\n");
}

#[test]
fn who_does_not_listen_is_given_up() {
    let test = Test::new().env("SUPERSERVE_TURN_STARTUP_TIMEOUT", "300ms");
    let folder = test.agent("mute", "echo trouble >&2; sleep 1000");
    test.args(["deploy", "--dir", folder.to_str().unwrap(), "--port", "21806"]).any_stderr().run();
    let id = test.create("mute");
    test.args(["sessions", "send", &id, "hello"])
        .stderr_part("The agent did not listen on port 21806 of 127.0.0.1")
        .stderr_part("trouble")
        .status(7)
        .run();
    let folder = test.agent("gone", "echo trouble >&2; exit 4");
    test.args(["deploy", "--dir", folder.to_str().unwrap(), "--port", "21806"]).any_stderr().run();
    let id = test.create("gone");
    test.args(["sessions", "send", &id, "hello"])
        .stderr_part("exited with code 4")
        .stderr_part("trouble")
        .status(7)
        .run();
}

#[test]
fn a_port_makes_an_http_agent() {
    let test = Test::new();
    if !has("node") {
        skip!("node is not on this machine");
    }
    test.write(
        "node/server.js",
        "require('http').createServer((request, answer) => { let body = ''; request.on('data', d => body += d);\n\
         request.on('end', () => answer.end('node: ' + JSON.parse(body).prompt)); }).listen(process.env.PORT);\n",
    );
    test.args(["deploy", "node/server.js", "--port", "21807"]).stderr("Deployed node (revision 1)\n").run();
    assert_eq!(test.send(&test.create("node"), "hello"), "node: hello\n");
    test.args(["deploy", "node/server.js", "--port", "70000"])
        .stderr_part("--port takes a number from 1 to 65535, not '70000'")
        .status(2)
        .run();
}

#[test]
fn a_port_that_makes_no_sense_is_named() {
    let test = Test::new();
    for (keys, part) in [
        ("port: 0", "port must be a whole number from 1 to 65535, not 0"),
        ("port: 65536", "port must be a whole number from 1 to 65535, not 65536"),
        ("port: many", "port must be a whole number from 1 to 65535"),
        ("mode: http", "mode is http, and no port is named"),
        ("mode: shim\nport: 80", "port is for an HTTP agent, and mode is shim"),
    ] {
        test.write("mine/superserve.yaml", &format!("name: mine\ncommand: sh agent.sh\n{keys}\n"));
        test.args(["deploy", "--dir", "mine"]).stderr_part(part).status(2).run();
    }
}
