//! `--dry-run`: what would change something is told and not done, by any script.

use crate::test::{Test, short};

/// Everything that the server knows, to compare before and after.
fn state(test: &Test) -> String {
    let mut state = String::new();
    for command in [&["sessions", "list", "--json"][..], &["agents", "list", "--json"]] {
        state += &test.args(command).any_stdout().any_stderr().run().stdout;
    }
    for session in test.json(["sessions", "list", "--json"]).as_array().expect("an array") {
        let id = session["id"].as_str().expect("an ID");
        state += &test.args(["sessions", "messages", id, "--json"]).any_stdout().run().stdout;
    }
    state
}

#[test]
fn changes_nothing_whatever_the_command() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let ended = test.begin("echo", "hello");
    test.args(["sessions", "end", &ended]).any_stderr().run();
    test.agent("fresh", "cat");
    let before = state(&test);
    let id12 = short(&id);
    for (command, told) in [
        (&["sessions", "end", &id][..], format!("would end {id12}\n")),
        (&["sessions", "send", &id, "more"], format!("would send \"more\" to {id12}\n")),
        (&["sessions", "end", "--where", "true"], format!("would end {id12}\n")),
        (&["sessions", "delete", "--where", "true"], format!("would delete {}\n", short(&ended))),
        (&["sessions", "cancel", &id], format!("would cancel the run of {id12}\n")),
        (&["ops", "end-idle", "--yes"], format!("would end {id12}\n")),
        (&["deploy", "--dir", "fresh"], "would deploy fresh\n".to_owned()),
        (&["agents", "delete", "echo", "--yes"], "would delete the agent echo\n".to_owned()),
        (&["eval", "list().end()"], format!("would end {id12}")),
        (&["eval", &format!("get(\"{id}\").end()")], format!("would end {id12}\n")),
        (&["run", "echo", "hello"], "would ".to_owned()),
        (&["run", "./fresh", "hello"], "would deploy fresh\n".to_owned()),
        (&["sessions", "resume", &id], "would ".to_owned()),
        (&["sessions", "delete", &ended], "would ".to_owned()),
    ] {
        // Before or after the subcommand.
        for first in [true, false] {
            let mut words: Vec<&str> = command.to_vec();
            words.insert(if first { 0 } else { words.len() }, "--dry-run");
            test.args(&words).stdout_part(&told).any_stderr().run();
            assert!(state(&test) == before, "{words:?} changed something");
        }
    }
    // Without it the same commands do what they say.
    test.args(["sessions", "end", &id]).any_stderr().run();
    assert_ne!(state(&test), before);
}

#[test]
fn holds_for_a_users_script_too() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let path = test.write(
        "mine.rhai",
        "let s = sessions::create(\"echo\");\nlet reply = get(\"@last\").send(\"more\");\nprint(`reply: [${reply.text}]`);\n\
         let done = end(list());\nprint(`ended ${done.ok}, failed ${done.failed.len}`);\n",
    );
    let before = state(&test);
    let output = test.args(["--dry-run", "script", path.to_str().unwrap()]).any_stdout().any_stderr().run();
    assert!(output.stdout.contains(&format!("would end {}", short(&id))), "{output:#?}");
    assert!(output.stdout.contains("reply: []\n"), "an empty reply: {output:#?}");
    assert!(output.stdout.contains("ended 1, failed 0\n"), "what success would give: {output:#?}");
    assert!(state(&test) == before);
    test.args(["script", path.to_str().unwrap(), "--dry-run"]).any_stdout().any_stderr().any_status().run();
}

#[test]
fn with_json_stdout_stays_json() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let output = test
        .args(["sessions", "end", &id, "--dry-run", "--json"])
        .any_stdout()
        .stderr_part(&format!("would end {}", short(&id)))
        .run();
    let list: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(list[0]["status"], "idle");
}

#[test]
fn the_server_is_neither_started_nor_stopped() {
    let test = Test::new();
    test.args(["--dry-run", "server", "start"]).stderr("would start the server\n").run();
    assert_eq!(test.json(["server", "status", "--json"])["running"], false);
    test.args(["server", "start"]).any_stderr().run();
    let server = test.server();
    test.args(["server", "stop", "--dry-run"])
        .stderr(format!("would stop the server (pid {})\n", server.pid))
        .run();
    assert!(server.is_alive());
    test.args(["--dry-run", "server", "start"]).stderr_part("runs already").run();
}

#[test]
fn a_session_that_was_not_created_has_no_id() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["--dry-run", "run", "echo", "hello"])
        .stdout("would create a session of echo\nwould send \"hello\" to it\n")
        .run();
    test.args(["--dry-run", "run", "echo"])
        .stdout("would create a session of echo\nwould talk with it\n")
        .run();
}
