//! `superserve sessions list`.

use std::time::Duration;

use rexpect::session::{Options, spawn_with_options};
use serde_json::{Value, json};

use crate::process::{PATIENCE, wait_until};
use crate::test::{NO_SESSIONS, Test, short, told};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An agent that answers, but for `wait`.
const ANSWERS: &str =
    "while IFS= read -r line; do [ \"$line\" = wait ] && sleep 1000; echo \"$line\"; done\n";

/// The three sessions of the page that users read: active, idle, ended; and the command that keeps the first one busy.
fn page() -> (Test, [String; 3]) {
    let test = Test::new().env("SUPERSERVE_SESSION_EXPIRE_AFTER", "never");
    for name in ["my-agent", "test-agent"] {
        test.deploy(test.agent(name, ANSWERS));
    }
    let ended = test.begin("my-agent", "Debug my code");
    for _ in 0..4 {
        test.send(&ended, "and again");
    }
    test.args(["sessions", "end", &ended]).any_stderr().run();
    test.pass(2 * DAY - HOUR);
    let idle = test.begin("test-agent", "Write a Python script that counts the words of a file");
    test.pass(HOUR - 2 * MINUTE);
    let active = test.begin("my-agent", "What is the capital of France?");
    test.send(&active, "And of Italy?");
    test.args(["eval", &format!("get(\"{active}\")")]).any_stdout().run();
    (test, [active, idle, ended])
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("an array").iter().map(|session| session["id"].as_str().expect("an ID")).collect()
}

#[test]
fn is_empty_at_first() {
    let test = Test::new();
    test.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
    test.args(["sessions", "list", "--json"]).stdout("[]\n").stderr(NO_SESSIONS).run();
    test.args(["sessions", "list", "--status", "idle", "--json"]).stdout("[]\n").stderr(NO_SESSIONS).run();
}

#[test]
fn shows_what_the_page_shows() {
    let (test, [active, idle, ended]) = page();
    let waiting = test.args(["sessions", "send", &active, "wait"]).start();
    wait_until("the run to begin", || test.status_of(&active) == "active");
    test.pass(2 * MINUTE);
    let (a, i, e) = (short(&active), short(&idle), short(&ended));
    test.args(["sessions", "list"])
        .stdout(format!(
            "ID            Agent       Title                                              Status  Msgs  Last Active\n\
             {a}  my-agent    What is the capital of France?                     ACTIVE  3     2 minutes ago\n\
             {i}  test-agent  Write a Python script that counts the words of...  IDLE    1     1 hour ago\n\
             {e}  my-agent    Debug my code                                      ENDED   5     2 days ago\n"
        ))
        .run();
    test.args(["sessions", "list", "--agent", "my-agent"])
        .stdout(format!(
            "ID            Title                           Status  Msgs  Last Active\n\
             {a}  What is the capital of France?  ACTIVE  3     2 minutes ago\n\
             {e}  Debug my code                   ENDED   5     2 days ago\n"
        ))
        .run();
    test.args(["sessions", "cancel", &active]).any_stdout().any_stderr().run();
    waiting.finish();
}

#[test]
fn prints_json_with_the_pages_keys_in_the_pages_order() {
    let (test, [active, idle, ended]) = page();
    let output = test.args(["sessions", "list", "--json"]).any_stdout().run();
    let list: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(ids(&list), [&active, &idle, &ended], "latest activity first");
    let keys: Vec<&String> = list[0].as_object().expect("an object").keys().collect();
    assert_eq!(
        keys[..8],
        [
            "id",
            "agent_id",
            "agent_name",
            "title",
            "status",
            "message_count",
            "created_at",
            "last_activity_at"
        ]
    );
    let agent = list[0]["agent_id"].as_str().expect("an ID");
    let begins = format!(
        "[\n  {{\n    \"id\": \"{active}\",\n    \"agent_id\": \"{agent}\",\n    \"agent_name\": \"my-agent\",\n    \
         \"title\": \"What is the capital of France?\",\n    \"status\": \"idle\",\n    \"message_count\": 2,\n    \
         \"created_at\": \"2026-03-11T10:13:00Z\",\n    \"last_activity_at\": \"2026-03-11T10:13:00Z\""
    );
    assert!(output.stdout.starts_with(&begins), "{}", output.stdout);
    assert!(output.stdout.ends_with("\n]\n"));
    // The flag may stand before the subcommand, and neither colour nor width touch it.
    test.args(["--json", "sessions", "list"]).stdout(&output.stdout).run();
    test.args(["sessions", "list", "--json", "--color", "always"]).stdout(&output.stdout).run();
}

#[test]
fn takes_an_agents_name_or_id() {
    let (test, [active, idle, ended]) = page();
    let agent = test.session(&idle)["agent_id"].as_str().expect("an ID").to_owned();
    for name in ["test-agent", &agent] {
        assert_eq!(ids(&test.json(["sessions", "list", "--agent", name, "--json"])), [&idle]);
    }
    assert_eq!(ids(&test.json(["sessions", "list", "--agent", "my-agent", "--json"])), [&active, &ended]);
    let hint = "Run superserve agents list to see your agents, or superserve deploy to add one.";
    test.args(["sessions", "list", "--agent", "nobody"])
        .stderr(told("Agent not found: no agent is called 'nobody'", hint))
        .status(3)
        .run();
}

#[test]
fn takes_a_status_or_its_alias_in_any_case() {
    let test = Test::new();
    test.deploy("crash");
    test.deploy("oneshot");
    let failed = test.begin("crash", "break");
    let idle = test.begin("crash", "hello");
    let completed = test.begin("oneshot", "hello");
    let ended = test.begin("oneshot", "hello");
    test.args(["sessions", "end", &ended]).any_stderr().run();
    let pending = test.create("oneshot");
    let waiting = test.agent("waiting", ANSWERS);
    test.deploy(&waiting);
    let active = test.create("waiting");
    let run = test.args(["sessions", "send", &active, "wait"]).start();
    wait_until("the run to begin", || test.status_of(&active) == "active");
    for (word, id) in [
        ("active", &active),
        ("running", &active),
        ("RUNNING", &active),
        ("idle", &idle),
        ("completed", &completed),
        ("ended", &ended),
        ("failed", &failed),
        ("error", &failed),
        ("Error", &failed),
        ("pending", &pending),
    ] {
        assert_eq!(ids(&test.json(["sessions", "list", "--status", word, "--json"])), [id], "{word}");
    }
    let output = test.args(["sessions", "list", "--status", "sleeping"]).status(2).any_stderr().run();
    for word in ["sleeping", "active", "idle", "completed", "ended", "failed", "pending", "running", "error"]
    {
        assert!(output.stderr.contains(word), "{word}: {}", output.stderr);
    }
    test.args(["sessions", "list", "--status", ""]).stderr_part("unknown status ''").status(2).run();
    test.args(["sessions", "cancel", &active]).any_stdout().any_stderr().run();
    run.finish();
}

#[test]
fn takes_an_expression() {
    let (test, [active, idle, ended]) = page();
    let found = |expression: &str| -> Vec<String> {
        let list = test.json(["sessions", "list", "--where", expression, "--json"]);
        ids(&list).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(found("message_count > 1"), [&*active, &*ended]);
    assert_eq!(found("idle > 30.minutes && status == \"idle\""), [&*idle]);
    assert_eq!(found("agent == \"my-agent\" && status != \"ended\""), [&*active]);
    assert_eq!(found("title.contains(\"Python\")"), [&*idle]);
    assert_eq!(found("false"), [""; 0]);
    test.args(["sessions", "list", "--where", "idle > 2"]).status(2).stderr_part("2.hours").run();
    test.args(["sessions", "list", "--where", "status == \"sleeping\""])
        .status(2)
        .stderr_part("sleeping")
        .run();
    test.args(["sessions", "list", "--where", "message_count >"]).any_status().stderr_part("✗").run();
}

#[test]
fn shows_all_of_them() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["eval", "for i in 0..45 { sessions::create(\"echo\"); }"]).run();
    assert_eq!(ids(&test.json(["sessions", "list", "--json"])).len(), 45);
    let output = test.args(["sessions", "list"]).any_stdout().run();
    assert_eq!(output.stdout.lines().count(), 46);
    assert!(output.stdout.contains("  PENDING  0     Just now"), "{}", output.stdout);
}

#[test]
fn shows_titles_whole_if_asked() {
    let test = Test::new();
    test.deploy("echo");
    let title = "a title that is far longer than the fifty columns that a list gives it";
    test.begin("echo", title);
    test.args(["sessions", "list"]).stdout_part("a title that is far longer than the fifty colum... ").run();
    test.args(["sessions", "list", "--no-trunc"]).stdout_part(title).run();
}

#[test]
fn keeps_control_characters_from_the_terminal() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["run", "echo", "red \u{1b}[31malert\u{7} \u{1b}]0;title\u{7}end", "--single"])
        .any_stdout()
        .any_stderr()
        .run();
    let output = test.args(["sessions", "list"]).any_stdout().run();
    assert!(!output.stdout.contains(['\u{1b}', '\u{7}']), "{:?}", output.stdout);
    assert!(output.stdout.contains("red alert end"), "{:?}", output.stdout);
    let list = test.json(["sessions", "list", "--json"]);
    assert_eq!(list[0]["title"], json!("red \u{1b}[31malert\u{7} \u{1b}]0;title\u{7}end"), "raw in JSON");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let plain = test.args(["sessions", "list"]).any_stdout().run().stdout;
    assert!(!plain.contains('\u{1b}'));
    test.args(["sessions", "list", "--color", "always"]).stdout_part("\u{1b}[").run();
    test.args(["sessions", "list"]).env("CLICOLOR_FORCE", "1").stdout_part("\u{1b}[").run();
    test.args(["sessions", "list", "--color", "never"]).env("CLICOLOR_FORCE", "1").stdout(&plain).run();
    test.args(["sessions", "list", "--color", "auto"]).env("NO_COLOR", "1").stdout(&plain).run();
}

#[test]
fn ends_quietly_when_nobody_reads_on() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["eval", "for i in 0..40 { sessions::create(\"echo\"); }"]).run();
    test.shell("(superserve sessions list; echo \"code $?\" >&2) | head -n 1")
        .stdout_part("ID ")
        .stderr("code 0\n")
        .run();
    // Nobody at all.
    test.shell("(superserve sessions list; echo \"code $?\" >&2) | true")
        .any_stdout()
        .stderr("code 0\n")
        .run();
}

#[test]
fn every_status_has_its_colour_and_the_words_stay() {
    let test = Test::new();
    for agent in ["echo", "crash", "oneshot", "slow"] {
        test.deploy(agent);
    }
    test.begin("crash", "break");
    test.begin("oneshot", "hello");
    test.begin("echo", "hello");
    let ended = test.begin("echo", "hello");
    test.args(["sessions", "end", &ended]).any_stderr().run();
    test.create("echo");
    let (run, active) = test.wait_in("slow");
    for command in [&["sessions", "list"][..], &["sessions", "get", &active]] {
        let plain = test.args(command).any_stdout().run().stdout;
        let coloured = test.args(command.iter().chain(&["--color", "always"])).any_stdout().run().stdout;
        let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&superserve::render::clean(&coloured)), trimmed(&plain));
    }
    let coloured = test.args(["sessions", "list", "--color", "always"]).any_stdout().run().stdout;
    let colour = |status: &str| {
        let before = &coloured[..coloured.find(status).unwrap_or_else(|| panic!("{status}: {coloured:?}"))];
        before[before.rfind('\u{1b}').expect("a colour")..].to_owned()
    };
    let words = ["ACTIVE", "IDLE", "COMPLETED", "ENDED", "FAILED"];
    let colours: std::collections::BTreeSet<String> = words.iter().map(|word| colour(word)).collect();
    assert_eq!(colours.len(), words.len(), "{colours:?}");
    assert_eq!(colour("PENDING"), colour("IDLE"));
    test.args(["sessions", "cancel", &active]).any_stderr().run();
    run.finish();
}

#[test]
fn titles_are_narrower_on_a_narrow_terminal() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "a title of about forty columns, or so it is");
    let shown = |columns: u32| {
        let line = format!("stty cols {columns} && superserve sessions list --color never");
        let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64));
        let mut terminal =
            spawn_with_options(test.shell(&line).for_terminal("xterm"), options).expect("a terminal");
        terminal.exp_eof().expect("the end").replace('\r', "")
    };
    assert!(shown(120).contains("a title of about forty columns, or so it is"));
    let narrow = shown(60);
    assert!(narrow.contains("..."), "{narrow}");
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
}
