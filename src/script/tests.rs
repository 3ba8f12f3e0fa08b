//! Scripts against a server of canned sessions: what they print, what they ask, what stops them.

use super::fake::{FakeServer, FakeTerminal, host};
use super::*;

struct Ran {
    result: Result<Outcome, Error>,
    out: String,
    err: String,
}

impl Ran {
    /// What a script printed that ended well.
    #[track_caller]
    fn printed(self) -> String {
        match self.result {
            Ok(Outcome::Done) => self.out,
            other => panic!("{other:?}, out {:?}, err {:?}", self.out, self.err),
        }
    }

    #[track_caller]
    fn error(self) -> Error {
        match self.result {
            Err(error) => error,
            other => panic!("{other:?}, out {:?}, err {:?}", self.out, self.err),
        }
    }
}

fn run_with(
    server: Option<&FakeServer>,
    options: Options,
    set: impl FnOnce(&FakeTerminal, &Host),
    text: &str,
) -> Ran {
    let (host, terminal) = host(server, options);
    set(&terminal, &host);
    let script = Script { name: "test.rhai".into(), path: None, text: text.to_owned().into() };
    let result = Engine::new(host).run(&script, Args::default());
    Ran { result, out: terminal.out.take(), err: terminal.err.take() }
}

/// A script without a server.
fn run(text: &str) -> Ran {
    run_with(None, Options::default(), |_, _| {}, text)
}

/// A script with a fresh server.
fn on_server(text: &str) -> Ran {
    let server = FakeServer::start();
    run_with(Some(&server), Options::default(), |_, _| {}, text)
}

fn eval(options: Options, expression: &str) -> Ran {
    let server = FakeServer::start();
    let (host, terminal) = host(Some(&server), options);
    let result = Engine::new(host).eval(expression);
    Ran { result, out: terminal.out.take(), err: terminal.err.take() }
}

#[test]
fn plain_values_print_as_they_are() {
    let plain = Options::default();
    for (expression, expected) in [
        ("40 + 2", "42\n"),
        ("\"text\"", "text\n"),
        ("()", ""),
        ("2.hours + 30.minutes", "2h 30m\n"),
        ("duration(\"2d\") == 48.hours", "true\n"),
        ("time(\"2026-03-09T10:15:00Z\") < now()", "true\n"),
        ("now() - time(\"2026-03-09T10:15:00Z\")", "4m\n"),
        ("ago(1.days)", "2026-03-08T10:19:00Z\n"),
        ("[3, 1, 2].sort_by(|x| -x).map(|x| x * 2)", "[\n  6,\n  4,\n  2\n]\n"),
        ("[1, 2, 3, 4].filter(|x| x > 2).sum()", "7\n"),
        ("[1.5, 2].avg()", "1.75\n"),
        ("[#{ a: 1 }, #{ a: 5 }].max(\"a\")", "5\n"),
        ("[1, 2, 2, 3].unique().len", "3\n"),
        ("[2.days, 3.hours].sum()", "2d 3h\n"),
        ("[].min() == ()", "true\n"),
        ("\"remember to buy milk\".shorten(10)", "remembe...\n"),
        ("env(\"HOME\")", "/home/ann\n"),
        ("env(\"NOTHING\") == ()", "true\n"),
        ("to_json(#{ a: [1, 2.days, ()] })", "{\"a\":[1,\"2d\",null]}\n"),
    ] {
        assert_eq!(eval(plain, expression).printed(), expected, "{expression}");
    }
    let json = Options { json: true, ..plain };
    assert_eq!(eval(json, "\"text\"").printed(), "\"text\"\n");
    assert_eq!(eval(json, "()").printed(), "null\n");
    assert_eq!(
        eval(json, "list().count_by(\"status\")").printed(),
        "{\n  \"active\": 1,\n  \"ended\": 1,\n  \"idle\": 2\n}\n"
    );
}

#[test]
fn a_list_is_fetched_page_by_page_and_sorted() {
    let server = FakeServer::start();
    let ran = run_with(
        Some(&server),
        Options::default(),
        |_, _| {},
        "for s in list() { print(`${s.short_id} ${s.agent} ${s.idle} ${s.message_count}`); }\nprint(list().sum(\"message_count\"));",
    );
    assert_eq!(
        ran.printed(),
        "11aa00000000 notes 0s 2\n8d4e6f1a3b2c writer 1h 1\n5a3f7b9c2e1d notes 3h 3\n9e5f7a2b4c3d notes 2d 5\n11\n"
    );
    let first =
        ["GET /v1/sessions?limit=1000&order=created", "GET /v1/sessions?limit=1000&cursor=3&order=created"];
    assert_eq!(server.requests(), [first, first].concat());
}

#[test]
fn options_reach_the_server_and_narrow_the_list() {
    for (call, expected, requests) in [
        ("list(#{ status: \"idle\" })", "[8d4e6f1a3b2c, 5a3f7b9c2e1d]", 1),
        ("list(#{ status: [\"idle\", \"running\"], agent: \"notes\" })", "[11aa00000000, 5a3f7b9c2e1d]", 1),
        ("list(#{ agent: [\"notes\", \"writer\"], limit: 2 })", "[11aa00000000, 8d4e6f1a3b2c]", 2),
        ("list(#{ limit: 1, status: () })", "[11aa00000000]", 1),
        ("list(#{ limit: \"4\" })", "[11aa00000000, 8d4e6f1a3b2c, 5a3f7b9c2e1d, 9e5f7a2b4c3d]", 2),
        ("list(#{ idle_over: \"2h\" })", "[5a3f7b9c2e1d, 9e5f7a2b4c3d]", 2),
        ("list(#{ where: \"idle > 2.hours && status == `idle`\" })", "[5a3f7b9c2e1d]", 2),
        ("list(#{ where: \"title.contains(\\\"milk\\\")\", limit: 1 })", "[5a3f7b9c2e1d]", 2),
        ("list(#{ where: |s| s.message_count > 2 })", "[5a3f7b9c2e1d, 9e5f7a2b4c3d]", 2),
        ("list().filter(\"created_at < ago(1.days) && agent == \\\"writer\\\"\")", "[8d4e6f1a3b2c]", 2),
        ("filter(list(), |s| s.agent == \"writer\")", "[8d4e6f1a3b2c]", 2),
        ("sessions::list(#{ status: \"ended\" })", "[9e5f7a2b4c3d]", 1),
    ] {
        let server = FakeServer::start();
        let script = format!("print({call});");
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, &script);
        assert_eq!(ran.printed(), format!("{expected}\n"), "{call}");
        assert_eq!(server.requests().len(), requests, "{call}");
    }
}

#[test]
fn a_condition_that_makes_no_sense_is_refused_before_the_first_request() {
    for (condition, sentence, hint) in [
        ("idle > 2", "a duration is compared with a number", "Compare with a duration: 2.hours, 30.minutes."),
        (
            "idle != \\\"2d\\\"",
            "a duration is compared with text",
            "Compare with a duration: 2.hours, 30.minutes.",
        ),
        ("message_count > \\\"2\\\"", "a number is compared with text", "Write a number without quotes."),
        ("status == \\\"idel\\\"", "no session has the status \"idel\"", "Did you mean `idle`?"),
        ("status == \\\"running\\\"", "no session has the status \"running\"", "Write `active`."),
        ("mesage_count > 2", "a session has no field `mesage_count`", "Did you mean `message_count`?"),
        (
            "!(idle < 3)",
            "a duration is compared with a number",
            "Compare with a duration: 2.hours, 30.minutes.",
        ),
        (
            "created_at > 2.days",
            "a time is compared with a duration",
            "Compare with a duration: 2.hours, 30.minutes.",
        ),
    ] {
        let server = FakeServer::start();
        let script = format!("list(#{{ where: \"{condition}\" }});");
        let error = run_with(Some(&server), Options::default(), |_, _| {}, &script).error();
        assert!(matches!(error, Error::Usage { .. }), "{error:?}");
        let text = condition.replace("\\\"", "\"");
        assert_eq!(error.to_string(), format!("the condition `{text}` is wrong: {sentence}"));
        assert_eq!(error.hint(), Some(hint), "{condition}");
        assert_eq!(server.requests(), Vec::<String>::new(), "{condition}");
    }
    let error = on_server("list(#{ where: \"message_count\" });").error();
    assert_eq!(error.to_string(), "the condition must answer true or false, and answered a whole number");
    let error = on_server("list(#{ where: \"title.nothing()\" });").error();
    assert!(
        error.to_string().starts_with("the condition `title.nothing()` failed: there is no function"),
        "{error}"
    );
}

#[test]
fn wrong_options_name_the_right_ones() {
    for (script, sentence, hint) in [
        ("list(#{ stauts: \"idle\" });", "list has no option `stauts`", "Did you mean `status`?"),
        (
            "list(#{ x: 1 });",
            "list has no option `x`",
            "Options: agent, status, idle_over, title, limit, where.",
        ),
        ("list(#{ limit: 0 });", "the limit must be a whole number above 0", ""),
        ("list(#{ limit: \"many\" });", "the limit must be a whole number above 0", ""),
        (
            "list(#{ idle_over: \"soon\" });",
            "'soon' is no duration",
            "Write it like 2d, 3h, 1h 30m, 90s or 500ms.",
        ),
        (
            "list().sort_by(\"mesage_count\");",
            "a session has no field `mesage_count`",
            "Did you mean `message_count`?",
        ),
        ("list()[0].titel;", "a Session has no field `titel`", "Did you mean `title`?"),
        ("list()[0].endd();", "there is no function `endd` for a Session", "Did you mean `end`?"),
        ("list()[9];", "the list has 4 elements: none is at 9", ""),
        (
            "list().filter(|s| s.idle > 2);",
            "these can't be compared",
            "Compare with a duration: 2.hours, 30.minutes.",
        ),
        ("list().filter(|s| 1);", "the function must answer true or false, and answered a whole number", ""),
        ("list(#{ agent: \"ghost\" });", "Agent not found: no agent is called 'ghost'", "Look again."),
        ("let m = #{ a: 1 }; m.b;", "the map has no `b`", "Ask first whether it is there: \"b\" in map."),
        ("throw \"my own\";", "my own", ""),
        (
            "end(true);",
            "`end` doesn't take (bool)",
            "It is end(id: String) -> Session or end(ids: Array) -> Done or end(session: Session) -> Session or end(sessions: Sessions) -> Done.",
        ),
    ] {
        let ran = on_server(script);
        assert!(ran.result.is_err(), "{script}");
        let error = ran.error();
        assert_eq!(error.to_string(), sentence, "{script}");
        assert_eq!(error.hint().unwrap_or_default(), hint, "{script}");
        let place = error.place().unwrap_or_else(|| panic!("{script} has no place"));
        assert_eq!((place.line, place.source.as_deref()), (1, Some(script)));
    }
    let error = on_server("list(#{ status: \"bussy\" });").error();
    assert!(matches!(error, Error::Usage { .. }), "{error:?}");
    assert_eq!(error.to_string(), "unknown status 'bussy'");
}

#[test]
fn tables_look_as_the_lists_do() {
    let whole = "ID            Agent   Title                  Status  Msgs  Last Active\n\
                 8d4e6f1a3b2c  writer  Write a Python script  IDLE    1     1 hour ago\n\
                 5a3f7b9c2e1d  notes   remember to buy milk   IDLE    3     3 hours ago\n";
    let idle = "list(#{ status: \"idle\" })";
    for script in [
        format!("table({idle});"),
        format!("{idle}.table();"),
        format!("show({idle});"),
        format!("table({idle}.to_array());"),
    ] {
        assert_eq!(on_server(&script).printed(), whole, "{script}");
    }
    assert_eq!(eval(Options::default(), idle).printed(), whole);
    assert_eq!(
        on_server("table(list(#{ agent: \"writer\" }), [\"short_id\", \"title\", \"status\", \"message_count\", \"last_active\"]);").printed(),
        "ID            Title                  Status  Msgs  Last Active\n8d4e6f1a3b2c  Write a Python script  IDLE    1     1 hour ago\n"
    );
    assert_eq!(
        on_server(&format!("table({idle}, [\"title\", \"idle\"]);")).printed(),
        "title                  idle\nWrite a Python script  1h\nremember to buy milk   3h\n"
    );
    assert_eq!(
        run("table([#{ a: 1, b: \"x\" }, #{ a: 22 }]); table([[\"n\", \"m\"], [1, 2.hours]]); table([]);")
            .printed(),
        "a   b\n1   x\n22\nn  m\n1  2h\n"
    );
    assert_eq!(run("table(1);").error().to_string(), "a whole number can't be shown as a table");
    assert!(
        on_server("show(get(\"5a3f\"));")
            .printed()
            .starts_with("Field        Value\nID           ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c\n")
    );
    assert!(on_server("show(agents::get(\"notes\"));").printed().contains("Revision  1\n"));
    let json = Options { json: true, ..Options::default() };
    let ids = |text: &str| -> Vec<String> {
        let rows: Vec<serde_json::Value> = serde_json::from_str(text).expect("JSON");
        rows.iter().map(|row| row["id"].as_str().expect("an ID").to_owned()).collect()
    };
    let server = FakeServer::start();
    for columns in ["", ", [\"short_id\", \"title\", \"status\", \"message_count\", \"last_active\"]"] {
        let ran = run_with(Some(&server), json, |_, _| {}, &format!("table(list(){columns});"));
        assert_eq!(ids(&ran.printed()).len(), 4, "{columns}");
    }
    assert_eq!(eval(json, "[]").printed(), "[]\n");
    assert_eq!(
        run_with(Some(&server), json, |_, _| {}, "table(list(#{ status: \"failed\" }));").printed(),
        "[]\n"
    );
    assert_eq!(
        run_with(Some(&server), json, |_, _| {}, "table(list(#{ limit: 1 }), [\"title\"]);").printed(),
        "[\n  {\n    \"title\": \"count to ten\"\n  }\n]\n"
    );
    assert!(eval(json, "get(\"5a3f\")").printed().starts_with("{\n  \"id\": \"ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c\",\n  \"agent_id\": \"agt_abc123def456\",\n  \"agent_name\": \"notes\",\n  \"title\""));
}

#[test]
fn ids_are_resolved() {
    let got = on_server(
        "print(get(\"5a3f\").title); print(get(\"ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c\").status); print(get(\"@last\"));",
    );
    assert_eq!(got.printed(), "remember to buy milk\nidle\n11aa00000000\n");
    let error = on_server("get(\"ffff\");").error();
    assert_eq!(
        (error.code(), error.to_string()),
        ("not_found", "Session not found: no session matches 'ffff'".into())
    );
    let error = on_server("\n\n  sessions::get(\"\");").error();
    assert_eq!((error.code(), error.to_string()), ("invalid", "the session ID is empty".into()));
    let place = error.place().expect("a place");
    assert_eq!(place.render(), " --> test.rhai:3:13\n3 |   sessions::get(\"\");\n  |             ^\n");
}

#[test]
fn errors_can_be_caught_and_read() {
    let script = "try { get(\"ffff\"); } catch (e) { print(`${e.code}: ${e.message} / ${e.hint}`); }\n\
                  try { throw \"x\" } catch (e) { print(e); }";
    assert_eq!(
        on_server(script).printed(),
        "not_found: Session not found: no session matches 'ffff' / Run superserve sessions list to see your sessions.\nx\n"
    );
    let script = "try { resume(\"9e5f\") } catch (e) { print(e.code) }";
    assert_eq!(on_server(script).printed(), "ended\n");
}

#[test]
fn one_is_ended_or_the_reason_thrown() {
    let server = FakeServer::start();
    let ran = run_with(
        Some(&server),
        Options::default(),
        |_, _| {},
        "print(end(\"5a3f\").status); print(get(\"8d4e\").end().status);",
    );
    assert_eq!(ran.printed(), "ended\nended\n");
    assert!(
        server.requests().contains(&"POST /v1/sessions/ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c/end".to_owned())
    );
    assert_eq!(on_server("end(\"ffff\");").error().code(), "not_found");
}

#[test]
fn many_are_ended_in_one_request_and_never_throw() {
    let server = FakeServer::start();
    let script = "let done = end([\"5a3f\", list()[1], \"ffff\"]);\n\
        print(`${done.ok} of ${done.len}`);\n\
        for row in done { print(`${row.given} ${row.ok} ${row.session == ()}`); }\n\
        for row in done.failed { print(`${row.error.code}: ${row.error.message}`); }\n\
        print(done.sessions);";
    let ran = run_with(Some(&server), Options::default(), |_, _| {}, script);
    assert_eq!(
        ran.printed(),
        "1 of 3\n5a3f true false\nses_8d4e6f1a3b2c00000000000000000000 false false\nffff false true\n\
         busy: Session is busy\nnot_found: Session not found: no session matches 'ffff'\n[5a3f7b9c2e1d]\n"
    );
    assert_eq!(server.requests().iter().filter(|asked| asked.starts_with("POST")).count(), 1);
    assert_eq!(
        on_server("let done = list(#{ status: \"failed\" }).end(); print(`${done.ok} ${done.is_empty()}`);")
            .printed(),
        "0 true\n"
    );
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let script = "print(list(#{ status: \"idle\" }).end().ok); end(\"5a3f\"); resume(\"5a3f\"); \
        sessions::create(\"notes\").send(\"hi\"); agents::delete(\"notes\"); get(\"11aa\").cancel(); \
        get(\"5a3f\").converse(#{ prompt: \"hello\" });";
    let server = FakeServer::start();
    let ran = run_with(Some(&server), Options { dry_run: true, ..Options::default() }, |_, _| {}, script);
    assert_eq!(
        ran.printed(),
        "would end 8d4e6f1a3b2c\nwould end 5a3f7b9c2e1d\n2\nwould end 5a3f7b9c2e1d\nwould resume 5a3f7b9c2e1d\n\
         would create a session of notes\nwould send \"hi\" to 000000000000\nwould delete the agent notes\n\
         would cancel the run of 11aa00000000\nwould send \"hello\" to 5a3f7b9c2e1d\n"
    );
    assert!(server.requests().iter().all(|asked| asked.starts_with("GET ")));
    let json = Options { dry_run: true, json: true, ..Options::default() };
    let ran = run_with(Some(&server), json, |_, _| {}, "end(\"5a3f\");");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "would end 5a3f7b9c2e1d\n"));
}

#[test]
fn a_reply_is_collected_quietly() {
    let ran = on_server(
        "let reply = sessions::create(\"notes\", #{ title: \"t\" }).send(\"hi\"); print(reply); print(reply.duration);",
    );
    assert_eq!(ran.err, "");
    assert_eq!(ran.printed(), "You said: hi\n1.1s\n");
    let error = on_server("get(\"5a3f\").send(\"timeout\");").error();
    assert!(
        matches!(&error, Error::Run { code: Some(code), stderr: Some(_), .. } if code == "timeout"),
        "{error:?}"
    );
}

#[test]
fn messages_have_fields() {
    let script =
        "for m in get(\"5a3f\").messages() { print(`${m.role} ${m.content} ${m.at} ${m.partial}`); }";
    assert_eq!(
        on_server(script).printed(),
        "user buy milk 2026-03-09T10:15:00Z false\nagent noted 2026-03-09T10:15:01Z true\n"
    );
}

fn converse(lines: &[&str], terminal: bool, options: &str) -> Ran {
    let server = FakeServer::start();
    let script = format!("get(\"5a3f\").converse({options});");
    run_with(
        Some(&server),
        Options::default(),
        |fake, _| {
            fake.in_is_terminal.set(terminal);
            fake.out_is_terminal.set(terminal);
            fake.lines.borrow_mut().extend(lines.iter().map(|line| Line::Text((*line).to_owned())));
        },
        &script,
    )
}

#[test]
fn a_dialogue_on_a_terminal_reads_as_on_the_page() {
    let ran = converse(&["What about Germany?", "exit"], true, "#{ resumed: true }");
    assert_eq!(ran.err, "Resumed: \"remember to buy milk\" (notes)\n\nYou > \n\nCompleted in 1.1s\n\nYou > ");
    assert_eq!(ran.printed(), "Agent > You said: What about Germany?\n");
    let ran = converse(&["", "never sent"], true, "");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "You > "));
}

#[test]
fn every_piped_line_is_a_turn() {
    let ran = converse(&["one", "", "two"], false, "");
    assert_eq!(ran.err, "\nCompleted in 1.1s\n\nCompleted in 1.1s\n");
    assert_eq!(ran.printed(), "Agent > You said: one\nAgent > You said: two\n");
    // A prompt that was given leaves stdin to whoever else reads it.
    let ran = converse(&["unread"], false, "#{ prompt: \"hi\" }");
    assert_eq!(ran.printed(), "Agent > You said: hi\n");
    let ran = converse(&["one", "two"], false, "#{ single: true }");
    assert_eq!(ran.printed(), "Agent > You said: one\n");
}

#[test]
fn replies_are_cleaned_for_a_terminal_alone() {
    assert_eq!(converse(&[], true, "#{ prompt: \"colour\", single: true }").printed(), "Agent > red\n");
    assert_eq!(
        converse(&[], false, "#{ prompt: \"colour\", single: true }").printed(),
        "Agent > \u{1b}[31mred\u{1b}[0m\u{7}\n"
    );
    assert_eq!(converse(&[], false, "#{ prompt: \"silent\" }").printed(), "Agent > \n");
}

#[test]
fn tools_are_told_on_stderr() {
    let ran = converse(&[], false, "#{ prompt: \"tool\" }");
    assert_eq!(ran.err, "[tool] cat /workspace/notes (200ms)\n\nCompleted in 1.1s\n");
    assert_eq!(ran.printed(), "Agent > Let me look.\nMilk.\n");
}

#[test]
fn a_failed_run_is_an_error_but_not_the_end_of_a_dialogue() {
    let ran = converse(&["fail", "never sent"], false, "");
    assert_eq!(ran.out, "Agent > I will\n");
    let error = ran.error();
    assert!(
        matches!(&error, Error::Run { code: Some(code), stderr: Some(text), .. } if code == "agent_exited" && text == "line 1: oops")
    );
    let ran = converse(&["fail", "hi", "exit"], true, "");
    assert_eq!(
        ran.err,
        "You > \n✗ the agent exited with 1\n  line 1: oops\n\nYou > \n\nCompleted in 1.1s\n\nYou > "
    );
    assert_eq!(ran.printed(), "Agent > I will\nAgent > You said: hi\n");
}

#[test]
fn events_are_one_a_line_in_json() {
    let ran = converse(&[], false, "#{ prompt: \"hi\", json: true }");
    assert_eq!(ran.err, "");
    let text = ran.printed();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["type"], "run.started");
    assert!(lines[0]["data"]["session_id"].as_str().is_some_and(|id| id.starts_with("ses_5a3f")));
    assert_eq!(lines[3], serde_json::json!({ "type": "run.completed", "data": { "duration_ms": 1100 } }));
}

#[test]
fn ctrl_c_cancels_the_run() {
    let server = FakeServer::start();
    let hang = |fake: &FakeTerminal, host: &Host, terminal: bool| {
        fake.in_is_terminal.set(terminal);
        fake.lines.borrow_mut().extend([Line::Text("hang".into()), Line::Text("hi".into())]);
        *fake.interrupt_at.borrow_mut() = Some(("working", host.interrupt.clone()));
    };
    let script = "get(\"5a3f\").converse();";
    let ran = run_with(Some(&server), Options::default(), |fake, host| hang(fake, host, false), script);
    assert_eq!(ran.out, "Agent > working\n");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done == "sent 1 message"));
    assert!(server.requests().iter().any(|asked| asked.ends_with("/cancel")));
    // At a terminal the dialogue goes on.
    let ran = run_with(Some(&server), Options::default(), |fake, host| hang(fake, host, true), script);
    assert_eq!(ran.err, "You > \nCancelled\n\nYou > \n\nCompleted in 1.1s\n\nYou > ");
    assert_eq!(ran.printed(), "Agent > working\nAgent > You said: hi\n");
}

#[test]
fn ctrl_c_stops_a_script_that_says_what_it_did() {
    let server = FakeServer::start();
    let interrupt = |_: &FakeTerminal, host: &Host| {
        *server.held.hangs.lock().expect("not poisoned") = Some(host.interrupt.clone());
    };
    let script = "end(\"5a3f\"); end(\"9e5f\"); try { get(\"11aa\").send(\"hang\"); } catch (e) { print(\"caught\"); } loop { }";
    let ran = run_with(Some(&server), Options::default(), interrupt, script);
    assert_eq!(ran.out, "");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done.starts_with("ended 2 sessions")));
    let ran = run_with(None, Options::default(), |_, host| host.interrupt.set(), "loop { }");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done.is_empty()));
    let ran = run_with(None, Options::default(), |_, host| host.interrupt.set(), "sleep(1000);");
    assert!(matches!(ran.error(), Error::Interrupted { .. }));
}

#[test]
fn exit_ends_from_any_depth() {
    for (script, code) in [
        ("exit(3);", 3),
        ("exit();", 0),
        ("fn f() { try { [1].each(|x| exit(7)); } catch { } print(\"no\"); } f();", 7),
        ("[1, 2].sort_by(|x| exit(4));", 4),
    ] {
        let ran = run(script);
        assert_eq!((ran.result.expect("an exit"), ran.out.as_str()), (Outcome::Exit(code), ""), "{script}");
    }
    assert_eq!(run("exit(300);").error().to_string(), "an exit code is a whole number from 0 to 255");
}

#[test]
fn a_reader_that_has_gone_ends_the_script_quietly() {
    let ran =
        run_with(None, Options::default(), |fake, _| fake.out_is_closed.set(true), "loop { print(1); }");
    assert_eq!(ran.result.expect("an exit"), Outcome::Exit(0));
    let ran = run_with(None, Options::default(), |fake, _| fake.out_is_closed.set(true), "json(1); loop { }");
    assert_eq!(ran.result.expect("an exit"), Outcome::Exit(0));
}

#[test]
fn questions_are_never_asked_of_nobody() {
    let script = "print(confirm(\"Sure?\"));";
    let error = run(script).error();
    assert!(matches!(error, Error::Usage { .. }));
    assert_eq!(error.hint(), Some("Give --yes to go on without being asked."));
    let yes = Options { yes: true, ..Options::default() };
    assert_eq!(run_with(None, yes, |_, _| {}, script).printed(), "true\n");
    for (answers, expected) in
        [(&["maybe", "Y"][..], "true\n"), (&[""], "false\n"), (&[], "false\n"), (&["no"], "false\n")]
    {
        let set = |fake: &FakeTerminal, _: &Host| {
            fake.in_is_terminal.set(true);
            fake.lines.borrow_mut().extend(answers.iter().map(|line| Line::Text((*line).to_owned())));
        };
        assert_eq!(run_with(None, Options::default(), set, script).printed(), expected, "{answers:?}");
    }
}

#[test]
fn args_are_seen_in_functions_too() {
    let (host, terminal) = host(None, Options { yes: true, ..Options::default() });
    let script = |text: &'static str| Script { name: "a.rhai".into(), path: None, text: text.into() };
    let mut engine = Engine::new(host);
    let text = "fn f() { args.agent } print(f()); print(args.all); print(args.status == ()); print(args.ids.len); print(args.yes);";
    let args = [
        ("agent", Arg::Text(Some("notes".into()))),
        ("all", Arg::Flag(true)),
        ("status", Arg::Text(None)),
        ("ids", Arg::Many(vec!["a".into(), "b".into()])),
    ];
    let named = Args::Named(args.into_iter().map(|(name, arg)| (name.to_owned(), arg)).collect());
    engine.run(&script(text), named).expect("to run");
    assert_eq!(terminal.out.take(), "notes\ntrue\ntrue\n2\ntrue\n");
    let list = Args::List(vec!["x".into(), "y".into()]);
    engine.run(&script("print(args[1]); print(args.len);"), list).expect("to run");
    assert_eq!(terminal.out.take(), "y\n2\n");
}

#[test]
fn errors_say_where_they_are() {
    let error = run("#!/usr/bin/env -S superserve script\n//! doc\nlet x = 1;\nlet y = x +;\n").error();
    assert_eq!(error.place().map(|place| (place.line, place.column)), Some((4, 12)));
    let error = run("fn f(x) {\n    x.nope()\n}\n[1].each(|x| f(x));").error();
    assert_eq!(error.to_string(), "there is no function `nope` for an Int");
    let place = error.place().expect("a place");
    assert_eq!((place.line, place.source.as_deref()), (2, Some("    x.nope()")));
    assert_eq!(run("print(nothing);").error().to_string(), "there is no variable `nothing`");
    let error = run("if true {\n").error();
    assert_eq!(error.hint(), Some("Is a bracket or a quote still open?"));
    assert_eq!(error.place().map(|place| place.line), Some(1));
    assert!(matches!(run("eval(\"1\");").error(), Error::Script { .. }));
}

#[test]
fn runaways_are_stopped() {
    let (mut host, _) = host(None, Options::default());
    host.limits.operations = 10_000;
    let run = |host: &Host, text: &str| {
        let script = Script { name: "a".into(), path: None, text: text.to_owned().into() };
        let host = host.clone();
        Engine::new(host).run(&script, Args::default()).expect_err("to be stopped").to_string()
    };
    assert_eq!(run(&host, "loop { }"), "the script was stopped, since it took more steps than it may");
    host.limits.call_levels = 16;
    assert_eq!(run(&host, "fn f() { f() } f();"), "functions call each other too deeply");
    host.limits.string = 100;
    assert!(run(&host, "let s = \"0123456789\"; loop { s += s; }").starts_with("a value is larger"));
    host.limits.text = 10;
    assert!(run(&host, "print(1); print(2);").contains("larger than a script may be"));
    assert!(run(&super::fake::host(None, Options::default()).0, &"(".repeat(10_000)).contains("complex"));
}

#[test]
fn the_deepest_calls_fit_the_script_threads_stack() {
    let depth = on_script_thread(|| {
        let (host, terminal) = host(None, Options::default());
        let script = Script {
            name: "a".into(),
            path: None,
            text: "fn f(n) { if n == 0 { 0 } else { 1 + f(n - 1) } } print(f(250));".into(),
        };
        Engine::new(host).run(&script, Args::default()).expect("to run");
        terminal.out.take()
    });
    assert_eq!(depth.expect("a thread"), "250\n");
}

#[test]
fn modules_are_found_beside_the_file_that_imports_them() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("lib")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("lib/a.rhai", "import \"b\" as b;\nfn twice(x) { b::id(x) * 2 }");
    write("lib/b.rhai", "fn id(x) { x }\nfn broken() {\n  get(1, 2, 3)\n}");
    write("circle.rhai", "import \"circle\" as c;");
    let run = |text: &str| {
        let (host, terminal) = host(None, Options::default());
        let script = Script {
            name: "main.rhai".into(),
            path: Some(folder.path().join("main.rhai")),
            text: text.to_owned().into(),
        };
        let result = Engine::new(host).run(&script, Args::default());
        Ran { result, out: terminal.out.take(), err: terminal.err.take() }
    };
    assert_eq!(run("import \"lib/a\" as a; print(a::twice(21));").printed(), "42\n");
    assert_eq!(run("import \"std/check\" as check; check::equal(1, 1); print(\"ok\");").printed(), "ok\n");
    assert_eq!(
        run("import \"std/check\" as check; check::equal(1, 2);").error().to_string(),
        "found 1, wanted 2"
    );
    let error = run("import \"lib/b\" as b;\nb::broken();").error();
    let place = error.place().expect("a place");
    assert!(place.file.ends_with("lib/b.rhai"), "{place:?}");
    assert_eq!((place.line, place.source.as_deref()), (3, Some("  get(1, 2, 3)")));
    assert!(run("import \"circle\" as c;").error().to_string().contains("imports itself"));
    assert_eq!(run("import \"std/chek\" as c;").error().hint(), Some("Did you mean `std/check`?"));
    assert!(
        run("import \"nothing\" as c;").error().to_string().starts_with("cannot read the module `nothing`")
    );
}

#[test]
fn the_repl_keeps_what_was_said() {
    let server = FakeServer::start();
    let (host, terminal) = host(Some(&server), Options::default());
    let mut engine = Engine::new(host);
    let mut line = |text: &str| {
        let result = engine.line(text).map_err(|error| error.to_string());
        (result, terminal.out.take())
    };
    let done = |out: &str| (Ok(Outcome::Done), out.to_owned());
    assert_eq!(line("let x = 20;"), done(""));
    assert_eq!(line("fn twice(n) { n * 2 }"), done(""));
    assert_eq!(line("twice(x) + 2"), done("42\n"));
    assert_eq!(line("fn twice(n) { n * 3 }"), done(""));
    assert_eq!(line("twice(x)"), done("60\n"));
    assert_eq!(line("let add = |n| n + x;"), done(""));
    assert_eq!(line("add.call(1)"), done("21\n"));
    assert_eq!(line("import \"std/check\" as check;"), done(""));
    assert_eq!(line("check::equal(1, 1)"), done(""));
    assert_eq!(line("nope(1)").0, Err("there is no function `nope` for an Int".into()));
    assert_eq!(line("x"), done("20\n"));
    assert_eq!(line("list(#{ limit: 1 }).map(\"short_id\")[0]"), done("11aa00000000\n"));
    assert_eq!(line("exit(2)").0, Ok(Outcome::Exit(2)));
}

#[test]
fn agents_are_deployed_only_when_they_have_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = folder.path().join("notes");
    std::fs::create_dir(&agent).expect("a folder");
    std::fs::write(agent.join("superserve.yaml"), "command: sh agent.sh\n").expect("a file");
    let path = agent.display().to_string();
    let server = FakeServer::start();
    let run = |text: String| run_with(Some(&server), Options::default(), |_, _| {}, &text);
    let ran = run(format!(
        "let a = agents::target(\"{path}\"); print(`${{a.name}} ${{a.revision}} ${{a.deployed}}`);"
    ));
    assert_eq!(ran.err, "Deployed notes (revision 2)\n");
    assert_eq!(ran.printed(), "notes 2 true\n");
    let hash = client_hash(&agent);
    server.held.agents.lock().expect("not poisoned").last_mut().expect("an agent")["source_hash"] =
        hash.into();
    let ran = run(format!(
        "print(agents::deploy(\"notes\", #{{ dir: \"{}\" }}).deployed);",
        folder.path().display()
    ));
    assert_eq!((ran.err.as_str(), ran.out.as_str()), ("", "false\n"));
    assert_eq!(run("print(agents::target(\"writer\").revision);".into()).printed(), "4\n");
    assert_eq!(run("agents::target(\"ghost\");".into()).error().code(), "not_found");
    assert_eq!(run("agents::target(\"./ghost\");".into()).error().code(), "not_found");
    assert_eq!(run("agents::delete(\"writer\"); print(agents::list());".into()).printed(), "[notes]\n");
}

fn client_hash(path: &std::path::Path) -> String {
    crate::client::Package::from_path(path, None).expect("a package").source_hash
}

#[test]
fn every_function_is_documented_and_its_examples_run() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("agent.sh"), "#!/bin/sh\ncat\n").expect("a file");
    std::fs::write(folder.path().join("superserve.yaml"), "name: notes\ncommand: sh agent.sh\n")
        .expect("a file");
    let functions = Engine::new(host(None, Options::default()).0).functions();
    assert!(functions.len() > 150, "only {} functions", functions.len());
    for function in &functions {
        assert!(!function.doc.trim().is_empty(), "{} is not documented", function.signature);
        assert!(!function.examples.is_empty(), "{} has no example", function.signature);
        for example in &function.examples {
            let server = FakeServer::start();
            let (host, terminal) = host(Some(&server), Options::default());
            terminal.in_is_terminal.set(true);
            let text = example.replace("examples/notes", &folder.path().display().to_string());
            let script = Script { name: function.signature.clone(), path: None, text: text.into() };
            let result = Engine::new(host).run(&script, Args::default());
            assert!(result.is_ok(), "{}: {result:?}\n{example}", function.signature);
            // What an example says that it prints, it prints.
            let said: String = example
                .lines()
                .filter_map(|line| line.split_once("   // "))
                .map(|(_, said)| format!("{said}\n"))
                .collect();
            if !said.is_empty() {
                assert_eq!(*terminal.out.borrow(), said, "{}\n{example}", function.signature);
            }
        }
    }
}
