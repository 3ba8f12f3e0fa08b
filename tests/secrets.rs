//! `superserve secrets set|list|delete`: what an agent gets, and that nobody else does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rexpect::session::{Options, spawn_with_options};
use serde_json::json;

use crate::process::PATIENCE;
use crate::request::request;
use crate::test::{Test, told};

const VALUE: &str = "hunter2-5f1e9c";

/// Whether a file below `folder` holds this text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => holds(&path, text),
            Ok(meta) if meta.is_file() => fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())),
            _ => false,
        }
    })
}

/// A home with an agent that runs what it is told.
fn with_shell() -> Test {
    let test = Test::new();
    test.deploy("shell");
    test
}

fn set(test: &Test, pair: &str) {
    let key = pair.split('=').next().unwrap();
    test.args(["secrets", "set", "shell", pair]).stderr(format!("✓ Secret {key} of shell set\n")).run();
}

#[test]
fn reach_the_agents_next_process_and_nothing_else() {
    let test = with_shell();
    let before = test.create("shell");
    assert_eq!(test.send(&before, "echo [$API_KEY]"), "[]\n");
    set(&test, &format!("API_KEY={VALUE}"));
    test.args(["secrets", "set", "shell", "b=1 = 2", "EMPTY="])
        .stderr("✓ Secret EMPTY of shell set\n✓ Secret b of shell set\n")
        .run();
    assert_eq!(test.send(&before, "echo [$API_KEY]"), "[]\n", "a process keeps its environment");
    let id = test.create("shell");
    assert_eq!(test.send(&id, "echo [${#API_KEY}][$b][${EMPTY-unset}]"), "[14][1 = 2][]\n");
    test.args(["secrets", "list", "shell"]).stdout("API_KEY\nEMPTY\nb\n").run();
    assert_eq!(test.json(["secrets", "list", "shell", "--json"]), json!({"keys": ["API_KEY", "EMPTY", "b"]}));
    assert_eq!(
        test.json(["agents", "get", "shell", "--json"])["environment_keys"],
        json!(["API_KEY", "EMPTY", "b"])
    );
    // Later values and deletions count from the next start on.
    set(&test, "API_KEY=other");
    test.args(["secrets", "delete", "shell", "b", "EMPTY"])
        .stderr("✓ Secret b of shell deleted\n✓ Secret EMPTY of shell deleted\n")
        .run();
    assert_eq!(test.send(&id, "echo [${#API_KEY}][$b]"), "[14][1 = 2]\n");
    test.stop_server();
    assert_eq!(test.send(&id, "echo [$API_KEY][${b-unset}][${EMPTY-unset}]"), "[other][unset][unset]\n");
    test.args(["secrets", "delete", "shell", "b"])
        .stderr(told(
            "Secret not found: the agent shell has no secret 'b'",
            "Run superserve secrets list shell to see those that are set.",
        ))
        .status(3)
        .run();
}

#[test]
fn values_stand_nowhere_in_the_home_and_in_no_answer() {
    let test = Test::new();
    test.deploy(test.agent(
        "leaky",
        "echo \"starting with $TOKEN\" >&2\nread -r line\necho \"key: $TOKEN\" >&2\nexit 3\n",
    ));
    let set = test
        .args(["secrets", "set", "leaky", &format!("TOKEN={VALUE}"), "--json"])
        .stdout_part("TOKEN")
        .run();
    assert!(!set.stdout.contains(VALUE) && !set.stderr.contains(VALUE), "{set:#?}");
    let run = test.args(["run", "leaky", "hello", "--json"]).any_stdout().any_stderr().status(7).run();
    assert!(run.stdout.contains("key: [secret]"), "{run:#?}");
    assert!(!run.stdout.contains(VALUE) && !run.stderr.contains(VALUE), "{run:#?}");
    assert!(test.session("@last")["error"].as_str().unwrap().contains("starting with [secret]"));
    for command in [
        &["agents", "get", "leaky"][..],
        &["agents", "list"],
        &["secrets", "list", "leaky"],
        &["server", "logs"],
    ] {
        for json in [false, true] {
            let mut words = command.to_vec();
            words.extend(json.then_some("--json"));
            let output = test.args(&words).any_stdout().any_stderr().any_status().run();
            assert!(!format!("{output:?}").contains(VALUE), "{output:#?}");
        }
    }
    assert!(fs::read_to_string(test.home().join("server.log")).unwrap().contains("key: [secret]"));
    assert!(!holds(&test.home(), VALUE));
    assert!(holds(&test.home(), "key: [secret]"), "the probe finds what is there");
    test.stop_server();
    assert!(!holds(&test.home(), VALUE));
}

#[test]
fn a_required_one_that_is_not_set_is_asked_for() {
    let test = Test::new();
    test.write("needy/superserve.yaml", "name: needy\ncommand: sh agent.sh\nsecrets: [A_KEY, B_KEY]\n");
    test.write("needy/agent.sh", "while read -r line; do echo \"$A_KEY$B_KEY\"; done\n");
    test.deploy(test.work().join("needy"));
    let id = test.create("needy");
    let refused = |missing: &str, first: &str| {
        test.args(["sessions", "send", &id, "hello"])
            .stderr(told(
                &format!("The agent needs secrets that are not set: {missing}"),
                &format!("Set them, one after the other: superserve secrets set needy {first}"),
            ))
            .status(2)
            .run();
    };
    refused("A_KEY, B_KEY", "A_KEY");
    test.args(["secrets", "set", "needy", "A_KEY=a"]).any_stderr().run();
    refused("B_KEY", "B_KEY");
    assert_eq!(test.status_of(&id), "pending");
    test.args(["secrets", "set", "needy", "B_KEY=b"]).any_stderr().run();
    assert_eq!(test.send(&id, "hello"), "ab\n");
    // A deployment without a change, and one with, leave them as they are.
    test.write("needy/agent.sh", "while read -r line; do echo \"new $A_KEY$B_KEY\"; done\n");
    test.deploy(test.work().join("needy"));
    assert_eq!(test.send(&id, "hello"), "ab\n");
    assert_eq!(test.send(&test.create("needy"), "hello"), "new ab\n");
}

#[test]
fn keys_that_are_superserves_own_or_none_are_refused() {
    let test = with_shell();
    for key in ["PATH", "HOME", "LD_PRELOAD", "SUPERSERVE_TURN", "NODE_OPTIONS"] {
        test.args(["secrets", "set", "shell", &format!("{key}=x"), "GOOD=x"])
            .stderr_part(&format!(
                "✗ '{key}' can't be a secret's key: superserve sets this variable itself\n"
            ))
            .status(2)
            .run();
    }
    test.args(["secrets", "set", "shell", "=x"]).stderr_part("✗ A secret's key is empty\n").status(2).run();
    test.args(["secrets", "set", "shell", "A=1", "A=2"]).stderr_part("✗ A is given twice\n").status(2).run();
    test.args(["secrets", "set", "nobody", "A=1"]).stderr_part("✗ Agent not found").status(3).run();
    test.args(["secrets", "set", "shell", "BIG"])
        .stdin("x".repeat((64 << 10) + 1))
        .stderr_part("larger than 64 KiB")
        .status(2)
        .run();
    test.args(["secrets", "list", "shell"])
        .stderr("shell has no secrets. Set one with: superserve secrets set shell KEY\n")
        .run();
}

#[test]
fn a_value_comes_from_stdin_to_the_letter() {
    let test = with_shell();
    for (stdin, length) in [("two\nlines\n", 9), ("ä\r\n", 2), (" x ", 3), ("\n", 0)] {
        test.args(["secrets", "set", "shell", "KEY"]).stdin(stdin).any_stderr().run();
        let id = test.create("shell");
        assert_eq!(test.send(&id, "printf %s \"$KEY\" | wc -c").trim(), length.to_string(), "{stdin:?}");
    }
    test.args(["secrets", "set", "shell", "KEY"])
        .stderr_part("✗ a value is needed, and there is none to read\n")
        .status(2)
        .run();
    test.args(["secrets", "set", "shell", "A", "B"])
        .stdin("x")
        .stderr_part("several keys without one")
        .status(2)
        .run();
    test.args(["--dry-run", "secrets", "set", "shell", "KEY=new"])
        .stdout("would set secrets of shell: KEY\n")
        .run();
    test.args(["--dry-run", "secrets", "delete", "shell", "KEY"])
        .stdout("would delete the secret KEY of shell\n")
        .run();
    assert_eq!(test.json(["secrets", "list", "shell", "--json"])["keys"], json!(["KEY"]));
}

#[test]
fn a_value_is_typed_unseen() {
    let test = with_shell();
    let terminal = |keys: &str| {
        let command = test.args(["secrets", "set", "shell", "TYPED"]).for_terminal("xterm");
        let options =
            Options::new().timeout_ms(Some(PATIENCE.as_millis() as u64)).strip_ansi_escape_codes(true);
        let mut terminal = spawn_with_options(command, options).expect("a terminal");
        terminal.exp_string("Value of TYPED: ").expect("a question");
        terminal.send(keys).expect("keys");
        terminal.flush().expect("keys");
        let shown = terminal.exp_eof().expect("the end");
        assert!(!shown.contains("hunter"), "{shown}");
        shown
    };
    let shown = terminal("hunter2x\x7f\r");
    assert!(shown.contains("Secret TYPED of shell set"), "{shown}");
    assert_eq!(test.send(&test.create("shell"), "echo ${#TYPED}"), "7\n");
    let shown = terminal("hunter\x03");
    assert!(!shown.contains("set"), "{shown}");
    assert_eq!(test.send(&test.create("shell"), "echo ${#TYPED}"), "7\n", "Ctrl-C sets nothing");
}

#[test]
fn the_key_is_its_owners_alone_and_another_one_is_told_as_such() {
    let test = with_shell();
    let key = test.home().join("secret.key");
    assert!(!key.exists(), "made when it is first needed");
    set(&test, &format!("API_KEY={VALUE}"));
    assert_eq!(
        (key.metadata().unwrap().permissions().mode() & 0o7777, key.metadata().unwrap().len()),
        (0o600, 32)
    );
    let id = test.create("shell");
    let refused = |sentence: &str| {
        let output = test.args(["sessions", "send", &id, "echo"]).any_stdout().any_stderr().status(7).run();
        assert!(output.stderr.contains(sentence), "{output:#?}");
        assert!(!output.stderr.contains(VALUE), "{output:#?}");
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused("can be read by others. Make it yours alone with chmod 600");
    test.args(["secrets", "set", "shell", "B=1"]).stderr_part("chmod 600").status(1).run();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let saved = fs::read(&key).unwrap();
    fs::write(&key, [7; 31]).unwrap();
    refused("is not 32 bytes long");
    fs::write(&key, [7; 32]).unwrap();
    refused("the secret API_KEY cannot be read: it was encrypted with another key");
    fs::remove_file(&key).unwrap();
    refused("it was encrypted with another key");
    assert!(!key.exists(), "a key is not made to read");
    fs::write(&key, saved).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(test.send(&id, "echo ${#API_KEY}"), "14\n");
}

#[test]
fn the_key_may_come_from_the_environment() {
    let test = Test::new().env("SUPERSERVE_SECRET_KEY", "0123456789abcdef".repeat(4));
    test.deploy("shell");
    set(&test, &format!("API_KEY={VALUE}"));
    assert!(!test.home().join("secret.key").exists());
    let id = test.create("shell");
    assert_eq!(test.send(&id, "echo ${#API_KEY} ${SUPERSERVE_SECRET_KEY-unset}"), "14 unset\n");
    test.stop_server();
    let wrong = "zz".repeat(32);
    let output =
        test.args(["server", "start"]).env("SUPERSERVE_SECRET_KEY", &wrong).any_stderr().any_status().run();
    assert!(
        output.stderr.contains("SUPERSERVE_SECRET_KEY is not a key: it takes 32 bytes, in hex or in base64"),
        "{output:#?}"
    );
    assert!(!output.stderr.contains(&wrong) && output.status != 0, "{output:#?}");
}

#[test]
fn go_with_their_agent() {
    let test = with_shell();
    set(&test, &format!("API_KEY={VALUE}"));
    test.args(["agents", "delete", "shell", "--yes"]).any_stderr().run();
    test.deploy("shell");
    test.args(["secrets", "list", "shell", "--json"]).stdout("{\n  \"keys\": []\n}\n").run();
}

#[test]
fn over_the_wire_as_the_old_clients_say_it() {
    let test = with_shell();
    let id = test.json(["agents", "get", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    let path = format!("/agents/{id}/secrets");
    let call = |method: &str, path: &str, body: Option<&str>| {
        let answer = request(&test, method, path, body);
        assert!(!answer.body.contains(VALUE), "{answer:?}");
        (answer.status, answer.json())
    };
    let body = format!(r#"{{"secrets": {{"B": "{VALUE}", "a/b %ä": "2"}}}}"#);
    assert_eq!(call("GET", &path, None), (200, json!({"keys": []})));
    assert_eq!(call("PATCH", &path, Some(&body)), (200, json!({"keys": ["B", "a/b %ä"]})));
    assert_eq!(call("PATCH", &path, Some(r#"{"secrets": {}}"#)).0, 200);
    assert_eq!(call("GET", &path, None), (200, json!({"keys": ["B", "a/b %ä"]})));
    assert_eq!(call("DELETE", &format!("{path}/a%2Fb%20%25%C3%A4"), None), (200, json!({"keys": ["B"]})));
    assert_eq!(call("DELETE", &format!("{path}/a%2Fb%20%25%C3%A4"), None).0, 404);
    // Nothing of what is malformed is said again.
    for wrong in [
        format!(r#"{{"secrets": "{VALUE}"}}"#),
        format!(r#"{{"secrets": {{"B": ["{VALUE}"]}}}}"#),
        format!(r#"{{"secrets": {{"B": "{VALUE}\u0000"}}}}"#),
        format!(r#"{{"B": "{VALUE}"}}"#),
        VALUE.to_owned(),
        String::new(),
    ] {
        let (status, answer) = call("PATCH", &path, Some(&wrong));
        assert_eq!((status, &answer["details"]["code"]), (422, &json!("invalid")), "{wrong}: {answer}");
    }
    let many: Vec<String> = (0..101).map(|number| format!(r#""K{number}": "v""#)).collect();
    assert_eq!(call("PATCH", &path, Some(&format!(r#"{{"secrets": {{{}}}}}"#, many.join(",")))).0, 413);
    assert_eq!(call("GET", &path, None), (200, json!({"keys": ["B"]})), "all or none");
    assert_eq!(call("GET", "/agents/agt_000000000000/secrets", None).0, 404);
    test.stop_server();
    assert!(!holds(&test.home(), VALUE));
}

#[test]
fn the_repl_sets_them_and_forgets_the_line() {
    let test = with_shell();
    test.args([
        "eval",
        &format!("secrets::set(\"shell\", #{{ KEY: \"{VALUE}\" }}); secrets::list(\"shell\")"),
    ])
    .stdout_part("KEY")
    .run();
    let line =
        format!("secrets::set(\"shell\", \"KEY\", \"{VALUE}\")\nsecrets::delete(\"shell\", \"KEY\")\n");
    test.args(["repl"]).stdin(line).any_stdout().any_stderr().run();
    assert_eq!(test.json(["secrets", "list", "shell", "--json"])["keys"], json!([]));
    assert!(!holds(&test.home(), VALUE));
}
