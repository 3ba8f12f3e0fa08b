//! What goes wrong, and how the platform says so and goes on.

use futures_util::StreamExt;
use serde_json::Value;

use super::stage::*;
use super::*;
use crate::sandbox;
use crate::wire::{self, CreateSession, EndReason, ErrorCode, RunEvent, SessionQuery};

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_fail_say_why() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "crash", "read -r line; echo half; echo no luck >&2; exit 3").await;
    let id = create(&platform, "crash").await;
    let events = run(&platform, &id, "go").await;
    is_a_run(&events);
    let error = failure(&events);
    assert_eq!(error.message, "The agent exited with code 3: no luck");
    assert_eq!((error.code.as_deref(), error.stderr.as_deref()), (Some("agent_exited"), Some("no luck")));
    let session = platform.session(&id).await.expect("it");
    assert_eq!(session.status, Status::Failed);
    assert_eq!(session.error.as_deref(), Some("The agent exited with code 3: no luck"));
    let messages = platform.messages(&id, None).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("half", true));
    assert_eq!(platform.resume_session(&id).await.expect("it").status, Status::Idle);

    deploy(&platform, "killed", "read -r line; kill -9 $$").await;
    let error = failure(&run(&platform, &create(&platform, "killed").await, "go").await);
    assert_eq!(error.message, "The agent was ended by signal 9 (SIGKILL)");
    assert_eq!(error.code.as_deref(), Some("agent_crashed"));

    deploy(&platform, "early", "echo cannot find my model >&2; exit 1").await;
    let error = failure(&run(&platform, &create(&platform, "early").await, "go").await);
    assert_eq!(
        error.message,
        "The agent exited with code 1 before it read its first message: cannot find my model"
    );
    assert_eq!(error.stderr.as_deref(), Some("cannot find my model"));

    platform.deploy(upload("missing", "no-such-program x", &[("a", "")])).await.expect("an agent");
    let error = failure(&run(&platform, &create(&platform, "missing").await, "go").await);
    assert!(error.message.contains("cannot run 'no-such-program'"), "{}", error.message);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let code = |result: Result<wire::Agent>| result.err().map(|error| error.code());
    let mut bad = upload("echo", "sh agent.sh", &[("agent.sh", ECHO)]);
    bad.name = "Bad Name".into();
    assert_eq!(code(platform.deploy(bad).await), Some(ErrorCode::Invalid));
    assert_eq!(code(platform.deploy(upload("echo", " ", &[("a", "")])).await), Some(ErrorCode::Invalid));
    let mut garbage = upload("echo", "sh agent.sh", &[]);
    garbage.archive = b"garbage".to_vec();
    assert_eq!(code(platform.deploy(garbage).await), Some(ErrorCode::Invalid));
    assert_eq!(std::fs::read_dir(stage.home.path().join("agents")).expect("agents").count(), 0);
    assert!(platform.agents(None).await.expect("agents").is_empty());
    let unknown = CreateSession { agent_id: "nobody".into(), title: None, idle_timeout_seconds: None };
    let error = platform.create_session(unknown).await.expect_err("no agent");
    assert_eq!(error.to_string(), "Agent not found: no agent is called 'nobody'");

    let mut secret = upload("secret", "sh agent.sh", &[("agent.sh", ECHO)]);
    secret.config.secrets = vec!["API_KEY".into()];
    assert_eq!(platform.deploy(secret).await.expect("an agent").required_secrets, ["API_KEY"]);
    let id = create(&platform, "secret").await;
    let error = platform.send(&id, "hello").await.err().expect("refused");
    assert_eq!(error.code(), ErrorCode::Invalid);
    assert!(error.to_string().contains("API_KEY"));
    assert_eq!(platform.session(&id).await.expect("it").message_count, 0);
    for (prompt, code) in
        [(String::new(), ErrorCode::Invalid), ("x".repeat((1 << 20) + 1), ErrorCode::TooLarge)]
    {
        assert_eq!(platform.send(&id, &prompt).await.err().map(|error| error.code()), Some(code));
    }
    assert_eq!(platform.resolve("ses_").await.expect_err("empty").code(), ErrorCode::Invalid);
    assert_eq!(platform.resolve(&id.digits()[..6]).await.expect("it"), std::slice::from_ref(&id));
    assert!(platform.resolve("xyz").await.expect("none").is_empty());
    let rows: Vec<_> = platform
        .end_many(vec!["nonsense".into(), id.to_string(), id.digits().into()], Vec::new())
        .collect()
        .await;
    assert_eq!(rows.iter().map(|row| row.ok).collect::<Vec<_>>(), [false, true, true]);
    let unknown = SessionQuery { agent: vec!["nobody".into()], ..SessionQuery::default() };
    assert_eq!(platform.sessions(&unknown).await.expect_err("no agent").code(), ErrorCode::NotFound);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_refuses_the_sandbox_says_so_before_anything_is_stored() {
    let stage = Stage::new().await;
    let refusal = sandbox::Refusal {
        step: "user namespace".into(),
        reason: "EPERM".into(),
        remedy: "allow them".into(),
    };
    let platform = stage.open_with(stage.options(), Err(refusal)).await;
    deploy(&platform, "echo", ECHO).await;
    let id = create(&platform, "echo").await;
    let error = platform.send(&id, "hello").await.err().expect("refused");
    assert_eq!((error.code(), error.hint().as_deref()), (ErrorCode::SandboxUnavailable, Some("allow them")));
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Pending);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_running_turns_and_leaves_nothing() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.shut_down().await;
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(failure(&rest).code.as_deref(), Some("server_shutdown"));
    assert_eq!(platform.activity().await.live_agents, 0);
    assert_eq!(platform.send(&id, "go").await.err().map(|error| error.code()), Some(ErrorCode::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_is_taken_over() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    deploy(&platform, "echo", ECHO).await;
    let id = create(&platform, "slow").await;
    let ending = create(&platform, "echo").await;
    run(&platform, &ending, "hello").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.0.store.mark_ending(&ending, EndReason::User).await.expect("noted");
    std::fs::create_dir_all(stage.folder(&id).join("workspace.tmp/x")).expect("a stray folder");
    std::fs::create_dir_all(stage.home.path().join("trash/7/x")).expect("trash");
    let before = platform.session(&id).await.expect("it");

    // The first platform still holds its agents: what it would write is what a killed one never wrote.
    let second = stage.open().await;
    let events: Vec<_> = second.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&events);
    assert_eq!(failure(&events).code.as_deref(), Some("interrupted"));
    let session = second.session(&id).await.expect("it");
    assert_eq!((session.status, session.last_activity_at), (Status::Failed, before.last_activity_at));
    let messages = second.messages(&id, None).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("begun", true));
    assert_eq!(second.session(&ending).await.expect("it").status, Status::Ended);
    assert!(!stage.folder(&ending).exists());
    assert!(!stage.folder(&id).join("workspace.tmp").exists());
    assert_eq!(std::fs::read_dir(stage.home.path().join("trash")).expect("trash").count(), 0);
    assert_eq!(second.resume_session(&id).await.expect("it").status, Status::Idle);
    second.shut_down().await;
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_run_and_loses_nothing() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = r#"
read -r line; echo "begun"
while ! [ -e go ]; do sleep 0.02; done
i=0; while [ $i -lt 40 ]; do i=$((i+1)); printf '%04096d\n' 0; sleep 0.01; done
read -r line
"#;
    deploy(&platform, "long", script).await;
    let id = create(&platform, "long").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    platform.0.store.fill_disk(true).await;
    std::fs::write(stage.folder(&id).join("workspace/go"), "").expect("a file");
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(failure(&rest).code.as_deref(), Some("store_unavailable"), "{rest:?}");
    // The limit went with the connection on which the disk was full; a short message may fit into pages that are free.
    platform.0.store.fill_disk(true).await;
    let error = platform.send(&id, &"more".repeat(200_000)).await.err().expect("refused");
    assert_eq!(error.code(), ErrorCode::StoreUnavailable, "{error}");
    platform.0.store.fill_disk(false).await;
    let session = platform.resume_session(&id).await.expect("it");
    assert_eq!((session.status, session.message_count), (Status::Idle, 1));
    let events: Vec<_> = platform.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&events);
    assert_eq!(failure(&events).code.as_deref(), Some("store_unavailable"));
    let messages = platform.messages(&id, None).await.expect("messages");
    assert_eq!(messages[1].content, text(&events));
    assert!(messages[1].partial && messages[1].content.starts_with("begun\n0000"));
    platform.shut_down().await;
}

/// An agent by frames, whose tool takes what no parser would read back.
#[tokio::test(flavor = "multi_thread")]
async fn deep_json_does_not_break_a_stream() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let script = format!(
        r#"echo '{{"type":"ready"}}'
while read -r line; do
    echo '{{"type":"tool_start","id":"1","name":"deep","input":{deep}}}'
    echo '{{"type":"turn_done"}}'
done"#
    );
    deploy(&platform, "deep", &script).await;
    let id = create(&platform, "deep").await;
    is_a_run(&run(&platform, &id, "go").await);
    let stored: Vec<_> = platform.events(&id, 0).await.expect("events").collect().await;
    is_a_run(&stored);
    let input = Value::String(deep);
    let tool = RunEvent::ToolStart { tool: "deep".into(), input };
    assert_eq!(stored[1].event, tool);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_works_at_is_closed_when_its_session_is_next_used() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let id = create(&platform, "echo").await;
    let run_id = wire::RunId::from_random(7);
    let event = RunEvent::Started { run_id: run_id.clone(), session_id: id.clone() };
    let started = wire::NumberedEvent { run_id: run_id.clone(), number: 1, event };
    let (prompt, title) = ("lost".to_owned(), "lost".to_owned());
    let new = crate::store::NewRun { id: run_id, session: id.clone(), prompt, title, started, at: 0 };
    platform.0.store.begin_run(&new).await.expect("a run");
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Active);
    assert_eq!(text(&run(&platform, &id, "found").await), "you said: found");
    assert_eq!(platform.session(&id).await.expect("it").message_count, 2);
    platform.shut_down().await;
}

/// An agent that never gets ready for its first message can be cancelled and ended all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_can_be_given_up() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "busy", "touch here; while :; do :; done").await;
    let id = create(&platform, "busy").await;
    for ends in [false, true] {
        let stream = platform.send(&id, "go").await.expect("a run");
        let here = stage.folder(&id).join("workspace/here");
        let started = async {
            while !here.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), started).await.expect("it runs");
        assert_eq!(platform.activity().await.active_runs, 1);
        let session = match ends {
            false => platform.cancel_session(&id).await.expect("cancelled"),
            true => platform.end_session(&id).await.expect("ended"),
        };
        assert_eq!(session.status, if ends { Status::Ended } else { Status::Idle });
        let events: Vec<_> = stream.collect().await;
        is_a_run(&events);
        assert!(matches!(events.last().map(|last| &last.event), Some(RunEvent::Cancelled {})), "{events:?}");
        assert_eq!(platform.activity().await.live_agents, 0);
        let _ = std::fs::remove_file(&here);
    }
    assert!(!stage.folder(&id).exists());
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_stops_a_bulk_end_after_those_in_flight() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(create(&platform, "echo").await.to_string());
    }
    let mut rows = Box::pin(platform.end_many(ids.clone(), Vec::new()));
    let first = rows.next().await.expect("a row");
    assert_eq!((first.ok, &first.id), (true, &ids[0]));
    drop(rows);
    // Tasks that are still at it end by themselves; a session that none of them has got stays as it is.
    platform.shut_down().await;
    let left = platform.0.store.count_sessions().await.expect("a count");
    assert!(left < 40 && left >= 40 - 2 * ENDS_AT_ONCE as u64, "{left}");
}
