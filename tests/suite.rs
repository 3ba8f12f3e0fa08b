//! `superserve test`: the standard library's own tests, written in Rhai, and what the command does when tests fail, when
//! there are none, and when it is stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use superserve::client::{self, Client};
use superserve::clock::Clock;
use superserve::script::{
    Access, Amount, Bar, Connection, Engine, FunctionDoc, Host, Interrupt, Limits, Line, Options, Shell,
    ShellAnswer, ShellOrder, Terminal,
};

use crate::process::{of_home, wait_until};
use crate::request::request;
use crate::test::Test;

fn project(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// A home whose throw-away worlds lie in a folder of its own.
fn stage() -> (Test, PathBuf) {
    let test = Test::new();
    let folder = test.work().join("tmp");
    fs::create_dir(&folder).unwrap();
    (test.env("TMPDIR", folder.to_str().unwrap()), folder)
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Runs the tests in these files of the project; all must pass, and nothing may be left of them.
fn all_pass(path: &str, least: usize) {
    let (test, worlds) = stage();
    let told = test.args(["test", &project(path)]).any_stdout().any_stderr().any_status().run();
    let passed = told.stdout.lines().filter(|line| line.starts_with("✓ ")).count();
    assert!(told.status == 0 && passed >= least, "{}\n{}", told.stdout, told.stderr);
    assert!(told.stdout.ends_with(&format!("{passed} passed, 0 failed\n")), "{}", told.stdout);
    assert!(is_empty(&worlds), "a world was left behind");
    assert!(is_empty(&test.home()), "the real home was touched");
}

#[test]
fn the_standard_library_keeps_its_word() {
    all_pass("tests/suite", 35);
}

#[test]
fn each_module_of_the_standard_library_is_tested() {
    for entry in fs::read_dir(project("stdlib")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let tests = project(&format!("tests/suite/{name}_test.rhai"));
        assert!(Path::new(&tests).exists(), "std/{name} has no tests: {tests}");
    }
}

#[test]
fn the_example_of_the_readme_passes() {
    all_pass("examples/tidy", 4);
}

const MIXED: &str = r#"import "std/check" as check;

fn test_good() {
    print("not told");
    check::equal(1 + 1, 2);
}

fn test_bad() {
    print("\x1b[31mtold");
    warn("too");
    check::equal(1 + 1, 3);
}

fn test_thrown() { throw "no milk"; }
fn test_left() { exit(0); }
fn test_of_two(a, b) { }
fn helper() { throw "never called"; }
fn test_not_found() { get("ffff"); }
"#;

#[test]
fn a_failing_test_is_told_with_its_place_and_what_it_printed() {
    let (test, worlds) = stage();
    test.write("mixed.rhai", MIXED);
    test.args(["test", "mixed.rhai"])
        .stdout(
            "✓ test_good\n\
             ✗ test_bad\n  found 2, wanted 3\n     --> mixed.rhai:11:12\n     |\n  11 |     check::equal(1 + 1, 3);\n     \
             |            ^\n  stdout:\n  | told\n  stderr:\n  | too\n\
             ✗ test_thrown\n  no milk\n     --> mixed.rhai:14:20\n     |\n  14 | fn test_thrown() { throw \"no milk\"; }\n     \
             |                    ^\n\
             ✗ test_left\n  the test ended by exit(0)\n    A script that ends so can be run by fixture::run and \
             fixture::run_script.\n\
             ✗ test_not_found\n  Session not found: no session matches 'ffff'\n     --> mixed.rhai:18:23\n     |\n  \
             18 | fn test_not_found() { get(\"ffff\"); }\n     |                       ^\n    \
             Run superserve sessions list to see your sessions.\n\
             1 passed, 4 failed\n",
        )
        .stderr("test_of_two in mixed.rhai is no test, since it takes parameters\n")
        .status(1)
        .run();
    assert!(is_empty(&worlds) && is_empty(&test.home()));
}

#[test]
fn as_json() {
    let (test, _) = stage();
    test.write("mixed.rhai", MIXED);
    let told = test.args(["test", "mixed.rhai", "--json"]).any_stdout().any_stderr().status(1).run();
    let mut told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&told["passed"], &told["failed"]), (&json!(1), &json!(4)));
    let bad = &mut told["tests"][1];
    assert!(bad["duration_ms"].is_u64(), "{bad}");
    bad["duration_ms"] = json!(0);
    assert_eq!(
        *bad,
        json!({
            "file": "mixed.rhai", "name": "test_bad", "ok": false, "duration_ms": 0,
            "error": {
                "code": "script", "message": "found 2, wanted 3", "hint": null, "file": "mixed.rhai", "line": 11,
                "column": 12,
            },
            "stdout": "\u{1b}[31mtold\n", "stderr": "too\n",
        })
    );
}

#[test]
fn some_by_name_and_many_files() {
    let (test, _) = stage();
    test.write("all/a_test.rhai", "fn test_one() { } fn test_two() { throw 1; }");
    test.write("all/deep/b.rhai", "fn test_one() { } fn other() { }");
    test.write("all/library.rhai", "fn one() { 1 }");
    test.write("all/notes.txt", "fn test_one() { throw 1; }");
    test.args(["test", "all", "--filter", "one"])
        .stdout("all/a_test.rhai\n✓ test_one\n\nall/deep/b.rhai\n✓ test_one\n\n2 passed, 0 failed\n")
        .run();
    test.args(["test", "all/deep/b.rhai"]).stdout("✓ test_one\n1 passed, 0 failed\n").run();
}

#[test]
fn what_can_not_be_run_is_never_a_success() {
    let (test, _) = stage();
    test.args(["test"]).any_stderr().status(2).run();
    test.args(["test", "nothing.rhai"]).stderr_part("cannot read the script nothing.rhai").status(3).run();
    test.write("empty/none.rhai", "fn helper() { }");
    test.args(["test", "empty/none.rhai"])
        .stderr(
            "✗ there are no tests in empty/none.rhai\n  A test is a function without parameters whose name begins with \
             test_.\n",
        )
        .status(2)
        .run();
    test.args(["test", "empty"]).any_stdout().stderr_part("there are no tests").status(2).run();
    test.write("one.rhai", "fn test_one() { }");
    test.args(["test", "one.rhai", "--filter", "two"])
        .stderr_part("no test's name contains 'two'")
        .status(2)
        .run();
}

#[test]
fn a_file_that_can_not_be_read_fails_and_the_others_are_run() {
    let (test, _) = stage();
    test.write("broken.rhai", "fn test_one() { 1 +; }");
    test.write("typo.rhai", "fn test_one() { lsit(); }");
    test.write("good.rhai", "fn test_one() { }");
    test.args(["test", "broken.rhai", "typo.rhai", "good.rhai"])
        .stdout(
            "broken.rhai\n✗ broken.rhai\n  `;` can't stand here\n    --> broken.rhai:1:20\n    |\n  1 | fn test_one() { 1 +; \
             }\n    |                    ^\n\n\
             typo.rhai\n✗ typo.rhai\n  there is no function `lsit`\n    --> typo.rhai:1:17\n    |\n  1 | fn test_one() { \
             lsit(); }\n    |                 ^\n    Did you mean `list`?\n\n\
             good.rhai\n✓ test_one\n\n1 passed, 2 failed\n",
        )
        .status(1)
        .run();
}

#[test]
fn each_test_has_a_world_of_its_own() {
    let (test, worlds) = stage();
    test.deploy("echo");
    test.begin("echo", "real");
    let before = test.json(["sessions", "list", "--json"]);
    test.command("mine/greet", "//! Greet.\n//! @arg name\nprint(`hello ${args.name}`);\n");
    test.write("sessions.json", &before.to_string());
    test.write(
        "world.rhai",
        r#"import "std/check" as check;
fn test_first() {
    check::equal(list().len, 0);
    check::equal(now(), time("2026-03-09T10:15:00Z"));
    fixture::agent("notes", "Noted.\nTwice.");
    let s = sessions::create("notes");
    check::equal(s.send("a\nb").text, "Noted.\nTwice.");
    check::equal(s.send("c").text, "Noted.\nTwice.");
    fixture::pass(2.hours);
    check::equal(s.refresh().idle, 2.hours);
}
fn test_second() {
    check::equal(list().len, 0);
    check::equal(now(), time("2026-03-09T10:15:00Z"));
    check::equal(fixture::run("mine/greet", ["Ada"]), #{ exit: 0, stdout: "hello Ada\n", stderr: "" });
    check::equal(fixture::run("mine greet").exit, 2);
    check::equal(fixture::run("eval", ["exit(7)"]).exit, 7);
    check::throws(|| fixture::run("server stop"), "can't be run in a test");
    check::throws(|| fixture::run("test world.rhai"), "can't be run in a test");
}
fn test_third() {
    fixture::clock("2026-03-10T10:15:00Z");
    let made = fixture::sessions_from("sessions.json");
    check::equal([list().len, list()[0].id], [1, made[0].id]);
    check::equal([made[0].title, made[0].agent, made[0].idle], ["real", "echo", 1.days]);
    check::equal(made[0].send("more").text, "more");
    made.end();
    check::throws(|| fixture::sessions_from("world.rhai"), "is not a list of sessions");
    check::throws(|| fixture::sessions_from("nothing.json"), "cannot read");
}
fn test_wrong_fixtures() {
    check::throws(|| fixture::sessions([#{ agnet: "notes" }]), "no option `agnet`");
    check::throws(|| fixture::sessions([#{ status: "asleep" }]), "unknown status 'asleep'");
    check::throws(|| fixture::sessions([#{ idle: 2.days, age: 1.days }]), "can't be idle for longer");
    check::throws(|| fixture::sessions([#{ idle: -1.days }]), "must be a duration");
    check::throws(|| fixture::sessions([#{ id: "xyz" }]), "no beginning of an ID");
    check::throws(|| fixture::sessions([#{ id: "a" }, #{ id: "a" }]), "two sessions have the ID");
    check::throws(|| fixture::sessions(["notes"]), "described by a map");
    check::throws(|| fixture::agent("../notes"), "no name for an agent");
    check::throws(|| fixture::clock("soon"), "no time");
    check::equal(list().len, 0);
}
"#,
    );
    test.args(["test", "world.rhai"])
        .stdout("✓ test_first\n✓ test_second\n✓ test_third\n✓ test_wrong_fixtures\n4 passed, 0 failed\n")
        .run();
    assert!(is_empty(&worlds), "a world was left behind");
    assert_eq!(test.json(["sessions", "list", "--json"]), before, "what is real is as it was");
    let status = request(&test, "GET", "/agents", None).json();
    assert_eq!(status["agents"].as_array().map(Vec::len), Some(1), "{status}");
}

#[test]
fn fixtures_are_refused_in_the_real_world() {
    let test = Test::new();
    test.args(["eval", "fixture::pass(2.hours)"])
        .stderr_part("fixtures are there only in tests: this world is real")
        .status(1)
        .run();
}

/// Begins a test that waits with an agent at work, stops it as `stop` does, and waits until all of it is gone.
fn stopped_by(signal: rustix::process::Signal) -> crate::command::Output {
    let (test, worlds) = stage();
    test.write(
        "waits.rhai",
        "fn test_waits() { fixture::agent(\"notes\"); sessions::create(\"notes\").send(\"x\"); sleep(1000); }\n\
         fn test_never_run() { }\n",
    );
    let run = test.args(["test", "waits.rhai"]).any_stdout().any_stderr().any_status().start();
    let world = || fs::read_dir(&worlds).unwrap().next().map(|entry| entry.unwrap().path());
    wait_until("the agent to work", || {
        world().is_some_and(|home| {
            fs::read_dir(home.join("sessions")).is_ok_and(|mut sessions| sessions.next().is_some())
        })
    });
    let home = world().unwrap();
    assert!(!of_home(&home).is_empty(), "the world has processes");
    run.signal(signal);
    let output = run.finish();
    wait_until("the world's processes to be gone", || of_home(&home).is_empty());
    wait_until("the world's folder to be gone", || is_empty(&worlds));
    output
}

#[test]
fn ctrl_c_stops_it_and_leaves_nothing() {
    let output = stopped_by(rustix::process::Signal::INT);
    assert_eq!(output.status, 130, "{output:?}");
    assert!(output.stdout.starts_with("✗ test_waits\n  interrupted; "), "{output:?}");
    assert!(output.stdout.ends_with("0 passed, 1 failed\n"), "{output:?}");
}

#[test]
fn a_killed_one_leaves_nothing() {
    stopped_by(rustix::process::Signal::KILL);
    stopped_by(rustix::process::Signal::TERM);
}

/// A terminal that nobody looks at, and the way to no server.
struct Nowhere;

impl Terminal for Nowhere {
    fn out(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
    fn err(&self, _: &str) {}
    fn out_is_terminal(&self) -> bool {
        false
    }
    fn err_is_terminal(&self) -> bool {
        false
    }
    fn in_is_terminal(&self) -> bool {
        false
    }
    fn out_colour(&self) -> bool {
        false
    }
    fn err_colour(&self) -> bool {
        false
    }
    fn width(&self) -> Option<usize> {
        None
    }
    fn bar(&self, _: &str, _: Amount) -> Box<dyn Bar> {
        Box::new(())
    }
    fn read_hidden(&self, prompt: &str) -> std::io::Result<Line> {
        self.read_line(prompt)
    }

    fn read_line(&self, _: &str) -> std::io::Result<Line> {
        Ok(Line::End)
    }
}

impl Connection for Nowhere {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        Box::pin(async { Err(client::Error::Unreachable { message: "no server here".into(), hint: None }) })
    }

    fn at(&self, _: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        self.connect()
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        Box::pin(async { None })
    }
}

impl Shell for Nowhere {
    fn run(&self, _: ShellOrder) -> LocalBoxFuture<'_, std::io::Result<ShellAnswer>> {
        Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
    }
}

fn fixtures() -> Vec<FunctionDoc> {
    let engine = Engine::new(Host {
        connection: Rc::new(Nowhere),
        terminal: Rc::new(Nowhere),
        shell: Rc::new(Nowhere),
        access: Access::default(),
        clock: Clock::system(),
        options: Options::default(),
        fields: Vec::new().into(),
        interrupt: Interrupt::default(),
        limits: Limits::default(),
        env: Rc::new(|_| None),
    });
    engine.functions().into_iter().filter(|function| function.module == "fixture").collect()
}

#[test]
fn every_fixtures_example_does_what_stands_there() {
    let (test, _) = stage();
    test.write("sessions.json", "[]");
    test.write("tidy.rhai", "//! Tidy.\n//! @option agent <NAME>\nlist(#{ agent: args.agent });\n");
    let (mut text, mut said) = (String::new(), Vec::new());
    for function in fixtures() {
        for example in &function.examples {
            text += &format!("fn test_{}() {{\n{example}\n}}\n", said.len());
            let lines = example.lines().filter_map(|line| line.split_once("   // "));
            said.push((
                function.signature.clone(),
                lines.map(|(_, said)| format!("{said}\n")).collect::<String>(),
            ));
        }
    }
    assert!(said.len() > 10, "only {} examples", said.len());
    test.write("examples.rhai", &text);
    let told = test.args(["test", "examples.rhai", "--json"]).any_stdout().any_stderr().any_status().run();
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    for (result, (signature, said)) in told["tests"].as_array().unwrap().iter().zip(&said) {
        assert_eq!(result["ok"], true, "{signature}: {result}");
        if !said.is_empty() {
            assert_eq!(result["stdout"], *said, "{signature}");
        }
    }
    assert_eq!(told["tests"].as_array().unwrap().len(), said.len());
}
