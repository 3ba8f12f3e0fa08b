//! Completions: what the program answers to a shell, and what bash, zsh and fish make of it.

use std::fs;
use std::os::unix::net::UnixListener;

use rexpect::session::{Options, spawn_with_options};
use rexpect::{ReadUntil, error::Error};

use crate::process::{PATIENCE, wait_for, wait_until};
use crate::skipped::has;
use crate::test::{Test, short};

/// What the program answers when fish asks for the last of these words: what the shell should do besides, and each answer
/// with what is told of it.
fn answers(test: &Test, words: &[&str]) -> (String, Vec<(String, String)>) {
    let args = ["__complete", "fish", "--", "superserve"].iter().chain(words);
    let output = test.args(args).any_stdout().run().stdout;
    let mut lines = output.lines().map(str::to_owned);
    let told = lines.next().expect("a first line");
    let row = |line: String| match line.split_once('\t') {
        Some((value, about)) => (value.to_owned(), about.to_owned()),
        None => (line, String::new()),
    };
    (told, lines.map(row).collect())
}

fn values(test: &Test, words: &[&str]) -> Vec<String> {
    answers(test, words).1.into_iter().map(|(value, _)| value).collect()
}

#[test]
fn commands_flags_and_words_need_no_server() {
    let test = Test::new();
    let commands = values(&test, &[""]);
    for command in ["agents", "completions", "help", "run", "sessions"] {
        assert!(commands.contains(&command.to_owned()), "{command}: {commands:?}");
    }
    assert_eq!(values(&test, &["sess"]), ["sessions"]);
    assert!(answers(&test, &["sess"]).1[0].1.starts_with("Conversations"));
    assert_eq!(values(&test, &["sessions", "li"]), ["list"]);
    assert_eq!(values(&test, &["--json", "--color", "never", "sessions", "li"]), ["list"]);
    assert_eq!(values(&test, &["sessions", "list", "--ag"]), ["--agent"]);
    assert_eq!(values(&test, &["sessions", "list", "--status", "i"]), ["idle"]);
    assert_eq!(values(&test, &["sessions", "list", "--status=f"]), ["--status=failed"]);
    assert_eq!(values(&test, &["--color", ""]), ["auto", "always", "never"]);
    assert_eq!(values(&test, &["run", "--sandbox", ""]), ["auto", "native", "none"]);
    assert_eq!(values(&test, &["sessions", "wait", "--until", "d"]), ["done"]);
    assert_eq!(values(&test, &["scripts", "show", "sessions/l"]), ["sessions/list"]);
    assert_eq!(values(&test, &["sessions", "nope", "x", "--where", "y"]), Vec::<String>::new());
    test.args(["server", "status", "--json"]).stdout("{\n  \"running\": false\n}\n").run();
}

#[test]
fn fields_stand_in_expressions() {
    let test = Test::new();
    let fields = |text: &str| values(&test, &["sessions", "list", "--where", text]);
    assert_eq!(fields("mess"), ["message_count"]);
    assert_eq!(fields("idle > 2.hours && mess"), ["idle > 2.hours && message_count"]);
    assert_eq!(values(&test, &["sessions", "list", "--sort", "-mess"]), ["-message_count"]);
    assert_eq!(values(&test, &["sessions", "list", "--json=id,ti"]), ["--json=id,title"]);
    assert_eq!(values(&test, &["--json", "sessions", "li"]), ["list"]);
    assert_eq!(values(&test, &["sessions", "list", "--json", "--ag"]), ["--agent"]);
    assert_eq!(fields("title.cont"), Vec::<String>::new());
    assert_eq!(answers(&test, &["sessions", "list", "--where", "creat"]).1[0].1, "a time");
    test.command("show", "//! Show.\n//! @option select <FIELDS>\n//! @option by <FIELD>\n");
    assert_eq!(values(&test, &["show", "--select", "agent,short"]), ["agent,short_id"]);
    assert_eq!(values(&test, &["show", "--select=agent,short"]), ["--select=agent,short_id"]);
    assert_eq!(values(&test, &["show", "--by", "short"]), ["short_id"]);
    assert_eq!(values(&test, &["eval", "list().filt"]), ["list().filter"]);
    assert_eq!(values(&test, &["eval", "sessions::ea"]), ["sessions::each"]);
}

#[test]
fn a_users_script_says_what_its_values_are() {
    let test = Test::new();
    let header = "//! Mine.\n//! @arg way <fast|slow>\n//! @arg name? <SCRIPT>\n//! @option to <DIR>\n//! @flag loud\n";
    test.command("fleet/tidy", header);
    assert_eq!(values(&test, &["fleet", ""]), ["tidy"]);
    assert_eq!(values(&test, &["fleet", "tidy", ""]), ["fast", "slow"]);
    assert_eq!(values(&test, &["fleet", "tidy", "fast", "fleet"]), ["fleet/tidy"]);
    assert_eq!(values(&test, &["fleet", "tidy", "--l"]), ["--loud"]);
    assert_eq!(answers(&test, &["fleet", "tidy", "--to", ""]).0, "dirs");
    // A file is completed by the shell, and what follows it by its own header.
    test.write("my file.rhai", header);
    assert_eq!(answers(&test, &["script", ""]).0, "files");
    assert_eq!(values(&test, &["script", "my\\ file.rhai", "--l"]), ["--loud"]);
    assert_eq!(values(&test, &["--json", "script", "'my file.rhai'", "s"]), ["slow"]);
    assert_eq!(values(&test, &["script", "nowhere.rhai", "--js"]), ["--json"]);
    // A header that is wrong takes nothing else away.
    test.command("broken", "//! @nope\n");
    assert_eq!(values(&test, &["sessions", "li"]), ["list"]);
}

#[test]
fn help_is_followed_by_commands() {
    let test = Test::new();
    let all = values(&test, &["help", ""]);
    for word in ["functions", "man", "sessions", "run"] {
        assert!(all.contains(&word.to_owned()), "{word}: {all:?}");
    }
    assert_eq!(values(&test, &["help", "sessions", "li"]), ["list"]);
    assert_eq!(values(&test, &["help", "functions", "Session.id"]), ["Session.id", "Session.idle"]);
}

#[test]
fn sessions_and_agents_are_those_of_the_running_server() {
    let test = Test::new();
    test.deploy("echo");
    let (first, second) = (test.begin("echo", "buy milk"), test.begin("echo", "call\tAda \u{1b}[31m"));
    // What a busy machine doesn't answer in time is left out.
    let live = |words: &[&str], count: usize| {
        wait_for("as many answers", || Some(answers(&test, words).1).filter(|found| found.len() == count))
    };
    let about = ["buy milk (idle, echo)", "call Ada (idle, echo)"].map(str::to_owned);
    let (digits, other) = (short(&first).to_owned(), short(&second).to_owned());
    let all = live(&["sessions", "get", ""], 3);
    assert_eq!(all[0], ("@last".to_owned(), all[1].1.clone()), "the one that was active last");
    let mut rows = all[1..].to_vec();
    rows.sort();
    let mut expected = vec![(digits.clone(), about[0].clone()), (other.clone(), about[1].clone())];
    expected.sort();
    assert_eq!(rows, expected);
    assert_eq!(live(&["sessions", "send", &digits[..4]], 1), [(digits.clone(), about[0].clone())]);
    // The whole form after its prefix, or after more digits than lists show.
    assert_eq!(live(&["sessions", "end", &first[..8]], 1)[0].0, first);
    assert_eq!(live(&["sessions", "end", &first["ses_".len()..][..20]], 1)[0].0, first["ses_".len()..]);
    assert_eq!(live(&["sessions", "end", "s"], 2).len(), 2);
    // What stands there already is not offered again.
    assert_eq!(
        live(&["sessions", "end", &digits, ""], 2).iter().filter(|(value, _)| *value == digits).count(),
        0
    );
    let names =
        |words: &[&str], count| live(words, count).into_iter().map(|(value, _)| value).collect::<Vec<_>>();
    assert_eq!(names(&["sessions", "get", "@"], 2), ["@last", "@last:echo"]);
    assert_eq!(names(&["sessions", "list", "--agent="], 1), ["--agent=echo"]);
    assert_eq!(names(&["agents", "get", "e"], 1), ["echo"]);
    assert_eq!(names(&["run", ""], 1), ["echo"]);
    assert_eq!(answers(&test, &["run", ""]).0, "files");
    // Those that have ended come last.
    test.args(["sessions", "end", &other]).any_stderr().run();
    wait_until("the one that has ended behind the other", || {
        let rows = answers(&test, &["sessions", "get", ""]).1;
        rows.len() == 3 && rows[2] == (other.clone(), "call Ada (ended, echo)".to_owned())
    });
    // By name, in the headers of users' scripts.
    test.command("mine", "//! Mine.\n//! @arg which <SESSION>\n//! @option agent <NAME>\n");
    assert_eq!(names(&["mine", &digits[..4]], 1), [digits.as_str()]);
    assert_eq!(names(&["mine", "--agent", ""], 1), ["echo"]);
    test.stop_server();
    assert_eq!(values(&test, &["sessions", "get", ""]), Vec::<String>::new());
    assert_eq!(values(&test, &["sessions", "get", "@la"]), ["@last"]);
    test.args(["server", "status", "--json"]).stdout("{\n  \"running\": false\n}\n").run();
}

#[test]
fn of_very_many_sessions_the_one_that_is_meant_is_found() {
    let test = Test::new();
    test.deploy("echo");
    let script = "for i in 0..240 { sessions::create(\"echo\"); } print(sessions::each().to_list()[0].id);";
    let oldest = test.args(["eval", script]).any_stdout().run().stdout.trim_end().to_owned();
    let whole = &oldest["ses_".len()..];
    wait_until("the oldest session", || {
        values(&test, &["sessions", "get", &whole[..8]]) == [whole[..12].to_owned()]
    });
}

#[test]
fn nothing_is_ever_told_on_stderr_and_nothing_hangs() {
    let test = Test::new();
    for args in [
        &["__complete"][..],
        &["__complete", "nosh", "--", "superserve", ""],
        &["__complete", "bash", "superserve"],
        &["__complete", "bash", "--"],
        &["__complete", "bash", "9", "--", "superserve", "--", "--"],
        &["__complete", "zsh", "--", "superserve", "script", "/dev/null", "\u{1b}[2J", ""],
        &["__complete", "fish", "--", "superserve", "'", "\"\\"],
    ] {
        test.args(args).any_stdout().run();
    }
    // A server that takes connections and never answers.
    fs::create_dir_all(test.home().join("run")).unwrap();
    let socket = test.home().join("run/server.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(values(&test, &["sessions", "get", ""]), Vec::<String>::new());
    drop(listener);
    fs::remove_file(&socket).unwrap();
    // Settings that make no sense leave the commands.
    fs::write(test.home().join("config.toml"), "nonsense = 1\n").unwrap();
    assert_eq!(values(&test, &["sessions", "li"]), ["list"]);
    assert_eq!(values(&test, &["sessions", "get", ""]), Vec::<String>::new());
    fs::remove_file(test.home().join("config.toml")).unwrap();
}

#[test]
fn each_shell_is_answered_in_its_own_form() {
    let test = Test::new();
    test.command("a", "//! One: \\ two.\n//! @arg at <10:15|10:30>\n");
    let ask = |args: &[&str]| test.args(args).any_stdout().run().stdout;
    assert_eq!(
        ask(&["__complete", "zsh", "--", "superserve", "a"]),
        "\na:One: \\\\ two.\nagents:Deployed agents\nauth:Who you are at a server\n"
    );
    assert_eq!(ask(&["__complete", "zsh", "--", "superserve", "a", "10:1"]), "\n10\\:15\n");
    assert_eq!(ask(&["__complete", "fish", "--", "superserve", "a", "10:1"]), "\n10:15\n");
    // Bash replaces what stands behind a colon, and shows what the answers are about when it lists them.
    assert_eq!(ask(&["__complete", "bash", "9", "1", "--", "superserve", "a", "10:1"]), "\n15\n");
    assert_eq!(ask(&["__complete", "bash", "9", "a", "--", "superserve", "a"]), "\na\nagents\nauth\n");
    assert_eq!(
        ask(&["__complete", "bash", "63", "a", "--", "superserve", "a"]),
        "\na       (One: \\ two.)\nagents  (Deployed agents)\nauth    (Who you are at a server)\n"
    );
    assert_eq!(ask(&["__complete", "bash", "63", "age", "--", "superserve", "age"]), "\nagents\n");
    for (shell, part) in [
        ("bash", "complete -F _superserve superserve"),
        ("zsh", "#compdef superserve"),
        ("fish", "complete -c superserve"),
    ] {
        test.args(["completions", shell]).stdout_part(part).stdout_part("__complete").run();
    }
    for shell in ["elvish", "powershell"] {
        test.args(["completions", shell]).stdout_part("sessions").run();
    }
}

/// Types into a shell with completions: a command, an option's value and a session must come out whole.
fn completes_in(shell: &str, start: &str, source: &str) {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "buy milk");
    let options = Options {
        timeout_ms: Some(u64::try_from(PATIENCE.as_millis()).unwrap()),
        strip_ansi_escape_codes: true,
    };
    let mut terminal = spawn_with_options(test.shell(start).for_terminal("xterm"), options).expect(shell);
    terminal.send_line(source).unwrap();
    // Whatever was not completed makes the command fail.
    let line = "superserve sess\tget @last:ec\t\n";
    let outcomes = || {
        vec![
            ReadUntil::String("echo (agt_".to_owned()),
            // The server hadn't answered in time.
            ReadUntil::String("no agent is called".to_owned()),
            ReadUntil::String("unrecognized".to_owned()),
            ReadUntil::String("command not found".to_owned()),
        ]
    };
    let mut told = String::new();
    wait_until("the session", || {
        terminal.send(line).unwrap();
        terminal.flush().unwrap();
        match terminal.exp_any(outcomes()) {
            Ok((before, found)) => {
                told = format!("{before}{found}");
                found == "echo (agt_"
            }
            Err(error @ (Error::Timeout { .. } | Error::EOF { .. })) => panic!("{shell}: {error}"),
            Err(error) => panic!("{shell}: {error:?}"),
        }
    });
    assert!(!told.contains("unrecognized"), "{shell}: {told}");
    terminal.send_line("exit").unwrap();
    let _ = terminal.exp_eof();
}

#[test]
fn bash_completes() {
    if !has("bash") {
        skip!("bash is not on this machine");
    }
    completes_in("bash", "exec bash --norc --noprofile -i", "source <(superserve completions bash)");
}

#[test]
fn zsh_completes() {
    if !has("zsh") {
        skip!("zsh is not on this machine");
    }
    let source = "autoload -Uz compinit; compinit -u -D; source <(superserve completions zsh)";
    completes_in("zsh", "exec zsh -f -i", source);
}

#[test]
fn fish_completes() {
    if !has("fish") {
        skip!("fish is not on this machine");
    }
    completes_in("fish", "exec fish --no-config -i", "superserve completions fish | source");
}
