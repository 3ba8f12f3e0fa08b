//! Requests in any order keep the rules.

use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::stage::*;
use super::*;
use crate::wire::{ErrorCode, Role};

#[derive(Clone, Debug)]
enum Act {
    Send(bool),
    Cancel,
    Resume,
    End,
    Expire,
    Forget,
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<(Act, usize)>> {
    let act = prop_oneof![
        4 => any::<bool>().prop_map(Act::Send),
        2 => Just(Act::Cancel),
        2 => Just(Act::Resume),
        1 => Just(Act::End),
        1 => Just(Act::Expire),
        1 => Just(Act::Forget),
        2 => Just(Act::Wait),
    ];
    prop::collection::vec((act, 0..2usize), 1..12)
}

/// Whatever is asked in whatever order: runs end once, states fit, nothing of an ended session is left.
#[test]
fn any_row_of_requests_keeps_the_rules() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let stage = runtime.block_on(Stage::new());
    let platform = runtime.block_on(async {
        let platform = stage.open().await;
        deploy(
            &platform,
            "mixed",
            "while read -r l; do echo \"$l\"; if [ \"$l\" = slow ]; then sleep 30; fi; done",
        )
        .await;
        platform
    });
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let result = runner.run(&acts(), |acts| {
        runtime.block_on(async {
            let ids = [create(&platform, "mixed").await, create(&platform, "mixed").await];
            let mut runs = Vec::new();
            for (act, which) in acts {
                let id = ids[which].clone();
                match act {
                    Act::Send(slow) => {
                        if let Ok(stream) = platform.send(&id, if slow { "slow" } else { "quick" }).await {
                            runs.push(tokio::spawn(stream.collect::<Vec<_>>()));
                        }
                    }
                    Act::Cancel => drop(platform.cancel_session(&id).await),
                    Act::Resume => drop(platform.resume_session(&id).await),
                    Act::End => drop(platform.end_session(&id).await),
                    Act::Expire => {
                        stage.let_pass(25 * 3600);
                        platform.expire_due().await;
                    }
                    Act::Forget => drop(platform.delete_session(&id).await),
                    Act::Wait => tokio::time::sleep(Duration::from_millis(3)).await,
                }
            }
            for id in &ids {
                let session = match platform.cancel_session(id).await {
                    Ok(session) => session,
                    Err(error) => {
                        prop_assert_eq!(error.code(), ErrorCode::NotFound);
                        continue;
                    }
                };
                prop_assert_ne!(session.status, Status::Active);
                prop_assert_eq!(session.status == Status::Ended, session.end_reason.is_some());
                let users = platform
                    .messages(id, None)
                    .await
                    .expect("messages")
                    .iter()
                    .filter(|m| m.role == Role::User)
                    .count();
                prop_assert_eq!(session.message_count, users as u64);
            }
            for run in runs {
                let events = run.await.expect("a run");
                let ends = events.iter().filter(|event| event.event.is_last()).count();
                prop_assert_eq!(ends, 1, "{:?}", events);
            }
            for id in &ids {
                let _ = platform.end_session(id).await;
                prop_assert!(!stage.folder(id).exists());
            }
            prop_assert_eq!(platform.activity().await, Activity::default());
            Ok(())
        })
    });
    runtime.block_on(platform.shut_down());
    result.expect("the rules hold");
}
