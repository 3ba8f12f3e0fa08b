//! Cancelling a run: Ctrl-C in the command that shows it, on a pipe and on a terminal, and `sessions cancel`.

use rexpect::session::{Options, spawn_with_options};
use serde_json::Value;

use crate::process::{PATIENCE, wait_until};
use crate::test::{Test, short};

#[test]
fn ctrl_c_cancels_the_run_and_leaves_the_session_idle() {
    let test = Test::new();
    test.deploy("slow");
    let run = test.args(["run", "slow", "wait", "--single"]).start();
    wait_until("the reply to begin", || run.stdout().contains("begun"));
    run.interrupt();
    let output = run.finish();
    assert_eq!(output.status, 130, "{output:?}");
    assert_eq!(output.stdout, "Agent > begun\n");
    let id = test.json(["sessions", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(test.status_of(&id), "idle");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    assert_eq!((&messages[1]["content"], &messages[1]["partial"]), (&"begun".into(), &true.into()));
    assert_eq!(test.send(&id, "again"), "quick: again\n", "the same agent goes on");
}

#[test]
fn ctrl_c_leaves_a_prompt_on_a_dumb_terminal_too() {
    let test = Test::new();
    test.deploy("echo");
    let command = test.args(["run", "echo"]).for_terminal("dumb");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64));
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_control('c').expect("a key");
    terminal.exp_eof().expect("the end");
    let status = terminal.process().wait().expect("an exit");
    assert!(matches!(status, rexpect::process::wait::WaitStatus::Exited(_, 130)), "{status:?}");
}

#[test]
fn ctrl_c_cancels_a_sent_message_too() {
    let test = Test::new();
    test.deploy("slow");
    let id = test.create("slow");
    let send = test.args(["sessions", "send", &id, "wait"]).start();
    wait_until("the run to begin", || test.status_of(&id) == "active");
    send.interrupt();
    assert_eq!(send.finish().status, 130);
    wait_until("the session to be idle", || test.status_of(&id) == "idle");
}

#[test]
fn an_agent_that_does_not_listen_is_stopped_and_starts_anew() {
    let test = Test::new();
    test.deploy(test.agent(
        "deaf",
        "trap '' INT\nwhile read -r line; do echo begun; [ \"$line\" = wait ] && sleep 1000; done",
    ));
    let (run, id) = test.wait_in("deaf");
    run.interrupt();
    let output = run.finish();
    assert!(output.stdout.contains("\"run.cancelled\""), "{output:?}");
    assert_eq!(test.status_of(&id), "idle");
    assert_eq!(test.send(&id, "again"), "begun\n");
}

#[test]
fn another_command_can_cancel_it() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    test.args(["sessions", "cancel", &id])
        .stderr(format!("✓ Session {} cancelled (status: IDLE)\n", short(&id)))
        .run();
    let output = run.finish();
    let last: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "run.cancelled", "{output:?}");
    assert_ne!(output.status, 0);
    test.args(["sessions", "cancel", &id]).stderr_part("has no run to cancel").run();
}

#[test]
fn frames_agents_are_told() {
    let test = Test::new();
    test.deploy("frames");
    let (run, id) = test.wait_in("frames");
    run.interrupt();
    assert!(run.finish().stdout.contains("\"run.cancelled\""));
    assert_eq!(test.send(&id, "quiet"), "\n", "the same agent goes on");
    assert!(test.send(&id, "hello").starts_with("you said: hello\n"));
}

#[test]
fn ctrl_c_on_a_terminal_cancels_and_goes_on() {
    let test = Test::new();
    test.deploy("slow");
    let command = test.args(["run", "slow"]).for_terminal("xterm");
    let mut terminal = spawn_with_options(
        command,
        Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true),
    )
    .expect("a terminal");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_line("wait").expect("a line");
    terminal.exp_string("Agent > begun").expect("a reply");
    terminal.send_control('c').expect("Ctrl-C");
    terminal.exp_string("Cancelled").expect("the word that it was cancelled");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_line("again").expect("a line");
    terminal.exp_string("Agent > quick: again").expect("a reply");
    terminal.exp_string("Completed in ").expect("its end");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_line("exit").expect("a line");
    terminal.exp_eof().expect("the end");
    let status = terminal.process().wait().expect("an exit");
    assert!(matches!(status, rexpect::process::wait::WaitStatus::Exited(_, 0)), "{status:?}");
    assert_eq!(test.json(["sessions", "list", "--json"])[0]["message_count"], 2);
}

#[test]
fn ctrl_c_and_ctrl_d_at_the_prompt_leave() {
    let test = Test::new();
    test.deploy("echo");
    for key in ['c', 'd'] {
        let command = test.args(["run", "echo"]).for_terminal("xterm");
        let mut terminal = spawn_with_options(
            command,
            Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true),
        )
        .expect("a terminal");
        terminal.exp_string("You > ").expect("a prompt");
        terminal.send_control(key).expect("a key");
        terminal.exp_eof().expect("the end");
        let status = terminal.process().wait().expect("an exit");
        assert!(matches!(status, rexpect::process::wait::WaitStatus::Exited(_, 0)), "{key}: {status:?}");
    }
}

#[test]
fn ctrl_c_stops_a_script_which_says_what_it_had_done() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let script = test.write("forever.rhai", "end(list()); print(\"ended\"); loop { }");
    let run = test.args(["script", script.to_str().unwrap()]).start();
    wait_until("the script to loop", || run.stdout().contains("ended"));
    run.interrupt();
    let output = run.finish();
    assert_eq!(output.status, 130, "{output:?}");
    assert_eq!(output.stderr, "✗ interrupted; ended 1 session\n");
    let sleeping = test.args(["eval", "print(\"asleep\"); sleep(1000.seconds)"]).start();
    wait_until("the script to sleep", || sleeping.stdout().contains("asleep"));
    sleeping.interrupt();
    assert_eq!(sleeping.finish().status, 130);
}
