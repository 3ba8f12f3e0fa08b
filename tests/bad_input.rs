//! What bad input gets: a sentence that says what to do, the right exit code, and nothing lost.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;

use crate::process::wait_until;
use crate::skipped::is_root;
use crate::test::{Test, told};

#[test]
fn a_command_that_is_none() {
    let test = Test::new();
    test.args(["sessions", "lst"]).stderr_part("✗ ").stderr_part("lst").status(2).run();
    test.args(["frobnicate"]).stderr_part("frobnicate").status(2).run();
    test.args(["sessions", "list", "--no-such-flag"]).stderr_part("--no-such-flag").status(2).run();
    test.args([""; 0]).any_stdout().any_stderr().status(2).run();
    let output = test.args(["sessions", "list", "--no-such-flag", "--json"]).any_stderr().status(2).run();
    assert_eq!(output.error()["code"], "invalid");
}

#[test]
fn words_that_are_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let test = Test::new();
    for words in [&["sessions", "get"][..], &["run"], &["eval"], &["sessions", "list", "--agent"]] {
        let words = words.iter().map(OsStr::new).chain([OsStr::from_bytes(b"\xff\xfe")]);
        test.args(words).stderr_part("✗ ").status(2).run();
    }
    test.args([OsStr::from_bytes(b"\xff")]).stderr_part("✗ ").status(2).run();
}

#[test]
fn output_that_nobody_takes() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    // Closed from the beginning, and a device that is always full.
    test.shell("superserve sessions list >&-; echo \"code $?\" >&2").stderr_part("code ").run();
    test.shell("superserve sessions list 2>&-").any_stdout().run();
    test.shell("superserve sessions get zzzz 2>&-").status(3).run();
    test.shell("superserve sessions list <&-").any_stdout().run();
    let output = test.shell("superserve sessions list >/dev/full").stderr_part("✗ ").status(1).run();
    assert!(output.stderr.contains("No space left"), "{output:#?}");
    assert!(!output.stderr.contains("panicked"), "{output:#?}");
}

#[test]
fn a_message_that_is_too_long() {
    let test = Test::new();
    test.deploy("echo");
    let long = "x".repeat((1 << 20) + 1);
    let output = test
        .args(["run", "echo"])
        .stdin(format!("{long}\nhello\n"))
        .any_stdout()
        .stderr_part("✗ ")
        .any_status()
        .run();
    assert_eq!(output.status, 2, "{} {}", output.status, output.stderr);
    let id = test.create("echo");
    test.args(["sessions", "resume", &id]).stdin(format!("{long}\n")).any_stderr().status(2).run();
    assert_eq!(test.send(&id, "hello"), "you said: hello\n");
}

#[test]
fn an_agent_that_is_not_there() {
    let test = Test::new();
    let hint =
        "Run superserve agents list to see your agents, or give the path of one: superserve run ./folder.";
    test.args(["run", "nobody", "hello"])
        .stderr(told(
            "Agent not found: no agent is called 'nobody', and there is no such file or folder",
            hint,
        ))
        .status(3)
        .run();
    test.args(["run", "./nowhere", "hello"]).stderr_part("not found: ./nowhere").status(3).run();
    test.args(["run", "/no/such/folder", "hello"]).stderr_part("not found: /no/such/folder").status(3).run();
    let output = test.args(["run", "nobody", "hello", "--json"]).any_stderr().status(3).run();
    assert_eq!(output.error()["code"], "not_found");
    assert_eq!(
        test.json(["sessions", "list", "--json"]).as_array().map(Vec::len),
        Some(0),
        "no session was made"
    );
}

#[test]
fn an_agent_whose_command_does_not_exist() {
    let test = Test::new();
    test.deploy("missing");
    test.args(["run", "missing", "hello"]).stderr_part("✗ ").stderr_part("no-such-program").status(7).run();
    let id = test.json(["sessions", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(test.status_of(&id), "failed");
    // Put right, it goes on.
    let other = test.agent("missing", "while read -r line; do echo there; done");
    test.deploy(other);
    assert_eq!(test.send(&test.create("missing"), "hello"), "there\n");
}

#[test]
fn an_agent_that_exits_at_once() {
    let test = Test::new();
    test.deploy("exits");
    test.args(["run", "exits", "hello"])
        .stderr_part("✗ ")
        .stderr_part("cannot find the model\n")
        .stderr_part("set MODEL and try again\n")
        .status(7)
        .run();
    let output = test.args(["run", "exits", "hello", "--json"]).any_stdout().any_stderr().status(7).run();
    assert!(output.stdout.contains("run.failed"), "{output:?}");
}

#[test]
fn a_script_that_is_wrong() {
    let test = Test::new();
    let path = test.write("wrong.rhai", "let a = 1;\nlet b = (a + ;\nprint(b);\n");
    let file = path.to_str().unwrap();
    let output = test.args(["script", file]).any_stderr().status(1).run();
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert!(lines[0].starts_with("✗ "), "{output:#?}");
    assert!(lines[1].contains(&format!("{file}:2:")), "{output:#?}");
    assert!(output.stderr.contains("2 | let b = (a + ;"), "{output:#?}");
    let (text, caret) = (
        lines.iter().position(|l| l.contains("let b")).unwrap(),
        lines.iter().position(|l| l.trim_end().ends_with('^')).unwrap(),
    );
    assert_eq!(caret, text + 1);
    assert_eq!(lines[caret].find('^'), lines[text].find(';'), "the caret stands under the place");
    // One that is wrong only when it runs, and one that names a function that isn't there.
    let path = test.write("throws.rhai", "//! Throws.\n\nfn f() {\n    throw \"no more\";\n}\nf();\n");
    test.args(["script", path.to_str().unwrap()])
        .stderr_part("no more")
        .stderr_part("throws.rhai:4:5")
        .status(1)
        .run();
    let path = test.write("typo.rhai", "let all = list();\nall.endd();\n");
    test.args(["script", path.to_str().unwrap()])
        .stderr_part("endd")
        .stderr_part("typo.rhai:2:")
        .status(1)
        .run();
    test.args(["script", "nowhere.rhai"]).stderr_part("nowhere.rhai").status(3).run();
}

#[test]
fn a_script_that_is_too_large_or_no_text() {
    let test = Test::new();
    let path = test.write("large.rhai", "");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(50 << 20).unwrap();
    let told = "it is larger than a script may be: 16 MiB";
    test.args(["script", "large.rhai"]).stderr_part(told).status(2).run();
    test.args(["script", "--check", "large.rhai"]).stderr_part(told).status(1).run();
    // What comes on stdin is read no further than that.
    test.shell("cat /dev/zero | superserve script -").stderr_part(told).status(2).run();
    test.args(["script", "/dev/zero"]).stderr_part(told).status(2).run();
    let command = test.command("large", "");
    fs::OpenOptions::new().write(true).open(command).unwrap().set_len(50 << 20).unwrap();
    test.args(["large"]).stderr_part(told).status(2).run();
    test.args(["eval", "import \"large\" as l;"]).stderr_part(told).status(1).run();
    fs::write(test.work().join("bytes.rhai"), b"print(\"\xff\");").unwrap();
    test.args(["script", "bytes.rhai"]).stderr_part("it is not UTF-8").status(2).run();
    test.args(["script", "."]).stderr_part("is a directory").status(1).run();
    // The place in a line of a megabyte, and one that can't be shown as it is.
    let line = format!(
        "print(\"{}\" + \"\u{1b}[31m\u{202e}\" + nope + \"{}\");\n",
        "x".repeat(1 << 19),
        "y".repeat(1 << 19)
    );
    let output = test.args(["script", "-"]).stdin(line).any_stderr().status(1).run();
    assert!(output.stderr.len() < 600 && !output.stderr.contains('\u{1b}'), "{output:#?}");
    let line = format!(
        "print(\"{}\" + \"\u{1b}[31m\u{202e}\t字\" + nope + \"{}\");\n",
        "x".repeat(5000),
        "y".repeat(5000)
    );
    let output = test.args(["script", "-"]).stdin(line).any_stderr().status(1).run();
    let lines: Vec<&str> = output.stderr.lines().collect();
    let column = |line: &str, what: &str| {
        let before = line.split(what).next().unwrap();
        before.chars().map(|c| if c == '字' { 2 } else { 1 }).sum::<usize>()
    };
    assert!(output.stderr.len() < 600 && !output.stderr.contains('\u{1b}'), "{output:#?}");
    assert_eq!(column(lines[3], "nope"), column(lines[4], "^"), "{output:#?}");
}

/// What a terminal must never see from data: escape sequences, control characters, marks that turn the direction.
const HOSTILE: &str = "a\u{1b}[31m\u{1b}]0;pwned\u{7}b\u{9b}2J\u{202e}c\u{8}\r\u{7f}d";

fn assert_clean(what: &str, text: &str) {
    let is_bad = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(is_bad), "{what}: {text:?}");
}

#[test]
fn hostile_text_never_reaches_a_terminal_raw() {
    use rexpect::session::spawn_command;
    let test = Test::new();
    let raw = "while IFS= read -r line; do printf 'got \\033[31m%s\\033]0;pwned\\007\\303\\050\\377 \\302\\233x\\n' \"$line\"; done";
    test.deploy(test.agent("raw", raw));
    let id = test.begin("raw", HOSTILE);
    let long = "t\u{1b}[1".repeat(200_000);
    let output =
        test.args(["run", "raw", "--json"]).stdin(format!("{long}\n")).any_stdout().any_stderr().run();
    let long = crate::test::started(&output.stdout).unwrap();
    // Streams that are no terminal: stderr is cleaned all the same.
    let quoted = serde_json::to_string(HOSTILE).unwrap().replace("\\b", "\\u0008");
    for text in [
        format!("warn({quoted})"),
        format!("failure({quoted})"),
        format!("success({quoted})"),
        format!("throw {quoted}"),
        format!("get({quoted})"),
        format!("list(#{{ agent: {quoted} }}).len"),
        format!("let m = #{{}}; m.remove({quoted}); agents::get({quoted})"),
        format!("read_file({quoted})"),
        format!("import {quoted} as x;"),
        format!("parse_json({quoted})"),
        format!("let x = #{{}}; x[{quoted}].y"),
        format!("list(#{{ where: {quoted} }})"),
    ] {
        let output = test.args(["eval", &text]).any_stdout().any_stderr().any_status().run();
        assert_clean(&text, &output.stderr);
    }
    test.args(["sessions", "get", HOSTILE]).stderr_part("✗ ").any_status().run();
    let output = test.args([HOSTILE]).any_stderr().status(2).run();
    assert_clean("an unknown command", &output.stderr);
    let output = test.args(["script", HOSTILE]).any_stderr().status(3).run();
    assert_clean("an unknown file", &output.stderr);
    // And a terminal, on which everything goes to one place.
    for words in [
        vec!["sessions", "list", "--no-trunc"],
        vec!["sessions", "list"],
        vec!["sessions", "get", &id],
        vec!["sessions", "get", &long],
        vec!["sessions", "messages", &id],
        vec!["sessions", "messages", &long],
        vec!["sessions", "send", &id, HOSTILE],
        vec!["run", "raw", HOSTILE, "--single"],
        vec!["sessions", "resume", "--help"],
        vec!["eval", "table(list(), [\"title\", \"status\"])"],
        vec!["eval", "list().to_csv()"],
        vec!["eval", "list().to_json()"],
        vec!["eval", "list()"],
        vec!["eval", "list().map(|s| s.title)"],
        vec!["eval", "list().count_by(\"title\")"],
        vec!["eval", "list().map(|s| #{ t: s.title })"],
        vec!["eval", "for s in list() { print(s.title); show(s); show(s.messages()); }"],
        vec!["eval", "get(\"@last\").messages()"],
        vec!["eval", "list()", "--json"],
        vec!["--dry-run", "eval", "write_file(list()[0].title + list()[1].title, \"x\")"],
        vec!["eval", "print(list()[0].title); throw list()[1].title"],
        vec!["eval", "if confirm(list()[0].title + list()[1].title) { }"],
        vec!["eval", "prompt(list()[0].title + list()[1].title)"],
    ] {
        // The editor of lines has sequences of its own, but not for a terminal that knows none.
        let asks = words.iter().any(|word| word.contains("confirm(") || word.contains("prompt("));
        let mut command = test.args(words.clone()).for_terminal(if asks { "dumb" } else { "xterm" });
        command.env("NO_COLOR", "1");
        let mut session = spawn_command(command, Some(30_000)).unwrap();
        if asks {
            session.send_line("n").unwrap();
        }
        // It takes every byte for a letter.
        let bytes: Vec<u8> = session.exp_eof().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect();
        let screen = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        assert!(!screen.trim().is_empty(), "{words:?}");
        assert_clean(&format!("{words:?}"), &screen);
    }
}

#[test]
fn a_database_that_is_corrupt_is_left_as_it_is() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    test.stop_server();
    let path = test.home().join("superserve.db");
    assert!(!test.home().join("superserve.db-wal").exists(), "a server that stops leaves one whole file");
    let whole = fs::read(&path).unwrap();
    let mut scribbled = whole.clone();
    scribbled[4096..8192].fill(b'x');
    for bad in [b"dear diary".to_vec(), whole[..whole.len() / 2].to_vec(), scribbled] {
        fs::write(&path, &bad).unwrap();
        for command in [["sessions", "list"], ["server", "start"]] {
            test.args(command).stderr_part("✗ ").stderr_part(path.to_str().unwrap()).status(6).run();
        }
        assert!(fs::read(&path).unwrap() == bad, "not one byte has changed");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(test.json(["sessions", "list", "--json"])[0]["title"], "hello");
}

#[test]
fn a_database_of_a_newer_version_is_left_as_it_is() {
    let test = Test::new();
    test.deploy("echo");
    test.stop_server();
    let path = test.home().join("superserve.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::{ConnectOptions, Connection};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.unwrap();
        let row = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                   VALUES (99990101, 'of the future', TRUE, x'00', 0)";
        sqlx::query(row).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let before = fs::read(&path).unwrap();
    test.args(["agents", "list"])
        .stderr_part("newer superserve")
        .stderr_part(path.to_str().unwrap())
        .status(6)
        .run();
    assert!(fs::read(&path).unwrap() == before, "not one byte has changed");
}

#[test]
fn a_stale_socket_is_taken_over() {
    let test = Test::new();
    test.deploy("echo");
    let socket = PathBuf::from(test.json(["server", "status", "--json"])["socket"].as_str().unwrap());
    test.kill_server();
    assert!(socket.exists(), "a killed server leaves its socket behind");
    assert_eq!(test.json(["server", "status", "--json"])["running"], false);
    test.begin("echo", "hello");
    // One that no server of ours has made.
    test.stop_server();
    let _ = fs::remove_file(&socket);
    drop(UnixListener::bind(&socket).unwrap());
    test.begin("echo", "hello");
}

#[test]
fn something_else_in_the_sockets_place_is_not_removed() {
    let test = Test::new();
    test.args(["server", "start"]).any_stderr().run();
    let socket = PathBuf::from(test.json(["server", "status", "--json"])["socket"].as_str().unwrap());
    test.stop_server();
    fs::write(&socket, "precious").unwrap();
    test.args(["sessions", "list"]).stderr_part(socket.to_str().unwrap()).status(6).run();
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_home_that_can_not_be_used_is_named() {
    let test = Test::new();
    let file = test.write("file", "precious");
    test.args(["sessions", "list"])
        .env("SUPERSERVE_HOME", file.to_str().unwrap())
        .stderr_part(file.to_str().unwrap())
        .any_status()
        .run();
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let test = Test::new();
    fs::write(test.home().join("config.toml"), "[turn]\ntimeoot = '2s'\n").unwrap();
    test.args(["sessions", "list"])
        .stderr_part("unknown key 'turn.timeoot'")
        .stderr_part("turn.timeout")
        .status(2)
        .run();
    test.args(["--version"]).any_stdout().run();
    fs::write(test.home().join("config.toml"), "[turn]\ntimeout = 'soon'\n").unwrap();
    test.args(["sessions", "list"]).stderr_part("'soon' is not a duration").status(2).run();
    fs::write(test.home().join("config.toml"), "turn = [").unwrap();
    test.args(["sessions", "list"]).stderr_part("config.toml").status(2).run();
    fs::remove_file(test.home().join("config.toml")).unwrap();
    test.args(["sessions", "list"])
        .env("SUPERSERVE_SANDBOX", "paper")
        .stderr_part("SUPERSERVE_SANDBOX: 'paper' is not auto, native, bwrap, landlock or none")
        .status(2)
        .run();
}

/// A small file system of its own, unmounted at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("superserve-disk-").tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "superserve-test"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = |option: &[&str]| {
            std::process::Command::new("umount")
                .args(option)
                .arg(self.0.path())
                .stderr(Stdio::null())
                .status()
        };
        if !unmount(&[]).is_ok_and(|status| status.success()) {
            let _ = unmount(&["-l"]);
        }
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    if !is_root() {
        skip!("only root can mount a small disk");
    }
    let Some(disk) = Disk::mount("6m") else {
        skip!("this machine lets nobody mount a tmpfs");
    };
    // Declared after the disk, and so dropped before it.
    let home = disk.0.path().join("home");
    let test = Test::new().env("SUPERSERVE_HOME", home.to_str().unwrap());
    test.deploy("files");
    let id = test.begin("files", "keep it");
    let ballast = disk.0.path().join("ballast");
    fill(&ballast);
    let mut refused = 0;
    for n in 0..30 {
        let output = test
            .args(["sessions", "send", &id, &format!("keep {n}")])
            .any_stdout()
            .any_stderr()
            .any_status()
            .run();
        if output.status != 0 {
            assert!(output.stderr.starts_with("✗ ") && output.stderr.contains("full"), "{output:#?}");
            refused += 1;
        }
    }
    let output = test
        .args(["deploy", "--dir", test_agent("echo").to_str().unwrap()])
        .any_stdout()
        .any_stderr()
        .any_status()
        .run();
    assert!(refused > 0 || output.status != 0, "nothing noticed that the disk is full");
    assert!(output.status == 0 || output.stderr.starts_with("✗ "), "{output:#?}");
    let list = test.json(["sessions", "list", "--json"]);
    assert_eq!(list[0]["title"], "keep it", "reading goes on");
    fs::remove_file(&ballast).unwrap();
    wait_until("the session to take messages again", || {
        test.args(["sessions", "send", &id, "it"]).any_stdout().any_stderr().any_status().run().status == 0
    });
    assert!(test.send(&id, "it").starts_with("there: it\n"), "what was written before is there");
    assert_eq!(test.session(&id)["title"], "keep it");
    test.stop_server();
    assert!(test.send(&id, "it").starts_with("there: it\n"));
}

fn test_agent(name: &str) -> PathBuf {
    crate::test::agents().join(name)
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    for size in [65536, 4096, 512, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}
