//! The main things once more as a user who is not root, where the tests run as root.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::process::{of_home, wait_until};
use crate::skipped::{has, is_root};
use crate::test::{Test, ended, has_namespaces, short};

const NOBODY: u32 = 65_534;

macro_rules! nobody {
    () => {{
        if !is_root() {
            skip!("the tests don't run as root: the other tests have shown it");
        }
        if !has("setpriv") {
            skip!("setpriv is not on this machine");
        }
        let test = Test::new().owned_by(NOBODY);
        test.args(["server", "start"]).any_stderr().run();
        let info = test.json(["server", "status", "--json"]);
        if has_namespaces() && info["isolation"] != "full" {
            skip!("this machine refuses the sandbox to ordinary users: {}", info["sandbox_error"]);
        }
        test
    }};
}

#[test]
fn runs_resumes_and_ends() {
    let test = nobody!();
    test.agent("files", include_str!("agents/files/agent.sh"));
    test.args(["run", "./files", "keep it"]).stdout("Agent > kept it\n").any_stderr().run();
    let id = test.json(["sessions", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(test.server().uid(), Some(NOBODY));
    assert_eq!(fs::metadata(test.home().join("superserve.db")).unwrap().uid(), NOBODY);
    assert!(test.send(&id, "it").starts_with("there: it\nthere: it\n"));
    test.kill_server();
    assert!(test.send(&id, "it").starts_with("there: it\nthere: it\n"));
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    test.args(["sessions", "resume", &id]).stderr_part("Session has ended").status(5).run();
}

#[test]
fn is_sandboxed() {
    let test = nobody!();
    if !has_namespaces() {
        skip!("this machine refuses the sandbox");
    }
    test.agent("shell", include_str!("agents/shell/agent.sh"));
    test.deploy(test.work().join("shell"));
    let id = test.create("shell");
    let secret = test.write("secret", "host-secret\n");
    assert!(test.send(&id, &format!("cat {}", secret.display())).contains("No such file"));
    assert_eq!(test.send(&id, "tail -n +3 /proc/net/dev | sed 's/:.*//; s/ //g'"), "lo\n");
    assert!(test.send(&id, "touch /usr/x || echo refused").ends_with("refused\n"));
    assert!(test.send(&id, "grep ^CapEff /proc/self/status").contains("0000000000000000"));
    assert_eq!(test.send(&id, "echo mine >file && cat file"), "mine\n");
    assert!(test.send(&id, "cat $SUPERSERVE_HISTORY | head -c 1").starts_with('{'));
    assert!(test.send(&id, "echo forged >>$SUPERSERVE_HISTORY || echo refused").contains("refused"));
}

#[test]
fn reaches_what_its_rules_name() {
    let test = nobody!();
    if !has_namespaces() || !has("curl") {
        skip!("this machine has no sandbox or no curl");
    }
    let site = crate::network::Site::open();
    let id = crate::network::online(&test, &[&format!("127.0.0.1:{}", site.port)]);
    assert_eq!(test.send(&id, &format!("curl -sS http://127.0.0.1:{}/10", site.port)), "xxxxxxxxxx\n");
    assert!(crate::network::refused(&test.send(&id, "curl -sS http://169.254.169.254/")));
    assert!(test.send(&id, "curl -sS http://evil.example/").contains("Could not resolve host"));
}

#[test]
fn wipes_what_does_not_want_to_be_wiped() {
    let test = nobody!();
    test.agent("shell", include_str!("agents/shell/agent.sh"));
    test.deploy(test.work().join("shell"));
    let id = test.create("shell");
    test.send(&id, "mkdir -p a/b locked && touch a/b/xyzzy locked/xyzzy; chmod 000 a/b a; chmod 555 locked; ln -s / root");
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
    let left =
        test.shell(&format!("find '{}' -name 'xyzzy*'", test.home().display())).any_stdout().run().stdout;
    assert_eq!(left, "");
}

#[test]
fn is_cancelled() {
    let test = nobody!();
    test.agent("slow", include_str!("agents/slow/agent.sh"));
    test.deploy(test.work().join("slow"));
    let (run, id) = test.wait_in("slow");
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    run.finish();
    wait_until("the session to be idle", || test.status_of(&id) == "idle");
    assert_eq!(test.send(&id, "again"), "quick: again\n");
}

#[test]
fn bubblewrap_may_make_the_sandbox() {
    if !is_root() || !has("setpriv") || !has("bwrap") || !has_namespaces() {
        skip!("needs root, setpriv, bwrap and namespaces");
    }
    let test = Test::new().owned_by(NOBODY);
    test.args(["server", "start", "--sandbox", "bwrap"]).any_stderr().run();
    let info = test.json(["server", "status", "--json"]);
    if info["sandbox"].is_null() {
        skip!("this machine refuses bubblewrap: {}", info["sandbox_error"]);
    }
    assert_eq!((&info["sandbox"], &info["isolation"]), (&"bwrap".into(), &"full".into()));
    test.agent("shell", include_str!("agents/shell/agent.sh"));
    test.deploy(test.work().join("shell"));
    let id = test.create("shell");
    let secret = test.write("secret", "host-secret\n");
    assert!(test.send(&id, &format!("cat {}", secret.display())).contains("No such file"));
    assert_eq!(test.send(&id, "echo mine >file && cat file; cat /proc/1/comm"), "mine\nsuperserve-init\n");
    assert_eq!(test.send(&id, "(setsid sleep 300 &) ; cat /proc/sys/kernel/ns_last_pid | wc -l"), "1\n");
    test.kill_server();
    wait_until("all its processes are gone", || of_home(&test.home()).is_empty());
    test.args(["server", "start", "--sandbox", "bwrap"]).any_stderr().run();
    assert_eq!(test.send(&id, "cat file"), "mine\n");
    test.args(["sessions", "end", &id]).stderr(ended(short(&id))).run();
}

#[test]
fn root_is_never_given_to_bubblewrap() {
    if !is_root() {
        skip!("the tests don't run as root");
    }
    let test = Test::new();
    test.deploy("echo");
    test.args(["server", "stop"]).any_stderr().run();
    test.args(["run", "echo", "hello", "--sandbox", "bwrap"])
        .stderr_part("Run the server as an ordinary user, not as root")
        .any_status()
        .run();
}
