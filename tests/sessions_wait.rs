//! `superserve sessions wait`: told by the server when it happens, and what its exit code says.

use crate::process::wait_until;
use crate::test::{Test, short, told};

/// The requests that a wait has made, but for those that look for the server.
fn watched(test: &Test) -> Vec<String> {
    test.requests().into_iter().filter(|request| request.contains("/watch")).collect()
}

#[test]
fn answers_when_it_happens_with_one_request() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    let mut wait = test.args(["sessions", "wait", &id, "--until", "idle"]).start();
    wait_until("the watch", || watched(&test).len() == 1);
    // Other things happen meanwhile.
    for n in 0..5 {
        test.begin("slow", &format!("message {n}"));
    }
    assert!(wait.is_running());
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    let output = wait.finish();
    assert_eq!((output.status, output.stderr), (0, format!("✓ Session {} is idle\n", short(&id))));
    run.finish();
    assert_eq!(watched(&test), [format!("GET /v1/sessions/watch?id={id}")]);
    // A whole ID is not even looked up.
    let before = test.requests().len();
    test.args(["sessions", "wait", &id]).any_stderr().run();
    let asked = test.requests().split_off(before);
    assert_eq!(asked, ["GET /v1/version".to_owned(), format!("GET /v1/sessions/watch?id={id}")]);
}

#[test]
fn what_is_there_already_is_not_waited_for() {
    let test = Test::new();
    test.deploy("echo");
    test.deploy("oneshot");
    let (idle, completed) = (test.begin("echo", "hello"), test.begin("oneshot", "hello"));
    for (id, until, status) in
        [(&idle, "idle", "idle"), (&completed, "idle", "completed"), (&completed, "done", "completed")]
    {
        test.args(["sessions", "wait", id, "--until", until])
            .stderr(format!("✓ Session {} is {status}\n", short(id)))
            .run();
    }
    test.args(["sessions", "wait", "@last:echo"])
        .stderr(format!("✓ Session {} is idle\n", short(&idle)))
        .run();
    test.args(["sessions", "wait", "-"])
        .stdin(format!("{idle}\n{completed}\n"))
        .stderr(format!("✓ Session {} is idle\n✓ Session {} is completed\n", short(&idle), short(&completed)))
        .run();
    let there = test.json(["sessions", "wait", &idle, "--json"]);
    assert_eq!((&there[0]["id"], there.as_array().map(Vec::len)), (&idle.into(), Some(1)));
}

#[test]
fn what_can_not_come_any_more_is_told_with_1() {
    let test = Test::new();
    test.deploy("crash");
    test.deploy("echo");
    let failed = test.begin("crash", "break");
    let output = test.args(["sessions", "wait", &failed]).any_stderr().status(1).run();
    assert!(
        output
            .stderr
            .starts_with(&format!("✗ Waited in vain until idle: session {} failed: ", short(&failed))),
        "{output:#?}"
    );
    test.args(["sessions", "wait", &failed, "--until", "failed"])
        .stderr(format!("✓ Session {} is failed\n", short(&failed)))
        .run();
    let ended = test.begin("echo", "hello");
    let wait = test.args(["sessions", "wait", &ended, "--until", "failed"]).start();
    wait_until("the watch", || watched(&test).iter().any(|request| request.ends_with(&ended)));
    test.args(["sessions", "end", &ended]).any_stderr().run();
    let output = wait.finish();
    assert_eq!(output.status, 1);
    assert_eq!(
        output.stderr,
        told(
            &format!("Waited in vain until failed: session {} is ended", short(&ended)),
            "See superserve sessions messages ID for what was said."
        )
    );
    let output = test.args(["sessions", "wait", &ended, "--json"]).any_stderr().status(1).run();
    assert_eq!(output.error()["code"], "not_reached");
}

#[test]
fn a_time_that_is_over_is_told_with_124() {
    let test = Test::new();
    test.deploy("echo");
    let (a, b) = (test.create("echo"), test.begin("echo", "hello"));
    test.args(["sessions", "wait", &a, "--timeout", "20ms"])
        .stderr(told(
            &format!("Session {} was not idle after 20ms", short(&a)),
            "Give a longer time-out, or see superserve sessions get ID.",
        ))
        .status(124)
        .run();
    test.args(["sessions", "wait", &a, &b, "--timeout", "20ms"])
        .stderr_part(&format!("✗ 1 of 2 sessions were not idle after 20ms: {}\n", short(&a)))
        .status(124)
        .run();
    let output =
        test.args(["sessions", "wait", &a, "--timeout", "20ms", "--json"]).any_stderr().status(124).run();
    assert_eq!(output.error()["code"], "timed_out");
    test.args(["sessions", "wait", &a, "--timeout", "soon"])
        .stderr_part("'soon' is no duration")
        .any_status()
        .run();
    test.args(["sessions", "wait", &a, "--until", "idel"])
        .stderr(told("'idel' can't be waited for", "Did you mean `idle`?"))
        .status(2)
        .run();
}

#[test]
fn of_several_one_may_be_enough() {
    let test = Test::new();
    test.deploy("echo");
    let (pending, idle) = (test.create("echo"), test.begin("echo", "hello"));
    let one = format!("✓ Session {} is idle\n", short(&idle));
    test.args(["sessions", "wait", &pending, &idle, "--any"]).stderr(&one).run();
    test.args(["sessions", "wait", "--agent", "echo", "--any"]).stderr(&one).run();
    test.args(["sessions", "wait", "--where", "message_count == 1"]).stderr(&one).run();
    test.args(["sessions", "wait", "--status", "idle", "--sort", "title", "--limit", "1"]).stderr(&one).run();
    test.args(["sessions", "wait", "--status", "failed"])
        .stderr("No session fits: there is nothing to wait for.\n")
        .run();
    let script = format!(
        "print(wait([\"{idle}\"], \"idle\").len); print(wait(\"{idle}\", \"idle\", 1.minutes).status);
         try {{ wait(get(\"{pending}\"), \"done\", 10.millis); }} catch (e) {{ print(`${{e.code}} ${{e.exit_code}}`); }}"
    );
    test.args(["eval", &script]).stdout("1\nidle\ntimed_out 124\n").run();
}

#[test]
fn ctrl_c_leaves_it() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.create("echo");
    let wait = test.args(["sessions", "wait", &id]).start();
    wait_until("the watch", || watched(&test).len() == 1);
    wait.interrupt();
    let output = wait.finish();
    assert_eq!((output.status, output.stderr), (130, "✗ interrupted\n".to_owned()));
    // What a dry run has withheld never comes.
    test.args(["sessions", "wait", &id, "--dry-run"])
        .stdout(format!("would wait until {} is idle\n", short(&id)))
        .run();
    test.args(["sessions", "wait", "zzzz"]).any_stderr().status(3).run();
}
