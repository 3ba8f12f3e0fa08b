//! One language of expressions in every flag: `--where --sort --select --limit -q --json=FIELDS`, and what of it the server
//! is asked.

use std::time::Duration;

use serde_json::{Value, json};

use crate::test::{Test, short, told};

/// Three sessions of two agents, an hour between them; the first has two messages.
fn fleet() -> (Test, [String; 3]) {
    let test = Test::new();
    for name in ["notes", "writer"] {
        test.deploy(test.agent(name, "while IFS= read -r line; do echo \"$line\"; done\n"));
    }
    let mut ids = Vec::new();
    for (agent, title) in [("notes", "buy milk"), ("writer", "a demo, long"), ("notes", "Demo")] {
        ids.push(test.begin(agent, title));
        if ids.len() == 1 {
            test.send(&ids[0], "and more");
        }
        test.pass(Duration::from_secs(3600));
    }
    (test, ids.try_into().expect("three"))
}

/// What `sessions list` with these flags asks the server.
fn asked(test: &Test, flags: &[&str]) -> Vec<String> {
    let before = test.requests().len();
    let words = ["sessions", "list"].iter().chain(flags);
    test.args(words).any_stdout().any_stderr().run();
    let mut requests = test.requests().split_off(before);
    requests.retain(|request| request != "GET /v1/version");
    requests
}

#[test]
fn what_the_server_can_answer_it_is_asked() {
    let (test, _) = fleet();
    for (expression, query) in [
        ("status == \"idle\"", "status=idle&"),
        ("agent == \"notes\" && message_count > 1", "agent_name=notes&min_messages=2&"),
        ("idle > 2.hours && status == \"idle\"", "status=idle&active_before=2026-03-09T11%3A15%3A00Z&"),
        ("title.contains(\"milk\")", "title_contains=milk&"),
        ("created_at < ago(2.hours)", "created_before=2026-03-09T11%3A15%3A00Z&"),
        // What it can't is asked of the engine.
        ("status == \"idle\" && title.len > 3", "status=idle&"),
        ("title.len > 3", ""),
    ] {
        assert_eq!(
            asked(&test, &["--where", expression]),
            [format!("GET /v1/sessions?{query}limit=1000")],
            "{expression}"
        );
    }
    assert_eq!(asked(&test, &["--limit", "2"]), ["GET /v1/sessions?limit=2"]);
    assert_eq!(
        asked(
            &test,
            &["--status", "idle", "--agent", "notes", "--where", "message_count == 1", "--limit", "1"]
        ),
        ["GET /v1/sessions?status=idle&agent=notes&min_messages=1&max_messages=1&limit=1"]
    );
}

#[test]
fn the_same_expression_is_a_flag_a_text_and_a_function() {
    let (test, [milk, long, demo]) = fleet();
    for (expression, function, found) in [
        ("idle > 2.hours", "|s| s.idle > 2.hours", vec![&milk]),
        ("title.contains(\"demo\")", "|s| s.title.contains(\"demo\")", vec![&long]),
        ("title.lower().contains(\"demo\")", "|s| s.title.lower().contains(\"demo\")", vec![&demo, &long]),
        ("message_count in [1, 7]", "|s| s.message_count in [1, 7]", vec![&demo, &long]),
        (
            "agent != \"notes\" || title == \"Demo\"",
            "|s| s.agent != \"notes\" || s.title == \"Demo\"",
            vec![&demo, &long],
        ),
    ] {
        let lines: String = found.iter().map(|id| format!("{id}\n")).collect();
        test.args(["sessions", "list", "-q", "--where", expression]).stdout(&lines).run();
        for script in [
            format!("for s in list().filter({function}) {{ print(s.id); }}"),
            format!("for s in list().filter(`{expression}`) {{ print(s.id); }}"),
            format!("for s in list(#{{ where: `{expression}` }}) {{ print(s.id); }}"),
        ] {
            test.args(["eval", &script]).stdout(&lines).run();
        }
        test.args(["repl"])
            .stdin(format!("for s in list().filter({function}) {{ print(s.id); }}\n"))
            .stdout(&lines)
            .run();
    }
}

#[test]
fn sorts_by_fields_and_expressions() {
    let (test, [milk, long, demo]) = fleet();
    let sorted = |by: &str, expected: [&String; 3]| {
        let lines: String = expected.iter().map(|id| format!("{id}\n")).collect();
        test.args(["sessions", "list", "-q", "--sort", by]).stdout(lines).run();
    };
    sorted("-message_count", [&milk, &demo, &long]);
    sorted("title", [&demo, &long, &milk]);
    sorted("-title", [&milk, &long, &demo]);
    sorted("title.len", [&demo, &milk, &long]);
    sorted("agent, -idle", [&milk, &demo, &long]);
    sorted("agent, idle", [&demo, &milk, &long]);
    sorted("created_at", [&milk, &long, &demo]);
    sorted("-last_activity_at", [&demo, &long, &milk]);
    test.args(["sessions", "list", "--sort", "titel"])
        .stderr(told("a session has no field `titel`", "Did you mean `title`?"))
        .any_status()
        .run();
}

#[test]
fn takes_the_first_so_many() {
    let (test, [milk, long, demo]) = fleet();
    let lines = |ids: &[&String]| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
    test.args(["sessions", "list", "-q", "--limit", "2"]).stdout(lines(&[&demo, &long])).run();
    test.args(["sessions", "list", "--quiet", "--limit", "1", "--sort", "title.len"])
        .stdout(lines(&[&demo]))
        .run();
    test.args([
        "sessions",
        "list",
        "-q",
        "--limit",
        "1",
        "--where",
        "agent == \"notes\"",
        "--sort",
        "created_at",
    ])
    .stdout(lines(&[&milk]))
    .run();
    for wrong in ["0", "-1", "x", ""] {
        test.args(["sessions", "list", &format!("--limit={wrong}")])
            .stderr("✗ the limit must be a whole number above 0\n")
            .status(2)
            .run();
    }
}

#[test]
fn selects_fields_and_expressions() {
    let (test, [milk, long, demo]) = fleet();
    test.args(["sessions", "list", "--select", "title"]).stdout("Demo\na demo, long\nbuy milk\n").run();
    test.args(["sessions", "list", "--select", "message_count * 2 + 1"]).stdout("3\n3\n5\n").run();
    test.args(["sessions", "list", "--select", "short_id, title.shorten(6), idle >= 2.hours"])
        .stdout(format!(
            "short_id      title.shorten(6)  idle >= 2.hours\n\
             {}  Demo              false\n\
             {}  a d...            true\n\
             {}  buy...            true\n",
            short(&demo),
            short(&long),
            short(&milk)
        ))
        .run();
    assert_eq!(
        test.json(["sessions", "list", "--select", "title, message_count", "--limit", "1", "--json"]),
        json!([{ "title": "Demo", "message_count": 1 }])
    );
    assert_eq!(test.json(["sessions", "list", "--select", "title.len", "--json"]), json!([4, 12, 8]));
    for (wrong, sentence, hint) in [
        ("titel", "the expression `titel` is wrong: a session has no field `titel`", "Did you mean `title`?"),
        (
            "id,",
            "there is nothing to show in `id,`",
            "Write fields or expressions with commas between: short_id, title.",
        ),
    ] {
        test.args(["sessions", "list", "--select", wrong]).stderr(told(sentence, hint)).status(2).run();
    }
}

#[test]
fn json_of_some_fields() {
    let (test, [milk, ..]) = fleet();
    let found = |words: &[&str]| test.json(words);
    assert_eq!(
        found(&["sessions", "list", "--json=id,title", "--where", "idle > 2.hours"]),
        json!([{ "id": milk, "title": "buy milk" }])
    );
    assert_eq!(
        found(&["--json=title,idle,ended_at,agent_name,message_count > 1", "sessions", "get", &milk]),
        json!({ "title": "buy milk", "idle": "3h", "ended_at": null, "agent_name": "notes", "message_count > 1": true })
    );
    assert_eq!(found(&["agents", "list", "--json=name"]), json!([{ "name": "notes" }, { "name": "writer" }]));
    assert_eq!(found(&["eval", "list().count_by(\"agent\")", "--json=notes"]), json!({ "notes": 2 }));
    assert_eq!(found(&["eval", "[1, 2]", "--json=notes"]), json!([1, 2]));
    assert_eq!(
        found(&["server", "status", "--json=running,sessions"]),
        json!({ "running": true, "sessions": 3 })
    );
    assert_eq!(found(&["sessions", "send", &milk, "hi", "--json=text"]), json!({ "text": "hi" }));
    // The keys stand in the order in which they were named.
    let text = test.args(["sessions", "get", &milk, "--json=title,id"]).any_stdout().run().stdout;
    assert!(text.find("title").unwrap() < text.find("\"id\"").unwrap(), "{text}");
    let output = test.args(["sessions", "end", &milk, "--json=titel"]).any_stderr().status(2).run();
    assert_eq!(output.error()["hint"], "Did you mean `title`?");
    assert_eq!(test.status_of(&milk), "idle", "nothing was done");
    assert_eq!(
        found(&["sessions", "end", &milk, "--json=id,status"]),
        json!([{ "id": milk, "status": "ended" }])
    );
}

#[test]
fn each_row_is_told_of_a_list_that_could_not_be_ended() {
    let (test, [milk, ..]) = fleet();
    let output = test
        .args(["sessions", "end", &milk, "zzzz", "--json=id,error"])
        .any_stdout()
        .any_stderr()
        .status(1)
        .run();
    let rows: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(rows[0], json!({ "id": milk, "error": null }));
    assert_eq!((&rows[1]["id"], &rows[1]["error"]["code"]), (&json!("zzzz"), &json!("not_found")));
}
