//! `superserve sessions resume`: the workspace and the history are where they were.

use std::time::Duration;

use rexpect::session::{Options, spawn_with_options};

use crate::process::{PATIENCE, wait_until};
use crate::test::{Test, told};

#[test]
fn shows_what_the_page_shows() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "What is the capital of France?");
    test.args(["sessions", "resume", &id[4..12]])
        .stdin("What about Germany?\nexit\n")
        .stdout("Agent > you said: What about Germany?\n")
        .stderr("Resumed: \"What is the capital of France?\" (echo)\n\n\nCompleted in TIME\n")
        .run();
    assert_eq!(test.session(&id)["message_count"], 2);
}

#[test]
fn leaves_at_the_end_of_its_input() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    for input in ["", "exit\n", "\n\n"] {
        test.args(["sessions", "resume", &id]).stdin(input).stderr("Resumed: \"hello\" (echo)\n\n").run();
    }
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn a_session_without_a_title_is_untitled() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.create("echo");
    test.args(["sessions", "resume", &id]).stdin("").stderr("Resumed: Untitled (echo)\n\n").run();
}

#[test]
fn finds_the_workspace_and_the_history_after_the_server_has_stopped() {
    let test = Test::new();
    test.deploy("files");
    test.deploy("history");
    let (files, history) = (test.begin("files", "keep it"), test.begin("history", "first"));
    assert_eq!(test.send(&files, "it"), "there: it\nthere: it\nthere: it\n");
    test.stop_server();
    // /workspace and $HOME last, /tmp does not.
    assert_eq!(test.send(&files, "it"), "there: it\nthere: it\nnot there\n");
    test.args(["sessions", "resume", &history])
        .stdin("second\n")
        .stdout("Agent > resumed, lines: 2\n- first\n")
        .any_stderr()
        .run();
}

#[test]
fn finds_them_after_the_server_was_killed() {
    let test = Test::new();
    test.deploy("files");
    test.deploy("history");
    let (files, history) = (test.begin("files", "keep it"), test.begin("history", "first"));
    test.kill_server();
    assert_eq!(test.status_of(&files), "idle", "nothing was going on, so nothing has failed");
    assert_eq!(test.send(&files, "it"), "there: it\nthere: it\nnot there\n");
    assert_eq!(test.send(&history, "second"), "resumed, lines: 2\n- first\n");
}

#[test]
fn a_run_that_the_servers_death_interrupted_has_failed_and_can_be_resumed() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    test.server().kill();
    let output = run.finish();
    assert_ne!(output.status, 0, "{output:?}");
    wait_until("the run to be known as failed", || test.status_of(&id) == "failed");
    let messages = test.json(["sessions", "messages", &id, "--json"]);
    assert_eq!(messages[1]["content"], "begun", "what was said is kept");
    assert_eq!(messages[1]["partial"], true);
    assert_eq!(test.send(&id, "again"), "quick: again\n");
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn a_running_turn_gets_its_time_when_the_server_stops_or_is_told() {
    let test = Test::new();
    test.deploy(test.agent("steady", "while read -r line; do echo begun; sleep 1; echo done; done"));
    let run = test.args(["run", "steady", "go", "--single"]).start();
    wait_until("the reply to begin", || run.stdout().contains("begun"));
    test.stop_server();
    let output = run.finish();
    assert_eq!((output.status, output.stdout.as_str()), (0, "Agent > begun\ndone\n"), "{output:?}");
}

#[test]
fn an_expired_session_says_so() {
    let test = Test::new();
    test.deploy("files");
    let id = test.begin("files", "keep it");
    test.pass(Duration::from_secs(24 * 3600 + 60));
    // Expiry that was due while no server ran happens before the next one listens.
    test.stop_server();
    let refused = told(
        "Session has expired. Start a new one with: superserve run <agent>",
        "Start a new one with: superserve run files",
    );
    test.args(["sessions", "resume", &id]).stderr(&refused).status(5).run();
    test.args(["sessions", "send", &id, "it"]).stderr(&refused).status(5).run();
    let session = test.session(&id);
    assert_eq!(
        (session["status"].as_str(), session["end_reason"].as_str()),
        (Some("ended"), Some("expired"))
    );
}

#[test]
fn activity_puts_the_expiry_off() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    for _ in 0..3 {
        test.pass(Duration::from_secs(23 * 3600));
        test.send(&id, "still here");
    }
    test.stop_server();
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn a_busy_session_says_so() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    test.args(["sessions", "send", &id, "hello"]).stderr_part("✗ Session is busy").status(5).run();
    let output = test.args(["sessions", "resume", &id, "--json"]).any_stderr().status(5).run();
    assert_eq!(output.error()["code"], "busy");
    test.args(["sessions", "end", &id]).any_stderr().run();
    run.finish();
}

#[test]
fn on_a_terminal_it_is_the_dialogue_of_the_page() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "What is the capital of France?");
    let command = test.args(["sessions", "resume", &id[4..12]]).for_terminal("xterm");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    let before = terminal.exp_string("You > ").expect("a prompt");
    assert_eq!(before.replace('\r', ""), "Resumed: \"What is the capital of France?\" (echo)\n\n");
    terminal.send_line("What about Germany?").expect("a line");
    terminal.exp_string("Agent > you said: What about Germany?").expect("a reply");
    let between = terminal.exp_string("Completed in ").expect("its end");
    assert_eq!(between.replace('\r', ""), "\n\n", "a blank line between");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_line("").expect("an empty line");
    terminal.exp_eof().expect("the end");
    assert_eq!(test.session(&id)["message_count"], 2);
}

#[test]
fn a_server_that_has_gone_while_the_user_thought_is_started_again() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let command = test.args(["sessions", "resume", &id]).for_terminal("xterm");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("You > ").expect("a prompt");
    test.stop_server();
    terminal.send_line("still there?").expect("a line");
    terminal.exp_string("Agent > you said: still there?").expect("the reply");
    terminal.exp_string("You > ").expect("a prompt");
    terminal.send_control('d').expect("Ctrl-D");
    terminal.exp_eof().expect("the end");
}
