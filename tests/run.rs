//! `superserve run`: a folder, a script or a name, one turn or many.

use serde_json::{Value, json};

use crate::command::without_times;
use crate::skipped::has;
use crate::test::{NO_SESSIONS, Test, agents};

const COMPLETED: &str = "\nCompleted in TIME\n";

fn deployed(name: &str, revision: u32) -> String {
    format!("Deployed {name} (revision {revision})\n")
}

#[test]
fn a_folder_is_deployed_and_run() {
    let test = Test::new();
    let folder = agents().join("echo");
    test.args(["run", folder.to_str().unwrap(), "hello"])
        .stdout("Agent > you said: hello\n")
        .stderr(deployed("echo", 1) + COMPLETED)
        .run();
    // By its name from now on, and by its path without a word as long as nothing has changed.
    test.args(["run", "echo", "hello"]).stdout("Agent > you said: hello\n").stderr(COMPLETED).run();
    test.args(["run", folder.to_str().unwrap(), "hello"])
        .stdout("Agent > you said: hello\n")
        .stderr(COMPLETED)
        .run();
}

#[test]
fn a_folder_that_has_changed_is_deployed_again() {
    let test = Test::new();
    test.agent("mine", "read -r line; echo one");
    test.args(["run", "./mine", "hello"])
        .stdout("Agent > one\n")
        .stderr(deployed("mine", 1) + COMPLETED)
        .run();
    test.agent("mine", "read -r line; echo two");
    test.args(["run", "mine", "hello"]).stdout("Agent > one\n").stderr(COMPLETED).run();
    test.args(["run", "./mine", "hello"])
        .stdout("Agent > two\n")
        .stderr(deployed("mine", 2) + COMPLETED)
        .run();
    // A file's time alone is no change.
    test.agent("mine", "read -r line; echo two");
    test.args(["run", "mine/", "hello"]).stdout("Agent > two\n").stderr(COMPLETED).run();
    assert_eq!(test.json(["agents", "get", "mine", "--json"])["revision"], 2);
}

#[test]
fn a_session_keeps_the_revision_it_began_with() {
    let test = Test::new();
    test.deploy(test.agent("mine", "while read -r line; do echo one; done"));
    let id = test.begin("mine", "hello");
    test.deploy(test.agent("mine", "while read -r line; do echo two; done"));
    assert_eq!(test.send(&id, "hello"), "one\n");
    test.stop_server();
    assert_eq!(test.send(&id, "hello"), "one\n");
    assert_eq!(test.send(&test.create("mine"), "hello"), "two\n");
}

#[test]
fn a_script_takes_its_interpreter_from_its_first_line_or_its_ending() {
    let test = Test::new();
    test.write(
        "Some Agent/agent",
        "#!/bin/sh\nwhile read -r line; do echo \"by its first line: $line\"; done\n",
    );
    test.args(["run", "./Some Agent/agent", "hello"])
        .stdout("Agent > by its first line: hello\n")
        .stderr(deployed("some-agent", 1) + COMPLETED)
        .run();
    test.write("other/it's.sh", "while read -r line; do echo \"by its ending: $line\"; done\n");
    test.args(["run", "other/it's.sh", "hello"])
        .stdout("Agent > by its ending: hello\n")
        .stderr(deployed("other", 1) + COMPLETED)
        .run();
    test.write("third/agent.unknown", "text\n");
    test.args(["run", "third/agent.unknown", "hello"]).stderr_part("✗ ").status(2).run();
}

#[test]
fn a_script_in_python() {
    if !has("python3") {
        skip!("python3 is not on this machine");
    }
    let test = Test::new();
    let text = "import sys\nfor line in sys.stdin:\n    print('python said:', line.strip())\n";
    test.write("snake/agent.py", text);
    test.args(["run", "snake/agent.py", "hello"])
        .stdout("Agent > python said: hello\n")
        .stderr(deployed("snake", 1) + COMPLETED)
        .run();
}

#[test]
fn a_script_in_javascript() {
    if !has("node") {
        skip!("node is not on this machine");
    }
    let test = Test::new();
    let text = "const rl = require('readline').createInterface({ input: process.stdin });\n\
                rl.on('line', line => console.log('node said: ' + line));\n";
    test.write("script/agent.js", text);
    test.args(["run", "script/agent.js", "hello"])
        .stdout("Agent > node said: hello\n")
        .stderr(deployed("script", 1) + COMPLETED)
        .run();
}

#[test]
fn a_word_is_an_agent_before_it_is_a_path() {
    let test = Test::new();
    test.deploy(test.agent("both", "while read -r line; do echo deployed; done"));
    test.agent("both", "while read -r line; do echo folder; done");
    test.args(["run", "both", "hello"]).stdout("Agent > deployed\n").stderr(COMPLETED).run();
    test.agent("only", "while read -r line; do echo folder; done");
    test.args(["run", "only", "hello"])
        .stdout("Agent > folder\n")
        .stderr(deployed("only", 1) + COMPLETED)
        .run();
}

#[test]
fn every_piped_line_is_a_turn() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["run", "echo"])
        .stdin("one\n\n   \ntwo\nthree without an end")
        .stdout("Agent > you said: one\nAgent > you said: two\nAgent > you said: three without an end\n")
        .stderr(COMPLETED.repeat(3))
        .run();
    let list = test.json(["sessions", "list", "--json"]);
    assert_eq!((list.as_array().map(Vec::len), &list[0]["message_count"]), (Some(1), &json!(3)));
    assert_eq!(list[0]["title"], "one");
}

#[test]
fn exit_leaves() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["run", "echo"])
        .stdin("one\nexit\ntwo\n")
        .stdout("Agent > you said: one\n")
        .stderr(COMPLETED)
        .run();
}

#[test]
fn single_takes_one_turn() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["run", "echo", "--single"])
        .stdin("one\ntwo\n")
        .stdout("Agent > you said: one\n")
        .stderr(COMPLETED)
        .run();
}

#[test]
fn a_prompt_leaves_stdin_alone() {
    let test = Test::new();
    test.deploy("echo");
    let line = "printf 'a\\nb\\n' | while read -r word; do superserve run echo \"$word\" 2>/dev/null; done";
    test.shell(line).stdout("Agent > you said: a\nAgent > you said: b\n").run();
}

#[test]
fn json_is_an_event_a_line() {
    let test = Test::new();
    test.deploy("frames");
    let output = test.args(["run", "frames", "hello", "--json"]).any_stdout().run();
    let mut events: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let id = test.json(["sessions", "list", "--json"])[0]["id"].clone();
    for event in &mut events {
        let keys: Vec<&String> = event.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["type", "data"]);
        let data = event["data"].as_object_mut().expect("an object");
        if let Some(run) = data.get_mut("run_id") {
            assert!(run.as_str().expect("an ID").starts_with("run_"));
            *run = json!("run");
        }
        if data.len() == 1 && data.contains_key("duration_ms") && event["type"] == "run.completed" {
            event["data"]["duration_ms"] = json!(0);
        }
    }
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "message.delta")
        .map(|e| e["data"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "you said: hello\n\nand more");
    events.retain(|event| event["type"] != "message.delta");
    assert_eq!(events[0], json!({ "type": "run.started", "data": { "run_id": "run", "session_id": id } }));
    assert_eq!(events[1]["type"], "status");
    assert_eq!(
        events[2..],
        [
            json!({ "type": "tool.start", "data": { "tool": "shell", "input": "cat notes.txt" } }),
            json!({ "type": "tool.end", "data": { "duration_ms": 200 } }),
            json!({ "type": "run.completed", "data": { "duration_ms": 0 } }),
        ]
    );
}

#[test]
fn tools_are_shown_on_stderr() {
    let test = Test::new();
    test.deploy("frames");
    let output = test
        .args(["run", "frames", "hello"])
        .stdout("Agent > you said: hello\n\nand more\n")
        .stderr_part("[tool] cat notes.txt (TIME)\n")
        .run();
    assert!(output.stderr.ends_with(COMPLETED), "{}", output.stderr);
}

#[test]
fn a_reply_of_nothing_is_shown_as_nothing() {
    let test = Test::new();
    test.deploy("frames");
    test.args(["run", "frames", "quiet"]).stdout("Agent > \n").stderr(COMPLETED).run();
    test.deploy(test.agent("silent", "while read -r line; do :; done"));
    test.args(["run", "silent", "hello"]).stdout("Agent > \n").stderr(COMPLETED).run();
}

#[test]
fn odd_messages_arrive_whole() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "first");
    for odd in [
        "-n",
        "back\\slash \\n",
        "%s %d",
        "$HOME `id` $(id)",
        "\"quoted\" 'twice'",
        "日本語 👨‍👩‍👧",
        "  spaces  ",
        "--json=x",
    ] {
        let reply = test.args(["sessions", "send", &id, "--", odd]).any_stdout().run().stdout;
        assert_eq!(reply, format!("you said: {odd}\n"));
    }
    let long = "x".repeat(100_000);
    assert_eq!(test.send(&id, &long), format!("you said: {long}\n"));
    // In plain text a line's end is the message's end: it arrives as two characters.
    assert_eq!(test.send(&id, "two\nlines"), "you said: two\\nlines\n");
}

#[test]
fn an_empty_prompt_is_refused() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["run", "echo", ""]).stderr_part("✗ ").status(2).run();
    test.args(["run", "", "hello"]).stderr_part("✗ ").status(2).run();
}

#[test]
fn long_replies_arrive_whole_and_in_order() {
    let test = Test::new();
    test.deploy(test.agent(
        "long",
        "while read -r count; do i=0; while [ $i -lt $count ]; do i=$((i+1)); echo \"line $i äöü\"; done; done",
    ));
    let id = test.create("long");
    let expected: String = (1..=20_000).map(|n| format!("line {n} äöü\n")).collect();
    assert!(test.send(&id, "20000") == expected, "20,000 lines come back as they were written");
}

#[test]
fn the_times_that_are_printed_have_a_form() {
    let test = Test::new();
    test.deploy("echo");
    let output = test
        .shell("superserve run echo hello 2>&1 >/dev/null | sed 's/[0-9.]*ms$/N/; s/[0-9.]*s$/N/'")
        .any_stdout()
        .run();
    assert_eq!(output.stdout, "\nCompleted in N\n");
    assert_eq!(without_times("Completed in 2m 5s"), "Completed in TIME");
}

#[test]
fn a_message_that_can_not_be_sent_leaves_no_session_behind() {
    let test = Test::new();
    test.deploy("echo");
    for message in ["", "  "] {
        test.args(["run", "echo", message])
            .stderr("✗ the message is empty\n  Say what the agent should do.\n")
            .status(2)
            .run();
    }
    let long = format!("{}\n", "x".repeat((1 << 20) + 1));
    test.args(["run", "echo"])
        .stdin(long)
        .stderr(
            "✗ the message is larger than 1 MiB\n  Put the long part into a file that the agent can read.\n",
        )
        .status(2)
        .run();
    test.args(["run", "echo"]).stdin("").run();
    test.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
}
