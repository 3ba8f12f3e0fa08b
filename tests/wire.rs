//! What goes over the wire, byte by byte, as the original clients send and read it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::request::{Answer, events_after, keep_alive, read, request, send};
use crate::test::Test;

const HOUR: Duration = Duration::from_secs(3600);

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

/// Three sessions at three times: (oldest to newest) idle echo with two messages, ended echo, pending other.
fn fleet() -> (Test, [String; 3]) {
    let test = Test::new();
    test.deploy("echo");
    test.deploy(test.agent("other", "cat"));
    let first = test.begin("echo", "Find the Demo");
    test.send(&first, "again");
    test.pass(HOUR);
    let second = test.begin("echo", "hello");
    test.args(["sessions", "end", &second, "--yes"]).any_stdout().any_stderr().run();
    test.pass(HOUR);
    let third = test.create("other");
    (test, [first, second, third])
}

#[test]
fn each_condition_holds_for_lists_and_counts() {
    let (test, ids) = fleet();
    test.pass(HOUR);
    for (query, expected) in [
        ("status=idle&status=ENDED", &[0, 1][..]),
        ("status=error", &[]),
        ("agent=echo", &[0, 1]),
        ("agent=echo&agent=other", &[0, 1, 2]),
        ("agent=echo&agent=echo&status=idle", &[0]),
        ("agent_id=other", &[2]),
        ("idle_longer_than=7199", &[0, 1]),
        ("idle_longer_than=7200", &[0]),
        ("created_before=2026-03-09T11:15:00Z", &[0]),
        ("created_before=2026-03-09T11:15:00.001Z", &[0, 1]),
        ("created_after=2026-03-09T11:15:00Z", &[2]),
        ("created_after=2026-03-09T11:14:59.999Z", &[1, 2]),
        ("active_before=2026-03-09T12:15:00Z", &[0, 1]),
        ("active_before=2026-03-09T13:15:00%2B01:00", &[0, 1]),
        ("active_after=2026-03-09T11:15:00Z", &[2]),
        ("active_after=2026-03-09T10:15:00Z&active_before=2026-03-09T12:15:00Z", &[1]),
        ("min_messages=1", &[0, 1]),
        ("min_messages=2", &[0]),
        ("max_messages=1", &[1, 2]),
        ("min_messages=1&max_messages=1", &[1]),
        ("title_contains=dEMO", &[0]),
        ("", &[0, 1, 2]),
    ] {
        let list = request(&test, "GET", &format!("/sessions?order=created&{query}"), None).json();
        let found: Vec<&str> =
            list["sessions"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
        let expected: Vec<&str> = expected.iter().map(|place| ids[*place].as_str()).collect();
        assert_eq!(found, expected, "{query}");
        let stats = request(&test, "GET", &format!("/sessions/stats?limit=1&{query}"), None).json();
        assert_eq!(stats, json!({ "count": expected.len() }), "{query}");
    }
    for query in ["created_after=today", "active_before=5", "min_messages=-1", "max_messages=some"] {
        refused(&request(&test, "GET", &format!("/sessions?{query}"), None), 422, "invalid");
        refused(&request(&test, "GET", &format!("/sessions/stats?{query}"), None), 422, "invalid");
    }
    refused(&request(&test, "GET", "/sessions?agent=echo&agent=nobody", None), 404, "not_found");
    refused(&request(&test, "GET", "/sessions/stats?agent=nobody", None), 404, "not_found");
    let many = "agent=echo&".repeat(101);
    refused(&request(&test, "GET", &format!("/sessions?{many}"), None), 422, "invalid");
}

#[test]
fn only_the_fields_that_were_asked_for_are_answered() {
    let (test, ids) = fleet();
    let get = |query: &str| request(&test, "GET", &format!("/sessions?order=created&{query}"), None).json();
    assert_eq!(
        get("fields=title,status&limit=2")["sessions"],
        json!([
            { "id": ids[0], "status": "idle", "title": "Find the Demo" },
            { "id": ids[1], "status": "ended", "title": "hello" },
        ])
    );
    assert!(get("fields=id&limit=2")["next_cursor"].is_string());
    assert_eq!(get("fields=id")["sessions"], json!([{ "id": ids[0] }, { "id": ids[1] }, { "id": ids[2] }]));
    let all = "id,agent_id,agent_name,status,title,message_count,created_at,last_activity_at,\
               idle_timeout_seconds,expires_at,ended_at,end_reason,error,isolation";
    let (whole, selected) = (get(""), get(&format!("fields={all}")));
    for (whole, selected) in
        whole["sessions"].as_array().unwrap().iter().zip(selected["sessions"].as_array().unwrap())
    {
        let selected = selected.as_object().unwrap();
        assert_eq!(selected.len(), 14);
        for (name, value) in selected {
            assert_eq!(whole.get(name).unwrap_or(&json!(null)), value, "{name}");
        }
    }
    let answer = request(&test, "GET", "/sessions?fields=id,name", None);
    refused(&answer, 422, "invalid");
    for word in ["'name'", "agent_name", "message_count", "isolation"] {
        assert!(answer.body.contains(word), "{word}: {}", answer.body);
    }
}

#[test]
fn sessions_are_counted_without_being_sent() {
    let (test, ids) = fleet();
    let get = |query: &str| request(&test, "GET", &format!("/sessions/stats?{query}"), None).json();
    let agent = |place: usize| {
        request(&test, "GET", &format!("/sessions/{}", ids[place]), None).json()["agent_id"].clone()
    };
    let by_id = json!({ agent(0).as_str().unwrap(): 2, agent(2).as_str().unwrap(): 1 });
    let all =
        "min=message_count,created_at&min=last_activity_at&max=message_count,created_at,last_activity_at";
    assert_eq!(
        get(&format!("sum=message_count&count_by=agent&count_by=agent_id,status&{all}")),
        json!({
            "count": 3,
            "sum": { "message_count": 3 },
            "min": {
                "message_count": 0,
                "created_at": "2026-03-09T10:15:00Z",
                "last_activity_at": "2026-03-09T10:15:00Z",
            },
            "max": {
                "message_count": 2,
                "created_at": "2026-03-09T12:15:00Z",
                "last_activity_at": "2026-03-09T11:15:00Z",
            },
            "counts": {
                "agent": { "echo": 2, "other": 1 },
                "agent_id": by_id,
                "status": { "ended": 1, "idle": 1, "pending": 1 },
            },
        })
    );
    assert_eq!(
        get("status=failed&sum=message_count&min=created_at&max=message_count&count_by=status"),
        json!({
            "count": 0,
            "sum": { "message_count": 0 },
            "min": { "created_at": null },
            "max": { "message_count": null },
            "counts": { "status": {} },
        })
    );
    assert_eq!(
        get("agent=other&min=last_activity_at"),
        json!({ "count": 1, "min": { "last_activity_at": null } })
    );
    for (query, known) in [
        ("sum=created_at", "message_count"),
        ("min=title", "last_activity_at"),
        ("max=title", "created_at"),
        ("count_by=title", "agent, agent_id or status"),
    ] {
        let answer = request(&test, "GET", &format!("/sessions/stats?{query}"), None);
        refused(&answer, 422, "invalid");
        assert!(answer.body.contains(known), "{}", answer.body);
    }
}

/// Reads changes until one satisfies `until`; what was read, as name and data.
fn changes(stream: &mut UnixStream, until: impl Fn(&str, &Value) -> bool) -> Vec<(String, Value)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let events: Vec<(String, Value)> = whole
            .lines()
            .collect::<Vec<_>>()
            .windows(2)
            .filter_map(|two| {
                let name = two[0].strip_prefix("event: ")?;
                let data = two[1].strip_prefix("data: ")?;
                Some((name.to_owned(), serde_json::from_str(data).unwrap()))
            })
            .collect();
        if events.iter().any(|(name, data)| until(name, data)) {
            return events;
        }
        match stream.read(&mut buffer).expect("a change in time") {
            0 => panic!("the stream ended: {text}"),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

#[test]
fn changes_of_sessions_are_watched() {
    let (test, [first, second, _]) = fleet();
    let watch = |query: &str| send(&test, "GET", &format!("/sessions/watch?{query}"), None, "keep-alive");
    let mut named = watch(&format!("id={first}&id={second}&id={first}"));
    let states = changes(&mut named, |_, session| session["id"] == second.as_str());
    assert_eq!(states.len(), 2, "one state each: {states:?}");
    assert_eq!((states[0].0.as_str(), &states[0].1["id"]), ("session.updated", &json!(first)));
    assert_eq!(states[0].1, request(&test, "GET", &format!("/sessions/{first}"), None).json());
    assert_eq!(states[1].1["status"], "ended");
    let mut any = watch("");
    // The head says that it watches.
    let mut buffer = [0; 4096];
    assert!(any.read(&mut buffer).expect("a head") > 0);

    test.send(&first, "more");
    let seen = changes(&mut named, |_, session| session["status"] == "idle");
    let words: Vec<_> = seen.iter().map(|(_, session)| session["status"].clone()).collect();
    assert_eq!(words, ["active", "idle"]);
    let other = test.create("other");
    request(&test, "POST", &format!("/sessions/{first}/end"), None);
    request(&test, "DELETE", &format!("/sessions/{first}"), None);
    let seen = changes(&mut named, |name, _| name == "session.deleted");
    assert_eq!(seen.len(), 2, "nothing of others: {seen:?}");
    assert_eq!(seen[0].1["status"], "ended");
    assert_eq!(seen[1], ("session.deleted".to_owned(), json!({ "id": first })));
    let seen = changes(&mut any, |name, _| name == "session.deleted");
    let words: Vec<_> =
        seen.iter().map(|(_, session)| session.get("status").unwrap_or(&json!("deleted")).clone()).collect();
    assert_eq!(words, ["active", "idle", "pending", "ended", "deleted"]);
    assert_eq!(seen[2].1["id"], other.as_str());

    refused(&request(&test, "GET", &format!("/sessions/watch?id={first}"), None), 404, "not_found");
    refused(&request(&test, "GET", "/sessions/watch?id=nonsense", None), 404, "not_found");
    test.stop_server();
    let mut rest = Vec::new();
    any.read_to_end(&mut rest).expect("the end of the stream");
    assert!(String::from_utf8_lossy(&rest).contains(": the end, or"), "{rest:?}");
}

#[test]
fn the_log_shows_what_was_asked() {
    let (test, _) = serving();
    request(&test, "GET", "/sessions?status=idle&title_contains=%1b%5b31m", None);
    request(&test, "GET", &format!("/sessions?title_contains={}", "x".repeat(2000)), None);
    let log = std::fs::read_to_string(test.home().join("server.log")).expect("a log");
    assert!(log.contains("GET /v1/sessions?status=idle&title_contains=%1b%5b31m 200 "), "{log}");
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(log.contains("xxx... 200 ") && longest < 700, "{longest}");
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

#[test]
fn a_message_that_is_sent_again_starts_no_second_run() {
    let test = Test::new();
    test.deploy("echo");
    let (one, other) = (test.create("echo"), test.create("echo"));
    let body = json!({ "prompt": "hello", "run_id": format!("run_{:032x}", 7) }).to_string();
    let send = |id: &str| request(&test, "POST", &format!("/sessions/{id}/messages"), Some(&body));
    let first = send(&one);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.events(), send(&one).events(), "the same run");
    assert_eq!(test.session(&one)["message_count"], 1);
    let taken = send(&other);
    assert_eq!((taken.status, &taken.json()["details"]["code"]), (409, &json!("conflict")));
    assert_eq!(test.session(&other)["message_count"], 0);
    // At the same time too.
    let twice = json!({ "prompt": "at once", "run_id": format!("run_{:032x}", 8) }).to_string();
    let path = format!("/sessions/{one}/messages");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| request(&test, "POST", &path, Some(&twice)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(
        answers.iter().all(|answer| answer.status == 200 && answer.events() == answers[0].events()),
        "{answers:?}"
    );
    assert_eq!(test.session(&one)["message_count"], 2);
    // And once a later message has come, it is the old one's no more.
    assert_eq!(send(&one).status, 409);
}
