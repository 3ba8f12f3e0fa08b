//! `superserve sessions attach`: a run seen from a second terminal.

use rexpect::session::{Options, spawn_with_options};

use crate::command::Running;
use crate::process::{PATIENCE, wait_until};
use crate::test::{Test, short, started, told};

/// Says `begun`, and the rest when the file that the message names is there.
const STEPS: &str = "while read -r line; do
    echo begun
    until [ -e \"$line\" ]; do sleep 0.02; done
    echo \"$line is there\"
done\n";

const LEAVES: &str = "Ctrl-C leaves, and the run goes on.\n\n";

/// A run that waits for the file `go`; the command and the session's whole ID.
fn begun(test: &Test) -> (Running, String) {
    test.deploy(test.agent("steps", STEPS));
    let run = test.args(["run", "steps", "go", "--single", "--json"]).start();
    wait_until("the reply to begin", || run.stdout().contains("begun"));
    let id = started(&run.stdout()).expect("run.started");
    (run, id)
}

/// Puts the file into the session's workspace for which its agent waits.
fn lets_go(test: &Test, id: &str, name: &str) {
    test.write(name, "");
    test.args(["sessions", "files", id, "put", name]).any_stdout().any_stderr().run();
}

/// Whether somebody reads the events of a session's run.
fn is_read(test: &Test, id: &str) -> bool {
    test.requests().iter().any(|request| request.contains(&format!("/sessions/{id}/events")))
}

#[test]
fn a_run_is_seen_from_its_first_word_to_its_last() {
    let test = Test::new();
    let (run, id) = begun(&test);
    let attached = test.args(["sessions", "attach", short(&id)]).start();
    wait_until("what was said before", || attached.stdout() == "Agent > begun");
    lets_go(&test, &id, "go");
    let output = attached.finish();
    assert_eq!((output.status, output.stdout.as_str()), (0, "Agent > begun\ngo is there\n"));
    assert_eq!(output.stderr, format!("Attached: \"go\" (steps). {LEAVES}You > go\n\n\nCompleted in TIME\n"));
    assert_eq!(run.finish().status, 0);
}

#[test]
fn events_come_as_the_run_that_began_prints_them() {
    let test = Test::new();
    let (run, id) = begun(&test);
    let attached = test.args(["sessions", "attach", "@last", "--json"]).start();
    wait_until("the first events", || attached.stdout().contains("begun"));
    lets_go(&test, &id, "go");
    let (attached, run) = (attached.finish(), run.finish());
    assert_eq!((attached.stdout, attached.stderr.as_str()), (run.stdout, ""));
}

#[test]
fn tools_are_shown_as_a_run_shows_them() {
    let test = Test::new();
    test.deploy("frames");
    let id = test.create("frames");
    let attached = test.args(["sessions", "attach", &id, "--follow"]).start();
    wait_until("the watch", || test.requests().iter().any(|request| request.contains("/watch")));
    test.send(&id, "hi");
    wait_until("the reply", || attached.stderr().contains("Completed in"));
    test.args(["sessions", "end", &id]).any_stderr().run();
    let output = attached.finish();
    assert_eq!(output.stdout, "Agent > you said: hi\n\nand more\n");
    assert_eq!(
        output.stderr,
        format!(
            "Attached: Untitled (frames). {LEAVES}You > hi\n\n[tool] cat notes.txt (TIME)\n\nCompleted in TIME\nSession {} has ended\n",
            short(&id)
        )
    );
}

#[test]
fn without_a_run_it_says_so() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let short = short(&id);
    test.args(["sessions", "attach", &id])
        .stderr(format!(
            "Session {short} is idle: there is no run to follow. Wait for the next one with: superserve sessions attach {short} --follow\n"
        ))
        .run();
    let pending = test.create("echo");
    test.args(["sessions", "attach", &pending]).stderr_part(" is pending: there is no run").run();
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.args(["sessions", "attach", &id])
        .stderr(told(
            &format!("Session {short} has ended: there is nothing to follow"),
            &format!("superserve sessions messages {short} shows what was said."),
        ))
        .status(5)
        .run();
    test.args(["sessions", "attach", "zzzz"]).stderr_part("no session matches 'zzzz'").status(3).run();
}

#[test]
fn the_exit_code_is_the_runs() {
    let test = Test::new();
    test.deploy(
        test.agent("breaks", "while read -r line; do until [ -e go ]; do sleep 0.02; done; exit 3; done\n"),
    );
    let run = test.args(["run", "breaks", "go", "--single", "--json"]).start();
    wait_until("the run", || started(&run.stdout()).is_some());
    let id = started(&run.stdout()).expect("run.started");
    let attached = test.args(["sessions", "attach", &id]).start();
    wait_until("the reader", || is_read(&test, &id));
    lets_go(&test, &id, "go");
    let (attached, run) = (attached.finish(), run.finish());
    assert_eq!((attached.status, run.status), (7, 7), "{attached:#?}");
    assert!(attached.stderr.contains("✗ "), "{attached:#?}");
}

#[test]
fn a_run_that_takes_too_long_is_124_here_too() {
    let test = Test::new().env("SUPERSERVE_TURN_TIMEOUT", "2s");
    let (run, id) = begun(&test);
    let attached = test.args(["sessions", "attach", &id]).any_stdout().any_stderr().any_status().run();
    assert_eq!((attached.status, run.finish().status), (124, 124), "{attached:#?}");
}

#[test]
fn leaving_cancels_nothing() {
    let test = Test::new();
    let (run, id) = begun(&test);
    for follow in [false, true] {
        let words = ["sessions", "attach", &id, "--follow"];
        let attached = test.args(&words[..if follow { 4 } else { 3 }]).start();
        wait_until("what was said before", || attached.stdout() == "Agent > begun");
        attached.interrupt();
        let output = attached.finish();
        assert_eq!((output.status, output.stdout.as_str()), (130, "Agent > begun\n"));
        let left = format!("Left session {}; what runs there goes on.\n", short(&id));
        assert_eq!(output.stderr, format!("Attached: \"go\" (steps). {LEAVES}You > go\n\n{left}"));
        assert_eq!(test.status_of(&id), "active");
    }
    lets_go(&test, &id, "go");
    let output = run.finish();
    assert!(output.stdout.contains("go is there"), "{output:#?}");
}

#[test]
fn ctrl_c_on_a_terminal_leaves() {
    let test = Test::new();
    let (run, id) = begun(&test);
    let command = test.args(["sessions", "attach", &id]).for_terminal("xterm");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("Agent > begun").expect("the reply");
    terminal.send_control('c').expect("Ctrl-C");
    terminal.exp_string(&format!("\nLeft session {}; what runs there goes on.", short(&id))).expect("a word");
    terminal.exp_eof().expect("the end");
    assert_eq!(test.status_of(&id), "active");
    lets_go(&test, &id, "go");
    run.finish();
}

#[test]
fn follows_every_run_until_the_session_ends() {
    let test = Test::new();
    test.deploy("crash");
    let id = test.create("crash");
    let attached = test.args(["sessions", "attach", &id, "--follow"]).start();
    wait_until("the watch", || test.requests().iter().any(|request| request.contains("/watch")));
    for n in 1..=3 {
        test.args(["sessions", "send", &id, &format!("message {n}")])
            .any_stdout()
            .any_stderr()
            .any_status()
            .run();
        wait_until("its reply", || attached.stderr().matches("Completed in").count() == n);
    }
    test.args(["sessions", "send", &id, "break"]).any_stdout().any_stderr().status(7).run();
    wait_until("the failure", || attached.stderr().contains("✗ "));
    test.args(["sessions", "end", &id]).any_stderr().run();
    let output = attached.finish();
    assert_eq!(output.status, 0, "{output:#?}");
    assert_eq!(
        output.stdout,
        "Agent > fine: message 1\nAgent > fine: message 2\nAgent > fine: message 3\nAgent > half a reply\n"
    );
    let completed: String =
        (1..=3).map(|n| format!("You > message {n}\n\n\nCompleted in TIME\n\n")).collect();
    let failed = "✗ The agent exited with code 3: last line of trouble\n  first line of trouble\n  last line of trouble\n";
    let ended = format!("Session {} has ended\n", short(&id));
    assert_eq!(
        output.stderr,
        format!("Attached: Untitled (crash). {LEAVES}{completed}You > break\n\n{failed}{ended}")
    );
}

#[test]
fn scripts_attach_too() {
    let test = Test::new();
    let (run, id) = begun(&test);
    lets_go(&test, &id, "go");
    run.finish();
    let second = test.args(["run", "steps", "go", "--single", "--json"]).start();
    wait_until("the reply to begin", || second.stdout().contains("begun"));
    let other = started(&second.stdout()).expect("run.started");
    let attached = test.args(["eval", &format!("get(\"{other}\").attach(); get(\"{id}\").attach()")]).start();
    wait_until("the reply", || attached.stdout().contains("begun"));
    lets_go(&test, &other, "go");
    let output = attached.finish();
    assert_eq!(output.stdout, "Agent > begun\ngo is there\n");
    assert!(output.stderr.contains(&format!("Session {} is idle", short(&id))), "{output:#?}");
    second.finish();
    test.args(["eval", &format!("get(\"{id}\").attach(#{{ folow: true }})")])
        .stderr_part("Did you mean `follow`?")
        .status(1)
        .run();
}
