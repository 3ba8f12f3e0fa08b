//! What goes over the wire, byte by byte, as the original clients send and read it.

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::request::{Answer, events_after, keep_alive, read, request, send};
use crate::test::Test;

fn serving() -> (Test, String) {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    (test, id)
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert!(body["detail"].as_str().is_some_and(|text| text.len() > 10), "{body}");
    assert_eq!(body["details"]["code"], code);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn errors_have_a_sentence_a_code_and_a_status() {
    let (test, id) = serving();
    let get = |path: &str| request(&test, "GET", path, None);
    let post = |path: &str, body: &str| request(&test, "POST", path, Some(body));
    refused(&get("/sessions/ses_00000000000000000000000000000000"), 404, "not_found");
    refused(&get("/sessions/zzzz"), 404, "not_found");
    refused(&get("/agents/nobody"), 404, "not_found");
    refused(&get("/nothing"), 404, "not_found");
    for path in ["/sessions/%ff", "/sessions/%ff/messages", "/sessions/%ff/events", "/agents/%ff"] {
        refused(&get(path), 422, "invalid");
    }
    refused(&get("/sessions?status=sleeping"), 422, "invalid");
    refused(&get("/sessions?limit=many"), 422, "invalid");
    refused(&get("/sessions?cursor=nonsense"), 422, "invalid");
    refused(&get("/sessions?agent=nobody"), 404, "not_found");
    refused(&get("/sessions/resolve?id_prefix="), 422, "invalid");
    refused(&get("/sessions/resolve"), 422, "invalid");
    refused(&post("/sessions", "{"), 422, "invalid");
    refused(&post("/sessions", "{}"), 422, "invalid");
    refused(&post("/sessions", "{\"agent_id\": \"nobody\"}"), 404, "not_found");
    refused(&post(&format!("/sessions/{id}/messages"), "{\"prompt\": \"\"}"), 422, "invalid");
    refused(&post(&format!("/sessions/{id}/messages"), "{}"), 422, "invalid");
    refused(&post("/agents", "{}"), 422, "invalid");
    let unknown = get("/sessions?status=sleeping").json()["detail"].as_str().unwrap().to_owned();
    for word in ["sleeping", "active", "idle", "completed", "ended", "failed", "pending"] {
        assert!(
            unknown.contains(word) || get("/sessions?status=sleeping").body.contains(word),
            "{word}: {unknown}"
        );
    }
    assert_eq!(request(&test, "DELETE", "/health", None).status, 405);
}

#[test]
fn a_refusal_reaches_a_client_that_still_sends() {
    let (test, id) = serving();
    let body = format!("{{\"prompt\": \"{}\"}}", "x".repeat(6 << 20));
    for _ in 0..10 {
        let answer = request(&test, "POST", &format!("/sessions/{id}/messages"), Some(&body));
        refused(&answer, 413, "too_large");
    }
}

#[test]
fn busy_and_ended_are_409_and_expired_is_410() {
    let (test, id) = serving();
    test.deploy("slow");
    let (run, active) = test.wait_in("slow");
    let message = Some("{\"prompt\": \"hello\"}");
    refused(&request(&test, "POST", &format!("/sessions/{active}/messages"), message), 409, "busy");
    refused(&request(&test, "POST", &format!("/sessions/{active}/resume"), None), 409, "busy");
    assert_eq!(request(&test, "POST", &format!("/sessions/{active}/end"), None).json()["status"], "ended");
    run.finish();
    let answer = request(&test, "POST", &format!("/sessions/{active}/resume"), None);
    refused(&answer, 409, "ended");
    assert_eq!(answer.json()["detail"], "Session has ended and cannot be resumed");
    refused(&request(&test, "POST", &format!("/sessions/{active}/messages"), message), 409, "ended");
    test.pass(std::time::Duration::from_secs(25 * 3600));
    test.stop_server();
    test.args(["server", "start"]).any_stderr().run();
    let answer = request(&test, "POST", &format!("/sessions/{id}/resume"), None);
    refused(&answer, 410, "expired");
    assert_eq!(answer.json()["detail"], "Session has expired. Start a new one with: superserve run <agent>");
}

#[test]
fn a_session_is_created_pending_and_answered_with_201() {
    let (test, _) = serving();
    let agent = test.json(["agents", "get", "echo", "--json"])["id"].as_str().unwrap().to_owned();
    let body = format!("{{\"agent_id\": \"{agent}\", \"title\": null, \"idle_timeout_seconds\": 1740}}");
    let answer = keep_alive(&test, "POST", "/sessions", Some(&body));
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "one client would post again on a pooled connection"
    );
    let session = answer.json();
    let digits = session["id"].as_str().unwrap().strip_prefix("ses_").unwrap();
    assert!(digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{digits}");
    assert_eq!(
        (&session["status"], &session["title"], &session["message_count"]),
        (&json!("pending"), &json!(null), &json!(0))
    );
    assert_eq!((&session["agent_id"], &session["agent_name"]), (&json!(agent), &json!("echo")));
    assert_eq!(
        (&session["created_at"], &session["last_activity_at"]),
        (&json!("2026-03-09T10:15:00Z"), &json!(null))
    );
    assert_eq!(session["idle_timeout_seconds"], 1740);
}

#[test]
fn calls_without_a_body_answer_json() {
    let (test, id) = serving();
    let answer = keep_alive(&test, "POST", &format!("/sessions/{id}/resume"), None);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(answer.json()["id"], id.as_str());
    let answer = keep_alive(&test, "POST", &format!("/sessions/{id}/end"), None);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ended")));
    let again = request(&test, "POST", &format!("/sessions/{id}/end"), None);
    assert_eq!((again.status, again.json()), (200, answer.json()), "ending is idempotent");
    // Dashes and a missing prefix are forgiven.
    let digits = &id[4..];
    let dashed = format!("{}-{}", &digits[..8], &digits[8..]);
    assert_eq!(request(&test, "GET", &format!("/sessions/{dashed}"), None).json()["id"], id.as_str());
    let agent = request(&test, "DELETE", "/agents/echo", None);
    assert!(matches!(agent.status, 200 | 204), "{agent:?}");
}

#[test]
fn empty_parameters_mean_not_given() {
    let (test, id) = serving();
    for query in [
        "agent_id=&status=",
        "limit=20&agent_id=&status=",
        "agent_id=echo&status=IDLE",
        "agent=echo",
        "status=ended&status=idle",
        "",
    ] {
        let answer = request(&test, "GET", &format!("/sessions?{query}"), None);
        assert_eq!(answer.json()["sessions"][0]["id"], id.as_str(), "{query}: {answer:?}");
    }
    assert_eq!(request(&test, "GET", "/sessions?status=ended", None).json()["sessions"], json!([]));
}

#[test]
fn pages_hold_what_was_asked_for_and_lead_on() {
    let (test, _) = serving();
    test.args(["eval", "for i in 0..24 { sessions::create(\"echo\"); }"]).run();
    let all = request(&test, "GET", "/sessions", None).json();
    assert_eq!(all["sessions"].as_array().map(Vec::len), Some(25));
    assert_eq!(all.get("next_cursor"), None);
    for order in ["activity", "created"] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page =
                request(&test, "GET", &format!("/sessions?limit=10&order={order}&cursor={cursor}"), None)
                    .json();
            let ids =
                page["sessions"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned());
            seen.extend(ids);
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!((pages, seen.len()), (3, 25), "{order}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 25, "none twice");
    }
    assert_eq!(
        request(&test, "GET", "/sessions?limit=20", None).json()["sessions"].as_array().map(Vec::len),
        Some(20)
    );
}

#[test]
fn prefixes_are_resolved() {
    let (test, id) = serving();
    let ids = |prefix: &str| {
        request(&test, "GET", &format!("/sessions/resolve?id_prefix={prefix}"), None).json()["ids"].clone()
    };
    assert_eq!(ids(&id[4..9]), json!([id]));
    assert_eq!(ids("zzzz"), json!([]));
}

#[test]
fn a_run_is_a_stream_of_numbered_events() {
    let (test, id) = serving();
    let answer = read(send(
        &test,
        "POST",
        &format!("/sessions/{id}/messages"),
        Some("{\"prompt\": \"a\\\"b\"}"),
        "keep-alive",
    ));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.header("content-encoding"), None);
    let events = answer.events();
    let run = events[0].2["run_id"].as_str().unwrap().to_owned();
    for (number, (event_id, _, _)) in (1..).zip(&events) {
        assert_eq!(*event_id, format!("{run}:{number}"));
    }
    let text: String = events
        .iter()
        .filter(|(_, name, _)| name == "message.delta")
        .map(|(_, _, data)| data["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "you said: a\"b");
    let names: Vec<&str> = events.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("run.started", "run.completed"));
    assert!(names[1..names.len() - 1].iter().all(|name| *name == "message.delta"), "{names:?}");
    assert!(events.last().unwrap().2["duration_ms"].is_u64());
    // Exactly this framing: the old parsers need the space after the colon.
    assert!(
        answer.body.starts_with(&format!("id: {run}:1\nevent: run.started\ndata: {{")),
        "{}",
        answer.body
    );
    assert!(answer.body.ends_with("}\n\n"), "{}", answer.body);
}

#[test]
fn a_finished_run_can_be_read_again_from_anywhere() {
    let (test, id) = serving();
    let whole = read(send(
        &test,
        "POST",
        &format!("/sessions/{id}/messages"),
        Some("{\"prompt\": \"again\"}"),
        "close",
    ));
    let events = whole.events();
    let replay = |query: &str| request(&test, "GET", &format!("/sessions/{id}/events{query}"), None).events();
    assert_eq!(replay(""), events);
    assert_eq!(replay("?"), events, "the old clients' N = 0");
    for after in 0..=events.len() {
        assert_eq!(replay(&format!("?after={after}")), events[after..], "after {after}");
    }
    assert_eq!(replay("?after=1000"), []);
    let path = format!("/sessions/{id}/events");
    let after = |last: &str| events_after(&test, &path, last).events();
    assert_eq!(after(&events[0].0), events[1..]);
    let other = format!("run_{}:2", "0".repeat(32));
    assert_eq!(after(&other), events, "what was read of another run doesn't count");
    assert_eq!(after("nonsense"), events);
    // After a restart they are still there.
    test.stop_server();
    test.args(["server", "start"]).any_stderr().run();
    assert_eq!(replay("?after=1"), events[1..]);
    refused(
        &request(&test, "GET", &format!("/sessions/{}/events", test.create("echo")), None),
        404,
        "not_found",
    );
}

#[test]
fn a_client_that_goes_away_cancels_nothing_and_can_come_back() {
    let test = Test::new();
    test.deploy(test.agent("steady", "while read -r line; do echo begun; sleep 1; echo done; done"));
    let id = test.create("steady");
    let stream =
        send(&test, "POST", &format!("/sessions/{id}/messages"), Some("{\"prompt\": \"go\"}"), "close");
    wait_until("the run to begin", || test.status_of(&id) == "active");
    drop(stream);
    let answer = request(&test, "GET", &format!("/sessions/{id}/events?after=1"), None);
    let events = answer.events();
    let text: String = events.iter().filter_map(|(_, _, data)| data["content"].as_str()).collect();
    assert_eq!(text, "begun\ndone");
    assert_eq!(events.last().unwrap().1, "run.completed");
    assert_eq!(test.status_of(&id), "idle", "who saw the last event sees the state");
}

#[test]
fn two_readers_of_one_run_see_the_same() {
    let test = Test::new();
    test.deploy(
        test.agent("steady", "while read -r line; do for n in 1 2 3 4 5; do echo $n; sleep 0.1; done; done"),
    );
    let id = test.create("steady");
    let first =
        send(&test, "POST", &format!("/sessions/{id}/messages"), Some("{\"prompt\": \"go\"}"), "close");
    wait_until("the run to begin", || test.status_of(&id) == "active");
    let second = request(&test, "GET", &format!("/sessions/{id}/events"), None);
    assert_eq!(read(first).events(), second.events());
}

#[test]
fn failed_and_cancelled_runs_end_their_stream() {
    let test = Test::new();
    test.deploy("crash");
    test.deploy("slow");
    let id = test.create("crash");
    let answer = read(send(
        &test,
        "POST",
        &format!("/sessions/{id}/messages"),
        Some("{\"prompt\": \"break\"}"),
        "close",
    ));
    let (_, name, data) = answer.events().pop().unwrap();
    assert_eq!(name, "run.failed");
    assert!(data["error"]["message"].as_str().is_some_and(|text| text.contains('3')), "{data}");
    assert!(data["error"]["code"].is_string(), "{data}");
    let id = test.create("slow");
    let stream =
        send(&test, "POST", &format!("/sessions/{id}/messages"), Some("{\"prompt\": \"wait\"}"), "close");
    wait_until("the run to begin", || test.status_of(&id) == "active");
    let answer = request(&test, "POST", &format!("/sessions/{id}/cancel"), None);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("idle")));
    assert_eq!(read(stream).events().pop().unwrap().1, "run.cancelled");
}

#[test]
fn a_stopping_server_ends_a_stream_with_an_event() {
    let test = Test::new();
    test.deploy("slow");
    let id = test.create("slow");
    let stream =
        send(&test, "POST", &format!("/sessions/{id}/messages"), Some("{\"prompt\": \"wait\"}"), "close");
    wait_until("the run to begin", || test.status_of(&id) == "active");
    test.stop_server();
    let (_, name, data) = read(stream).events().pop().unwrap();
    assert_eq!((name.as_str(), &data["error"]["code"]), ("run.failed", &json!("server_shutdown")));
    assert_eq!(test.status_of(&id), "failed");
    assert_eq!(test.send(&id, "again"), "quick: again\n");
}

#[test]
fn many_are_ended_in_one_request_a_line_each() {
    let (test, id) = serving();
    let other = test.begin("echo", "hello");
    // As every call takes it: dashes are ignored.
    let other = format!("{}-{}", &other[..12], &other[12..]);
    let body = json!({ "ids": [id, other, "ses_00000000000000000000000000000000", "nonsense"] }).to_string();
    let answer = request(&test, "POST", "/sessions/end", Some(&body));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let rows: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let known = row["id"] == id.as_str() || row["id"] == other.as_str();
        assert_eq!(row["ok"], known, "{row}");
        assert_eq!(row["session"]["status"] == "ended", known, "{row}");
        assert_eq!(row["error"].is_object(), !known, "{row}");
    }
    refused(&request(&test, "POST", "/sessions/end", Some("{}")), 422, "invalid");
}

#[test]
fn health_and_version_are_told() {
    let (test, _) = serving();
    assert_eq!(request(&test, "GET", "/health", None).json()["status"], "ok");
    let version = request(&test, "GET", "/version", None).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["protocol"], 1);
    assert!(version["build"].is_string());
}

#[test]
fn agents_are_told_with_all_that_the_old_clients_read() {
    let (test, _) = serving();
    let list = request(&test, "GET", "/agents?limit=100", None).json();
    let agent = &list["agents"][0];
    for key in [
        "id",
        "name",
        "command",
        "environment_keys",
        "required_secrets",
        "deps_status",
        "deps_error",
        "created_at",
        "updated_at",
    ] {
        assert!(agent.get(key).is_some(), "{key}: {agent}");
    }
    assert!(agent["id"].as_str().unwrap().starts_with("agt_"));
    assert_eq!(
        request(&test, "GET", &format!("/agents/{}", agent["id"].as_str().unwrap()), None).json(),
        *agent
    );
}
