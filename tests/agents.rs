//! `superserve agents list|get|delete`.

use rexpect::process::wait::WaitStatus;
use rexpect::session::{Options, spawn_with_options};
use serde_json::json;

use crate::process::PATIENCE;
use crate::test::{Test, told};

const NOT_FOUND_HINT: &str =
    "Run superserve agents list to see your agents, or superserve deploy to add one.";

#[test]
fn are_listed() {
    let test = Test::new();
    test.args(["agents", "list"]).stderr_part("superserve deploy").run();
    test.args(["agents", "list", "--json"]).stdout("[]\n").any_stderr().run();
    let echo = test.deploy("echo");
    test.deploy("oneshot");
    let list = test.json(["agents", "list", "--json"]);
    let mut names: Vec<&str> =
        list.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["echo", "oneshot"]);
    let output = test.args(["agents", "list"]).stdout_part(&echo).stdout_part("sh agent.sh").run();
    assert_eq!(output.stdout.lines().count(), 3);
}

#[test]
fn are_shown_by_name_and_by_id() {
    let test = Test::new();
    let id = test.deploy("echo");
    let agent = test.json(["agents", "get", "echo", "--json"]);
    assert_eq!(agent, test.json(["agents", "get", &id, "--json"]));
    assert_eq!(agent["id"], id.as_str());
    assert_eq!((&agent["name"], &agent["command"]), (&json!("echo"), &json!("sh agent.sh")));
    assert_eq!((&agent["required_secrets"], &agent["environment_keys"]), (&json!([]), &json!([])));
    assert_eq!((&agent["deps_status"], &agent["deps_error"]), (&json!("none"), &json!(null)));
    assert_eq!((&agent["created_at"], &agent["revision"]), (&json!("2026-03-09T10:15:00Z"), &json!(1)));
    test.args(["agents", "get", "echo"]).stdout_part(&id).stdout_part("sh agent.sh").run();
}

#[test]
fn an_unknown_one_is_not_found() {
    let test = Test::new();
    for command in [["agents", "get", "nobody"], ["agents", "delete", "nobody"]] {
        test.args(command)
            .stderr(told("Agent not found: no agent is called 'nobody'", NOT_FOUND_HINT))
            .status(3)
            .run();
    }
}

#[test]
fn deleting_one_ends_its_sessions() {
    let test = Test::new();
    test.deploy("echo");
    test.deploy("files");
    let (id, other) = (test.begin("echo", "hello"), test.begin("files", "hello"));
    // Where nobody can answer, nothing is deleted and nothing hangs.
    test.args(["agents", "delete", "echo"]).stderr_part("--yes").status(2).run();
    assert_eq!(test.status_of(&id), "idle");
    test.args(["agents", "delete", "echo", "--yes"]).stderr_part("✓ Agent echo deleted").run();
    let session = test.session(&id);
    assert_eq!((&session["status"], &session["end_reason"]), (&json!("ended"), &json!("agent_deleted")));
    assert_eq!(session["agent_name"], "echo", "the session still knows whose it was");
    assert_eq!(test.status_of(&other), "idle");
    test.args(["agents", "get", "echo"]).any_stderr().status(3).run();
    test.args(["run", "echo", "hello"]).stderr_part("✗ Agent not found").status(3).run();
    // The name is free again, for another agent.
    test.deploy("echo");
    test.begin("echo", "hello");
}

#[test]
fn on_a_terminal_it_asks_before_it_deletes() {
    let test = Test::new();
    test.deploy("echo");
    for (answer, code) in [("n", 1), ("", 1), ("y", 0)] {
        let command = test.args(["agents", "delete", "echo"]).for_terminal("xterm");
        let options =
            Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
        let mut terminal = spawn_with_options(command, options).expect("a terminal");
        terminal.exp_string("Delete echo and end its open sessions (0)?").expect("a question");
        assert_eq!(
            test.json(["agents", "list", "--json"]).as_array().map(Vec::len),
            Some(1),
            "nothing before the answer"
        );
        terminal.send_line(answer).expect("an answer");
        terminal.exp_eof().expect("the end");
        let status = terminal.process().wait().expect("an exit");
        assert!(matches!(status, WaitStatus::Exited(_, exit) if exit == code), "{answer}: {status:?}");
    }
    test.args(["agents", "list", "--json"]).stdout("[]\n").any_stderr().run();
}

#[test]
fn agents_are_listed_by_how_far_their_dependencies_are() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.json(["agents", "get", "echo", "--json"])["id"].as_str().unwrap().to_owned();
    test.args(["agents", "list"])
        .stdout(format!("Name  ID                Revision  Command      Updated\necho  {id}  1         sh agent.sh  Just now\n"))
        .run();
    // Asked for, it is shown whatever it is.
    for status in ["none", "NONE"] {
        test.args(["agents", "list", "--status", status])
            .stdout(format!(
                "Name  ID                Revision  Command      Updated   Dependencies\necho  {id}  1         sh agent.sh  Just now  none\n"
            ))
            .run();
    }
    test.args(["agents", "list", "--status", "building"])
        .stderr("No agent's dependencies are so far: building\n")
        .run();
    test.args(["agents", "list", "--status", "building", "--json"])
        .stdout("[]\n")
        .stderr("No agent's dependencies are so far: building\n")
        .run();
    assert_eq!(test.json(["agents", "list", "--status", "none", "--json"])[0]["deps_status"], "none");
    test.args(["agents", "list", "--status", "well"])
        .stderr(told(
            "unknown status 'well'",
            "Use none, building, ready or failed: how far an agent's dependencies are.",
        ))
        .status(2)
        .run();
    test.args(["eval", "agents::list(#{ status: [\"none\", \"ready\"] }).len"]).stdout("1\n").run();
}
