//! `superserve sessions end`: the process tree is gone and the workspace wiped when it answers.

use std::fs;
use std::path::Path;

use crate::process::{self, wait_until};
use crate::skipped::has;
use crate::test::{Test, ended, short, told};

/// Whether any file below `folder` holds `mark`, in its name or in its text. The database and the log aside: the
/// transcript is kept.
fn holds(folder: &Path, mark: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with("superserve.db") || name == "server.log" {
            return false;
        }
        let kind = entry.file_type().expect("a kind");
        name.contains(mark)
            || (kind.is_dir() && holds(&path, mark))
            || (kind.is_file()
                && String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(mark))
    })
}

#[test]
fn says_so_with_the_id_as_it_was_given() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "end", &id[4..12]]).stderr(ended(&id[4..12])).run();
    // Idempotent; `ses_` is left out, and of a whole ID the first 12 digits are shown.
    test.args(["sessions", "end", &id[..12]]).stderr(ended(&id[4..12])).run();
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    let session = test.session(&id);
    assert_eq!(session["status"], "ended");
    assert_eq!(session["end_reason"], "user");
    assert_eq!(session["ended_at"], "2026-03-09T10:15:00Z");
}

#[test]
fn the_last_line_names_the_session_even_by_shorthand() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "end", "@last"]).stderr_part("ended (status: ENDED)").run();
    assert_eq!(test.status_of(&id), "ended");
}

#[test]
fn takes_several_and_says_which_failed() {
    let test = Test::new();
    test.deploy("echo");
    let ids: Vec<String> = (0..3).map(|n| test.begin("echo", &format!("message {n}"))).collect();
    let output = test
        .args(["sessions", "end", &ids[0], "zzzz", &ids[1]])
        .stderr_part(&ended(short(&ids[0])))
        .stderr_part(&ended(short(&ids[1])))
        .stderr_part("✗ Session not found: no session matches 'zzzz'\n")
        .status(1)
        .run();
    assert!(!output.stderr.contains(short(&ids[2])));
    assert_eq!(test.status_of(&ids[2]), "idle");
}

#[test]
fn one_unknown_id_is_not_found() {
    let test = Test::new();
    test.args(["sessions", "end", "zzzz"])
        .stderr(told(
            "Session not found: no session matches 'zzzz'",
            "Run superserve sessions list to see your sessions.",
        ))
        .status(3)
        .run();
}

#[test]
fn reads_ids_from_stdin() {
    let test = Test::new();
    test.deploy("echo");
    let ids: Vec<String> = (0..3).map(|n| test.begin("echo", &format!("message {n}"))).collect();
    test.args(["sessions", "end", "-"])
        .stdin(format!("{}\n\n  {}\n", ids[0], &ids[1][4..16]))
        .stderr(format!("{}{}", ended(short(&ids[0])), ended(short(&ids[1]))))
        .run();
    assert_eq!(test.status_of(&ids[2]), "idle");
    // Without `-` stdin is left alone.
    test.shell(&format!("echo rest | (superserve sessions end {}; cat)", ids[2]))
        .stdout("rest\n")
        .stderr(ended(short(&ids[2])))
        .run();
}

#[test]
fn prints_an_array_as_json_always() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let list = test.json(["sessions", "end", &id, "--json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(list[0]["id"], id.as_str());
    assert_eq!(list[0]["status"], "ended");
    let output =
        test.args(["sessions", "end", &id, "zzzz", "--json"]).any_stdout().any_stderr().status(1).run();
    let list: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(list[0]["status"], "ended");
    assert_eq!(list[1]["error"]["code"], "not_found");
}

#[test]
fn wipes_the_workspace_and_the_home_from_the_disk() {
    let test = Test::new();
    test.deploy("files");
    let (id, other) = (test.begin("files", "keep xyzzy-secret"), test.begin("files", "keep other-secret"));
    assert!(holds(&test.home(), "xyzzy-secret"), "the probe finds it while the session lives");
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    assert!(!holds(&test.home(), "xyzzy-secret"));
    assert!(holds(&test.home(), "other-secret"), "the other session's files stay");
    assert_eq!(
        test.send(&other, "other-secret"),
        "there: other-secret\nthere: other-secret\nthere: other-secret\n"
    );
}

#[test]
fn wipes_what_does_not_want_to_be_wiped() {
    let test = Test::new();
    test.deploy("shell");
    test.write("bystander", "untouched");
    let outside = test.work().join("bystander");
    let id =
        test.begin("shell", "mkdir -p a/b/c locked && touch a/b/c/xyzzy-deep locked/xyzzy-locked -- '-rf'");
    test.send(
        &id,
        &format!(
            "ln -s {} link; ln -s / root; mkfifo fifo; touch \"$(printf 'xyzzy\\\\nnewline')\"",
            outside.display()
        ),
    );
    test.send(&id, "chmod 000 a/b/c a/b; chmod 555 locked");
    test.send(&id, "d=deep; i=0; while [ $i -lt 300 ]; do mkdir $d && cd $d || break; i=$((i+1)); done; touch xyzzy-bottom");
    assert!(holds(&test.home(), "xyzzy-locked"));
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    assert!(!holds(&test.home(), "xyzzy"));
    assert_eq!(fs::read_to_string(outside).expect("the file that a link named"), "untouched");
}

#[test]
fn leaves_no_process_behind() {
    if !has("setsid") {
        skip!("setsid is not on this machine");
    }
    let test = Test::new();
    test.deploy("daemons");
    let mark = format!("mark-{}", std::process::id());
    let id = test.begin("daemons", &mark);
    let other = test.begin("daemons", &format!("{mark}-other"));
    let of = |mark: &str| {
        process::with_argument(&format!("# {mark}"))
            .into_iter()
            .filter(|p| p.command_line().ends_with(mark))
            .count()
    };
    assert_eq!((of(&mark), of(&format!("{mark}-other"))), (4, 4), "the daemons run");
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    assert_eq!(of(&mark), 0, "at once, since it has answered");
    assert_eq!(of(&format!("{mark}-other")), 4);
    test.args(["sessions", "end", &other]).stderr(ended(short(&other))).run();
    assert_eq!(of(&format!("{mark}-other")), 0);
}

#[test]
fn an_ended_session_takes_nothing_more() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "end", &id]).any_stderr().run();
    let refused =
        told("Session has ended and cannot be resumed", "Start a new one with: superserve run echo");
    test.args(["sessions", "resume", &id]).stderr(&refused).status(5).run();
    test.args(["sessions", "send", &id, "hello"]).stderr(&refused).status(5).run();
    let output = test.args(["sessions", "resume", &id, "--json"]).any_stderr().status(5).run();
    assert_eq!(output.error()["code"], "ended");
    // Its transcript stays.
    test.args(["sessions", "messages", &id]).stdout_part("you said: hello").run();
}

#[test]
fn can_end_what_never_ran_and_what_runs() {
    let test = Test::new();
    test.deploy("slow");
    let pending = test.create("slow");
    test.args(["sessions", "end", &pending]).stderr(ended(short(&pending))).run();
    let (run, active) = test.wait_in("slow");
    test.args(["sessions", "end", &active]).stderr(ended(short(&active))).run();
    assert_eq!(test.status_of(&active), "ended");
    let output = run.finish();
    assert_ne!(output.status, 0, "{output:?}");
}

#[test]
fn nothing_named_is_a_mistake_not_everything() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "end"])
        .stderr(told(
            "no session is named",
            "Give IDs, - to read them from stdin, or a condition: --where 'idle > 2.hours'.",
        ))
        .status(2)
        .run();
    test.args(["sessions", "end", "-"]).stdin("").run();
    test.args(["sessions", "end", "-"]).stdin("\n\n").run();
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn a_session_forgotten_is_gone() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["sessions", "delete", &id]).stderr_part("has not ended").status(5).run();
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.args(["sessions", "delete", &id]).any_stdout().any_stderr().run();
    test.args(["sessions", "get", &id]).stderr_part("Session not found").status(3).run();
}

/// Four sessions: one idle for an hour, two fresh ones, one that is at work; and the command that keeps it there.
fn fleet() -> (Test, Vec<String>, crate::command::Running) {
    let test = Test::new();
    for name in ["echo", "slow"] {
        test.deploy(name);
    }
    let mut ids = vec![test.begin("echo", "old")];
    test.pass(std::time::Duration::from_secs(3600));
    ids.extend(["new", "newer"].map(|title| test.begin("echo", title)));
    let (run, active) = test.wait_in("slow");
    ids.push(active);
    (test, ids, run)
}

fn statuses(test: &Test, ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| test.status_of(id)).collect()
}

#[test]
fn those_that_a_condition_chooses() {
    let (test, ids, run) = fleet();
    // Nobody can answer: nothing is ended, and what would be is shown.
    let output = test.args(["sessions", "end", "--where", "idle >= 1.hours"]).any_stderr().status(2).run();
    assert!(output.stderr.contains(&format!("{}  echo", short(&ids[0]))), "{output:#?}");
    assert!(
        output.stderr.ends_with(&told(
            "a confirmation is needed, and nobody can answer: End 1 session?",
            "Give --yes to go on without being asked."
        )),
        "{output:#?}"
    );
    assert_eq!(statuses(&test, &ids), ["idle", "idle", "idle", "active"]);
    test.args(["sessions", "end", "--where", "idle >= 1.hours", "--dry-run"])
        .stdout(format!("would end {}\n", short(&ids[0])))
        .run();
    assert_eq!(statuses(&test, &ids), ["idle", "idle", "idle", "active"]);
    test.args(["sessions", "end", "--where", "idle >= 1.hours", "--yes"]).stderr(ended(short(&ids[0]))).run();
    // Neither what has ended nor what is at work is meant by a condition that doesn't speak of it.
    test.args(["sessions", "end", "--where", "true", "--sort", "title", "--limit", "1", "--yes", "-q"])
        .stdout(format!("{}\n", ids[1]))
        .stderr(ended(short(&ids[1])))
        .run();
    test.args(["sessions", "end", "--where", "true", "--yes", "--select", "title"])
        .stdout("newer\n")
        .stderr(ended(short(&ids[2])))
        .run();
    test.args(["sessions", "end", "--where", "true", "--yes"]).stderr("No session fits.\n").run();
    test.args(["sessions", "end", "--agent", "slow", "--yes"]).stderr("No session fits.\n").run();
    assert_eq!(statuses(&test, &ids), ["ended", "ended", "ended", "active"]);
    test.args(["sessions", "end", "--where", "status == \"active\"", "--yes"])
        .stderr(ended(short(&ids[3])))
        .run();
    run.finish();
    assert_eq!(
        test.args(["sessions", "end", "--status", "idle", "--yes", "--json"])
            .any_stderr()
            .stdout("[]\n")
            .run()
            .status,
        0
    );
}

#[test]
fn wrong_conditions_end_nothing() {
    let (test, ids, run) = fleet();
    for words in [
        &["--where", "idle > 2"][..],
        &["--where", "stauts == \"idle\""],
        &["--where", ""],
        &["--where", "message_count > 0", "--sort", "titel"],
        &["--where", "message_count > 0", "--select", "titel"],
        &["--where", "message_count > 0", "--limit", "0"],
        &["--where", "title"],
        &["--status", "", "--where", "true"],
        &["--agent", "nobody"],
        &["--limit", "1"],
        &["--where", "true", &ids[0]],
        &[],
    ] {
        let words = ["sessions", "end", "--yes"].iter().chain(words);
        let output = test.args(words).any_stdout().any_stderr().any_status().run();
        assert!(
            matches!(output.status, 1..=3) && output.stderr.starts_with('✗') || output.stderr.contains("\n✗"),
            "{output:#?}"
        );
    }
    assert_eq!(statuses(&test, &ids), ["idle", "idle", "idle", "active"]);
    test.args(["sessions", "cancel", &ids[3]]).any_stderr().run();
    run.finish();
}

#[test]
fn on_a_terminal_it_shows_the_plan_and_asks() {
    let (test, ids, run) = fleet();
    for (answer, code, status) in [("n", 1, "idle"), ("y", 0, "ended")] {
        let command = test.args(["sessions", "end", "--where", "agent == \"echo\""]).for_terminal("xterm");
        let options = rexpect::session::Options::new()
            .timeout_ms(Some(process::PATIENCE.as_millis() as u64))
            .strip_ansi_escape_codes(true);
        let mut terminal = rexpect::session::spawn_with_options(command, options).expect("a terminal");
        terminal.exp_string("newer").expect("the plan");
        terminal.exp_string("End 3 sessions? [y/N]").expect("a question");
        assert_eq!(test.status_of(&ids[0]), "idle", "nothing before the answer");
        terminal.send_line(answer).expect("an answer");
        terminal.exp_eof().expect("the end");
        let exit = terminal.process().wait().expect("an exit");
        assert!(
            matches!(exit, rexpect::process::wait::WaitStatus::Exited(_, found) if found == code),
            "{exit:?}"
        );
        assert_eq!(test.status_of(&ids[0]), status);
    }
    assert_eq!(test.status_of(&ids[3]), "active");
    test.args(["sessions", "cancel", "--where", "true", "--yes"]).any_stderr().run();
    run.finish();
}

#[test]
fn one_that_began_to_work_after_it_was_chosen_is_left_alone() {
    let test = Test::new();
    test.deploy("slow");
    let (idle, other) = (test.begin("slow", "a"), test.begin("slow", "b"));
    // The list is looked at while both are idle; then one gets to work.
    let script = format!(
        "let found = list(#{{ status: \"idle\" }}); print(found.len); read_lines();
         let done = end(found); print(`ended ${{done.ok}}, ${{done.failed.map(|row| `${{row.id}} ${{row.error.code}}`)}}`);
         print(end(\"{idle}\").status);"
    );
    let path = test.write("chosen.rhai", &script);
    let line = format!("(while ! test -e go; do sleep 0.01; done) | superserve script {}", path.display());
    let chosen = test.shell(&line).start();
    wait_until("the list", || chosen.stdout() == "2\n");
    let run = test.args(["sessions", "send", &idle, "wait"]).start();
    wait_until("the run to begin", || test.status_of(&idle) == "active");
    test.write("go", "");
    let output = chosen.finish();
    assert_eq!(output.stdout, format!("2\nended 1, [\"{idle} busy\"]\nended\n"));
    assert_eq!(statuses(&test, &[idle, other]), ["ended", "ended"]);
    run.finish();
}

#[test]
fn forgetting_and_cancelling_take_conditions_too() {
    let (test, ids, run) = fleet();
    test.args(["sessions", "cancel", "--agent", "echo", "--yes"]).stderr("No session fits.\n").run();
    test.args(["sessions", "delete", "--agent", "echo", "--yes"]).stderr("No session fits.\n").run();
    test.args(["sessions", "cancel", "--status", "active"])
        .stderr_part("Cancel the runs of 1 session?")
        .status(2)
        .run();
    test.args(["sessions", "cancel", "--status", "active", "--yes"])
        .stderr(format!("✓ Session {} cancelled (status: IDLE)\n", short(&ids[3])))
        .run();
    run.finish();
    test.args(["sessions", "end", "--where", "true", "--yes"]).any_stderr().run();
    test.args(["sessions", "delete", "--where", "title == \"old\""])
        .stderr_part("Delete 1 session?")
        .status(2)
        .run();
    test.args([
        "sessions",
        "delete",
        "--where",
        "agent == \"echo\"",
        "--sort",
        "title",
        "--limit",
        "2",
        "--yes",
    ])
    .stderr(format!("✓ Session {} deleted\n✓ Session {} deleted\n", short(&ids[1]), short(&ids[2])))
    .run();
    let left = test.json(["sessions", "list", "--json=id", "--sort", "title"]);
    assert_eq!(left.as_array().map(Vec::len), Some(2), "{left}");
    test.args(["sessions", "delete", "--status", "ended", "--dry-run"]).stdout_part("would delete").run();
}

/// Sessions whose agents take their time to leave.
fn stubborn(count: usize) -> (Test, Vec<String>) {
    let test = Test::new();
    test.deploy(
        test.agent(
            "stubborn",
            "trap '' TERM\nwhile IFS= read -r line; do echo \"$line\"; done\nsleep 1000\n",
        ),
    );
    let ids = (0..count).map(|n| test.begin("stubborn", &n.to_string())).collect();
    (test, ids)
}

#[test]
fn ctrl_c_stops_it_and_says_what_is_done() {
    let (test, ids) = stubborn(20);
    let end = test.args(["sessions", "end", "--where", "true", "--yes"]).start();
    let count = |status: &str| {
        test.json(["sessions", "list", "--status", status, "--json"]).as_array().map_or(0, Vec::len)
    };
    wait_until("the first to be ended", || count("ended") > 0);
    end.interrupt();
    let output = end.finish();
    assert_eq!(output.status, 130, "{output:#?}");
    assert!(output.stderr.starts_with("✗ interrupted; ended "), "{output:#?}");
    // Those in flight are ended still, the rest are not.
    let mut before = 0;
    wait_until("the server to have no more to end", || {
        let now = count("ended");
        let is_same = now == before && now > 0;
        before = now;
        is_same
    });
    assert!(count("idle") > 0 && count("idle") + count("ended") == ids.len());
}

#[test]
fn a_bar_shows_how_far_it_is() {
    let (test, _) = stubborn(2);
    let command = test.args(["sessions", "end", "--where", "true", "--yes"]).for_terminal("xterm");
    let options = rexpect::session::Options::new().timeout_ms(Some(process::PATIENCE.as_millis() as u64));
    let mut terminal = rexpect::session::spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("ending [").expect("a bar");
    terminal.exp_string("2/2").expect("its end");
    terminal.exp_string("ended (status: ENDED)").expect("a row");
    terminal.exp_eof().expect("the end");
    // Not where nobody sees it.
    let (test, _) = stubborn(1);
    let output = test.args(["sessions", "end", "--where", "true", "--yes"]).any_stderr().run();
    assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
}

#[test]
fn a_bar_that_a_script_leaves_is_taken_away() {
    let test = Test::new();
    let path = test.write(
        "counts.rhai",
        "let bar = progress(\"counting\", 3);\nfor n in 0..2 { sleep(400.millis); bar.step(); }\n",
    );
    let command = test.args(["script", path.to_str().unwrap()]).for_terminal("xterm");
    let options = rexpect::session::Options::new().timeout_ms(Some(process::PATIENCE.as_millis() as u64));
    let mut terminal = rexpect::session::spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("counting [").expect("a bar");
    terminal.exp_string("2/3").expect("its place");
    let rest = terminal.exp_eof().expect("the end");
    assert!(rest.contains("\u{1b}[2K"), "the line is cleared: {rest:?}");
}
