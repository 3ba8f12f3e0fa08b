//! `superserve repl`, fed by a pipe and on a terminal.

use std::os::unix::fs::PermissionsExt;

use rexpect::process::wait::WaitStatus;
use rexpect::session::{Options, PtySession, spawn_with_options};

use crate::command::Command;
use crate::process::PATIENCE;
use crate::test::{Test, short};

/// A REPL on a terminal of its own.
struct OnTerminal(PtySession);

impl OnTerminal {
    /// As people see it, without colours.
    fn plain(command: Command<'_>) -> Self {
        Self::start(command.for_terminal("xterm"), true)
    }

    /// As the terminal gets it.
    fn raw(command: std::process::Command) -> Self {
        Self::start(command, false)
    }

    fn start(command: std::process::Command, strip: bool) -> Self {
        let options =
            Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(strip);
        let mut terminal = Self(spawn_with_options(command, options).expect("a terminal"));
        terminal.sees("exit() to leave.");
        terminal.sees("> ");
        terminal
    }

    /// Waits for this text; what stood before it.
    #[track_caller]
    fn sees(&mut self, text: &str) -> String {
        self.0.exp_string(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[track_caller]
    fn types(&mut self, text: &str) {
        self.0.send(text).expect("a terminal");
        self.0.flush().expect("a terminal");
    }

    /// Types a line, and waits for what it prints and the next prompt.
    #[track_caller]
    fn line(&mut self, line: &str, printed: &str) {
        self.types(&format!("{line}\r"));
        self.sees(&format!("\n{printed}"));
        self.sees("> ");
    }

    /// Types this and Tab, and Tab again until it is completed: a server that is too busy to answer at once is not
    /// waited for.
    #[track_caller]
    fn completes(&mut self, text: &str, completed: &str) {
        self.types(text);
        loop {
            self.types("\t");
            let (_, seen) = self.0.exp_regex(&format!("\u{7}|{completed}")).expect("a bell or a completion");
            if seen != "\u{7}" {
                return;
            }
        }
    }

    #[track_caller]
    fn leaves(mut self) {
        self.0.send_control('d').expect("Ctrl-D");
        self.0.exp_eof().expect("the end");
        let status = self.0.process().wait().expect("an exit");
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}

fn history(test: &Test) -> String {
    std::fs::read_to_string(test.home().join("history")).unwrap_or_default()
}

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
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    for line in ["for n in 1..3 {\r", "print(`row ${n * 7}`);\r"] {
        terminal.types(line);
    }
    terminal.line("}", "row 7\r\nrow 14\r\n");
    terminal.leaves();
    assert!(history(&test).contains("for n in 1..3 {\\nprint("), "one entry: {}", history(&test));
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
    test.args(["repl"]).stdin("1\n:quit\n2\n").stdout("1\n").run();
    test.args(["repl"]).stdin("nope\n:quit\n").stderr_part("nope").status(1).run();
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
fn results_are_tables() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let (id, table) = (short(&id), test.args(["sessions", "list"]).any_stdout().run().stdout);
    for expression in [
        "list()",
        "sessions::each()",
        "sessions::each().filter(|s| s.message_count == 1 || false)",
        "sessions::each().to_list()",
        "[list()[0]]",
        "list().to_array()",
    ] {
        test.args(["eval", expression]).stdout(&table).run();
        test.args(["repl"]).stdin(format!("{expression}\n")).stdout(&table).run();
    }
    for (expression, printed) in [
        ("list().group_by(\"agent\")", format!("echo (1)\n{table}")),
        ("list().map(\"[short_id, message_count]\")", format!("{id}  1\n")),
        ("[#{ a: 1, b: \"x\" }, #{ a: 22 }]", "a   b\n1   x\n22\n".to_owned()),
        ("sessions::each().map(\"title\")", "hello\n".to_owned()),
        ("sessions::each().map(|s| #{ id: s.short_id })", format!("id\n{id}\n")),
        ("get(\"@last\").send(\"again\")", "you said: again\n".to_owned()),
        ("[]", "[]\n".to_owned()),
        ("#{}", "{}\n".to_owned()),
        ("|n| n", "a function\n".to_owned()),
        ("list().count_by(\"agent\")", "{\n  \"echo\": 1\n}\n".to_owned()),
    ] {
        test.args(["eval", expression]).stdout(&printed).run();
    }
    for (expression, told) in [
        ("list(#{ status: \"failed\" })", "No sessions.\n"),
        ("sessions::each().filter(\"status == \\\"failed\\\"\")", "No sessions.\n"),
        ("end([])", "Nothing was ended.\n"),
    ] {
        test.args(["eval", expression]).stderr(told).run();
        test.args(["eval", expression, "--json"]).stdout("[]\n").run();
    }
    let json = test.args(["eval", "list()", "--json"]).any_stdout().run().stdout;
    test.args(["eval", "sessions::each()", "--json"]).stdout(&json).run();
    test.args(["eval", "list().end()"]).stdout_part("true").run();
}

#[test]
fn on_a_terminal_it_has_a_prompt() {
    let test = Test::new();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.line("40 + 2", "42");
    terminal.line("_ * 2", "84");
    terminal.leaves();
}

#[test]
fn a_server_that_has_gone_between_two_lines_is_started_again() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.line("let all = list(); `first ${all.len}.`", "first 1.");
    test.stop_server();
    terminal.line("`second ${list().len}, ${all[0].refresh().status}.`", "second 1, idle.");
    test.stop_server();
    terminal.leaves();
}

#[test]
fn tab_completes_functions_fields_agents_and_sessions() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.types("lis\t).le\t");
    terminal.line("", "1");
    terminal.types("list()[0].mess\t");
    // `message_count` and `messages()` have so much in common, and are shown.
    terminal.sees("message_count");
    terminal.sees("messages()");
    terminal.types("_c\t");
    terminal.line("", "1");
    terminal.completes("agents::get(\"ec", "echo");
    terminal.types(").rev\t");
    terminal.line("", "1");
    terminal.completes(&format!("get(\"{}", &short(&id)[..6]), short(&id));
    terminal.types(").tit\t");
    terminal.line("", "hello");
    terminal.types("get(\"");
    terminal.types("\t");
    // Shown with their agents and titles.
    terminal.sees(&format!("{}  echo  hello", short(&id)));
    terminal.types("@la\t");
    terminal.types("\").short_id\r");
    terminal.sees(&format!("\n{}", short(&id)));
    terminal.sees("> ");
    terminal.types(":ty\t_\r");
    terminal.sees("\nString, text");
    terminal.sees("> ");
    terminal.leaves();
}

#[test]
fn completing_starts_no_server() {
    let test = Test::new();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.types("agents::get(\"\t\t");
    terminal.0.send_control('c').expect("Ctrl-C");
    terminal.sees("\n");
    terminal.sees("> ");
    terminal.line("1", "1");
    assert_eq!(test.json(["server", "status", "--json"])["running"], false);
    terminal.leaves();
}

#[test]
fn code_is_coloured_where_colours_are_wanted() {
    let test = Test::new();
    let typed = "let x = list";
    let mut terminal = OnTerminal::raw(test.args(["repl", "--color", "always"]).for_terminal("xterm"));
    terminal.types(typed);
    terminal.sees("\u{1b}[35mlet\u{1b}[0m");
    terminal.types("(\"a\") // b");
    terminal.sees("\u{1b}[36mlist\u{1b}[0m");
    terminal.sees("\u{1b}[32m\"a\"\u{1b}[0m");
    terminal.0.send_control('c').expect("Ctrl-C");
    terminal.sees("\n");
    terminal.sees("> ");
    terminal.leaves();
    let quiet: [(&[&str], &str, &str); 3] =
        [(&["repl"], "xterm", "1"), (&["repl", "--color", "never"], "xterm", ""), (&["repl"], "dumb", "")];
    for (args, term, no_color) in quiet {
        let mut command = test.args(args).for_terminal(term);
        if !no_color.is_empty() {
            command.env("NO_COLOR", no_color);
        }
        let mut terminal = OnTerminal::raw(command);
        terminal.types("let x = \"a\"; `${x}!`\r");
        let typed = terminal.sees("a!\r\n");
        assert!(!typed.contains("\u{1b}[3"), "{args:?} {term}: {typed:?}");
        terminal.sees("> ");
        terminal.leaves();
    }
}

#[test]
fn the_history_is_kept_for_its_owner_alone_and_without_secrets() {
    let test = Test::new();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.line("\"first of all\"", "first of all");
    terminal.line("let api_key = \"hush\"; 7", "7");
    terminal.line("let header = \"Bearer abcdefgh12345\"; 8", "8");
    terminal.line(" \"with a blank\"", "with a blank");
    terminal.line("\"ss_Zm9vYmFyYmF6cXV4\".len", "19");
    terminal.line(":type 5", "Int, a whole number");
    // It is there before the REPL has ended.
    assert_eq!(history(&test), "#V2\n\"first of all\"\n:type 5\n");
    terminal.leaves();
    let mode = std::fs::metadata(test.home().join("history")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.0.send_control('r').expect("Ctrl-R");
    terminal.types("first");
    terminal.sees("first of all");
    terminal.types("\r");
    terminal.sees("\nfirst of all");
    terminal.sees("> ");
    terminal.leaves();
}

#[test]
fn ctrl_c_stops_what_runs_and_clears_what_is_typed() {
    let test = Test::new();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.line("let kept = 41;", "");
    for endless in ["print(\"begun\"); loop {}", "print(\"begun\"); sleep(600)"] {
        terminal.types(&format!("{endless}\r"));
        terminal.sees("\nbegun");
        terminal.0.send_control('c').expect("Ctrl-C");
        // The mark before it is more than one byte, which the tests' terminal takes for as many letters.
        terminal.sees(" interrupted");
        terminal.sees("> ");
        terminal.line("kept + 1", "42");
    }
    terminal.types("this is half a li");
    terminal.0.send_control('c').expect("Ctrl-C");
    // The prompt stands before each letter that is drawn too; the next one is on a line of its own. What is typed
    // before that is gone with the line, as a terminal does it.
    terminal.sees("\n");
    terminal.sees("> ");
    terminal.line("kept + 2", "43");
    terminal.leaves();
    // A terminal without an editor sends the signal; the REPL stays all the same.
    let mut terminal = OnTerminal::start(test.args(["repl"]).for_terminal("dumb"), true);
    terminal.types("half a li");
    terminal.0.send_control('c').expect("Ctrl-C");
    terminal.0.send_control('c').expect("Ctrl-C");
    terminal.types("20 + 22\r");
    terminal.sees("42\r\n");
    terminal.leaves();
}

#[test]
fn help_and_doc_document() {
    let test = Test::new();
    let help = test.args(["repl"]).stdin(":help\n").any_stdout().run().stdout;
    for command in [":doc", ":dry", ":help", ":load", ":quit", ":save", ":time", ":type"] {
        assert!(help.contains(&format!("\n{command}")), "{command}: {help}");
    }
    assert!(help.contains("agents, secrets, sessions"), "{help}");
    let printed = test.args(["repl"]).stdin(":doc sessions::last\n").any_stdout().run().stdout;
    assert!(printed.starts_with("sessions::last(") && printed.contains("\n        "), "{printed}");
    test.args(["repl"]).stdin(":help sessions::last\n").stdout(&printed).run();
    test.args(["repl"]).stdin(":doc Session\n").stdout_part("Session.title -> String").run();
    test.args(["repl"])
        .stdin("/// Twice.\nfn twice(n) { n * 2 }\n:doc twice\n")
        .stdout("twice(n)\n    Twice.\n")
        .run();
    test.args(["repl"])
        .stdin(":doc shortn\n")
        .stderr("✗ nothing is called 'shortn'\n  Did you mean `shorten`?\n")
        .status(1)
        .run();
    test.args(["repl"])
        .stdin(":tim 1\n")
        .stderr("✗ there is no command ':tim'\n  Did you mean :time?\n")
        .status(1)
        .run();
    test.args(["repl"])
        .stdin(":load\n")
        .stderr("✗ :load needs something\n  It is :load FILE.\n")
        .status(1)
        .run();
}

#[test]
fn type_and_time_tell_and_leave_no_trace() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["repl"])
        .stdin(":type list().end()\n:type [\n1]\nlist()[0].status\n")
        .stdout(format!("would end {}\nDone, what was done\nArray, an array\nidle\n", short(&id)))
        .run();
    test.args(["repl", "--json"]).stdin(":type 1\n").stdout("\"Int, a whole number\"\n").run();
    let timed =
        test.args(["repl"]).stdin(":time let x = 2;\n:time x + 40\n").any_stderr().stdout("42\n").run();
    assert_eq!(timed.stderr, "Completed in TIME\nCompleted in TIME\n");
}

#[test]
fn a_session_is_saved_as_a_script_and_loaded_again() {
    let test = Test::new();
    test.args(["repl"])
        .stdin("let n = 20;\nfn twice(n) { n * 2 }\ntwice(n)\n_ + 2\nnope\nprint(`${_}!`)\n:save mine.rhai\n")
        .stdout("40\n42\n42!\n")
        .stderr_part("Saved to mine.rhai")
        .status(1)
        .run();
    test.args(["script", "mine.rhai"]).stdout("42!\n").run();
    test.args(["repl"]).stdin(":load mine.rhai\ntwice(n)\n").stdout("42!\n40\n").run();
    test.args(["repl"])
        .stdin(":save mine.rhai\n")
        .stderr("✗ mine.rhai is there already\n  Give another name, or remove it first.\n")
        .status(1)
        .run();
    test.args(["repl"])
        .stdin("1\n:save own.rhai\n2\n:save own.rhai\n")
        .stdout("1\n2\n")
        .stderr("Saved to own.rhai. superserve script own.rhai runs it.\nSaved to own.rhai. superserve script own.rhai runs it.\n")
        .run();
    test.write("wrong.rhai", "let x = 1;\nfrobnicate(x);\n");
    test.args(["repl"]).stdin(":load wrong.rhai\n").stderr_part("wrong.rhai:2:1").status(1).run();
    test.args(["repl"])
        .stdin(":load none.rhai\n")
        .stderr_part("cannot read the script none.rhai")
        .status(1)
        .run();
    test.write("leaves.rhai", "print(\"in\");\nexit(0);\n");
    test.args(["repl"]).stdin(":load leaves.rhai\n1\n").stdout("in\n1\n").run();
}

#[test]
fn dry_runs_begin_and_end_inside() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    test.args(["repl"])
        .stdin(":dry on\nend(\"@last\").status\n:dry off\nend(\"@last\").status\n")
        .stdout(format!("would end {}\nidle\nended\n", short(&id)))
        .any_stderr()
        .run();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    terminal.types(":dry on\r");
    terminal.sees("dry> ");
    terminal.line("1", "1");
    terminal.types(":dry off\r");
    terminal.sees("is done");
    let prompt = terminal.sees("> ");
    assert!(!prompt.contains("dry"), "{prompt:?}");
    terminal.leaves();
    test.args(["repl"]).stdin(":dry perhaps\n").stderr_part("neither on nor off").status(1).run();
}

#[test]
fn tables_fit_a_narrow_terminal() {
    let test = Test::new();
    let mut terminal = OnTerminal::plain(test.args(["repl"]));
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal.0.process().pty, size).expect("a size");
    terminal.types("let w = \"\"; w.pad(60, 'x'); [#{ a: w, b: 1 }]\r");
    let shown = terminal.sees("...");
    assert!(!shown.contains(&"x".repeat(38)), "{shown}");
    terminal.sees("> ");
    terminal.leaves();
}
