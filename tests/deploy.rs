//! `superserve deploy`.

use crate::test::{Test, agents};

/// An agent that lists its files.
const LISTS: &str = "while read -r line; do find . -type f | LC_ALL=C sort; done\n";

#[test]
fn a_folder_with_its_yaml() {
    let test = Test::new();
    let folder = test.agent("mine", LISTS);
    test.args(["deploy", "--dir", "mine"]).stderr("Deployed mine (revision 1)\n").run();
    test.args(["deploy", "--dir", folder.to_str().unwrap(), "-y"])
        .stderr("✓ Agent mine is up to date (revision 1)\n")
        .run();
    test.write("mine/more.txt", "more");
    test.args(["deploy", "--dir", "mine"]).stderr("Deployed mine (revision 2)\n").run();
    let id = test.json(["agents", "get", "mine", "--json"])["id"].clone();
    test.write("mine/more.txt", "even more");
    let agent = test.json(["deploy", "--dir", "mine", "--json"]);
    assert_eq!((&agent["id"], &agent["revision"]), (&id, &3.into()));
}

#[test]
fn the_current_folder_if_none_is_named() {
    let test = Test::new();
    test.write("superserve.yaml", "name: here\ncommand: sh agent.sh\n");
    test.write("agent.sh", LISTS);
    test.args(["deploy"]).stderr("Deployed here (revision 1)\n").run();
    assert_eq!(test.send(&test.create("here"), "go"), "./agent.sh\n./superserve.yaml\n");
}

#[test]
fn a_script_under_a_name() {
    let test = Test::new();
    test.write("agent.sh", LISTS);
    test.args(["deploy", "agent.sh", "--name", "named"]).stderr("Deployed named (revision 1)\n").run();
    assert_eq!(test.send(&test.create("named"), "go"), "./agent.sh\n");
}

#[test]
fn the_name_is_the_folders_if_none_is_given() {
    let test = Test::new();
    test.write("My_Agent 2/superserve.yaml", "command: sh agent.sh\n");
    test.write("My_Agent 2/agent.sh", LISTS);
    test.args(["deploy", "--dir", "My_Agent 2"]).stderr("Deployed my-agent-2 (revision 1)\n").run();
}

#[test]
fn secrets_and_what_is_made_again_are_never_packed() {
    let test = Test::new();
    let folder = test.agent("mine", LISTS);
    for path in [
        ".git/config",
        ".env",
        ".env.local",
        "node_modules/a.js",
        "sub/.venv/b",
        "sub/.env",
        "a.log",
        "kept/.hidden",
    ] {
        test.write(&format!("mine/{path}"), "x");
    }
    std::fs::write(folder.join("superserve.yaml"), "name: mine\ncommand: sh agent.sh\nignore: ['*.log']\n")
        .unwrap();
    test.deploy(&folder);
    let id = test.create("mine");
    assert_eq!(test.send(&id, "go"), "./agent.sh\n./kept/.hidden\n./superserve.yaml\n");
}

#[test]
fn what_can_not_be_packed_is_named() {
    let test = Test::new();
    test.args(["deploy", "--dir", "nowhere"]).stderr_part("nowhere").status(3).run();
    test.args(["deploy", "nothing.sh"]).stderr_part("nothing.sh").status(3).run();
    test.args(["run", "./nowhere", "hello"]).stderr_part("nowhere").status(3).run();
    std::fs::create_dir(test.work().join("empty")).unwrap();
    test.args(["deploy", "--dir", "empty"]).stderr_part("no command").status(2).run();
    test.write("broken/superserve.yaml", "name: [unclosed\n");
    test.args(["deploy", "--dir", "broken"]).stderr_part("superserve.yaml").status(2).run();
    test.write("slip/superserve.yaml", "name: slip\ncommand: sh a.sh\nnetwrok: host\n");
    test.args(["deploy", "--dir", "slip"]).stderr_part("unknown key 'netwrok'").status(2).run();
    test.write("comments/superserve.yaml", "# nothing yet\n");
    test.args(["deploy", "--dir", "comments"]).stderr_part("no command for the agent").status(2).run();
    test.write("wrong/superserve.yaml", "name: wrong\ncommand: sh a.sh\nnetwork: everything\n");
    test.args(["deploy", "--dir", "wrong"]).stderr_part("network").status(2).run();
}

#[test]
fn bad_names_are_refused() {
    let test = Test::new();
    let folder = agents().join("echo");
    for name in ["Echo", "1echo", "-echo", "e_cho", "e cho", "é", "", &"x".repeat(64), "../etc"] {
        let output = test
            .args(["deploy", "--dir", folder.to_str().unwrap(), "--name", name])
            .stderr_part("✗ ")
            .any_status()
            .run();
        assert_eq!(output.status, 2, "{name}: {output:?}");
    }
    let name = "x".repeat(63);
    test.args(["deploy", "--dir", folder.to_str().unwrap(), "--name", &name]).any_stderr().run();
    assert_eq!(test.json(["agents", "list", "--json"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn links_and_modes_arrive() {
    let test = Test::new();
    let folder = test.agent("mine", "while read -r line; do ./tool; readlink link; cat link; done\n");
    let tool = test.write("mine/tool", "#!/bin/sh\necho tool runs\n");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    test.write("mine/target", "target\n");
    std::os::unix::fs::symlink("target", folder.join("link")).unwrap();
    test.deploy(&folder);
    assert_eq!(test.send(&test.create("mine"), "go"), "tool runs\ntarget\ntarget\n");
}

#[test]
fn limits_are_taken_and_shown() {
    let test = Test::new();
    let folder = test.agent("mine", LISTS);
    let yaml = |limits: &str| {
        test.write("mine/superserve.yaml", &format!("name: mine\ncommand: sh agent.sh\nlimits: {limits}\n"));
    };
    yaml(
        "{run: 10m, turns: 3, reply: 64KiB, processes: 20, memory: 1.5GiB, open_files: 64, file_size: 1MiB, workspace: 2MiB, files: 100, tmp: 1MiB}",
    );
    test.deploy(&folder);
    assert_eq!(
        test.json(["agents", "get", "mine", "--json"])["limits"],
        serde_json::json!({
            "run": 600, "turns": 3, "reply": 65_536, "processes": 20, "memory": 1_610_612_736, "open_files": 64,
            "file_size": 1_048_576, "workspace": 2_097_152, "files": 100, "tmp": 1_048_576,
        })
    );
    test.args(["agents", "get", "mine"]).stdout_part("run 10m, turns 3, reply 64 KiB, processes 20").run();
    test.args(["eval", "agents::get(\"mine\").limits.tmp"]).stdout("1048576\n").run();
    yaml("{}");
    test.args(["deploy", "--dir", "mine"]).stderr("Deployed mine (revision 2)\n").run();
    assert_eq!(test.json(["agents", "get", "mine", "--json"])["limits"], serde_json::Value::Null);
}

#[test]
fn limits_that_make_no_sense_are_named() {
    let test = Test::new();
    test.agent("mine", LISTS);
    for (limits, part) in [
        ("{memory: 0}", "limits.memory is 0 B, but must be at least 16 MiB"),
        ("{processes: 0}", "limits.processes is 0, but must be at least 1"),
        ("{run: 0s}", "limits.run is 0s, but must be at least 1s"),
        ("{memory: much}", "limits.memory: 'much' is not a size such as"),
        ("{run: soon}", "limits.run: 'soon' is not a time such as"),
        ("{turns: -1}", "limits.turns: "),
        ("{files: many}", "limits.files: "),
        ("{cpu: 1}", "limits.cpu: unknown field"),
        ("12", "limits must be keys with values"),
    ] {
        test.write("mine/superserve.yaml", &format!("name: mine\ncommand: sh agent.sh\nlimits: {limits}\n"));
        test.args(["deploy", "--dir", "mine"]).stderr_part(part).status(2).run();
    }
    test.args(["agents", "list", "--json"]).stdout("[]\n").any_stderr().run();
}
