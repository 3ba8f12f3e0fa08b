//! A command is a script: each bundled one, copied into the user's folder under another name, gives the same output.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::command::{Output, without_times};
use crate::test::{Test, short};

/// Every bundled script by its path without the ending: `sessions/list`.
fn bundled() -> BTreeMap<String, String> {
    fn collect(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_stem().unwrap().to_str().unwrap());
            if path.is_dir() {
                collect(&path, &format!("{name}/"), found);
            } else if path.extension().is_some_and(|ending| ending == "rhai") {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"), "", &mut found);
    found
}

/// What each is called with: its arguments, what it reads. `ID` stands for the session that is there.
fn cases() -> BTreeMap<&'static str, Vec<(&'static [&'static str], &'static str)>> {
    BTreeMap::from([
        ("agents/delete", vec![(&["echo"][..], ""), (&["echo", "--yes"], ""), (&["nobody"], "")]),
        ("agents/get", vec![(&["echo"][..], ""), (&["echo", "--json"], ""), (&["nobody"], "")]),
        (
            "agents/list",
            vec![(&[][..], ""), (&["--json"], ""), (&["--status", "none"], ""), (&["--status", "well"], "")],
        ),
        (
            "deploy",
            vec![
                (&["--dir", "fresh"][..], ""),
                (&["--dir", "nowhere"], ""),
                (&["fresh/agent.sh", "--name", "other", "--json"], ""),
            ],
        ),
        ("ops/count-messages", vec![(&[][..], "")]),
        ("ops/end-idle", vec![(&[][..], ""), (&["--yes"], ""), (&["--yes", "--json"], "")]),
        ("ops/list-active", vec![(&[][..], ""), (&["--json"], "")]),
        (
            "ops/prune",
            vec![
                (&[][..], ""),
                (&["--keep", "0"], ""),
                (&["--keep", "0", "--yes"], ""),
                (&["--keep", "0", "--dry-run"], ""),
                (&["--older-than", "1d", "--json"], ""),
                (&["--keep", "few"], ""),
            ],
        ),
        ("ops/report", vec![(&[][..], ""), (&["--json"], ""), (&["--agent", "nobody"], "")]),
        ("ops/resume-last", vec![(&[][..], "more\n"), (&["--agent", "nobody"], "")]),
        (
            "run",
            vec![
                (&["echo", "hello"][..], ""),
                (&["echo"], "a\nb\n"),
                (&["echo", "--single"], "a\nb\n"),
                (&["nobody"], ""),
            ],
        ),
        (
            "secrets/delete",
            vec![(&["echo", "KEY"][..], ""), (&["echo", "KEY", "--dry-run"], ""), (&["nobody", "KEY"], "")],
        ),
        ("secrets/list", vec![(&["echo"][..], ""), (&["echo", "--json"], ""), (&["nobody"], "")]),
        (
            "secrets/set",
            vec![
                (&["echo", "A=1", "B=2"][..], ""),
                (&["echo", "A"], "value\n"),
                (&["echo", "A", "--json"], "value\n"),
                (&["echo", "PATH=x"], ""),
                (&["echo"], ""),
            ],
        ),
        ("sessions/attach", vec![(&["ID"][..], ""), (&["ID", "--json"], ""), (&["zzzz"], "")]),
        (
            "sessions/cancel",
            vec![
                (&["ID"][..], ""),
                (&["zzzz"], ""),
                (&["ID", "--json"], ""),
                (&["--status", "active", "--yes"], ""),
            ],
        ),
        ("sessions/delete", vec![(&["ID"][..], ""), (&["--where", "true", "--yes"], "")]),
        (
            "sessions/end",
            vec![
                (&["ID"][..], ""),
                (&["ID", "zzzz"], ""),
                (&["-"], "ID\n"),
                (&["ID", "--json"], ""),
                (&["--where", "true", "--yes"], ""),
                (&["--where", "true"], ""),
                (&["ID", "--keep", "x.tar.gz"], ""),
                (&["ID", "--keep", "fresh/agent.sh"], ""),
                (&[], ""),
            ],
        ),
        ("sessions/export", vec![(&["ID", "x.tar.gz"][..], ""), (&["ID", "nowhere/x"], ""), (&["zzzz"], "")]),
        (
            "sessions/files",
            vec![
                (&["ID", "ls", "none"][..], ""),
                (&["ID", "get", "agent.sh", "-"], ""),
                (&["ID", "get", "agent.sh"], ""),
                (&["ID", "put", "fresh/agent.sh", "x"], ""),
                (&["ID", "ls", "../x"], ""),
                (&["zzzz"], ""),
            ],
        ),
        ("sessions/get", vec![(&["ID"][..], ""), (&["ID", "--json"], ""), (&["zzzz"], ""), (&[], "")]),
        (
            "sessions/list",
            vec![
                (&[][..], ""),
                (&["--json"], ""),
                (&["--agent", "echo"], ""),
                (&["--status", "sleeping"], ""),
                (&["--select", "short_id, title"], ""),
                (&["-q"], ""),
            ],
        ),
        ("sessions/messages", vec![(&["ID"][..], ""), (&["ID", "--json"], "")]),
        ("sessions/network", vec![(&["ID"][..], ""), (&["ID", "--json"], ""), (&["zzzz"], "")]),
        ("sessions/resume", vec![(&["ID"][..], "more\n"), (&["zzzz"], "")]),
        ("sessions/send", vec![(&["ID", "more"][..], ""), (&["ID", "more", "--json"], "")]),
        (
            "sessions/wait",
            vec![
                (&["ID"][..], ""),
                (&["ID", "--json"], ""),
                (&["ID", "--until", "done", "--timeout", "1ms"], ""),
            ],
        ),
    ])
}

/// Runs `words` in a fresh home that has one session, with the script's text as a command called `copied` beside it.
fn run(words: &[&str], args: &[&str], stdin: &str, text: &str) -> Output {
    let test = Test::new();
    test.command("mine/copied", text);
    test.deploy("echo");
    test.agent("fresh", "while read -r line; do echo \"$line\"; done");
    let id = test.begin("echo", "hello");
    let args = args.iter().map(|arg| if *arg == "ID" { short(&id) } else { arg });
    let words: Vec<&str> = words.iter().copied().chain(args).collect();
    let stdin = stdin.replace("ID", short(&id));
    let output = test.args(words).stdin(stdin).any_stdout().any_stderr().any_status().run();
    // The usage of a command names it.
    let home = test.work().parent().unwrap().to_str().unwrap().to_owned();
    let same = |text: &str| without_times(text).replace(&home, "HOME");
    Output {
        command: String::new(),
        stdout: without_milliseconds(&same(&output.stdout)),
        stderr: same(&output.stderr),
        ..output
    }
}

/// JSON's `"duration_ms": 12` with a 0.
fn without_milliseconds(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some(at) = line.find("\"duration_ms\": ") {
            line.truncate(at);
        }
    }
    lines.join("\n")
}

#[test]
fn each_has_a_case_here() {
    let bundled = bundled();
    let named: Vec<&str> = bundled.keys().map(String::as_str).collect();
    assert_eq!(named, cases().keys().copied().collect::<Vec<_>>());
}

fn compare(wanted: impl Fn(&str) -> bool) {
    let texts = bundled();
    for (name, calls) in cases().into_iter().filter(|(name, _)| wanted(name)) {
        let command = name.replace('/', " ");
        let words: Vec<&str> = command.split(' ').collect();
        for (args, stdin) in calls {
            let ours = run(&words, args, stdin, &texts[name]);
            let copy = run(&["mine", "copied"], args, stdin, &texts[name]);
            let ours = Output { stderr: usage_of(&ours.stderr, &command), ..ours };
            let copy = Output { stderr: usage_of(&copy.stderr, "mine copied"), ..copy };
            assert_eq!(without_place(&ours.stderr), without_place(&copy.stderr), "{command} {args:?}");
            assert_eq!((ours.status, ours.stdout), (copy.status, copy.stdout), "{command} {args:?}");
        }
    }
}

/// With the command's own name left out of its usage.
fn usage_of(text: &str, command: &str) -> String {
    let named =
        |line: &str| if line.contains("Usage:") { line.replace(command, "COMMAND") } else { line.to_owned() };
    text.lines().map(named).collect::<Vec<_>>().join("\n")
}

/// Without the place in the script, which only a user's own one shows.
fn without_place(text: &str) -> String {
    let place = |line: &&str| {
        !line.trim_start().starts_with("-->")
            && !line
                .trim_start()
                .split_once(" |")
                .is_some_and(|(number, _)| number.is_empty() || number.chars().all(|c| c.is_ascii_digit()))
            && line.trim() != "|"
            && !line.trim_start().starts_with("| ")
    };
    text.lines().filter(place).collect::<Vec<_>>().join("\n")
}

#[test]
fn agents_and_deploy_copied_do_the_same() {
    compare(|name| name.starts_with("agents/") || name == "deploy");
}

#[test]
fn ops_copied_do_the_same() {
    compare(|name| name.starts_with("ops/"));
}

#[test]
fn run_copied_does_the_same() {
    compare(|name| name == "run");
}

#[test]
fn secrets_copied_do_the_same() {
    compare(|name| name.starts_with("secrets/"));
}

#[test]
fn sessions_copied_do_the_same() {
    compare(|name| name.starts_with("sessions/"));
}

#[test]
fn each_says_what_it_is_for_and_how() {
    let test = Test::new();
    for (name, text) in bundled() {
        let words: Vec<String> = name.split('/').map(str::to_owned).chain(["--help".to_owned()]).collect();
        let help = test.args(&words).any_stdout().run().stdout;
        let summary = text.lines().next().unwrap().trim_start_matches("//! ");
        assert!(help.contains(summary), "{name}: {help}");
        for line in text.lines().filter_map(|line| line.strip_prefix("//! @example ")) {
            assert!(help.contains(line), "{name}: {help}");
        }
    }
    assert!(fs::read_dir(test.home()).unwrap().next().is_none(), "help touches nothing");
}
