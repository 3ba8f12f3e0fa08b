//! Messages, replies and the dialogue of `run` and `resume`.

use super::*;

#[test]
fn a_reply_is_collected_quietly() {
    let ran = on_server(
        "let reply = sessions::create(\"notes\", #{ title: \"t\" }).send(\"hi\"); print(reply); print(reply.duration);",
    );
    assert_eq!(ran.err, "");
    assert_eq!(ran.printed(), "You said: hi\n1.1s\n");
    let error = on_server("get(\"5a3f\").send(\"timeout\");").error();
    assert!(
        matches!(&error, Error::Run { code: Some(code), stderr: Some(_), .. } if code == "timeout"),
        "{error:?}"
    );
}

#[test]
fn messages_have_fields() {
    let script =
        "for m in get(\"5a3f\").messages() { print(`${m.role} ${m.content} ${m.at} ${m.partial}`); }";
    assert_eq!(
        on_server(script).printed(),
        "user buy milk 2026-03-09T10:15:00Z false\nagent noted 2026-03-09T10:15:01Z true\n"
    );
}

fn converse(lines: &[&str], terminal: bool, options: &str) -> Ran {
    let server = FakeServer::start();
    let script = format!("get(\"5a3f\").converse({options});");
    run_with(
        Some(&server),
        Options::default(),
        |fake, _| {
            fake.in_is_terminal.set(terminal);
            fake.out_is_terminal.set(terminal);
            fake.lines.borrow_mut().extend(lines.iter().map(|line| Line::Text((*line).to_owned())));
        },
        &script,
    )
}

#[test]
fn a_dialogue_on_a_terminal_reads_as_on_the_page() {
    let ran = converse(&["What about Germany?", "exit"], true, "#{ resumed: true }");
    assert_eq!(ran.err, "Resumed: \"remember to buy milk\" (notes)\n\nYou > \n\nCompleted in 1.1s\n\nYou > ");
    assert_eq!(ran.printed(), "Agent > You said: What about Germany?\n");
    let ran = converse(&["", "never sent"], true, "");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "You > "));
}

#[test]
fn every_piped_line_is_a_turn() {
    let ran = converse(&["one", "", "two"], false, "");
    assert_eq!(ran.err, "\nCompleted in 1.1s\n\nCompleted in 1.1s\n");
    assert_eq!(ran.printed(), "Agent > You said: one\nAgent > You said: two\n");
    // A prompt that was given leaves stdin to whoever else reads it.
    let ran = converse(&["unread"], false, "#{ prompt: \"hi\" }");
    assert_eq!(ran.printed(), "Agent > You said: hi\n");
    let ran = converse(&["one", "two"], false, "#{ single: true }");
    assert_eq!(ran.printed(), "Agent > You said: one\n");
}

#[test]
fn replies_are_cleaned_for_a_terminal_alone() {
    assert_eq!(converse(&[], true, "#{ prompt: \"colour\", single: true }").printed(), "Agent > red\n");
    assert_eq!(
        converse(&[], false, "#{ prompt: \"colour\", single: true }").printed(),
        "Agent > \u{1b}[31mred\u{1b}[0m\u{7}\n"
    );
    assert_eq!(converse(&[], false, "#{ prompt: \"silent\" }").printed(), "Agent > \n");
}

#[test]
fn tools_are_told_on_stderr() {
    let ran = converse(&[], false, "#{ prompt: \"tool\" }");
    assert_eq!(ran.err, "[tool] cat /workspace/notes (200ms)\n\nCompleted in 1.1s\n");
    assert_eq!(ran.printed(), "Agent > Let me look.\nMilk.\n");
}

#[test]
fn a_failed_run_is_an_error_but_not_the_end_of_a_dialogue() {
    let ran = converse(&["fail", "never sent"], false, "");
    assert_eq!(ran.out, "Agent > I will\n");
    let error = ran.error();
    assert!(
        matches!(&error, Error::Run { code: Some(code), stderr: Some(text), .. } if code == "agent_exited" && text == "line 1: oops")
    );
    let ran = converse(&["fail", "hi", "exit"], true, "");
    assert_eq!(
        ran.err,
        "You > \n✗ the agent exited with 1\n  line 1: oops\n\nYou > \n\nCompleted in 1.1s\n\nYou > "
    );
    assert_eq!(ran.printed(), "Agent > I will\nAgent > You said: hi\n");
}

#[test]
fn events_are_one_a_line_in_json() {
    let ran = converse(&[], false, "#{ prompt: \"hi\", json: true }");
    assert_eq!(ran.err, "");
    let text = ran.printed();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["type"], "run.started");
    assert!(lines[0]["data"]["session_id"].as_str().is_some_and(|id| id.starts_with("ses_5a3f")));
    assert_eq!(lines[3], serde_json::json!({ "type": "run.completed", "data": { "duration_ms": 1100 } }));
}

#[test]
fn ctrl_c_cancels_the_run() {
    let server = FakeServer::start();
    let hang = |fake: &FakeTerminal, host: &Host, terminal: bool| {
        fake.in_is_terminal.set(terminal);
        fake.lines.borrow_mut().extend([Line::Text("hang".into()), Line::Text("hi".into())]);
        *fake.interrupt_at.borrow_mut() = Some(("working", host.interrupt.clone()));
    };
    let script = "get(\"5a3f\").converse();";
    let ran = run_with(Some(&server), Options::default(), |fake, host| hang(fake, host, false), script);
    assert_eq!(ran.out, "Agent > working\n");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done == "sent 1 message"));
    assert!(server.requests().iter().any(|asked| asked.ends_with("/cancel")));
    // At a terminal the dialogue goes on.
    let ran = run_with(Some(&server), Options::default(), |fake, host| hang(fake, host, true), script);
    assert_eq!(ran.err, "You > \nCancelled\n\nYou > \n\nCompleted in 1.1s\n\nYou > ");
    assert_eq!(ran.printed(), "Agent > working\nAgent > You said: hi\n");
}
