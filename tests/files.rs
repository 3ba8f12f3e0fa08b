//! Files that scripts read and write, and other programs that they run: what they may touch, and what not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::process::{self, wait_until};
use crate::skipped::is_root;
use crate::test::{Test, told};

fn outside(path: &str, folder: &str) -> String {
    told(
        &format!("{path} lies outside of the working folder"),
        &format!("Allow its folder: --allow-path {folder}"),
    )
}

#[test]
fn files_are_read_and_written_in_the_working_folder() {
    let test = Test::new();
    test.write("data/in.txt", "grüße\n");
    test.args(["eval", "read_file(\"data/in.txt\").len"]).stdout("6\n").run();
    test.args(["eval", "write_file(\"data/out.txt\", \"one\"); append_file(\"data/out.txt\", \"two\"); append_file(\"new.txt\", \"x\")"]).run();
    let work = test.work();
    assert_eq!(fs::read_to_string(work.join("data/out.txt")).unwrap(), "onetwo");
    assert_eq!(fs::read_to_string(work.join("new.txt")).unwrap(), "x");
    // By another way, but inside.
    let absolute = format!("read_file(\"{}/data/../data/out.txt\")", work.display());
    test.args(["eval", &absolute]).stdout("onetwo\n").run();
    test.args([
        "eval",
        "exists(\"data\") && exists(\"data/in.txt\") && !exists(\"data/none\") && !exists(\"none/x\")",
    ])
    .stdout("true\n")
    .run();
    test.args(["eval", "list_files(\".\").to_json() + list_files(\"data\").to_json()"])
        .stdout("[\"data/\",\"new.txt\"][\"in.txt\",\"out.txt\"]\n")
        .run();
    // Nothing is left of the way it was written, and what was there keeps its mode.
    fs::set_permissions(work.join("new.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    test.args(["eval", "write_file(\"new.txt\", \"again\")"]).run();
    assert_eq!(fs::metadata(work.join("new.txt")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(&work).unwrap().count(), 2);
}

#[test]
fn a_dry_run_writes_nothing() {
    let test = Test::new();
    test.write("log.txt", "old");
    test.args([
        "--dry-run",
        "eval",
        "write_file(\"out.txt\", \"hello, world\"); append_file(\"log.txt\", \"!\"); sh(\"ls\").ok",
    ])
    .stdout("would write 12 bytes to out.txt\nwould append 1 byte to log.txt\n")
    .stderr(told("this script may not run other programs", "Allow it if you trust the script: --allow-sh"))
    .status(2)
    .run();
    test.args(["--dry-run", "--allow-sh", "eval", "sh(\"touch made\").ok"])
        .stdout("would run touch made\ntrue\n")
        .run();
    assert!(!test.work().join("out.txt").exists() && !test.work().join("made").exists());
    assert_eq!(fs::read_to_string(test.work().join("log.txt")).unwrap(), "old");
}

#[test]
fn what_lies_outside_is_not_touched() {
    let test = Test::new();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.txt");
    fs::write(&secret, "secret").unwrap();
    let (path, place) = (secret.to_str().unwrap(), folder.path().canonicalize().unwrap());
    let place = place.to_str().unwrap();
    let work = test.work();
    symlink(&secret, work.join("link.txt")).unwrap();
    symlink(folder.path(), work.join("linked")).unwrap();
    symlink("/nowhere/at/all", work.join("dangling")).unwrap();
    test.write("inside.txt", "inside");
    symlink("inside.txt", work.join("inner.txt")).unwrap();
    for given in [path, "link.txt", "linked/secret.txt"] {
        for call in
            ["read_file(\"P\")", "write_file(\"P\", \"x\")", "append_file(\"P\", \"x\")", "exists(\"P\")"]
        {
            test.args(["eval", &call.replace('P', given)]).stderr(outside(given, place)).status(2).run();
        }
    }
    // Not even whether it is there.
    let none = format!("{}/none.txt", folder.path().display());
    test.args(["eval", &format!("exists(\"{none}\")")]).stderr(outside(&none, place)).status(2).run();
    test.args(["eval", "list_files(\"linked\")"]).stderr_part("linked lies outside").status(2).run();
    test.args(["eval", "read_file(\"../../../../../../../../etc/passwd\")"])
        .stderr_part("lies outside")
        .status(2)
        .run();
    test.args(["eval", "write_file(\"dangling\", \"x\")"])
        .stderr_part("cannot find dangling")
        .status(3)
        .run();
    test.args(["eval", "read_file(\"inner.txt\")"]).stdout("inside\n").run();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    // Allowed, it is.
    test.args(["--allow-path", place, "eval", &format!("read_file(\"{path}\") + read_file(\"link.txt\")")])
        .stdout("secretsecret\n")
        .run();
    test.args(["eval", &format!("read_file(\"{path}\")"), "--allow-path", "/"]).stdout("secret\n").run();
    test.args(["--allow-path", "/no/such/folder", "eval", "1"])
        .stderr_part("/no/such/folder")
        .status(2)
        .run();
    // A module is no way out either.
    fs::write(folder.path().join("m.rhai"), "fn f() { 1 }\n").unwrap();
    let file =
        test.write("a.rhai", &format!("import \"{}/m\" as m;\nprint(m::f());\n", folder.path().display()));
    let file = file.to_str().unwrap();
    test.args(["script", file])
        .stderr_part("lies outside of the script's folder")
        .stderr_part("--allow-path")
        .status(1)
        .run();
    test.args(["script", "--allow-path", place, file]).stdout("1\n").run();
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let test = Test::new();
    let fifo = test.work().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(test.work().join("socket")).unwrap();
    fs::write(test.work().join("bytes"), b"ab\xff").unwrap();
    fs::create_dir(test.work().join("folder")).unwrap();
    for (call, told) in [
        ("read_file(\"pipe\")", "cannot read pipe: it is a pipe, not a file"),
        ("write_file(\"pipe\", \"x\")", "cannot write pipe: it is a pipe, not a file"),
        ("append_file(\"pipe\", \"x\")", "cannot write pipe: it is a pipe, not a file"),
        ("read_file(\"socket\")", "cannot read socket: it is a socket, not a file"),
        ("read_file(\"folder\")", "cannot read folder: is a directory"),
        ("write_file(\"folder\", \"x\")", "cannot write folder: is a directory"),
        ("write_file(\".\", \"x\")", "cannot write .: is a directory"),
        ("read_file(\"bytes\")", "cannot read bytes: byte 3 is not UTF-8"),
        ("read_file(\"/dev/zero\")", "cannot read /dev/zero: it is a device, not a file"),
        ("list_files(\"bytes\")", "cannot list bytes: Not a directory (os error 20)"),
    ] {
        let told = told.trim_end_matches(" (os error 20)");
        test.args(["--allow-path", "/", "eval", call]).stderr(format!("✗ {told}\n")).status(1).run();
    }
    if is_root() {
        skip!("root may write every file");
    }
    let file = test.write("kept.txt", "kept");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    test.args(["eval", "write_file(\"kept.txt\", \"x\")"]).stderr_part("Permission denied").status(1).run();
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn other_programs_run_where_they_are_allowed() {
    let test = Test::new();
    let sh = |expression: &str| {
        test.args(["--allow-sh", "eval", expression]).any_stdout().any_stderr().any_status().run()
    };
    assert_eq!(sh("let r = sh(\"echo out; echo err >&2; exit 3\"); print(`${r.ok} ${r.code} ${r.stdout}${r.stderr}`)").stdout, "false 3 out\nerr\n\n");
    assert_eq!(
        sh("sh(\"pwd\").stdout.trimmed()").stdout,
        format!("{}\n", test.work().canonicalize().unwrap().display())
    );
    assert_eq!(sh("sh(\"cat\", #{ stdin: \"b\\na\\n\" })").stdout, "b\na\n\n");
    assert_eq!(sh("sh(\"cat\").stdout.len").stdout, "0\n", "it reads nothing");
    assert_eq!(sh("sh(\"kill -9 $$\").code").stdout, "137\n");
    assert_eq!(sh("sh(\"printf 'a\\\\377b'\").stdout").stdout, "a\u{fffd}b\n");
    assert_eq!(sh("sh(\"no-such-program 2>/dev/null\").code").stdout, "127\n");
    // More than a pipe holds, both ways at once.
    let much = "let big = \"x\"; big.pad(300000, 'x'); let r = sh(\"tee /dev/stderr\", #{ stdin: big }); print(r.stdout.len + r.stderr.len)";
    assert_eq!(sh(much).stdout, "600000\n");
    assert_eq!(sh("sh(\"true\", #{ stdin: \"never read\" }).ok").stdout, "true\n");
    let late = sh("sh(\"sleep 1000\", #{ timeout: 20.millis })");
    assert_eq!((late.status, late.stderr.as_str()), (124, "✗ `sleep 1000` took longer than 20ms\n"));
    let unknown = sh("sh(\"true\", #{ stdn: \"x\" })");
    assert_eq!(
        unknown.stderr,
        "✗ sh knows no `stdn`\n  --> eval:1:1\n  |\n1 | sh(\"true\", #{ stdn: \"x\" })\n  | ^\n  Did you mean `stdin`?\n"
    );
    assert_eq!(test.json(["--allow-sh", "eval", "sh(\"echo a\")", "--json"])["stdout"], "a\n");
}

#[test]
fn a_program_leaves_nothing_behind() {
    let test = Test::new();
    let is_left = || !process::running("sleep 98765").is_empty();
    test.args(["--allow-sh", "eval", "sh(\"sleep 98765 & echo started\").stdout.trimmed()"])
        .stdout("started\n")
        .run();
    wait_until("what it left in the background to be gone", || !is_left());
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let text = "sh(\"sleep 98765 & touch ready; wait\"); print(\"never\")";
        let mut running = test.args(["--allow-sh", "eval", text]).start();
        wait_until("the program to run", || test.work().join("ready").exists() && is_left());
        running.signal(signal);
        wait_until("the command to end", || !running.is_running());
        let output = running.finish();
        assert_eq!(output.stdout, "", "{output:#?}");
        assert!(matches!(output.status, 130 | 143), "{output:#?}");
        wait_until("all that it started to be gone", || !is_left());
        fs::remove_file(test.work().join("ready")).unwrap();
    }
}
