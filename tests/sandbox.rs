//! What an agent can't do. Each probe is first shown to succeed without the sandbox, so that a broken probe can't pass.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::process::{self, Process};
use crate::skipped::is_root;
use crate::test::{Test, has_namespaces, short};

/// The same agent twice, an obedient shell: without a sandbox and in one.
struct Pair {
    open: (Test, String),
    shut: (Test, String),
}

impl Pair {
    fn new() -> Self {
        let begin = |test: Test| {
            test.deploy("shell");
            let id = test.create("shell");
            (test, id)
        };
        Self { open: begin(Test::unsandboxed()), shut: begin(Test::new()) }
    }

    /// What a line of shell prints outside, and inside.
    fn probe(&self, line: &str) -> (String, String) {
        let say = |(test, id): &(Test, String)| test.send(id, line);
        (say(&self.open), say(&self.shut))
    }
}

macro_rules! pair {
    () => {{
        if !has_namespaces() {
            skip!("this machine refuses the sandbox");
        }
        Pair::new()
    }};
}

#[test]
fn the_hosts_files_are_out_of_sight() {
    let pair = pair!();
    let secret = pair.open.0.write("secret", "host-secret\n");
    let (open, shut) = pair.probe(&format!("cat {}", secret.display()));
    assert_eq!(open, "host-secret\n");
    assert!(shut.contains("No such file") && !shut.contains("host-secret"), "{shut}");
    for folder in [pair.open.0.home(), pair.open.0.work(), "/root".into(), env!("CARGO_MANIFEST_DIR").into()]
    {
        if !folder.exists() {
            continue;
        }
        let (open, shut) = pair.probe(&format!("ls -d {}", folder.display()));
        if folder.starts_with("/root") && !is_root() {
            continue;
        }
        assert_eq!(open, format!("{}\n", folder.display()));
        assert!(shut.contains("No such file"), "{}: {shut}", folder.display());
    }
    // Its own home of superserve's, too.
    let home = pair.shut.0.home();
    assert!(home.join("superserve.db").exists());
    let shut = pair.shut.0.send(&pair.shut.1, &format!("ls {}", home.display()));
    assert!(shut.contains("No such file"), "{shut}");
}

#[test]
fn the_systems_folders_are_read_only() {
    let pair = pair!();
    if !is_root() {
        skip!("only root could write there in the first place");
    }
    let mark = format!("superserve-test-{}", std::process::id());
    for folder in ["/usr", "/etc", "/bin"] {
        let (open, shut) =
            pair.probe(&format!("touch {folder}/{mark} && rm {folder}/{mark} && echo written"));
        assert_eq!(open, "written\n", "{folder}");
        assert!(!shut.contains("written"), "{folder}: {shut}");
    }
    let shut = pair.shut.0.send(&pair.shut.1, "touch /file || mkdir /folder || echo refused");
    assert!(shut.ends_with("refused\n"), "the root itself: {shut}");
}

#[test]
fn the_temporary_folder_is_its_own() {
    let pair = pair!();
    let file = tempfile::Builder::new().prefix("superserve-probe-").tempfile_in("/tmp").expect("a file");
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(file.path(), mode).expect("a mode");
    let (open, shut) = pair.probe(&format!("ls {}", file.path().display()));
    assert_eq!(open, format!("{}\n", file.path().display()));
    assert!(shut.contains("No such file"), "{shut}");
    let name = format!("/tmp/superserve-inside-{}", std::process::id());
    assert_eq!(pair.shut.0.send(&pair.shut.1, &format!("echo mine >{name}; cat {name}")), "mine\n");
    assert!(!std::path::Path::new(&name).exists());
}

#[test]
fn it_has_namespaces_of_its_own() {
    let pair = pair!();
    for name in ["user", "mnt", "pid", "ipc", "uts", "net"] {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace").display().to_string();
        let (open, shut) = pair.probe(&format!("readlink /proc/self/ns/{name}"));
        assert_eq!(open, format!("{host}\n"), "{name}");
        assert!(shut.starts_with(name) && shut.trim_end() != host, "{name}: {shut}");
    }
}

#[test]
fn the_network_is_loopback_alone() {
    let pair = pair!();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = format!(":{:04X}", listener.local_addr().expect("an address").port());
    let (open, shut) = pair.probe(&format!("grep -c '{port}' /proc/net/tcp"));
    assert_eq!(open, "1\n", "the host's listener is seen");
    assert!(shut.starts_with("0\n"), "{shut}");
    let (open, shut) = pair.probe("tail -n +3 /proc/net/dev | sed 's/:.*//; s/ //g' | sort");
    let host: String = fs::read_to_string("/proc/net/dev").expect("a list");
    assert_eq!(open.lines().count(), host.lines().count() - 2);
    assert_eq!(shut, "lo\n");
}

#[test]
fn the_hosts_network_is_there_if_the_agent_asks_for_it() {
    if !has_namespaces() {
        skip!("this machine refuses the sandbox");
    }
    let test = Test::new();
    let folder = test.agent("online", "while read -r line; do (eval \"$line\") 2>&1; done");
    test.write("online/superserve.yaml", "name: online\ncommand: sh agent.sh\nnetwork: host\n");
    test.deploy(&folder);
    let id = test.create("online");
    let host = fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    assert_eq!(test.send(&id, "readlink /proc/self/ns/net"), format!("{host}\n"));
    // The rest of the sandbox stands.
    let secret = test.write("secret", "host-secret\n");
    assert!(!test.send(&id, &format!("cat {}", secret.display())).contains("host-secret"));
    assert_eq!(test.json(["agents", "get", "online", "--json"])["network"], "host");
}

#[test]
fn other_processes_are_out_of_reach() {
    let pair = pair!();
    let pid = std::process::id();
    let (open, shut) = pair.probe(&format!("kill -0 {pid} && echo reached"));
    assert_eq!(open, "reached\n");
    assert!(!shut.contains("reached"), "{shut}");
    let (open, shut) = pair.probe("ls /proc | grep -c '^[0-9]'");
    let count = |text: &str| text.trim().parse::<u32>().expect("a number");
    assert!(count(&open) > count(&shut) && count(&shut) < 10, "{open} {shut}");
    let (open, shut) = pair.probe("cat /proc/sys/kernel/hostname");
    assert_ne!(open, shut);
}

#[test]
fn our_init_is_process_one_and_reaps() {
    let pair = pair!();
    let (test, id) = &pair.shut;
    assert!(!test.send(id, "cat /proc/1/comm").starts_with("sh\n"), "the agent itself isn't process 1");
    test.send(id, "for n in 1 2 3 4 5; do (sh -c 'sleep 0.01 &' &); done; sleep 0.3");
    let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '";
    assert!(test.send(id, zombies).starts_with("0\n"));
    assert!(test.send(id, "kill -9 1; echo alive").contains("alive"), "it can't be killed from inside");
}

#[test]
fn it_has_no_privileges_and_can_get_none() {
    let pair = pair!();
    let (test, id) = &pair.shut;
    let status = test.send(id, "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status");
    for line in status.lines() {
        let (name, value) = line.split_once(':').expect("a field");
        let expected = if name == "NoNewPrivs" { "1" } else { "0000000000000000" };
        assert_eq!(value.trim(), expected, "{name}");
    }
    assert_eq!(status.lines().count(), 6, "{status}");
    assert!(!test.send(id, "mount -t tmpfs none /tmp && echo mounted").contains("mounted"));
}

#[test]
fn every_session_of_root_has_a_host_uid_of_its_own() {
    let pair = pair!();
    if !is_root() {
        skip!("only root's sessions get uids of their own");
    }
    let (test, first) = &pair.shut;
    let second = test.create("shell");
    let mark = format!("10{}", std::process::id());
    let uid_of = |id: &str, number: u32| {
        let mark = format!("{mark}{number}.5");
        test.send(id, &format!("sleep {mark} >/dev/null 2>&1 </dev/null & echo started"));
        let found = process::wait_for("the sleeping process", || {
            process::with_argument(&format!("sleep {mark}"))
                .into_iter()
                .find(|one| one.command_line() == format!("sleep {mark}"))
        });
        found.uid().expect("a uid")
    };
    let (one, two) = (uid_of(first, 1), uid_of(&second, 2));
    assert!(one != two && one >= 65_536 && two >= 65_536, "{one} {two}");
    // Its files are its own on the host, and nobody's else.
    test.send(first, "echo x >file");
    let workspace = workspace_of(test, first);
    assert_eq!(fs::metadata(workspace.join("file")).expect("the file").uid(), one);
    // Without a sandbox it is root itself.
    let (test, id) = &pair.open;
    let open = test.send(id, "grep ^Uid /proc/self/status");
    assert!(open.starts_with("Uid:\t0\t"), "{open}");
    assert!(pair.shut.0.send(first, "grep ^Uid /proc/self/status").starts_with("Uid:\t1000\t"));
}

/// The host's folder that is a session's /workspace.
fn workspace_of(test: &Test, id: &str) -> std::path::PathBuf {
    let mut open = vec![test.home()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && path.ends_with("workspace") && path.to_string_lossy().contains(short(id)) {
                return path;
            }
            if is_folder {
                open.push(path);
            }
        }
    }
    panic!("no workspace of {id} below {}", test.home().display());
}

#[test]
fn another_sessions_files_are_out_of_sight() {
    let pair = pair!();
    let (test, first) = &pair.shut;
    let second = test.create("shell");
    test.send(first, "echo first-secret >secret; echo first-secret >$HOME/secret");
    assert!(!test.send(&second, "cat /workspace/secret $HOME/secret").contains("first-secret"));
    let reply =
        test.send(&second, "grep -rs first-secret / --exclude-dir=proc --exclude-dir=sys | head -n 3");
    assert!(!reply.contains("first-secret\n"), "{reply}");
    assert_eq!(test.send(first, "cat secret"), "first-secret\n");
}

#[test]
fn its_environment_is_built_up_from_nothing() {
    if !has_namespaces() {
        skip!("this machine refuses the sandbox");
    }
    let test = Test::new().env("HOST_SECRET", "host-secret").env("AWS_SECRET_ACCESS_KEY", "host-secret");
    test.deploy("shell");
    let id = test.create("shell");
    let environment = test.send(&id, "env");
    assert!(!environment.contains("host-secret"), "{environment}");
    assert!(!environment.contains("SUPERSERVE_HOME"), "{environment}");
    for line in [
        "SUPERSERVE=1",
        "HOME=/home/agent",
        "PWD=/workspace",
        "LANG=C.UTF-8",
        "PYTHONUNBUFFERED=1",
        &format!("SUPERSERVE_SESSION_ID={id}"),
        "SUPERSERVE_TURN=/run/superserve/turn",
        "SUPERSERVE_HISTORY=/run/superserve/history.jsonl",
    ] {
        assert!(environment.lines().any(|known| known == line), "{line}: {environment}");
    }
}

#[test]
fn descriptors_of_ours_do_not_leak() {
    let pair = pair!();
    let (test, id) = &pair.shut;
    // 0, 1, 2, and what the shell itself has open: its script and the pipe or folder that ls reads.
    let open = test.send(id, "ls -l /proc/$$/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'");
    for line in open.lines() {
        let target = line.split_once(' ').expect("a target").1;
        assert!(
            target.starts_with("pipe:") || target.starts_with("/workspace/") || target == "/dev/null",
            "{open}"
        );
    }
}

#[test]
fn killing_the_server_kills_everything_at_once() {
    let pair = pair!();
    let (test, id) = &pair.shut;
    let mark = format!("20{}.5", std::process::id());
    test.send(id, &format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo started"));
    let alive = || -> Vec<Process> { process::with_argument(&format!("sleep {mark}")) };
    assert!(!alive().is_empty());
    test.server().kill();
    process::wait_until("the agent's daemon to be gone", || alive().is_empty());
}

#[test]
fn none_counts_only_for_a_server_that_the_command_starts() {
    let test = Test::new();
    test.deploy("echo");
    let none = test.json(["server", "status", "--json"])["isolation"] == "none";
    if none {
        skip!("this machine refuses the sandbox");
    }
    test.args(["run", "echo", "hello", "--sandbox", "none"])
        .stderr_part("--sandbox none counts only for a server that this command starts")
        .stderr_part("superserve server stop")
        .status(5)
        .run();
    test.stop_server();
    test.args(["run", "echo", "hello", "--sandbox", "none"])
        .stdout("Agent > you said: hello\n")
        .any_stderr()
        .run();
    assert_eq!(test.json(["server", "status", "--json"])["isolation"], "none");
    assert_eq!(test.session("@last")["isolation"], "none");
    test.stop_server();
    test.args(["server", "start", "--sandbox", "native"]).any_stderr().run();
    assert_eq!(test.json(["server", "status", "--json"])["isolation"], "full");
    test.args(["run", "echo", "hello", "--sandbox", "paper"]).stderr_part("paper").status(2).run();
}

#[test]
fn a_machine_that_refuses_gets_a_refusal_with_the_remedy() {
    if !has_namespaces() || !is_root() || !crate::skipped::has("unshare") {
        skip!("needs root, unshare and namespaces to forbid namespaces");
    }
    let test = Test::new();
    // A user namespace in which no further one may be made: what a locked-down container looks like.
    let inside = |line: &str| {
        test.shell(&format!("unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec {line}'"))
    };
    let output = inside("superserve run ").any_stdout().any_stderr().any_status().run();
    if output.stderr.contains("unshare") || output.stderr.contains("max_user_namespaces") {
        skip!("this machine doesn't let a test forbid namespaces: {}", output.stderr.trim());
    }
    let folder = crate::test::agents().join("echo");
    for setting in ["SUPERSERVE_SANDBOX=native", "SUPERSERVE_SANDBOX_REQUIRE=full"] {
        let output = inside(&format!("env {setting} superserve run {} hello", folder.display()))
            .any_stdout()
            .any_stderr()
            .any_status()
            .run();
        assert_ne!(output.status, 0, "{output:#?}");
        assert!(!output.stdout.contains("you said"), "never unsandboxed in silence: {output:#?}");
        assert!(output.stderr.contains("refuses the sandbox"), "{output:#?}");
        assert!(output.stderr.contains("--sandbox none"), "the remedy: {output:#?}");
        inside("superserve server stop").any_stderr().run();
    }
    inside("superserve server start --sandbox none").any_stderr().run();
    inside(&format!("superserve run {} hello", folder.display()))
        .stdout("Agent > you said: hello\n")
        .any_stderr()
        .run();
}

#[test]
fn a_machine_that_can_not_isolate_fully_is_told_or_refused() {
    if !has_namespaces() || !is_root() || !crate::skipped::has("unshare") {
        skip!("needs root, unshare and namespaces to forbid namespaces");
    }
    let test = Test::new();
    let inside = |line: &str| {
        test.shell(&format!("unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec {line}'"))
    };
    let checks = inside("superserve doctor --json").any_stdout().any_stderr().any_status().run();
    let checks: serde_json::Value = match serde_json::from_str(&checks.stdout) {
        Ok(checks) => checks,
        Err(_) => skip!("this machine doesn't let a test forbid namespaces: {}", checks.stderr.trim()),
    };
    let check = |name: &str| checks.as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(check("native")["state"], "warn", "{checks:#}");
    assert!(check("native")["hint"].as_str().unwrap().contains("user.max_user_namespaces"), "{checks:#}");
    if check("landlock")["state"] != "ok" {
        skip!("this kernel has no Landlock");
    }
    assert_eq!(check("isolation")["detail"], "reduced (landlock)", "{checks:#}");
    let doctor = inside("env SUPERSERVE_SANDBOX_REQUIRE=full superserve doctor").any_stdout().status(1).run();
    assert!(doctor.stdout.starts_with("✗ isolation   refused by this machine\n"), "{}", doctor.stdout);

    let folder = crate::test::agents().join("echo");
    let output = inside(&format!("superserve run --single {} hello", folder.display()))
        .stdout_part("you said: hello")
        .any_stderr()
        .run();
    let warnings: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("! ")).collect();
    assert_eq!(
        warnings,
        [
            "! Agents run with reduced isolation: this machine refuses the sandbox: user namespace: No space left on device (os error 28)"
        ]
    );
    assert_eq!(test.session("@last")["isolation"], "reduced");
    let status = test.json(["server", "status", "--json"]);
    assert_eq!(
        (&status["isolation"], &status["sandbox"]),
        (&"reduced".into(), &"landlock".into()),
        "{status:#}"
    );
    assert!(status["sandbox_error"].as_str().unwrap().contains("user.max_user_namespaces"), "{status:#}");
    test.args(["sessions", "get", "@last"]).stdout_part("Isolation    reduced").run();
}

#[test]
fn a_weaker_kind_may_be_chosen() {
    let test = Test::new();
    let started = test.args(["server", "start", "--sandbox", "landlock"]).any_stderr().any_status().run();
    if started.status != 0 || test.json(["server", "status", "--json"])["isolation"].is_null() {
        skip!("this kernel has no Landlock: {}", started.stderr.trim());
    }
    let echo = crate::test::agents().join("echo").display().to_string();
    test.args(["run", "--single", &echo, "hello"]).stdout_part("you said: hello").any_stderr().run();
    assert_eq!(test.session("@last")["isolation"], "reduced");
    for kind in ["native", "none"] {
        test.args(["run", &echo, "hello", "--sandbox", kind])
            .stderr_part("counts only for a server that this command starts")
            .status(5)
            .run();
    }
}
