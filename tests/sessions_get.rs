//! `superserve sessions get`, and how a session is named.

use std::time::Duration;

use crate::test::{Test, has_namespaces, short, told};

const SEE_THE_LIST: &str = "Run superserve sessions list to see your sessions.";

#[test]
fn shows_one_as_the_page_does() {
    let test = Test::new();
    let agent = test.deploy("echo");
    let id = test.begin("echo", "What is the capital of France?");
    test.pass(Duration::from_secs(120));
    test.send(&id, "And of Italy?");
    test.pass(Duration::from_secs(120));
    let isolation = if has_namespaces() {
        ""
    } else {
        "Isolation    none (network rules don't hold: it has the host's network)\n"
    };
    test.args(["sessions", "get", &id])
        .stdout(format!(
            "Field        Value\n\
             ID           {id}\n\
             Agent        echo ({agent})\n\
             Status       IDLE\n\
             Messages     2\n\
             Created      2026-03-09 10:15:00 UTC\n\
             Title        What is the capital of France?\n\
             Last Active  2 minutes ago (2026-03-09 10:17:00 UTC)\n{isolation}"
        ))
        .run();
}

#[test]
fn leaves_out_what_has_no_value() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.create("echo");
    let agent = test.session(&id)["agent_id"].as_str().unwrap().to_owned();
    test.args(["sessions", "get", &id])
        .stdout(format!(
            "Field     Value\n\
             ID        {id}\n\
             Agent     echo ({agent})\n\
             Status    PENDING\n\
             Messages  0\n\
             Created   2026-03-09 10:15:00 UTC\n"
        ))
        .run();
}

#[test]
fn prints_one_object_as_json() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let session = test.session(&id);
    assert_eq!(session, test.json(["sessions", "list", "--json"])[0]);
    assert_eq!(session["id"], id.as_str());
    assert_eq!(session["created_at"], "2026-03-09T10:15:00Z");
    assert_eq!(session, test.json(["--json", "sessions", "get", &id]));
}

#[test]
fn takes_any_unique_beginning_with_or_without_ses() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let digits = &id[4..];
    for name in [
        &*id,
        digits,
        &digits[..12],
        &digits[..8],
        &digits[..1],
        &format!("ses_{}", &digits[..8]),
        "@last",
        "@last:echo",
    ] {
        assert_eq!(test.session(name)["id"], id.as_str(), "{name}");
    }
}

#[test]
fn an_unknown_one_is_not_found() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "hello");
    let session = "zzzz";
    test.args(["sessions", "get", session])
        .stderr(told("Session not found: no session matches 'zzzz'", SEE_THE_LIST))
        .status(3)
        .run();
    let output = test.args(["sessions", "get", session, "--json"]).any_stderr().status(3).run();
    assert_eq!(output.error()["code"], "not_found");
    assert_eq!(output.error()["message"], "Session not found: no session matches 'zzzz'");
    assert_eq!(output.error()["hint"], SEE_THE_LIST);
    let whole = "ses_00000000000000000000000000000000";
    test.args(["sessions", "get", whole])
        .stderr_part("✗ Session not found: no session matches '")
        .status(3)
        .run();
    test.args(["sessions", "get", "@last:nobody"]).stderr_part("✗ ").status(3).run();
}

#[test]
fn case_matters() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let letter = id[4..].find(|c: char| c.is_ascii_lowercase()).expect("a digit above 9");
    let upper = id[4..][..=letter].to_uppercase();
    test.args(["sessions", "get", &upper])
        .stderr(told(&format!("Session not found: no session matches '{upper}'"), SEE_THE_LIST))
        .status(3)
        .run();
}

#[test]
fn an_ambiguous_one_names_those_that_match() {
    let test = Test::new();
    test.deploy("echo");
    // Seventeen sessions: two of them begin with the same digit.
    test.args(["eval", "for i in 0..17 { sessions::create(\"echo\"); }"]).run();
    let list = test.json(["sessions", "list", "--json"]);
    let mut all: Vec<String> =
        list.as_array().unwrap().iter().map(|s| short(s["id"].as_str().unwrap()).to_owned()).collect();
    all.sort();
    let first = all.windows(2).find(|two| two[0][..1] == two[1][..1]).expect("two alike")[0][..1].to_owned();
    let alike: Vec<&String> = all.iter().filter(|id| id.starts_with(&first)).collect();
    let output = test.args(["sessions", "get", &first]).any_stderr().status(3).run();
    assert!(output.stderr.starts_with(&format!("✗ Ambiguous ID '{first}' — matches: ")), "{}", output.stderr);
    for id in &alike {
        assert!(output.stderr.contains(id.as_str()), "{id}: {}", output.stderr);
    }
    let output = test.args(["sessions", "get", &first, "--json"]).any_stderr().status(3).run();
    assert_eq!(output.error()["code"], "ambiguous");
}

#[test]
fn of_many_that_match_ten_are_named() {
    let test = Test::new();
    test.deploy("echo");
    test.args(["eval", "for i in 0..200 { sessions::create(\"echo\"); }"]).run();
    let list = test.json(["sessions", "list", "--json"]);
    let all: Vec<&str> = list.as_array().unwrap().iter().map(|s| short(s["id"].as_str().unwrap())).collect();
    let of = |digit: char| all.iter().filter(|id| id.starts_with(digit)).count();
    let digit =
        "0123456789abcdef".chars().find(|digit| of(*digit) > 10).expect("one of 16 has more than 10 of 200");
    let output = test.args(["sessions", "get", &digit.to_string()]).any_stderr().status(3).run();
    let named = all.iter().filter(|id| output.stderr.contains(**id)).count();
    assert_eq!(named, 10, "{}", output.stderr);
    assert!(output.stderr.contains(&format!("{} more", of(digit) - 10)), "{}", output.stderr);
}

#[test]
fn an_empty_one_is_refused_before_anything_is_asked() {
    let test = Test::new();
    for empty in ["", "ses_", " "] {
        test.args(["sessions", "get", empty]).stderr_part("✗ ").status(2).run();
        test.args(["sessions", "end", empty]).stderr_part("✗ ").status(2).run();
    }
    test.args(["sessions", "get"]).stderr_part("superserve sessions get").status(2).run();
    assert_eq!(test.json(["server", "status", "--json"])["running"], false, "no server was started for it");
}

#[test]
fn the_last_one_skips_ended_ones() {
    let test = Test::new();
    test.deploy("echo");
    test.deploy("history");
    let first = test.begin("echo", "one");
    test.pass(Duration::from_secs(1));
    let second = test.begin("history", "two");
    test.pass(Duration::from_secs(1));
    let third = test.begin("echo", "three");
    assert_eq!(test.session("@last")["id"], third.as_str());
    assert_eq!(test.session("@last:history")["id"], second.as_str());
    test.args(["sessions", "end", &third]).any_stderr().run();
    assert_eq!(test.session("@last")["id"], second.as_str());
    assert_eq!(test.session("@last:echo")["id"], first.as_str());
}
