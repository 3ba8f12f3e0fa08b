//! The four scripts of the page that users read: as they stand there, with `--json` and jq, and as `superserve ops …`.

use std::time::Duration;

use crate::process::wait_until;
use crate::skipped::has;
use crate::test::{Test, ended, short};

/// Sessions of two agents, a minute between them.
fn fleet() -> (Test, Vec<String>) {
    let test = Test::new();
    for name in ["my-agent", "other-agent"] {
        test.deploy(test.agent(name, "while IFS= read -r line; do echo \"$line\"; done\n"));
    }
    let mut ids = Vec::new();
    for (agent, prompt) in [("my-agent", "one"), ("my-agent", "two"), ("other-agent", "three")] {
        ids.push(test.begin(agent, prompt));
        test.pass(Duration::from_secs(60));
    }
    (test, ids)
}

#[test]
fn resume_last_as_on_the_page() {
    if !has("jq") {
        skip!("jq is not on this machine");
    }
    let (test, ids) = fleet();
    let script = "LAST_SESSION=$(superserve sessions list --agent my-agent --json | jq -r '.[0].id')\n\
                  superserve sessions resume $LAST_SESSION";
    test.shell(script)
        .stdin("hello\n")
        .stdout("Agent > hello\n")
        .stderr("Resumed: \"two\" (my-agent)\n\n\nCompleted in TIME\n")
        .run();
    assert_eq!(test.session(&ids[1])["message_count"], 2);
}

#[test]
fn resume_last() {
    let (test, ids) = fleet();
    test.args(["ops", "resume-last", "--agent", "my-agent"])
        .stdin("hello\n")
        .stdout("Agent > hello\n")
        .stderr("Resumed: \"two\" (my-agent)\n\n\nCompleted in TIME\n")
        .run();
    assert_eq!(test.session(&ids[1])["message_count"], 2);
    test.args(["sessions", "end", &ids[1]]).any_stderr().run();
    test.args(["ops", "resume-last"]).stdin("").stderr("Resumed: \"three\" (other-agent)\n\n").run();
    test.args(["ops", "resume-last", "--agent", "nobody"]).any_stderr().status(3).run();
    Test::new().args(["ops", "resume-last"]).stderr_part("No sessions found").status(3).run();
}

#[test]
fn end_idle_as_on_the_page() {
    if !has("jq") {
        skip!("jq is not on this machine");
    }
    let (test, ids) = fleet();
    let script = "superserve sessions list --status idle --json | jq -r '.[].id' | while read sid; do\n  \
                  superserve sessions end $sid\ndone";
    let told: String = ids.iter().rev().map(|id| ended(short(id))).collect();
    test.shell(script).stderr(told).run();
    assert_eq!(
        test.json(["sessions", "list", "--status", "idle", "--json"]).as_array().map(Vec::len),
        Some(0)
    );
}

#[test]
fn end_idle() {
    let (test, ids) = fleet();
    let (run, active) = {
        test.deploy("slow");
        test.wait_in("slow")
    };
    // It chooses what to act on: it asks, and where nobody can answer it ends nothing.
    test.args(["ops", "end-idle"]).any_stdout().stderr_part("--yes").status(2).run();
    assert_eq!(test.status_of(&ids[0]), "idle");
    test.args(["ops", "end-idle", "--agent", "other-agent", "--yes"])
        .stdout("ended 1, failed 0\n")
        .any_stderr()
        .run();
    assert_eq!((test.status_of(&ids[2]), test.status_of(&ids[0])), ("ended".into(), "idle".into()));
    // The first one has been idle for three minutes, the second for two.
    test.args(["ops", "end-idle", "--over", "150s", "--yes"])
        .stdout("ended 1, failed 0\n")
        .any_stderr()
        .run();
    assert_eq!((test.status_of(&ids[0]), test.status_of(&ids[1])), ("ended".into(), "idle".into()));
    test.args(["ops", "end-idle"]).stderr_part("nobody can answer: End 1 idle session?\n").status(2).run();
    test.args(["ops", "end-idle", "--yes"]).stdout("ended 1, failed 0\n").any_stderr().run();
    test.args(["ops", "end-idle", "--yes"]).stderr("No idle sessions.\n").run();
    assert_eq!(test.status_of(&active), "active", "what works is left alone");
    test.args(["sessions", "end", &active]).any_stderr().run();
    run.finish();
}

#[test]
fn prune() {
    let (test, ids) = fleet();
    let plan = format!(
        "2 sessions to end (all but the last 1)\n  {}  my-agent  two  idle  not among the last 1\n  {}  my-agent  one  idle  \
         not among the last 1\n",
        short(&ids[1]),
        short(&ids[0]),
    );
    test.args(["ops", "prune", "--keep", "1", "--dry-run"])
        .stdout(format!("would end {}\nwould end {}\n", short(&ids[1]), short(&ids[0])))
        .stderr(&plan)
        .run();
    test.args(["ops", "prune", "--keep", "1"])
        .stderr_part("nobody can answer: End 2 sessions?\n")
        .status(2)
        .run();
    assert_eq!(test.status_of(&ids[0]), "idle");
    // The first one has been idle for three minutes, the second for two.
    test.args(["ops", "prune", "--keep", "1", "--older-than", "150s", "--yes"])
        .stdout("ended 1, failed 0\n")
        .any_stderr()
        .run();
    assert_eq!((test.status_of(&ids[0]), test.status_of(&ids[1])), ("ended".into(), "idle".into()));
    test.args(["ops", "prune", "--keep", "1", "--per-agent", "--yes"]).stderr("No sessions to end.\n").run();
    test.args(["ops", "prune", "--keep", "0", "--agent", "my-agent", "--dry-run"])
        .stdout(format!("would end {}\n", short(&ids[1])))
        .any_stderr()
        .run();
    test.args(["ops", "prune"]).stderr_part("Give --keep, --older-than or both.").status(2).run();
    Test::new().args(["ops", "prune", "--keep", "1"]).stderr("No sessions to end.\n").run();
}

#[test]
fn report() {
    let (test, _) = fleet();
    let bar = "█".repeat(50);
    test.args(["ops", "report"])
        .stdout(format!(
            "3 sessions, 3 messages\n\nStatus\nidle  3  {bar}\n\nAgent\nmy-agent     2  {bar}\nother-agent  1  {}\n\n\
             Idle\nunder 1 hour     3  {bar}\n1 hour to 1 day  0\n1 to 7 days      0\n7 to 30 days     0\nover 30 days     \
             0\n",
            "█".repeat(25)
        ))
        .run();
    test.args(["ops", "report", "--agent", "my-agent"]).stdout_part("2 sessions, 2 messages\n").run();
    Test::new().args(["ops", "report"]).stdout("0 sessions, 0 messages\n").run();
}

#[test]
fn count_messages_as_on_the_page() {
    if !has("jq") {
        skip!("jq is not on this machine");
    }
    let (test, ids) = fleet();
    test.send(&ids[0], "more");
    test.shell("superserve sessions list --json | jq '[.[].message_count] | add'").stdout("4\n").run();
}

#[test]
fn count_messages() {
    let (test, ids) = fleet();
    test.send(&ids[0], "more");
    test.args(["ops", "count-messages"]).stdout("4\n").run();
    test.args(["ops", "count-messages", "--agent", "my-agent"]).stdout("3\n").run();
    Test::new().args(["ops", "count-messages"]).stdout("0\n").run();
}

#[test]
fn list_active_as_on_the_page() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    test.shell("superserve sessions list --status active").stdout_part(short(&id)).run();
    test.args(["ops", "list-active"]).stdout_part(short(&id)).stdout_part("ACTIVE").run();
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    wait_until("the run to end", || test.status_of(&id) == "idle");
    test.args(["ops", "list-active"]).any_stdout().stderr("No active sessions.\n").run();
    run.finish();
}

#[test]
fn a_loop_over_eighty_ends_all_eighty() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["eval", "for i in 0..80 { sessions::create(\"echo\"); }"]).run();
    test.args(["eval", "list(#{ status: \"pending\" }).end()"]).any_stdout().run();
    assert_eq!(
        test.json(["sessions", "list", "--status", "pending", "--json"]).as_array().map(Vec::len),
        Some(0)
    );
    assert_eq!(
        test.json(["sessions", "list", "--status", "ended", "--json"]).as_array().map(Vec::len),
        Some(80)
    );
}
