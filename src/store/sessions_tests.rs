//! Lists against a naive copy of the rules, and the indexes behind them.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::store::{NewRevision, NewRun, RunEnd};
use crate::wire::{AgentConfig, NumberedEvent, RunEvent, RunId};

const NOW: i64 = 1_000_000;

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("superserve.db")).await.expect("a store");
    for agent in 1..=2u128 {
        store
            .put_revision(&NewRevision {
                id: agent_id(agent),
                name: format!("agent-{agent}"),
                revision: 1,
                command: "cat".into(),
                config: AgentConfig::default(),
                source_hash: String::new(),
                deps: None,
                at: 0,
            })
            .await
            .expect("an agent");
    }
    (folder, store)
}

fn agent_id(number: u128) -> AgentId {
    AgentId::from_random(number << 80)
}

/// A session as the test makes it.
#[derive(Clone, Debug)]
struct Made {
    id: u128,
    agent: u128,
    status: Status,
    title: Option<String>,
    created: i64,
    activity: Option<i64>,
}

impl Made {
    fn activity_at(&self) -> i64 {
        self.activity.unwrap_or(self.created)
    }

    fn idle(&self) -> i64 {
        if self.status == Status::Active { 0 } else { NOW - self.activity_at() }
    }

    async fn insert(&self, store: &Store) {
        sqlx::query(
            "INSERT INTO sessions (id, agent_id, revision, status, title, created_at, last_activity_at,
                 activity_at, idle_timeout_seconds) VALUES ($1, $2, 1, $3, $4, $5, $6, $7, 60)",
        )
        .bind(SessionId::from_random(self.id).as_str())
        .bind(agent_id(self.agent).as_str())
        .bind(self.status.as_str())
        .bind(&self.title)
        .bind(self.created)
        .bind(self.activity)
        .bind(self.activity_at())
        .execute(&store.write)
        .await
        .expect("a session");
    }
}

fn statuses() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.to_vec())
}

fn sessions() -> impl Strategy<Value = Vec<Made>> {
    let one = (
        any::<u128>(),
        1..=2u128,
        statuses(),
        prop::option::of("[aAbB%_é]{0,3}"),
        // Few moments, so that many are equal.
        NOW - 6000..NOW,
        prop::option::of(0..4i64),
    )
        .prop_map(|(id, agent, status, title, created, later)| {
            let created = created / 1000 * 1000;
            let activity = later.filter(|_| status != Status::Pending).map(|later| created + later * 1000);
            Made { id, agent, status, title, created, activity }
        });
    prop::collection::vec(one, 0..40)
}

fn queries() -> impl Strategy<Value = SessionQuery> {
    (
        prop::collection::vec(statuses(), 0..3),
        prop::option::of(1..=2u128),
        prop::option::of(0..6u64),
        prop::option::of(NOW - 6000..NOW),
        prop::option::of("[aAbB%_é]{0,2}"),
        1..8u32,
        any::<bool>(),
    )
        .prop_map(|(status, agent, idle, created, title, limit, by_creation)| SessionQuery {
            status,
            agent: agent.map(|agent| agent_id(agent).to_string()).into_iter().collect(),
            idle_longer_than: idle,
            created_before: created.map(Timestamp::from_millis),
            title_contains: title,
            limit: Some(limit),
            order: if by_creation { Order::Created } else { Order::Activity },
            ..SessionQuery::default()
        })
}

fn naive(all: &[Made], query: &SessionQuery) -> Vec<SessionId> {
    let mut found: Vec<&Made> = all
        .iter()
        .filter(|made| query.status.is_empty() || query.status.contains(&made.status))
        .filter(|made| query.agent.is_empty() || query.agent.contains(&agent_id(made.agent).to_string()))
        .filter(|made| query.idle_longer_than.is_none_or(|seconds| made.idle() > seconds as i64 * 1000))
        .filter(|made| query.created_before.is_none_or(|before| made.created < before.as_millis()))
        .filter(|made| {
            query.title_contains.as_ref().is_none_or(|part| {
                made.title
                    .as_ref()
                    .is_some_and(|title| title.to_ascii_lowercase().contains(&part.to_ascii_lowercase()))
            })
        })
        .collect();
    found.sort_by_key(|made| match query.order {
        Order::Activity => (-made.activity_at(), made.id),
        Order::Created => (made.created, made.id),
    });
    found.into_iter().map(|made| SessionId::from_random(made.id)).collect()
}

async fn all_pages(store: &Store, query: &SessionQuery) -> Vec<SessionId> {
    let agents: Vec<AgentId> = query.agent.iter().map(|agent| agent.parse().expect("an ID")).collect();
    let mut query = query.clone();
    let mut ids = Vec::new();
    loop {
        let page = store.sessions(&query, &agents, NOW).await.expect("a page");
        assert!(page.sessions.len() <= query.limit.unwrap_or(1000) as usize);
        ids.extend(page.sessions.into_iter().map(|session| session.id));
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return ids,
        }
    }
}

#[test]
fn pages_are_what_a_naive_list_would_be() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_folder, store) = runtime.block_on(store());
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let cases = (sessions(), prop::collection::vec(queries(), 4));
    let result = runner.run(&cases, |(made, queries)| {
        runtime.block_on(async {
            sqlx::query("DELETE FROM sessions").execute(&store.write).await.expect("none");
            for one in &made {
                one.insert(&store).await;
            }
            for query in &queries {
                prop_assert_eq!(all_pages(&store, query).await, naive(&made, query), "{:?}", query);
            }
            Ok(())
        })
    });
    result.expect("pages as they must be");
}

/// By creation, what is there from the first page to the last comes exactly once, whatever happens meanwhile.
#[tokio::test]
async fn pages_by_creation_stand_still() {
    let (_folder, store) = store().await;
    let made = |id: u128, created: i64| Made {
        id: id << 100,
        agent: 1,
        status: Status::Idle,
        title: None,
        created,
        activity: None,
    };
    for number in 1..=30 {
        made(number, i64::try_from(number / 4).expect("small")).insert(&store).await;
    }
    let mut query = SessionQuery { limit: Some(4), order: Order::Created, ..SessionQuery::default() };
    let (mut ids, mut round) = (Vec::new(), 100);
    loop {
        let page = store.sessions(&query, &[], NOW).await.expect("a page");
        ids.extend(page.sessions.into_iter().map(|session| session.id));
        round += 1;
        made(round, NOW).insert(&store).await;
        sqlx::query("UPDATE sessions SET activity_at = $1 WHERE seq % 3 = 0")
            .bind(NOW + i64::try_from(round).expect("small"))
            .execute(&store.write)
            .await
            .expect("activity");
        match page.next_cursor {
            Some(cursor) if round < 120 => query.cursor = Some(cursor),
            _ => break,
        }
    }
    let first: Vec<_> = (1..=30).map(|number| SessionId::from_random(number << 100)).collect();
    assert_eq!(ids[..30], first);
}

#[tokio::test]
async fn a_cursor_of_nobody_is_refused() {
    let (_folder, store) = store().await;
    for cursor in [
        "",
        "x",
        "61",
        "é",
        &Cursor { order: Order::Created, key: 1, id: SessionId::from_random(1) }.encode(),
    ] {
        let query = SessionQuery { cursor: Some(cursor.to_owned()), ..SessionQuery::default() };
        let error = store.sessions(&query, &[], NOW).await.expect_err("refused");
        assert!(matches!(error, crate::store::StoreError::Cursor(_)), "{cursor}: {error}");
    }
}

#[tokio::test]
async fn a_prefix_finds_its_sessions() {
    let (_folder, store) = store().await;
    for id in [0x1a00 << 112, 0x1aff << 112, 0x1b00 << 112, u128::MAX] {
        let made = Made { id, agent: 1, status: Status::Idle, title: None, created: 0, activity: None };
        made.insert(&store).await;
    }
    let found = |prefix: &'static str, limit| {
        let store = store.clone();
        async move { store.sessions_by_prefix(prefix, limit).await.expect("IDs").len() }
    };
    assert_eq!(found("1a", 10).await, 2);
    assert_eq!(found("1", 10).await, 3);
    assert_eq!(found("1", 2).await, 2);
    assert_eq!(found("1a00", 10).await, 1);
    assert_eq!(found("2", 10).await, 0);
    assert_eq!(found("ffffffffffffffffffffffffffffffff", 10).await, 1);
}

/// What SQLite would do for a statement.
async fn plan(store: &Store, sql: QueryBuilder<Sqlite>) -> String {
    let text = format!("EXPLAIN QUERY PLAN {}", sql.sql().as_str());
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(&store.read).await.expect("a plan");
    rows.into_iter().map(|(.., detail)| detail).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn lists_walk_an_index_in_its_order() {
    let (_folder, store) = store().await;
    let cursor = |order| Some(Cursor { order, key: 5, id: SessionId::from_random(5) }.encode());
    let one = &[agent_id(1)][..];
    for order in [Order::Activity, Order::Created] {
        let word = if order == Order::Activity { "activity" } else { "created" };
        for cursor in [None, cursor(order)] {
            let base = SessionQuery { order, cursor, ..SessionQuery::default() };
            let by_status = SessionQuery { status: vec![Status::Idle], ..base.clone() };
            let by_two = SessionQuery { status: vec![Status::Idle, Status::Ended], ..base.clone() };
            let idle = SessionQuery { idle_longer_than: Some(3), ..base.clone() };
            for (query, agent, index) in [
                (&base, &[][..], format!("sessions_{word}")),
                (&by_status, &[][..], format!("sessions_status_{word}")),
                (&by_two, &[][..], format!("sessions_{word}")),
                (&base, one, format!("sessions_agent_{word}")),
                (&by_status, one, format!("sessions_agent_{word}")),
                (&idle, &[][..], format!("sessions_{word}")),
            ] {
                let plan = plan(&store, list(query, agent, NOW, 20).expect("a statement")).await;
                assert!(
                    plan.contains(&format!("USING INDEX {index} "))
                        || plan.contains(&format!("USING INDEX {index};")),
                    "{query:?}: {plan}"
                );
                assert!(!plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
            }
        }
    }
    for (sql, index) in [
        (
            "SELECT id FROM sessions WHERE id >= 'a' AND id < 'b' ORDER BY id LIMIT 3",
            "sqlite_autoindex_sessions",
        ),
        (
            "SELECT id FROM sessions WHERE status IN ('completed', 'failed', 'idle', 'pending') AND activity_at <= 5 LIMIT 9",
            "sessions_status_activity",
        ),
        ("SELECT id FROM runs WHERE ended_at IS NULL", "runs_open"),
    ] {
        let plan = plan(&store, QueryBuilder::new(sql)).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn the_slot_of_a_session_is_never_used_again() {
    let (_folder, store) = store().await;
    let mut seqs = Vec::new();
    for round in 0..3u128 {
        let id = SessionId::from_random(round);
        let new = NewSession {
            id: id.clone(),
            agent_id: agent_id(1),
            revision: 1,
            title: None,
            idle_timeout_seconds: 1,
            at: 0,
        };
        store.insert_session(&new).await.expect("a session");
        seqs.push(store.session(&id).await.expect("it").expect("it").seq);
        store.finish_session(&id, EndReason::User, None, &Receipt::default(), 1).await.expect("ended");
        assert!(store.delete_session(&id).await.expect("deleted"));
    }
    assert_eq!(seqs, [1, 2, 3]);
}

/// A run from its first event to its last, and what the next run leaves of it.
#[tokio::test]
async fn only_the_latest_runs_events_are_kept() {
    let (_folder, store) = store().await;
    let session = SessionId::from_random(1);
    let new = NewSession {
        id: session.clone(),
        agent_id: agent_id(1),
        revision: 1,
        title: None,
        idle_timeout_seconds: 1,
        at: 10,
    };
    store.insert_session(&new).await.expect("a session");
    let event = |run: &RunId, number, event| NumberedEvent { run_id: run.clone(), number, event };
    for (turn, at) in [(1u64, 20), (2, 15)] {
        let run = RunId::from_random(u128::from(turn));
        let started = RunEvent::Started { run_id: run.clone(), session_id: session.clone() };
        let new = NewRun {
            id: run.clone(),
            session: session.clone(),
            prompt: format!("prompt {turn}"),
            title: format!("title {turn}"),
            started: event(&run, 1, started),
            at,
        };
        assert_eq!(store.begin_run(&new).await.expect("a run"), turn);
        assert_eq!(store.open_runs().await.expect("runs").len(), 1);
        let text = RunEvent::Delta { content: "nul \0 and \u{1F600}".into() };
        store.append_events(&[event(&run, 2, text)]).await.expect("an event");
        store
            .finish_run(&RunEnd {
                id: run.clone(),
                session: session.clone(),
                events: vec![event(&run, 3, RunEvent::Cancelled {})],
                reply: "nul \0".into(),
                partial: true,
                status: Status::Idle,
                error: None,
                activity: true,
                at: at + 1,
            })
            .await
            .expect("an end");
        assert_eq!(store.events(&run, 1, 10).await.expect("events").len(), 2);
    }
    assert!(store.events(&RunId::from_random(1), 0, 10).await.expect("events").is_empty());
    let kept = store.session(&session).await.expect("it").expect("it").session;
    assert_eq!((kept.message_count, kept.title.as_deref()), (2, Some("title 1")));
    // A clock that goes back moves nothing back.
    assert_eq!(kept.last_activity_at, Some(Timestamp::from_millis(21)));
    let history = store.history(&session).await.expect("history");
    let interrupted: Vec<_> = history.iter().map(|line| (line.turn, line.interrupted)).collect();
    assert_eq!(interrupted, [(1, false), (1, true), (2, false), (2, true)]);
    assert_eq!(store.messages(&session, None).await.expect("messages")[3].content, "nul \0");
}
