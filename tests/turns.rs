//! When a turn is over: by frames, by a word on the FIFO, by the kernel's scan, by exit. None may be cut short, and
//! none may lose a byte.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{wait_until, with_argument};
use crate::request::request;
use crate::test::Test;

#[test]
fn pauses_do_not_end_a_turn() {
    let test = Test::new();
    test.deploy(test.agent(
        "pauses",
        "while read -r line; do for n in 1 2 3; do echo \"$n\"; sleep 0.$n; done; printf 'end'; sleep 0.1; echo; done",
    ));
    let id = test.create("pauses");
    for _ in 0..3 {
        assert_eq!(test.send(&id, "go"), "1\n2\n3\nend\n");
    }
}

#[test]
fn children_belong_to_the_turn() {
    let test = Test::new();
    let script = "while read -r line; do (sleep 0.2; echo child) & echo parent; wait; echo \"done: $(echo sub | cat | tr a-z A-Z)\"; done";
    test.deploy(test.agent("children", script));
    let id = test.create("children");
    for _ in 0..3 {
        assert_eq!(test.send(&id, "go"), "parent\nchild\ndone: SUB\n");
    }
}

#[test]
fn a_pipeline_is_an_agent_too() {
    let test = Test::new();
    test.deploy(test.agent("piped", "cat | while read -r line; do sleep 0.1; echo \"piped: $line\"; done"));
    let id = test.create("piped");
    for word in ["a", "b", "c"] {
        assert_eq!(test.send(&id, word), format!("piped: {word}\n"));
    }
}

#[test]
fn many_turns_lose_nothing() {
    let test = Test::new();
    test.deploy("echo");
    let lines: String = (0..100).map(|n| format!("message {n}\n")).collect();
    let replies: String = (0..100).map(|n| format!("Agent > you said: message {n}\n")).collect();
    test.args(["run", "echo"]).stdin(lines).stdout(replies).any_stderr().run();
}

#[test]
fn a_word_on_the_fifo_ends_it() {
    let test = Test::new();
    test.deploy("marker");
    let id = test.create("marker");
    for word in ["a", "b", "c"] {
        assert_eq!(test.send(&id, word), format!("marked: {word}\n"));
    }
    test.deploy(test.agent(
        "plain-word",
        "while read -r l; do echo \"$l\"; echo turn_done >$SUPERSERVE_TURN; sleep 0.05; done",
    ));
    assert_eq!(test.send(&test.create("plain-word"), "hello"), "hello\n");
}

#[test]
fn a_banner_and_a_prompt_are_no_part_of_the_reply() {
    let test = Test::new();
    test.deploy("prompting");
    let id = test.create("prompting");
    assert_eq!(test.send(&id, "hello"), "Bot: hello\n");
    assert_eq!(test.send(&id, "again"), "Bot: again\n");
}

/// An agent with this code for an interpreter; `None` if that is not installed where every sandbox has it.
fn interpreted(test: &Test, program: &str, code: &str) -> Option<PathBuf> {
    if !Path::new("/usr/bin").join(program).exists() {
        return None;
    }
    test.write("told/superserve.yaml", &format!("name: told\ncommand: {program} agent\n"));
    test.write("told/agent", code);
    Some(test.work().join("told"))
}

/// What a message may hold, and must not lose.
const LINES: &str = "one\ntwo\r\n\n\tC:\\new \u{1f}n \u{2028}end";

#[test]
fn python_gets_the_new_lines_of_a_message() {
    let test = Test::new();
    let code = "import sys\nprint(ascii(input()))\nfor line in sys.stdin: print(ascii(line))";
    let Some(agent) = interpreted(&test, "python3", code) else { skip!("no /usr/bin/python3") };
    test.deploy(agent);
    let id = test.create("told");
    let ascii = r"'one\ntwo\r\n\n\tC:\\new \x1fn \u2028end";
    assert_eq!(test.send(&id, LINES), format!("{ascii}'\n"));
    assert_eq!(test.send(&id, LINES), format!("{ascii}\\n'\n"));
    assert_eq!(test.send(&id, "plain \\n"), "'plain \\\\n\\n'\n");
}

#[test]
fn readline_gets_the_new_lines_of_a_message() {
    let test = Test::new();
    let code = "const rl = require('readline').createInterface({ input: process.stdin });\n\
        rl.question('', (line) => {\n  console.log(JSON.stringify(line));\n\
        rl.on('line', (line) => console.log(JSON.stringify(line)));\n});";
    let Some(agent) = interpreted(&test, "node", code) else { skip!("no /usr/bin/node") };
    test.deploy(agent);
    let id = test.create("told");
    for _ in 0..2 {
        assert_eq!(test.send(&id, LINES), "\"one\\ntwo\\r\\n\\n\\tC:\\\\new \\u001fn \u{2028}end\"\n");
    }
    assert_eq!(test.send(&id, "plain \\n"), "\"plain \\\\n\"\n");
}

#[test]
fn who_reads_bytes_gets_two_characters_for_a_new_line() {
    let test = Test::new();
    let code = "import sys\nfor line in sys.stdin.buffer: print(line)";
    let Some(agent) = interpreted(&test, "python3", code) else { skip!("no /usr/bin/python3") };
    test.deploy(agent);
    assert_eq!(test.send(&test.create("told"), "a\nb"), "b'a\\\\nb\\n'\n");
}

#[test]
fn an_own_sitecustomize_still_runs() {
    let test = Test::new();
    let code = "import os, sys\nos.environ['PYTHONPATH'] += ':' + os.getcwd()\n\
        if 'own' not in os.environ: os.environ['own'] = ''; os.execv(sys.executable, [sys.executable, 'agent'])\n\
        while True: print(input(), os.environ['own'], any('shim' in folder for folder in sys.path))";
    let Some(agent) = interpreted(&test, "python3", code) else { skip!("no /usr/bin/python3") };
    test.write("told/sitecustomize.py", "import os\nif 'own' in os.environ: os.environ['own'] = 'ran'");
    test.deploy(agent);
    assert_eq!(test.send(&test.create("told"), "hello\nyou"), "hello\nyou ran False\n");
}

#[test]
fn the_history_so_far_is_there_and_can_not_be_written() {
    let test = Test::new();
    test.deploy("history");
    let id = test.begin("history", "first");
    assert_eq!(test.send(&id, "second"), "lines: 2\n- first\n");
    test.deploy("shell");
    let id = test.create("shell");
    assert!(test.send(&id, "echo forged >>$SUPERSERVE_HISTORY || echo refused").contains("refused"));
    let line = test.send(&id, "tail -n 1 $SUPERSERVE_HISTORY");
    let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!((line["role"].as_str(), line["turn"].as_i64()), (Some("agent"), Some(1)), "{line}");
    assert!(line["content"].as_str().is_some_and(|text| text.contains("refused")), "{line}");
    assert_eq!(line["at"], "2026-03-09T10:15:00Z");
}

#[test]
fn what_an_agent_writes_between_turns_is_no_reply() {
    let test = Test::new();
    test.deploy(test.agent(
        "late",
        "while read -r line; do echo \"$line\"; echo turn_done >$SUPERSERVE_TURN; echo late; done",
    ));
    let id = test.create("late");
    for word in ["a", "b", "c"] {
        let reply = test.send(&id, word);
        assert!(reply == format!("{word}\n") || reply == format!("{word}\nlate\n"), "{reply:?}");
    }
}

#[test]
fn silence_ends_a_turn_whose_end_can_not_be_seen() {
    let test = Test::new().env("SUPERSERVE_TURN_QUIET_MS", "100");
    // A sibling that sleeps for ever: nobody is busy, but not everybody waits for input.
    test.deploy(test.agent(
        "ambiguous",
        "(sh -c 'while :; do sleep 1; done' </dev/null &)\ncat | while read -r line; do echo \"$line\"; done",
    ));
    let id = test.create("ambiguous");
    assert_eq!(test.send(&id, "hello"), "hello\n");
    assert_eq!(test.send(&id, "again"), "again\n");
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let test = Test::new();
    test.deploy(test.agent("bytes", "while read -r line; do printf 'a\\377\\376b\\000c\\n'; done"));
    let id = test.create("bytes");
    let reply = test.send(&id, "go");
    assert!(reply.starts_with('a') && reply.contains('b') && reply.ends_with("c\n"), "{reply:?}");
}

#[test]
fn an_agent_that_closes_its_output_and_stays_is_not_lost() {
    let test = Test::new().env("SUPERSERVE_TURN_TIMEOUT", "2s").env("SUPERSERVE_TURN_QUIET_MS", "100");
    test.deploy(test.agent("closes", "read -r line; echo last; exec >&- ; while read -r line; do :; done"));
    let id = test.create("closes");
    let output = test.args(["sessions", "send", &id, "go"]).any_stdout().any_stderr().any_status().run();
    assert!(output.stdout == "last\n" || output.status != 0, "{output:?}");
    test.args(["sessions", "end", &id]).any_stderr().run();
}

#[test]
fn a_reply_without_end_can_be_cancelled() {
    let test = Test::new();
    test.deploy(test.agent(
        "endless",
        "while read -r line; do [ \"$line\" = wait ] && { echo begun; yes; }; echo \"$line\"; done",
    ));
    let (run, id) = test.wait_in("endless");
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    assert!(run.finish().stdout.contains("\"run.cancelled\""));
    assert_eq!(test.send(&id, "again"), "again\n");
}

#[test]
fn nonsense_on_the_fifo_does_no_harm() {
    let test = Test::new();
    test.deploy("shell");
    let id = test.create("shell");
    for nonsense in [
        "head -c 100000 /dev/urandom",
        "head -c 100000 /dev/zero",
        "printf '{\"type\":\"turn_done\"'",
        "printf '\\n\\n{}\\n[]\\nnull\\n{\"type\":5}\\n'",
    ] {
        let reply = test.send(&id, &format!("{nonsense} >$SUPERSERVE_TURN; echo written"));
        assert_eq!(reply, "written\n", "{nonsense}");
        assert_eq!(test.send(&id, "echo still here"), "still here\n", "{nonsense}");
    }
}

#[test]
fn frames_of_any_kind_do_no_harm() {
    let test = Test::new();
    let script = "echo '{\"type\":\"ready\"}'\n\
                  while read -r line; do\n\
                  printf '{\"type\":\"text\"}\\n{\"type\":\"text\",\"content\":7}\\n{\"type\":\"tool_end\"}\\n{\\n\\377\\n'\n\
                  printf '{\"type\":\"text\",\"content\":\"'; head -c 3000000 /dev/zero | tr '\\0' x; printf '\"}\\n'\n\
                  printf '{\"type\":\"text\",\"content\":\"end\"}\\n{\"type\":\"turn_done\"}\\n'\n\
                  done\n";
    test.deploy(test.agent("rough", script));
    let id = test.create("rough");
    for _ in 0..2 {
        let output = test.args(["sessions", "send", &id, "go"]).any_stdout().any_stderr().run();
        assert!(
            output.stdout.ends_with("end\n"),
            "{}",
            &output.stdout[output.stdout.len().saturating_sub(100)..]
        );
    }
}

/// As the original's framework has agents written.
const APP: &str = r#"
from superserve import App

print("before the app")
app = App(name="framed")


@app.session
async def run(session):
    count = 0
    async for message, stream in session.turns():
        count += 1
        stream.status("Thinking...")
        print("not the reply")
        if message == "break":
            raise ValueError("it is broken")
        stream.write(f"{count}: {message} ")
        stream.write({"a": [1, "\u00e9"]})
        stream.write("x" * (message == "long") * 3_000_000)
        stream.metadata({"cost_usd": 0.5})


if __name__ == "__main__":
    app.run()
"#;

#[test]
fn an_agent_of_the_originals_framework_runs() {
    let test = Test::new();
    let deploy = |name: &str, code: &str| {
        test.write(&format!("{name}/agent.py"), code);
        test.write(
            &format!("{name}/superserve.yaml"),
            &format!("name: {name}\ncommand: python agent.py\nsecrets:\n"),
        );
        test.deploy(test.work().join(name));
    };
    deploy("framed", APP);
    let id = test.create("framed");
    assert_eq!(test.send(&id, "hello\nthere"), "1: hello\nthere {\"a\": [1, \"\\u00e9\"]}\n");
    let events =
        test.args(["sessions", "send", &id, "again", "--json"]).any_stdout().any_stderr().run().stdout;
    assert!(events.contains("2: again "), "{events}");
    let long = test.send(&id, "long");
    assert_eq!(long.matches('x').count(), 3_000_000);
    let failed = test.args(["sessions", "send", &id, "break"]).any_stdout().any_stderr().status(7).run();
    assert!(failed.stderr.contains("exited with code 1: ValueError: it is broken"), "{}", failed.stderr);
    assert!(test.send(&id, "anew").starts_with("1: anew "));
    let log = std::fs::read_to_string(test.home().join("server.log")).expect("a log");
    assert!(log.contains("not the reply") && log.contains("cost_usd"), "{log}");

    // A later package of that name is left as it is, and gets what it lacks.
    test.write("later/superserve/__init__.py", "from superserve.more import KEPT\n");
    test.write("later/superserve/more.py", "KEPT = 7\n");
    let with_it = "import superserve, superserve.more\nassert superserve.KEPT == superserve.more.KEPT == 7\n";
    deploy("later", &format!("{with_it}{APP}"));
    assert!(test.send(&test.create("later"), "hello").starts_with("1: hello "));
    // One that has an App keeps it.
    let own = "class App:\n    def __init__(self, name):\n        print('my own', name, input())\n    def session(self, f):\n        return f\n    def run(self):\n        pass\n";
    test.write("own/superserve.py", own);
    deploy("own", APP);
    assert_eq!(test.send(&test.create("own"), "hello"), "my own framed hello\n");
}

#[test]
fn a_tool_whose_agent_measures_nothing_is_measured() {
    let test = Test::new();
    let script = "echo '{\"type\":\"ready\"}'\n\
                  while read -r line; do\n\
                  echo '{\"type\":\"tool_start\",\"tool\":\"nap\"}'; sleep 0.05; echo '{\"type\":\"tool_end\"}'\n\
                  echo '{\"type\":\"turn_done\"}'\n\
                  done\n";
    test.deploy(test.agent("naps", script));
    let output = test.args(["run", "naps", "go", "--single", "--json"]).any_stdout().any_stderr().run();
    let events: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap_or(&Value::Null);
    assert_eq!(of("tool.start")["data"]["tool"], "nap", "{}", output.stdout);
    assert!(of("tool.end")["data"]["duration_ms"].as_u64().unwrap() >= 50, "{}", output.stdout);
}

#[test]
fn an_idle_agents_process_is_stopped_when_its_time_is_up() {
    let test = Test::new();
    let mark = format!("idle-{}", std::process::id());
    let folder =
        test.agent("resting", "while read -r line; do echo \"resumed: ${SUPERSERVE_RESUMED:-no}\"; done");
    test.write("resting/superserve.yaml", &format!("name: resting\ncommand: sh agent.sh {mark}\n"));
    test.deploy(folder);
    let body = "{\"agent_id\": \"resting\", \"idle_timeout_seconds\": 1}";
    let session = request(&test, "POST", "/sessions", Some(body)).json();
    let id = session["id"].as_str().expect("an ID");
    assert_eq!(test.send(id, "hello"), "resumed: no\n");
    test.pass(std::time::Duration::from_secs(2));
    wait_until("the agent's process to be gone", || with_argument(&mark).is_empty());
    assert_eq!(test.status_of(id), "idle", "the session stays");
    assert_eq!(test.send(id, "hello"), "resumed: 1\n");
}
