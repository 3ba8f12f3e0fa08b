//! What agents ask to have installed: once, in the sandbox, read-only for their sessions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rexpect::session::{Options, spawn_with_options};
use serde_json::json;

use crate::process::{PATIENCE, wait_until};
use crate::test::{Test, agents, has_namespaces, started};

/// Writes a package for pip by hand: no index and no other package is needed for it.
const MAKE_WHEEL: &str = r#"
import sys, zipfile
name = "greeting-1.0.dist-info/"
with zipfile.ZipFile(sys.argv[1] + "/greeting-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeting.py", "TEXT = 'installed'\ndef main():\n    print(TEXT, 'as a program')\n")
    wheel.writestr(name + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    wheel.writestr(name + "WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(name + "entry_points.txt", "[console_scripts]\ngreet = greeting:main\n")
    wheel.writestr(name + "RECORD", "")
"#;
const WHEEL: &str = "./greeting-1.0-py3-none-any.whl";

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn has_pip() -> bool {
    runs("python3", &["-c", "import ensurepip, venv"])
}

fn has_npm() -> bool {
    runs("npm", &["--version"])
}

/// An agent in Python, with a package beside it that its `requirements.txt` asks for.
fn python_agent(test: &Test, name: &str) -> PathBuf {
    let folder = test.work().join(name);
    test.write(&format!("{name}/superserve.yaml"), &format!("name: {name}\ncommand: python3 agent.py\n"));
    test.write(
        &format!("{name}/agent.py"),
        "import subprocess, sys\nfor line in sys.stdin:\n    exec(line)\n    sys.stdout.flush()\n",
    );
    test.write(&format!("{name}/requirements.txt"), &format!("# by hand\n--no-index\n{WHEEL}\n"));
    assert!(runs("python3", &["-c", MAKE_WHEEL, folder.to_str().unwrap()]));
    folder
}

/// An agent in shell whose `package.json` asks for a package beside it, and runs `script` when that is installed.
fn node_agent(test: &Test, name: &str, script: &str) -> PathBuf {
    test.write(&format!("{name}/superserve.yaml"), &format!("name: {name}\ncommand: sh agent.sh\n"));
    test.write(&format!("{name}/agent.sh"), "while read -r line; do eval \"$line\"; done\n");
    let package = json!({
        "name": name, "version": "1.0.0", "dependencies": {"greeting": "file:./greeting"},
        "scripts": {"postinstall": script},
    });
    test.write(&format!("{name}/package.json"), &package.to_string());
    test.write(&format!("{name}/greeting/package.json"), r#"{"name": "greeting", "version": "1.0.0"}"#);
    test.write(&format!("{name}/greeting/index.js"), "module.exports = 'installed';\n");
    test.work().join(name)
}

/// The folders of what is installed.
fn installed(test: &Test) -> Vec<PathBuf> {
    let found = fs::read_dir(test.home().join("deps")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

fn status(test: &Test, agent: &str) -> String {
    test.json(["agents", "get", agent, "--json"])["deps_status"].as_str().unwrap().to_owned()
}

fn deploy(test: &Test, folder: &Path) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    test.args(["deploy", "--dir", folder.to_str().unwrap()])
        .stderr_part(&format!("Installing the dependencies of {name}…\nInstalled\n"))
        .run();
}

/// For `postinstall`: waits until a file is gone.
const WAITS: &str = "touch wait; env > seen; while [ -e wait ]; do sleep 0.05; done";

fn let_go(test: &Test) {
    let begun = || installed(test).iter().find(|folder| folder.join("work/seen").exists()).cloned();
    wait_until("the installation to begin", || begun().is_some());
    fs::remove_file(begun().unwrap().join("work/wait")).unwrap();
}

#[test]
fn python_packages_are_there_and_can_not_be_changed() {
    if !has_pip() {
        skip!("there is no python3 that makes environments");
    }
    let test = Test::new();
    deploy(&test, &python_agent(&test, "snake"));
    let agent = test.json(["agents", "get", "snake", "--json"]);
    assert_eq!((&agent["deps_status"], &agent["deps_error"]), (&json!("ready"), &json!(null)));
    test.args(["agents", "get", "snake"]).stdout_part("Dependencies").stdout_part("ready").run();
    let id = test.create("snake");
    assert_eq!(test.send(&id, "import greeting; print(greeting.TEXT)"), "installed\n");
    assert_eq!(
        test.send(&id, "print(subprocess.run(['greet'], capture_output=True).stdout.decode(), end='')"),
        "installed as a program\n"
    );
    if has_namespaces() {
        assert_eq!(
            test.send(&id, "print(sys.prefix, greeting.__file__.startswith('/opt/venv/'))"),
            "/opt/venv True\n"
        );
        let write =
            "\ntry: open('/opt/venv/x', 'w')\nexcept OSError as e: print(e.strerror)".replace('\n', "\\n");
        assert_eq!(
            test.send(&id, &format!("exec({write:?}.replace('\\\\n', chr(10)))")),
            "Read-only file system\n"
        );
    }
    // The same again is there already.
    let one = installed(&test);
    assert_eq!(one.len(), 1);
    test.write("snake/more.txt", "more");
    let output = test.args(["deploy", "--dir", "snake"]).any_stderr().run();
    assert!(output.stderr.contains("revision 2"), "{output:#?}");
    // The file of the package is the agent's own, so that any change may be one of it.
    assert_eq!(test.send(&test.create("snake"), "import greeting; print(greeting.TEXT)"), "installed\n");
    assert_eq!(test.send(&id, "print(greeting.TEXT)"), "installed\n", "the first one keeps its own");
}

#[test]
fn without_isolation_they_work_too() {
    if !has_pip() || !has_npm() {
        skip!("there is no python3 that makes environments, or no npm");
    }
    let test = Test::unsandboxed();
    deploy(&test, &python_agent(&test, "snake"));
    let id = test.create("snake");
    assert_eq!(test.send(&id, "import greeting; print(greeting.TEXT)"), "installed\n");
    deploy(&test, &node_agent(&test, "knot", "true"));
    let id = test.create("knot");
    assert_eq!(test.send(&id, "node -p 'require(\"greeting\")'"), "installed\n");
}

#[test]
fn a_pyproject_lists_its_dependencies() {
    if !has_pip() {
        skip!("there is no python3 that makes environments");
    }
    let test = Test::new();
    let folder = python_agent(&test, "snake");
    fs::remove_file(folder.join("requirements.txt")).unwrap();
    let listed = "greeting @ file:///workspace/greeting-1.0-py3-none-any.whl";
    test.write(
        "snake/pyproject.toml",
        &format!("[project]\nname = \"snake\"\nversion = \"1\"\ndependencies = [\"{listed}\"]\n"),
    );
    if !has_namespaces() {
        skip!("the package's path is that of the sandbox");
    }
    deploy(&test, &folder);
    assert_eq!(test.send(&test.create("snake"), "import greeting; print(greeting.TEXT)"), "installed\n");
    test.write("snake/pyproject.toml", "[project\n");
    test.args(["deploy", "--dir", "snake"])
        .stderr_part("✗ The agent's pyproject.toml cannot be read")
        .status(2)
        .run();
}

#[test]
fn uv_installs_where_it_is_found() {
    if !has_pip() {
        skip!("there is no python3 that makes environments");
    }
    let test = Test::new();
    // One that does what is asked of it by pip.
    let uv = test.write(
        "bin/uv",
        "#!/bin/sh\n[ \"$1 $2 $3 $5\" = \"pip install --python -r\" ] || exit 9\ntouch uv-was-here\n\
         exec \"$PYTHON\" -m pip --python \"$4\" install --no-cache-dir -r \"$6\"\n",
    );
    fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", uv.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let test = test.env("PATH", path);
    deploy(&test, &python_agent(&test, "snake"));
    assert!(installed(&test)[0].join("work/uv-was-here").exists());
    assert_eq!(test.send(&test.create("snake"), "import greeting; print(greeting.TEXT)"), "installed\n");
}

#[test]
fn what_several_ask_for_is_installed_once_and_goes_with_the_last() {
    if !has_pip() {
        skip!("there is no python3 that makes environments");
    }
    let test = Test::new();
    for name in ["one", "two"] {
        let folder = python_agent(&test, name);
        // There already in every environment, so that no index is asked.
        test.write(&format!("{name}/requirements.txt"), "pip\n");
        let output = test.args(["deploy", "--dir", folder.to_str().unwrap()]).any_stderr().run();
        assert_eq!(output.stderr.contains("Installing"), name == "one", "{output:#?}");
        assert_eq!(status(&test, name), "ready");
    }
    let first = installed(&test);
    assert_eq!(first.len(), 1);
    test.args(["agents", "delete", "one", "--yes"]).any_stderr().run();
    assert_eq!(installed(&test), first);
    assert_eq!(test.send(&test.create("two"), "import pip; print('there')"), "there\n");
    test.args(["agents", "delete", "two", "--yes"]).any_stderr().run();
    assert_eq!(installed(&test), [] as [PathBuf; 0]);
}

#[test]
fn an_agent_that_goes_while_its_are_installed_leaves_nothing() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new();
    let folder = node_agent(&test, "knot", WAITS);
    test.args(["deploy", "--no-wait", "--dir", folder.to_str().unwrap()]).any_stderr().run();
    test.args(["agents", "delete", "knot", "--yes"]).any_stderr().run();
    let_go(&test);
    wait_until("its dependencies to go", || installed(&test).is_empty());
}

#[test]
fn node_packages_stay_as_long_as_a_session_needs_them() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new();
    let folder = node_agent(&test, "knot", "true");
    deploy(&test, &folder);
    let first = installed(&test);
    let id = test.create("knot");
    assert_eq!(test.send(&id, "node -p 'require(\"greeting\")'"), "installed\n");
    if has_namespaces() {
        assert!(test.send(&id, "touch node_modules/x 2>&1").contains("Read-only file system"));
    }
    // A new revision asks for nothing: the session that runs keeps what it has, also in its next process.
    fs::remove_file(folder.join("package.json")).unwrap();
    test.deploy(&folder);
    assert_eq!(status(&test, "knot"), "none");
    assert_eq!(installed(&test), first);
    test.stop_server();
    assert_eq!(test.send(&id, "node -p 'require(\"greeting\")'"), "installed\n");
    assert!(test.send(&test.create("knot"), "ls").contains("greeting"), "its own folder is still there");
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.write("knot/agent.sh", "cat\n");
    test.deploy(&folder);
    assert_eq!(installed(&test), [] as [PathBuf; 0]);
}

#[test]
fn a_message_waits_until_they_are_installed() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new().env("HTTPS_PROXY", "http://proxy.example:3128").env("HOST_SECRET", "hush");
    let folder = node_agent(&test, "knot", WAITS);
    test.deploy(agents().join("shell"));
    test.args(["deploy", "--no-wait", "--dir", folder.to_str().unwrap()])
        .stderr("Deployed knot (revision 1)\n")
        .run();
    assert_eq!(status(&test, "knot"), "building");
    test.args(["agents", "list"]).stdout_part("building").run();
    test.args(["secrets", "set", "knot", "TOKEN=hush"]).any_stderr().run();
    let run = test.args(["run", "knot", "node -p 'require(\"greeting\")'", "--single", "--json"]).start();
    wait_until("the status", || run.stdout().contains("installing dependencies…"));
    let id = started(&run.stdout()).unwrap();
    assert_eq!(test.status_of(&id), "active");
    // It can be given up, and others are not held up.
    let other = test.args(["run", "knot", "echo", "--single", "--json"]).start();
    wait_until("the status", || other.stdout().contains("installing dependencies…"));
    let other_id = started(&other.stdout()).unwrap();
    test.args(["sessions", "cancel", &other_id]).any_stderr().run();
    assert_eq!(test.status_of(&other_id), "idle");
    assert!(other.finish().stdout.contains("run.cancelled"));
    assert_eq!(test.send(&test.create("shell"), "echo meanwhile"), "meanwhile\n");
    let_go(&test);
    let output = run.finish();
    assert!(output.stdout.contains("installed"), "{output:#?}");
    assert_eq!(status(&test, "knot"), "ready");
    let seen = fs::read_to_string(installed(&test)[0].join("work/seen")).unwrap();
    assert!(seen.contains("HTTPS_PROXY=http://proxy.example:3128\n") && !seen.contains("hush"), "{seen}");
}

#[test]
fn an_installation_that_was_interrupted_is_begun_anew() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new();
    let folder = node_agent(&test, "knot", WAITS);
    test.args(["deploy", "--no-wait", "--dir", folder.to_str().unwrap()]).any_stderr().run();
    let begun = |test: &Test| installed(test).iter().any(|folder| folder.join("work/seen").exists());
    wait_until("the installation to begin", || begun(&test));
    test.kill_server();
    fs::remove_file(installed(&test)[0].join("work/seen")).unwrap();
    assert_eq!(status(&test, "knot"), "building");
    let_go(&test);
    wait_until("them to be ready", || status(&test, "knot") == "ready");
    assert_eq!(test.send(&test.create("knot"), "node -p 'require(\"greeting\")'"), "installed\n");
    // Stopped in good order in the middle of it, it is the same.
    fs::write(folder.join("more"), "").unwrap();
    test.args(["deploy", "--no-wait", "--dir", folder.to_str().unwrap()]).any_stderr().run();
    test.stop_server();
    assert_eq!(status(&test, "knot"), "building");
}

#[test]
fn what_can_not_be_installed_is_told_with_the_end_of_the_log() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new();
    let folder = node_agent(&test, "knot", "echo first line; echo why it fails; exit 3");
    let output = test.args(["deploy", "--dir", folder.to_str().unwrap()]).any_stderr().status(1).run();
    assert!(output.stderr.contains("✗ The dependencies of knot cannot be installed\n"), "{output:#?}");
    assert!(output.stderr.contains("why it fails"), "{output:#?}");
    let agent = test.json(["agents", "get", "knot", "--json"]);
    assert_eq!(agent["deps_status"], "failed");
    assert!(agent["deps_error"].as_str().unwrap().contains("why it fails"), "{agent}");
    test.args(["agents", "get", "knot"]).stdout_part("failed").stdout_part("why it fails").run();
    test.args(["agents", "list"]).stdout_part("failed").run();
    let listed = test.json(["agents", "list", "--status", "failed", "--json"]);
    assert_eq!((&listed[0]["name"], listed.as_array().map(Vec::len)), (&"knot".into(), Some(1)));
    test.args(["agents", "list", "--status", "ready"])
        .stderr("No agent's dependencies are so far: ready\n")
        .run();
    let refused =
        test.args(["deploy", "--dir", folder.to_str().unwrap(), "--json"]).any_stderr().status(1).run();
    let told = refused.stderr.lines().last().unwrap_or_default();
    let told: serde_json::Value =
        serde_json::from_str(told).unwrap_or_else(|error| panic!("{error}: {refused:#?}"));
    assert_eq!(told["error"]["code"], "dependencies_failed", "{told}");
    let output = test.args(["run", "knot", "echo", "--single"]).any_stdout().any_stderr().status(7).run();
    assert!(output.stderr.contains("The agent's dependencies cannot be installed"), "{output:#?}");
    assert!(output.stderr.contains("why it fails"), "{output:#?}");
    // The same deployment tries it again; a better one makes it good.
    test.args(["deploy", "--dir", folder.to_str().unwrap()])
        .stderr_part("Installing the dependencies")
        .status(1)
        .run();
    node_agent(&test, "knot", "true");
    deploy(&test, &folder);
    assert_eq!(test.send(&test.create("knot"), "node -p 'require(\"greeting\")'"), "installed\n");
}

#[test]
fn a_terminal_shows_how_far_an_installation_is() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new();
    let folder = node_agent(&test, "knot", WAITS);
    let words = ["deploy", "--dir", folder.to_str().unwrap()];
    let options = Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
    let mut terminal = spawn_with_options(test.args(words).for_terminal("xterm"), options).unwrap();
    terminal.exp_string("Deployed knot (revision 1)").unwrap();
    terminal.exp_string("Installing the dependencies of knot").unwrap();
    // Time passes, and is told.
    for second in 1..=2 {
        terminal.exp_string(&format!("knot: dependencies building {second}s")).unwrap();
    }
    let_go(&test);
    terminal.exp_string("Installed").unwrap();
    terminal.exp_eof().unwrap();
}

#[test]
fn an_installation_that_takes_too_long_is_stopped() {
    if !has_npm() {
        skip!("there is no npm");
    }
    let test = Test::new().env("SUPERSERVE_DEPENDENCIES_TIMEOUT", "2s");
    let folder = node_agent(&test, "knot", "sleep 600");
    let output = test.args(["deploy", "--dir", folder.to_str().unwrap()]).any_stderr().status(1).run();
    assert!(output.stderr.contains("(stopped: it took longer than 2 s)"), "{output:#?}");
    assert_eq!(status(&test, "knot"), "failed");
}
