//! `superserve server gc` and `server backup`: what is let go of, and what is never.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use rustix::fs::{FileType, Mode};
use serde_json::json;

use crate::test::Test;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sessions: one that ended 40 days ago, one that ended 5 days ago, one that goes on since 40 days. Their runs are as old.
fn aged(test: &Test) -> [String; 3] {
    test.deploy("files");
    let (old, on) = (test.begin("files", "keep old"), test.begin("files", "keep on"));
    test.args(["sessions", "end", &old]).any_stderr().run();
    test.pass(35 * DAY);
    let young = test.begin("files", "keep young");
    test.args(["sessions", "end", &young]).any_stderr().run();
    test.pass(5 * DAY);
    [old, young, on]
}

fn ids(test: &Test) -> Vec<String> {
    let list = test.json(["sessions", "list", "--json=id"]);
    let mut ids: Vec<String> =
        list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn sorted<const N: usize>(mut ids: [String; N]) -> [String; N] {
    ids.sort_unstable();
    ids
}

#[test]
fn what_is_past_its_time_goes_and_nothing_else() {
    let test = Test::new().env("SUPERSERVE_SESSION_EXPIRE_AFTER", "never");
    let [old, young, on] = aged(&test);
    let counted =
        test.json(["server", "gc", "--dry-run", "--json=dry_run,sessions,events,revisions,folders"]);
    let events = counted["events"].as_u64().unwrap();
    // Of each of the two runs that are older than a week all but the last event; the third run's are young.
    assert!(events >= 4, "{counted}");
    assert_eq!(
        counted,
        json!({ "dry_run": true, "sessions": 1, "events": events, "revisions": 0, "folders": 0 })
    );
    assert_eq!(ids(&test), sorted([old.clone(), young.clone(), on.clone()]), "a dry run lets nothing go");

    let freed = test.json(["server", "gc", "--json"]);
    assert_eq!((&freed["sessions"], &freed["dry_run"]), (&json!(1), &json!(false)), "{freed}");
    assert_eq!(ids(&test), sorted([young.clone(), on.clone()]));
    test.args(["sessions", "get", &old]).any_stderr().status(3).run();
    // The transcripts of the others are whole, and the one that goes on goes on.
    assert_eq!(test.json(["sessions", "messages", &young, "--json"]).as_array().map(Vec::len), Some(2));
    assert_eq!(test.json(["sessions", "messages", &on, "--json"]).as_array().map(Vec::len), Some(2));
    assert!(test.send(&on, "on").contains("there: on"));
    let again = test.json(["server", "gc", "--json=sessions,events,revisions,folders"]);
    assert_eq!(again, json!({ "sessions": 0, "events": 0, "revisions": 0, "folders": 0 }));

    test.stop_server();
    let test = test.env("SUPERSERVE_RETENTION_ENDED", "never").env("SUPERSERVE_RETENTION_EVENTS", "never");
    test.pass(400 * DAY);
    let kept = test.json(["server", "gc", "--json=sessions,events"]);
    assert_eq!(kept, json!({ "sessions": 0, "events": 0 }));
    assert_eq!(ids(&test), sorted([young, on]));
}

#[test]
fn code_and_folders_that_nobody_needs_go() {
    let test = Test::new();
    let id = test.deploy("echo");
    let session = test.begin("echo", "hello");
    let agent = test.home().join("agents").join(&id);
    let stray = test.home().join("sessions").join(format!("ses_{}", "a".repeat(32)));
    let other = test.home().join("sessions/notes-of-mine");
    for folder in [&agent.join("7"), &stray, &other] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
    }
    let output = test.args(["server", "gc", "--dry-run"]).any_stderr().any_stdout().run();
    assert_eq!(output.stderr, "Nothing is let go of: this is what would be.\n");
    assert!(output.stdout.contains("Revisions  1\nFolders    1\n"), "{}", output.stdout);
    assert!(agent.join("7").exists() && stray.exists());
    let output = test.args(["server", "gc"]).any_stdout().run();
    assert!(output.stdout.contains("Sessions   0 (ended over 30 days ago)\n"), "{}", output.stdout);
    assert!(!agent.join("7").exists() && !stray.exists());
    assert!(
        agent.join("1/src").exists() && other.join("file").exists(),
        "what is in use, or not ours, stays"
    );
    assert_eq!(test.send(&session, "again"), "you said: again\n");
}

#[test]
fn a_backup_makes_a_home() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "keep me");
    let file = test.work().join("backup.tar.gz");
    let output = test.args(["server", "backup", file.to_str().unwrap()]).any_stderr().run();
    assert!(output.stderr.starts_with(&format!("✓ Backup written to {} (", file.display())), "{output:#?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_dir(test.home().join("aside")).unwrap().next().is_none(), "nothing is left of it");
    // What is made later isn't in it.
    test.begin("echo", "too late");

    let other = Test::new();
    fs::create_dir_all(other.home()).unwrap();
    let line = format!("tar xzf '{}' -C '{}'", file.display(), other.home().display());
    other.shell(&line).run();
    assert_eq!(ids(&other), std::slice::from_ref(&id));
    assert_eq!(other.json(["sessions", "messages", &id, "--json"])[0]["content"], "keep me");
    assert_eq!(other.send(&id, "again"), "you said: again\n");
    other.args(["run", "echo", "new", "--single"]).stdout("Agent > you said: new\n").any_stderr().run();

    test.args(["server", "backup", "--dry-run", "elsewhere"]).stderr("would write elsewhere\n").run();
    test.args(["server", "backup", "no-such-folder/file"])
        .stderr_part("✗ cannot write no-such-folder/file: ")
        .status(2)
        .run();
}

#[test]
fn a_backup_goes_through_a_pipe_and_replaces_nothing_but_files() {
    let test = Test::new();
    test.deploy("echo");
    let listed = test.shell("superserve server backup - | tar tz").any_stderr().any_stdout().run();
    assert!(listed.stdout.contains("superserve.db"), "{listed:#?}");
    assert!(!listed.stderr.contains("written"), "{listed:#?}");
    let pipe = test.work().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    test.args(["server", "backup", "pipe"])
        .stderr(
            "✗ cannot write pipe: it is no file\n  Name a file in a folder that you may write, or - for stdout.\n",
        )
        .status(2)
        .run();
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    // A link leads to its file, and stays one.
    test.write("kept.tar.gz", "");
    std::os::unix::fs::symlink(test.work().join("kept.tar.gz"), test.work().join("latest")).unwrap();
    for _ in 0..2 {
        test.args(["server", "backup", "latest"]).any_stderr().run();
        assert!(fs::symlink_metadata(test.work().join("latest")).unwrap().is_symlink());
        assert!(fs::metadata(test.work().join("kept.tar.gz")).unwrap().len() > 1000);
    }
}
