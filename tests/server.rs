//! The local server: it starts itself, is one a home, tells of itself, and goes when nobody needs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::process::{self, Process, wait_until};
use crate::test::{BEGIN, NO_SESSIONS, Test, agents};

#[test]
fn status_starts_nothing() {
    let test = Test::new();
    test.args(["server", "status", "--json"]).stdout("{\n  \"running\": false\n}\n").run();
    test.args(["server", "status"])
        .stderr("No server is running. Any command that needs one starts it.\n")
        .run();
    assert!(process::of_home(&test.home()).is_empty());
    test.args(["server", "stop"]).stderr("No server is running.\n").run();
    test.args(["server", "logs"]).stderr_part("There is no log yet").run();
}

#[test]
fn commands_that_need_none_start_none() {
    let test = Test::new();
    for command in [
        &["--version"][..],
        &["--help"],
        &["sessions", "list", "--help"],
        &["scripts", "list"],
        &["scripts", "show", "run"],
        &["completions", "bash"],
        &["eval", "40+2"],
    ] {
        test.args(command).any_stdout().run();
    }
    assert!(process::of_home(&test.home()).is_empty());
}

#[test]
fn status_tells_what_runs() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let ended = test.begin("echo", "hello");
    test.args(["sessions", "end", &ended]).any_stderr().run();
    let info = test.json(["server", "status", "--json"]);
    assert_eq!(info["running"], true);
    assert_eq!(info["sessions"], 1);
    assert_eq!(info["home"], test.home().to_str().unwrap());
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["started_at"], "2026-03-09T10:15:00Z");
    let socket = info["socket"].as_str().unwrap();
    assert!(socket.starts_with(test.home().to_str().unwrap()), "{socket}");
    test.args(["server", "status"])
        .stdout_part(&format!("PID          {}\n", info["pid"]))
        .stdout_part("Started      Just now (2026-03-09 10:15:00 UTC)\n")
        .run();
}

#[test]
fn start_and_stop_say_so_and_may_be_said_twice() {
    let test = Test::new();
    let first = test.args(["server", "start"]).stderr_part("✓ Server started (pid ").run();
    let pid = test.server().pid;
    assert_eq!(first.stderr, format!("✓ Server started (pid {pid})\n"));
    test.args(["server", "start"]).stderr(format!("✓ Server runs already (pid {pid})\n")).run();
    let server = test.server();
    test.args(["server", "stop"]).stderr(format!("✓ Server stopped (pid {pid})\n")).run();
    assert!(!server.is_alive(), "it is gone when stop answers");
    test.args(["server", "stop"]).stderr("No server is running.\n").run();
    test.args(["server", "logs"]).stdout_part("listening on ").run();
    test.args(["server", "logs", "-n", "1"]).stdout_part("stopped").run();
    for lines in ["1", "2"] {
        let output = test.args(["server", "logs", "-n", lines]).any_stdout().run();
        assert_eq!(output.stdout.lines().count().to_string(), lines, "{output:#?}");
    }
    let output = test.args(["server", "logs", "--lines", "0"]).run();
    assert_eq!(output.stdout, "");
}

#[test]
fn ten_commands_at_once_start_one() {
    let test = Test::new();
    let folder = agents().join("echo");
    let runs: Vec<_> = (0..10)
        .map(|n| test.args(["run", folder.to_str().unwrap(), &format!("message {n}"), "--single"]).start())
        .collect();
    for (n, run) in runs.into_iter().enumerate() {
        let output = run.finish();
        assert_eq!(
            (output.status, output.stdout.as_str()),
            (0, format!("Agent > you said: message {n}\n").as_str()),
            "{output:#?}"
        );
    }
    let server = test.server();
    let servers = process::of_home(&test.home())
        .into_iter()
        .filter(|one| one.command_line().contains("__server"))
        .count();
    assert_eq!(servers, 1);
    let log = fs::read_to_string(test.home().join("server.log")).unwrap();
    assert_eq!(log.matches("listening on").count(), 1, "{log}");
    assert_eq!(test.json(["sessions", "list", "--json"]).as_array().map(Vec::len), Some(10));
    assert_eq!(test.json(["agents", "list", "--json"]).as_array().map(Vec::len), Some(1));
    assert!(server.is_alive());
}

#[test]
fn a_second_one_on_a_home_is_refused() {
    let test = Test::new();
    test.args(["server", "start"]).any_stderr().run();
    let pid = test.server().pid;
    test.args(["serve"])
        .stderr_part("✗ A server runs already on ")
        .stderr_part(&format!("(pid {pid})"))
        .status(5)
        .run();
    let other = test.work().join("other.sock");
    test.args(["serve", "--socket", other.to_str().unwrap()])
        .stderr_part("A server runs already")
        .status(5)
        .run();
    assert_eq!(test.server().pid, pid);
}

#[test]
fn serves_in_the_foreground_until_a_signal() {
    let test = Test::new();
    let mut serve = test.args(["serve"]).start();
    wait_until("the server to listen", || test.json(["server", "status", "--json"])["running"] == true);
    test.deploy("echo");
    test.begin("echo", "hello");
    assert!(serve.is_running());
    let agents = process::of_home(&test.home()).len();
    assert!(agents > 1, "the server and what it has started");
    serve.interrupt();
    assert_eq!(serve.finish().status, 0);
    wait_until("all of its processes to be gone", || process::of_home(&test.home()).is_empty());
}

#[test]
fn listens_where_it_is_told() {
    let test = Test::new();
    let socket = test.work().join("sub/other.sock");
    let serve = test.args(["serve", "--socket", socket.to_str().unwrap()]).start();
    wait_until("the socket to be there", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // The home's commands find it there.
    assert_eq!(test.json(["server", "status", "--json"])["socket"], socket.to_str().unwrap());
    test.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
    serve.signal(rustix::process::Signal::TERM);
    assert_eq!(serve.finish().status, 0);
    assert!(!socket.exists(), "its socket goes with it");
}

#[test]
fn one_that_listens_elsewhere_is_stopped_too() {
    let test = Test::new();
    let socket = test.work().join("other.sock");
    let serve = test.args(["serve", "--socket", socket.to_str().unwrap()]).start();
    wait_until("the server to listen", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    test.args(["server", "stop"]).stderr_part("✓ Server stopped (pid ").run();
    assert!(process::of_home(&test.home()).is_empty(), "it is gone when the command answers");
    assert_eq!(serve.finish().status, 0);
}

#[test]
fn nobody_else_may_come_near_its_files() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let mode = |path: &str| fs::metadata(test.home().join(path)).unwrap().permissions().mode() & 0o777;
    let socket = test.json(["server", "status", "--json"])["socket"].as_str().unwrap().to_owned();
    let folder = std::path::Path::new(&socket).parent().unwrap();
    assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!((mode(""), mode("superserve.db"), mode("server.log") & 0o077), (0o700, 0o600, 0));
}

#[test]
fn a_home_with_a_long_path_works() {
    let test = Test::new();
    let home = test.work().join("a folder with a long name and spaces/".repeat(5)).join("home");
    fs::create_dir_all(&home).unwrap();
    let test = test.env("SUPERSERVE_HOME", home.to_str().unwrap());
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    assert_eq!(test.send(&id, "again"), "you said: again\n");
    assert_eq!(test.json(["server", "status", "--json"])["home"], home.to_str().unwrap());
    test.kill_server();
    assert_eq!(test.send(&id, "again"), "you said: again\n");
}

#[test]
fn two_homes_know_nothing_of_each_other() {
    let (one, two) = (Test::new(), Test::new());
    one.deploy("echo");
    one.begin("echo", "hello");
    assert_eq!(two.json(["sessions", "list", "--json"]).as_array().map(Vec::len), Some(0));
    assert_ne!(one.server().pid, two.server().pid);
}

#[test]
fn leaves_when_nobody_needs_it() {
    let test = Test::new().env("SUPERSERVE_SERVER_IDLE_EXIT", "300ms");
    test.args(["server", "start"]).any_stderr().run();
    wait_until("the server to leave", || process::of_home(&test.home()).is_empty());
    test.args(["server", "logs"]).stdout_part("stopping: idle").run();
}

#[test]
fn stays_for_a_run_that_goes_on() {
    let test = Test::new().env("SUPERSERVE_SERVER_IDLE_EXIT", "700ms");
    test.deploy(test.agent("steady", "read -r line; echo begun; sleep 2; echo done"));
    let output =
        test.args(["run", "steady", "go", "--single"]).stdout("Agent > begun\ndone\n").any_stderr().run();
    assert_eq!(output.status, 0);
    wait_until("the server to leave after it", || process::of_home(&test.home()).is_empty());
}

#[test]
fn keeps_nothing_of_the_terminal_that_started_it() {
    let test = Test::new();
    // `whole` in the builder fails if somebody holds the command's output open.
    test.args(["sessions", "list"]).any_stderr().run();
    let server = test.server();
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{}/fd/{number}", server.pid)).unwrap();
        let target = target.to_str().unwrap();
        assert!(target == "/dev/null" || target.ends_with("server.log"), "{number}: {target}");
    }
    let folder = fs::read_link(format!("/proc/{}/cwd", server.pid)).unwrap();
    assert!(!folder.starts_with(test.work()), "it holds no folder of the user's: {}", folder.display());
    assert_ne!(session_of(&server), session_of(&Process::find(std::process::id() as i32).unwrap()));
}

/// The terminal session that a process belongs to.
fn session_of(process: &Process) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn one_that_was_killed_leaves_no_agent_behind() {
    let test = Test::new();
    test.deploy("daemons");
    let mark = format!("killed-{}", std::process::id());
    test.begin("daemons", &mark);
    assert!(process::with_argument(&mark).len() >= 4);
    test.server().kill();
    wait_until("every agent and its daemons to be gone", || process::with_argument(&mark).is_empty());
}

#[test]
fn the_clock_that_tests_fix_is_the_servers_too() {
    let test = Test::new();
    test.set_clock(BEGIN + 86_400_000);
    test.args(["server", "start"]).any_stderr().run();
    assert_eq!(test.json(["server", "status", "--json"])["started_at"], "2026-03-10T10:15:00Z");
}
