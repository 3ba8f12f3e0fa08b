//! What a session lives through, from its making to its end.

use futures_util::StreamExt;

use super::stage::*;
use super::*;
use crate::sandbox::Choice;
use crate::wire::{CreateSession, EndReason, ErrorCode, Role, RunEvent};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_its_making_to_its_end() {
    from_making_to_end(Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_session_from_its_making_to_its_end() {
    match Stage::with(Choice::Native).await {
        Ok(stage) => from_making_to_end(stage).await,
        Err(refusal) => println!("skipped: {refusal}"),
    }
}

async fn from_making_to_end(stage: Stage) {
    let platform = stage.open().await;
    let agent = deploy(&platform, "echo", ECHO).await;
    let made = platform
        .create_session(CreateSession { agent_id: "echo".into(), title: None, idle_timeout_seconds: None })
        .await
        .expect("a session");
    assert_eq!((made.status, made.title.as_deref(), made.message_count), (Status::Pending, None, 0));
    assert!(!stage.folder(&made.id).exists(), "nothing is made before the first message");
    assert_eq!(platform.events(&made.id, 0).await.err().map(|error| error.code()), Some(ErrorCode::NotFound));

    stage.let_pass(60);
    let events = run(&platform, &made.id, "  buy milk").await;
    is_a_run(&events);
    assert_eq!(text(&events), "you said:   buy milk");
    let session = platform.session(&made.id).await.expect("the session");
    assert_eq!(session.status, Status::Idle);
    assert_eq!(session.title.as_deref(), Some("buy milk"));
    assert_eq!(session.last_activity_at, Some(made.created_at.plus_millis(60_000)));
    // Its last event is heard a moment before the run is none any more.
    let over = async {
        while platform.activity().await.active_runs > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over).await.expect("the run is over");
    assert_eq!(platform.activity().await, Activity { sessions: 1, active_runs: 0, live_agents: 1 });

    let again = run(&platform, &made.id, "and bread").await;
    assert_eq!(text(&again), "you said: and bread");
    assert_eq!(
        platform.events(&made.id, 1).await.expect("events").collect::<Vec<_>>().await,
        again[1..],
        "the latest run, after its first event"
    );
    let notes = stage.folder(&made.id).join("workspace/notes");
    assert_eq!(std::fs::read_to_string(&notes).expect("notes"), "  buy milk\nand bread\n");
    // Root of the whole machine, that is, not of a container's user namespace.
    let uids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = uids.split_whitespace().eq(["0", "0", "4294967295"]);
    if platform.isolation() == Ok(Isolation::Full) && is_whole && rustix::process::geteuid().is_root() {
        let owner = std::os::unix::fs::MetadataExt::uid(&notes.metadata().expect("notes"));
        assert_eq!(owner, UID_BASE + 1, "a session's files belong to a uid of its own");
    }
    let history = std::fs::read_to_string(stage.folder(&made.id).join("run/history.jsonl")).expect("history");
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(
        history.starts_with(r#"{"turn":1,"role":"user","content":"  buy milk","at":"2026-"#),
        "{history}"
    );

    let messages = platform.messages(&made.id, None).await.expect("messages");
    let said: Vec<_> = messages.iter().map(|message| (message.role, message.content.as_str())).collect();
    assert_eq!(
        said,
        [
            (Role::User, "  buy milk"),
            (Role::Agent, "you said:   buy milk"),
            (Role::User, "and bread"),
            (Role::Agent, "you said: and bread")
        ]
    );

    let refused = platform.delete_session(&made.id).await.expect_err("it has not ended");
    assert_eq!(refused.code(), ErrorCode::Conflict);
    let ended = platform.end_session(&made.id).await.expect("an end");
    assert_eq!((ended.status, ended.end_reason), (Status::Ended, Some(EndReason::User)));
    assert_eq!(ended.last_activity_at, session.last_activity_at, "an end is no activity");
    assert!(!stage.folder(&made.id).exists());
    assert_eq!(std::fs::read_dir(stage.home.path().join("trash")).expect("trash").count(), 0);
    assert_eq!(platform.end_session(&made.id).await.expect("again"), ended);
    assert_eq!(platform.activity().await, Activity::default());
    for error in [
        platform.send(&made.id, "hello").await.err().expect("refused"),
        platform.resume_session(&made.id).await.expect_err("refused"),
    ] {
        assert_eq!(error.code(), ErrorCode::Ended);
        assert_eq!(error.to_string(), "Session has ended and cannot be resumed");
    }
    assert_eq!(platform.messages(&made.id, None).await.expect("the transcript stays"), messages);
    platform.delete_session(&made.id).await.expect("forgotten");
    assert_eq!(platform.session(&made.id).await.expect_err("gone").code(), ErrorCode::NotFound);
    assert_eq!(platform.agent(agent.id.as_str()).await.expect("the agent").name, "echo");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_back_with_its_workspace_and_its_history() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = r#"
IFS= read -r line
echo "${SUPERSERVE_RESUMED:-0} $(cat "$SUPERSERVE_HISTORY" | wc -l) $(cat mine 2>/dev/null) $SUPERSERVE"
echo "$line" >> mine
"#;
    deploy(&platform, "once", script).await;
    let id = create(&platform, "once").await;
    assert_eq!(text(&run(&platform, &id, "one").await).trim_end(), "0 0  1");
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Completed);
    assert_eq!(text(&run(&platform, &id, "two").await).trim_end(), "1 2 one 1");
    assert_eq!(platform.resume_session(&id).await.expect("it").status, Status::Idle);
    platform.shut_down().await;
    drop(platform);
    let platform = stage.open().await;
    assert_eq!(text(&run(&platform, &id, "three").await).trim_end(), "1 4 one\ntwo 1");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_turn_keeps_others_out_and_can_be_cancelled() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Active);
    assert_eq!(platform.send(&id, "more").await.err().map(|error| error.code()), Some(ErrorCode::Busy));
    assert_eq!(platform.resume_session(&id).await.err().map(|error| error.code()), Some(ErrorCode::Busy));
    stage.let_pass(48 * 3600);
    platform.expire_due().await;
    let cancelled = platform.cancel_session(&id).await.expect("cancelled");
    assert_eq!(cancelled.status, Status::Idle);
    let rest: Vec<_> = stream.collect().await;
    assert!(matches!(rest.last().map(|last| &last.event), Some(RunEvent::Cancelled {})), "{rest:?}");
    let messages = platform.messages(&id, None).await.expect("messages");
    assert_eq!((messages[1].content.trim_end(), messages[1].partial), ("begun", true));
    assert_eq!(platform.cancel_session(&id).await.expect("nothing to cancel").status, Status::Idle);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_running_session_cancels_its_run() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "slow", SLOW).await;
    let id = create(&platform, "slow").await;
    let mut stream = platform.send(&id, "go").await.expect("a run");
    until_begun(&mut stream).await;
    let ended = platform.end_session(&id).await.expect("an end");
    assert_eq!(ended.status, Status::Ended);
    let rest: Vec<_> = stream.collect().await;
    assert!(matches!(rest.last().map(|last| &last.event), Some(RunEvent::Cancelled {})), "{rest:?}");
    assert!(!stage.folder(&id).exists());
    assert_eq!(platform.activity().await, Activity::default());
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_a_revision_and_sessions_keep_theirs() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    let script = |word: &str| format!("while read -r line; do echo {word}; done");
    let first = deploy(&platform, "shop", &script("old")).await;
    assert_eq!((first.revision, first.source_hash.len()), (1, 64));
    assert_eq!(deploy(&platform, "shop", &script("old")).await, first, "nothing has changed");
    let old = create(&platform, "shop").await;
    let second = deploy(&platform, "shop", &script("new")).await;
    assert_eq!((second.revision, &second.id), (2, &first.id));
    let new = create(&platform, "shop").await;
    assert_eq!(text(&run(&platform, &old, "?").await), "old");
    assert_eq!(text(&run(&platform, &new, "?").await), "new");
    let code = stage.home.path().join("agents").join(first.id.as_str());
    assert!(code.join("1/src/agent.sh").exists());
    platform.end_session(&old).await.expect("an end");
    assert_eq!(deploy(&platform, "shop", &script("newest")).await.revision, 3);
    assert!(!code.join("1").exists() && code.join("2").exists() && code.join("3").exists());

    platform.delete_agent("shop").await.expect("deleted");
    assert!(!code.exists());
    let ended = platform.session(&new).await.expect("it");
    assert_eq!((ended.status, ended.end_reason), (Status::Ended, Some(EndReason::AgentDeleted)));
    assert_eq!(ended.agent_name.as_deref(), Some("shop"));
    assert_eq!(platform.agent("shop").await.expect_err("gone").code(), ErrorCode::NotFound);
    assert_ne!(deploy(&platform, "shop", &script("again")).await.id, first.id);
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_wipes_what_was_left_alone() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let (used, untouched) = (create(&platform, "echo").await, create(&platform, "echo").await);
    stage.let_pass(12 * 3600);
    run(&platform, &used, "hello").await;
    stage.let_pass(12 * 3600);
    platform.expire_due().await;
    let expired = platform.session(&untouched).await.expect("it");
    assert_eq!((expired.status, expired.end_reason), (Status::Ended, Some(EndReason::Expired)));
    let session = platform.session(&used).await.expect("it");
    assert_eq!(session.status, Status::Idle);
    assert_eq!(session.expires_at, session.last_activity_at.map(|at| at.plus_millis(24 * 3600 * 1000)));
    stage.let_pass(12 * 3600);
    let error = platform.send(&used, "hello").await.err().expect("expired, though no timer has run");
    assert_eq!(error.code(), ErrorCode::Expired);
    assert_eq!(error.to_string(), "Session has expired. Start a new one with: superserve run <agent>");
    assert!(!stage.folder(&used).exists());
    assert_eq!(platform.resume_session(&used).await.expect_err("expired").code(), ErrorCode::Expired);
    platform.shut_down().await;
}

/// An interpreter outside the system's folders is found by the PATH and shown to the agent.
#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_of_ones_own_works_in_the_sandbox() {
    use std::os::unix::fs::PermissionsExt;
    let mut stage = match Stage::with(Choice::Native).await {
        Ok(stage) => stage,
        Err(refusal) => return println!("skipped: {refusal}"),
    };
    let prefix = stage.home.path().join("versions/mine");
    std::fs::create_dir_all(prefix.join("bin")).expect("a folder");
    std::fs::create_dir_all(prefix.join("lib")).expect("a folder");
    std::fs::write(prefix.join("lib/word"), "mine").expect("a file");
    let interpreter = prefix.join("bin/myshell");
    std::fs::copy("/bin/sh", &interpreter).expect("a shell");
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    stage.path = format!("{}:/usr/bin:/bin", prefix.join("bin").display());
    let platform = stage.open().await;
    let script = format!("while read -r line; do cat {}; echo; done", prefix.join("lib/word").display());
    platform.deploy(upload("own", "myshell a.sh", &[("a.sh", &script)])).await.expect("an agent");
    let id = create(&platform, "own").await;
    let events = run(&platform, &id, "go").await;
    assert_eq!(text(&events).trim(), "mine", "{events:?}");
    platform.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_is_stopped_and_comes_back() {
    let stage = Stage::new().await;
    let platform = stage.open().await;
    deploy(&platform, "echo", ECHO).await;
    let create = CreateSession { agent_id: "echo".into(), title: None, idle_timeout_seconds: Some(0) };
    let id = platform.create_session(create).await.expect("a session").id;
    run(&platform, &id, "one").await;
    let gone = async {
        while platform.activity().await.live_agents > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the agent is stopped");
    assert_eq!(platform.session(&id).await.expect("it").status, Status::Idle);
    assert_eq!(text(&run(&platform, &id, "two").await), "you said: two");
    platform.shut_down().await;
}
