//! `superserve sessions end`: the process tree is gone and the workspace wiped when it answers.

use std::fs;
use std::path::Path;

use crate::process;
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
    test.args(["sessions", "end"]).stderr_part("superserve sessions end").status(2).run();
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
