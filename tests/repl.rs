//! `superserve repl`, fed by a pipe and on a terminal.

use rexpect::session::{Options, spawn_with_options};

use crate::process::PATIENCE;
use crate::test::Test;

#[test]
fn piped_lines_are_run_one_by_one() {
    let test = Test::new();
    test.args(["repl"])
        .stdin("let x = 40;\nx + 2\nfn twice(n) { n * 2 }\ntwice(x)\n")
        .stdout("42\n80\n")
        .run();
    test.args(["repl"]).stdin("").run();
    test.args(["repl"]).stdin("\n\n  \n1").stdout("1\n").run();
}

#[test]
fn a_line_may_be_many() {
    let test = Test::new();
    test.args(["repl"])
        .stdin("let total = 0;\nfor n in 1..4 {\n    total += n;\n}\ntotal\n`a\nb`\n")
        .stdout("6\na\nb\n")
        .run();
}

#[test]
fn an_error_is_told_and_the_next_line_is_run() {
    let test = Test::new();
    let output =
        test.args(["repl"]).stdin("1 +\n+ ;\nnothing\n42\n").any_stdout().any_stderr().status(1).run();
    assert!(output.stdout.ends_with("42\n"), "{output:#?}");
    assert!(output.stderr.contains("✗ "), "{output:#?}");
}

#[test]
fn exit_leaves_with_its_code() {
    let test = Test::new();
    test.args(["repl"]).stdin("1\nexit(5)\n2\n").stdout("1\n").status(5).run();
}

#[test]
fn it_reaches_the_sessions() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let table = test.args(["sessions", "list"]).any_stdout().run().stdout;
    test.args(["repl"]).stdin("let all = list();\nall.len\nall\n").stdout(format!("1\n{table}")).run();
    test.args(["repl", "--json"]).stdin("list().len\n").stdout("1\n").run();
}

#[test]
fn on_a_terminal_it_has_a_prompt() {
    let test = Test::new();
    let command = test.args(["repl"]).for_terminal("xterm");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("> ").expect("a prompt");
    terminal.send_line("40 + 2").expect("a line");
    terminal.exp_string("42").expect("its value");
    terminal.exp_string("> ").expect("a prompt");
    terminal.send_control('d').expect("Ctrl-D");
    terminal.exp_eof().expect("the end");
    let status = terminal.process().wait().expect("an exit");
    assert!(matches!(status, rexpect::process::wait::WaitStatus::Exited(_, 0)), "{status:?}");
}

#[test]
fn a_server_that_has_gone_between_two_lines_is_started_again() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let command = test.args(["repl"]).for_terminal("xterm");
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(command, options).expect("a terminal");
    terminal.exp_string("> ").expect("a prompt");
    for line in
        ["let all = list(); `first ${all.len}.`", "`second ${list().len}, ${all[0].refresh().status}.`"]
    {
        terminal.send_line(line).expect("a line");
        terminal.exp_regex(r"first 1\.|second 1, idle\.").expect("its value");
        terminal.exp_string("> ").expect("a prompt");
        test.stop_server();
    }
    terminal.send_control('d').expect("Ctrl-D");
    terminal.exp_eof().expect("the end");
}
