//! `limits` of an agent: what its sessions may take.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::wait_until;
use crate::test::{Test, has_namespaces};

const SHELL: &str = include_str!("agents/shell/agent.sh");

/// Deploys an obedient shell with these limits, and begins a session of it.
fn limited(test: &Test, limits: &str) -> String {
    let folder = test.agent("limited", SHELL);
    let yaml = format!("name: limited\ncommand: sh agent.sh\nnetwork: none\nlimits: {limits}\n");
    test.write("limited/superserve.yaml", &yaml);
    test.deploy(&folder);
    test.create("limited")
}

/// Why the run that this message makes fails.
fn failure(test: &Test, id: &str, message: &str) -> String {
    let output =
        test.args(["sessions", "send", id, message, "--json"]).any_stdout().any_stderr().status(7).run();
    output.error()["message"].as_str().expect("a message").to_owned()
}

/// The code and the message with which the first run of a new session fails.
fn failure_of_first(test: &Test, agent: &str, message: &str) -> (String, String) {
    let run = test.args(["run", agent, message, "--single", "--json"]);
    let output = run.any_stdout().any_stderr().any_status().run();
    let last = output.stdout.lines().last().unwrap_or_default();
    let event: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(event["type"], "run.failed", "{output:?}");
    let error = &event["data"]["error"];
    (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

/// What /proc/self/limits says of one of them: soft and hard.
fn limit(text: &str, name: &str) -> Vec<String> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

#[test]
fn the_kernel_holds_them() {
    let read = "cat /proc/self/limits";
    let test = Test::new();
    let id = limited(&test, "{}");
    let text = test.send(&id, read);
    assert_eq!(limit(&text, "Max open files"), ["1024", "4096"]);
    assert_eq!(limit(&text, "Max core file size"), ["0", "0"]);
    assert_eq!(limit(&text, "Max data size"), [(2_u64 << 30).to_string(), (2_u64 << 30).to_string()]);
    assert_eq!(limit(&text, "Max file size"), [(10_u64 << 30).to_string(), (10_u64 << 30).to_string()]);
    if has_namespaces() {
        assert_eq!(limit(&text, "Max processes"), ["257", "257"], "the init is one");
        assert!(test.send(&id, "df -k /tmp | tail -n 1").contains(" 262144 "));
    }

    let given = "{processes: 20, memory: 64MiB, open_files: 50, file_size: 1MiB, tmp: 2MiB}";
    for test in [Test::new(), Test::unsandboxed()] {
        let id = limited(&test, given);
        let text = test.send(&id, read);
        assert_eq!(limit(&text, "Max open files"), ["50", "50"]);
        assert_eq!(limit(&text, "Max data size"), ["67108864", "67108864"]);
        assert_eq!(limit(&text, "Max file size"), ["1048576", "1048576"]);
        let isolated = test.json(["server", "status", "--json"])["isolation"] == "full";
        assert_eq!(limit(&text, "Max processes") == ["21", "21"], isolated);
        let reply = test.send(&id, "head -c 2000000 /dev/zero >large; stat -c %s large; rm large");
        assert!(reply.contains("1048576\n"), "{reply}");
    }
}

#[test]
fn a_session_keeps_those_of_its_revision() {
    let test = Test::new();
    let id = limited(&test, "{open_files: 50}");
    assert_eq!(test.send(&id, "ulimit -n"), "50\n");
    let fresh = limited(&test, "{open_files: 60}");
    test.stop_server();
    assert_eq!(test.send(&id, "ulimit -n"), "50\n");
    assert_eq!(test.send(&fresh, "ulimit -n"), "60\n");
}

#[test]
fn a_workspace_that_outgrows_its_limit_ends_the_turn() {
    let test = Test::new();
    let id = limited(&test, "{workspace: 2MiB, files: 50, file_size: 10MiB}");
    assert_eq!(test.send(&id, "head -c 1000000 /dev/zero >first; echo fits"), "fits\n");
    let message = failure(&test, &id, "head -c 3000000 /dev/zero >second; echo done");
    assert!(message.starts_with("The workspace holds 3.8 MiB, and its limit is 2 MiB"), "{message}");
    let session = test.session(&id);
    assert_eq!(session["status"], "failed");
    assert!(session["error"].as_str().is_some_and(|error| error.contains("its limit is 2 MiB")), "{session}");
    // A turn that tidies up is a good one.
    assert_eq!(test.send(&id, "rm second; echo tidy"), "tidy\n");
    let message = failure(&test, &id, "for n in $(seq 60); do : >$HOME/$n; done");
    assert!(message.contains("more than 50 files and folders"), "{message}");
    assert_eq!(test.send(&id, "rm $HOME/*; echo tidy"), "tidy\n");
}

#[test]
fn a_workspace_that_grows_without_end_ends_a_turn_that_would_not() {
    let test = Test::new();
    limited(&test, "{workspace: 2MiB}");
    let line = "mkdir -p deep/er; while :; do head -c 200000 /dev/zero >deep/er/$((n=n+1)); sleep 0.3; done";
    let (code, message) = failure_of_first(&test, "limited", line);
    assert_eq!(code, "workspace_limit");
    assert!(message.ends_with("its limit is 2 MiB: the agent was stopped"), "{message}");
    assert_eq!(
        test.json(["sessions", "list", "--status", "failed", "--json"]).as_array().map(Vec::len),
        Some(1)
    );
    wait_until("nobody to write any more", || {
        crate::process::of_home(&test.home()).iter().all(|one| !one.command_line().contains("agent.sh"))
    });
}

/// The groups that the server of this home may have made.
fn groups(home: &Path) -> Vec<PathBuf> {
    let home = fs::metadata(home).unwrap();
    let name = format!("superserve-{:x}-{:x}", home.dev(), home.ino());
    let (mut open, mut found) = (vec![PathBuf::from("/sys/fs/cgroup")], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == name {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

#[test]
fn memory_and_processes_are_bound_together_where_there_are_control_groups() {
    let test = Test::new();
    let id = limited(&test, "{memory: 64MiB, processes: 20}");
    assert_eq!(test.send(&id, "echo begun"), "begun\n");
    let found = groups(&test.home());
    if found.is_empty() {
        skip!("no control groups can be made here");
    }
    let sessions = |group: &PathBuf| {
        let entries = fs::read_dir(group).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count()
    };
    assert!(found.iter().all(|group| sessions(group) == 1), "{found:?}");
    // The shell itself is replaced by what takes too much: shared memory, which counts for no process alone.
    let bomb = "exec /usr/bin/python3 -c 'import mmap\nm = mmap.mmap(-1, 300_000_000)\nfor at in range(0, len(m), 4096): m[at] = 1\n'";
    let fresh = test.create("limited");
    let script = test.write("bomb/agent.sh", &format!("read -r line\n{bomb}\n"));
    test.write(
        "bomb/superserve.yaml",
        "name: bomb\ncommand: sh agent.sh\nnetwork: none\nlimits: {memory: 64MiB}\n",
    );
    test.deploy(script.parent().unwrap());
    let (code, message) = failure_of_first(&test, "bomb", "go");
    assert_eq!((&*code, &*message), ("out_of_memory", "The agent ran out of memory (64 MiB)"));
    assert_eq!(test.send(&fresh, "echo unhurt"), "unhurt\n");
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.args(["sessions", "end", &fresh]).any_stderr().run();
    assert!(groups(&test.home()).iter().all(|group| sessions(group) == 0), "gone with their sessions");
    // Those of a server that was killed are removed by the next, and the last is removed with the server.
    let again = test.create("limited");
    assert_eq!(test.send(&again, "echo again"), "again\n");
    test.kill_server();
    assert!(!groups(&test.home()).is_empty());
    test.args(["server", "start"]).any_stderr().run();
    assert!(groups(&test.home()).iter().all(|group| sessions(group) == 0));
    test.stop_server();
    wait_until("the server's groups to be gone", || groups(&test.home()).is_empty());
}
