//! Finding, listing, ending and deploying against a server of canned sessions.

use super::*;

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
    assert_eq!(
        server.requests(),
        [
            "GET /v1/sessions?limit=1000",
            "GET /v1/sessions?limit=1000&order=created",
            "GET /v1/sessions?limit=1000&cursor=3&order=created",
            "GET /v1/sessions?limit=1000",
            "GET /v1/sessions/stats?sum=message_count",
        ]
    );
}

#[test]
fn options_reach_the_server_and_narrow_the_list() {
    let idle = "status=idle&";
    let rest = "status=idle&status=completed&status=ended&status=failed&status=pending&";
    // Two hours and a day before the fixed now.
    let two_hours = "active_before=2026-03-09T08%3A19%3A00Z&";
    let a_day = "created_before=2026-03-08T10%3A19%3A00Z&";
    for (call, expected, asked) in [
        ("list(#{ status: \"idle\" })", "[8d4e6f1a3b2c, 5a3f7b9c2e1d]", idle.to_owned()),
        (
            "list(#{ status: [\"idle\", \"running\"], agent: \"notes\" })",
            "[11aa00000000, 5a3f7b9c2e1d]",
            "status=idle&status=active&agent=notes&".into(),
        ),
        ("list(#{ idle_over: \"2h\" })", "[5a3f7b9c2e1d, 9e5f7a2b4c3d]", format!("{rest}{two_hours}")),
        (
            "list(#{ where: \"idle > 2.hours && status == `idle`\" })",
            "[5a3f7b9c2e1d]",
            format!("{idle}{two_hours}"),
        ),
        (
            "list().filter(|s| s.idle > 2.hours && s.status == \"idle\")",
            "[5a3f7b9c2e1d]",
            format!("{idle}{two_hours}"),
        ),
        (
            "list().filter(#{ status: [\"idle\"], agent: \"notes\" })",
            "[5a3f7b9c2e1d]",
            "status=idle&agent_name=notes&".into(),
        ),
        (
            "list(#{ where: |s| s.message_count > 2 })",
            "[5a3f7b9c2e1d, 9e5f7a2b4c3d]",
            "min_messages=3&".into(),
        ),
        ("list().reject(|s| s.status != \"ended\")", "[9e5f7a2b4c3d]", "status=ended&".into()),
        (
            "list().filter(|s| s.status == \"idle\" || s.status == \"ended\").reject(#{ status: \"ended\" })",
            "[8d4e6f1a3b2c, 5a3f7b9c2e1d]",
            idle.into(),
        ),
        (
            "list().filter(\"created_at < ago(1.days) && agent == \\\"writer\\\"\")",
            "[8d4e6f1a3b2c]",
            format!("agent_name=writer&{a_day}"),
        ),
        ("filter(list(), |s| s.agent == \"writer\")", "[8d4e6f1a3b2c]", "agent_name=writer&".into()),
        (
            "list().filter(|s| s.agent in [\"writer\", \"x\"])",
            "[8d4e6f1a3b2c]",
            "agent_name=writer&agent_name=x&".into(),
        ),
        ("list().filter(|s| s.title.contains(\"milk\"))", "[5a3f7b9c2e1d]", "title_contains=milk&".into()),
        ("list().filter(|s| s.title.contains(\"MILK\"))", "[]", "title_contains=MILK&".into()),
        (
            "list().filter(|s| s.agent == \"writer\" && s.title.len > 3)",
            "[8d4e6f1a3b2c]",
            "agent_name=writer&".into(),
        ),
        ("sessions::list(#{ status: \"ended\" })", "[9e5f7a2b4c3d]", "status=ended&".into()),
    ] {
        let server = FakeServer::start();
        let script = format!("print({call});");
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, &script);
        assert_eq!(ran.printed(), format!("{expected}\n"), "{call}");
        assert_eq!(server.requests(), [format!("GET /v1/sessions?{asked}limit=1000")], "{call}");
    }
    for (call, expected, requests) in [
        ("list(#{ agent: [\"notes\", \"writer\"], limit: 2 })", "[11aa00000000, 8d4e6f1a3b2c]", 1),
        ("list(#{ limit: 1, status: () })", "[11aa00000000]", 1),
        ("list(#{ limit: \"4\" })", "[11aa00000000, 8d4e6f1a3b2c, 5a3f7b9c2e1d, 9e5f7a2b4c3d]", 3),
        ("list(#{ where: \"title.contains(\\\"milk\\\")\", limit: 1 })", "[5a3f7b9c2e1d]", 1),
        ("list(#{ sort: \"-message_count\", limit: 2 })", "[9e5f7a2b4c3d, 5a3f7b9c2e1d]", 3),
        ("list(#{ sort: |s| s.title })", "[9e5f7a2b4c3d, 8d4e6f1a3b2c, 11aa00000000, 5a3f7b9c2e1d]", 3),
        ("list(#{ agent: [] })", "[]", 0),
        ("list(#{ agent: \"notes\", status: [] })", "[]", 0),
        ("list().filter(|s| s.status == \"x\")", "[]", 0),
        ("list().filter(|s| s.agent == \"\")", "[]", 0),
        ("list().filter(|s| s.status == \"idle\" && s.status == \"ended\").len", "0", 0),
    ] {
        let server = FakeServer::start();
        let script = format!("print({call});");
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, &script);
        assert_eq!(ran.printed(), format!("{expected}\n"), "{call}");
        assert_eq!(server.requests().len(), requests, "{call}");
    }
}

#[test]
fn of_many_the_server_is_asked_for_sums_and_counts() {
    for (call, expected, asked) in [
        ("list().len", "4", Some("")),
        ("list().count(|s| s.status == \"idle\")", "2", None),
        ("list().count(\"message_count > 0\")", "4", Some("min_messages=1")),
        ("list().sum(\"message_count\")", "11", Some("sum=message_count")),
        ("list().sum(|s| s.message_count)", "11", Some("sum=message_count")),
        ("list().avg(\"message_count\")", "2.75", Some("sum=message_count")),
        ("list().max(|s| s.message_count)", "5", Some("max=message_count")),
        ("list().min(\"last_activity_at\")", "2026-03-07T10:19:00Z", Some("min=last_activity_at")),
        ("list().count_by(\"agent\")", "#{\"notes\": 3, \"writer\": 1}", Some("count_by=agent")),
        ("list().count_by(|s| s.status).idle", "2", Some("count_by=status")),
        ("sessions::each().sum(\"message_count\")", "11", Some("sum=message_count")),
        // Those that the server can't answer are counted here.
        ("list().sum(\"idle\")", "2d 4h", None),
        ("list().count_by(\"message_count > 2\")", "#{\"false\": 2, \"true\": 2}", None),
        ("list().filter(|s| s.title.contains(\"o\")).len", "4", None),
    ] {
        let server = FakeServer::start();
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, &format!("print({call});"));
        assert_eq!(ran.printed(), format!("{expected}\n"), "{call}");
        let requests = server.requests();
        let stats: Vec<&str> =
            requests.iter().filter_map(|asked| asked.strip_prefix("GET /v1/sessions/stats")).collect();
        assert_eq!(stats.first().map(|asked| asked.trim_start_matches('?')), asked, "{call}: {requests:?}");
    }
    let server = FakeServer::start();
    let script = "print(list().first.short_id); print(list().any(|s| s.status == \"failed\"));";
    assert_eq!(
        run_with(Some(&server), Options::default(), |_, _| {}, script).printed(),
        "11aa00000000\nfalse\n"
    );
    assert_eq!(server.requests(), ["GET /v1/sessions?limit=1", "GET /v1/sessions?status=failed&limit=1"]);
}

#[test]
fn what_is_acted_on_was_counted_before() {
    let server = FakeServer::start();
    let script = "let all = list(); print(all.len); sessions::create(\"notes\"); print(end(all).len);";
    let ran = run_with(
        Some(&server),
        Options::default(),
        |_, host| {
            let sessions = server.held.sessions.lock().expect("not poisoned").len();
            assert_eq!(sessions, 4);
            host.clock.now_millis();
        },
        script,
    );
    assert_eq!(ran.printed(), "4\n5\n");
    assert!(
        server.requests().iter().any(|asked| asked.contains("active_before=2026-03-09T10%3A19%3A00.001Z"))
    );
}

#[test]
fn a_stream_is_walked_page_by_page() {
    for (call, expected, requests) in [
        (
            "for s in sessions::each() { print(s.short_id); }",
            "11aa00000000\n5a3f7b9c2e1d\n8d4e6f1a3b2c\n9e5f7a2b4c3d\n",
            2,
        ),
        ("sessions::each().take(2).each(|s| print(s.agent));", "notes\nnotes\n", 1),
        ("for s in sessions::each().skip(1).take(1) { print(s.short_id); }", "5a3f7b9c2e1d\n", 1),
        ("for s in sessions::each().take(0) { print(s.short_id); }", "", 0),
        (
            "sessions::each().filter(|s| s.title.len > 15).map(|s| s.message_count).each(|n| print(n));",
            "3\n1\n",
            2,
        ),
        (
            "print(sessions::each().filter(\"idle > 2.hours\").map(\"[agent, message_count]\").to_list());",
            "[[\"notes\", 3], [\"notes\", 5]]\n",
            1,
        ),
        (
            "print(sessions::each().reject(|s| s.title.len > 15).sort_by(\"-message_count\"));",
            "[9e5f7a2b4c3d, 11aa00000000]\n",
            2,
        ),
        ("print(sessions::each().group_by(\"agent\").notes.ids.len);", "3\n", 2),
        ("print(sessions::each().unique(\"agent\"));", "[11aa00000000, 8d4e6f1a3b2c]\n", 2),
        ("print(sessions::each().first.short_id);", "11aa00000000\n", 1),
        ("print(sessions::each().count(\"status == `idle`\"));", "2\n", 1),
        (
            "print(sessions::each().filter(|s| s.status == \"idle\").filter(|s| s.title.len > 0).count());",
            "2\n",
            1,
        ),
        ("print(sessions::each().find(|s| s.title.len < 14).title);", "count to ten\n", 1),
        ("print(sessions::each());print(type_of(sessions::each()));", "a stream of sessions\nStream\n", 0),
    ] {
        let server = FakeServer::start();
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, call);
        assert_eq!(ran.printed(), expected, "{call}");
        let asked = server.requests();
        assert_eq!(asked.len(), requests, "{call}: {asked:?}");
    }
    let error = on_server("for s in sessions::each().filter(|s| s.title.len > 1) { print(s); }").error();
    assert_eq!(error.to_string(), "`for` can't walk a stream that calls functions on its way");
    assert_eq!(error.place().map(|place| place.line), Some(1));
}

#[test]
fn json_becomes_sessions_and_sessions_become_csv() {
    let ran = on_server(
        "let kept = sessions::from_json(list().to_json()); print(kept); print(kept.sum(\"message_count\")); print(kept == ());",
    );
    assert_eq!(ran.printed(), "[11aa00000000, 8d4e6f1a3b2c, 5a3f7b9c2e1d, 9e5f7a2b4c3d]\n11\nfalse\n");
    let error = run("sessions::from_json(\"{}\");").error();
    assert!(error.to_string().starts_with("this is not a list of sessions: "), "{error}");
    let script = "let s = sessions::create(\"notes\", #{ title: `a, \"b\"\nc` }); print(list(#{ status: \"pending\" }).to_csv([\"short_id\", \"title\", \"idle\"]));";
    assert_eq!(on_server(script).printed(), "short_id,title,idle\nc0ffee000000,\"a, \"\"b\"\"\nc\",0s\n");
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
        assert_eq!(error.to_string(), format!("the expression `{text}` is wrong: {sentence}"));
        assert_eq!(error.hint(), Some(hint), "{condition}");
        assert_eq!(server.requests(), Vec::<String>::new(), "{condition}");
    }
    let error = on_server("list(#{ where: \"message_count\" });").error();
    assert_eq!(error.to_string(), "the condition must answer true or false, and answered a whole number");
    let error = on_server("list(#{ where: \"title.nothing()\" });").error();
    assert!(
        error.to_string().starts_with("the expression `title.nothing()` failed: there is no function"),
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
            "Options: agent, status, idle_over, title, where, sort, limit.",
        ),
        (
            "list(#{ agent: \"\" });",
            "the agent is empty",
            "Give an agent's name or ID, or leave the option out.",
        ),
        (
            "sessions::last(\"\");",
            "the agent is empty",
            "Give an agent's name or ID, or leave the option out.",
        ),
        (
            "end(\"@last:\");",
            "'@last:' names no agent",
            "Write @last for the session that was active last, or @last:AGENT.",
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
        ("list().idz;", "a list of sessions has no field `idz`", "Did you mean `ids`?"),
        ("list()[0].endd();", "there is no function `endd` for a Session", "Did you mean `end`?"),
        ("list()[9];", "the list has 4 elements: none is at 9", ""),
        (
            "list().filter(|s| s.idle > 2);",
            "these can't be compared",
            "Compare with a duration: 2.hours, 30.minutes.",
        ),
        ("list().filter(|s| 1);", "the function must answer true or false, and answered a whole number", ""),
        ("list(#{ agent: \"ghost\" }).len;", "Agent not found: no agent is called 'ghost'", "Look again."),
        ("let m = #{ a: 1 }; m.b;", "the map has no `b`", "Ask first whether it is there: \"b\" in map."),
        ("throw \"my own\";", "my own", ""),
        (
            "end(true);",
            "`end` doesn't take (Bool)",
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
    assert_eq!(
        (place.file.as_str(), place.line, place.column, place.source.as_deref()),
        ("test.rhai", 3, 13, Some("  sessions::get(\"\");"))
    );
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
fn failures_are_told_with_their_hints() {
    let script =
        "failure(end([\"ffff\"])[0].error); failure(\"plain\"); success(\"done\"); warn(\"careful\");";
    let hint = "Run superserve sessions list to see your sessions.";
    assert_eq!(
        on_server(script).err,
        format!("✗ Session not found: no session matches 'ffff'\n  {hint}\n✗ plain\n✓ done\ncareful\n")
    );
    let server = FakeServer::start();
    let json = Options { json: true, ..Options::default() };
    let ran = run_with(Some(&server), json, |_, _| {}, "failure(end([\"ffff\"])[0].error);");
    let told: serde_json::Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!((&told["error"]["code"], &told["error"]["hint"]), (&"not_found".into(), &hint.into()));
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
         would create a session of notes\nwould send \"hi\" to it\nwould delete the agent notes\n\
         would cancel the run of 11aa00000000\nwould send \"hello\" to 5a3f7b9c2e1d\n"
    );
    assert!(server.requests().iter().all(|asked| asked.starts_with("GET ")));
    let json = Options { dry_run: true, json: true, ..Options::default() };
    let ran = run_with(Some(&server), json, |_, _| {}, "end(\"5a3f\");");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "would end 5a3f7b9c2e1d\n"));
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
    std::fs::write(agent.join("superserve.yaml"), "name: fresh\ncommand: sh agent.sh\n").expect("a file");
    let dry = Options { dry_run: true, ..Options::default() };
    let text = format!("sessions::create(agents::target(\"{path}\")).converse(#{{ prompt: \"hi\" }});");
    let ran = run_with(Some(&server), dry, |_, _| {}, &text);
    assert_eq!(
        ran.printed(),
        "would deploy fresh\nwould create a session of fresh\nwould send \"hi\" to it\n"
    );
    assert_eq!(run("print(agents::target(\"writer\").revision);".into()).printed(), "4\n");
    assert_eq!(run("agents::target(\"ghost\");".into()).error().code(), "not_found");
    assert_eq!(run("agents::target(\"./ghost\");".into()).error().code(), "not_found");
    assert_eq!(run("agents::delete(\"writer\"); print(agents::list());".into()).printed(), "[notes]\n");
}

fn client_hash(path: &std::path::Path) -> String {
    crate::client::Package::from_path(path, None, None, &mut |_| ()).expect("a package").source_hash
}
