//! Conditions on random sessions: what is pushed down and what is tested natively is what the engine says.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::script::fake::NOW;
use crate::wire::{Status, Timestamp};

const HOUR: i64 = 3_600_000;

fn sessions() -> impl Strategy<Value = Vec<Value>> {
    let status = prop::sample::select(Status::ALL.map(Status::as_str).to_vec());
    let agent = prop::sample::select(vec!["notes", "writer", "x"]);
    let title = prop::sample::select(vec!["", "milk", "MILK and more", "Debug \"my\" code", "ä"]);
    // On the hours that the conditions name, beside them, and in the future.
    let moment = || (-1_i64..6, -1_i64..2).prop_map(|(hours, millis)| NOW - hours * HOUR + millis);
    let one = (status, agent, title, 0_u64..5, moment(), moment(), any::<bool>());
    prop::collection::vec(one, 0..40).prop_map(|rows| {
        let row = |(number, (status, agent, title, count, a, b, active)): (usize, (_, _, _, _, i64, i64, bool))| {
            let at = |millis| Timestamp::from_millis(millis).to_string();
            json!({
                "id": format!("ses_{number:032x}"), "agent_id": "agt_abc123def456", "agent_name": agent, "status": status,
                "title": title, "message_count": count, "created_at": at(a.min(b)),
                "last_activity_at": active.then(|| at(a.max(b))),
            })
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

/// A condition as text, in which `@` stands before each field.
fn condition() -> impl Strategy<Value = String> {
    let relation = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let words = |words: &[&'static str]| prop::sample::select(words.to_vec());
    let hours = || (-1_i64..6).prop_map(|n| format!("{n}.hours"));
    let compared = prop_oneof![
        (relation(), -1_i64..6).prop_map(|(r, n)| format!("@message_count {r} {n}")),
        (words(&["idle", "age"]), relation(), hours()).prop_map(|(f, r, h)| format!("@{f} {r} {h}")),
        (hours(), relation(), words(&["idle", "age"])).prop_map(|(h, r, f)| format!("{h} {r} @{f}")),
        (words(&["created_at", "last_activity_at"]), relation(), hours())
            .prop_map(|(f, r, h)| format!("@{f} {r} ago({h})")),
        (relation(), words(&["idle", "active", "ended", "failed"]))
            .prop_map(|(r, w)| format!("@status {r} \"{w}\"")),
        (words(&["==", "!="]), words(&["notes", "writer", "nobody", ""]))
            .prop_map(|(r, w)| format!("@agent {r} \"{w}\"")),
        words(&["milk", "MILK", "", "ä", "\\\"my\\\""]).prop_map(|w| format!("@title.contains(\"{w}\")")),
        words(&["starts_with", "ends_with"]).prop_map(|w| format!("@title.{w}(\"m\")")),
        Just("@status in [\"idle\", \"pending\"]".to_owned()),
        Just("@agent in [\"x\", \"notes\"]".to_owned()),
        Just("@title.len > 4".to_owned()),
        Just("true".to_owned()),
        Just("!false".to_owned()),
    ];
    compared.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_server_the_native_test_and_the_engine_agree(sessions in sessions(), conditions in prop::collection::vec(condition(), 4)) {
        let server = FakeServer::start();
        *server.held.sessions.lock().expect("not poisoned") = sessions;
        let mut script = String::from("let all = list().to_array(); let held = sessions::from_json(list().to_json());");
        for condition in &conditions {
            let text = condition.replace('@', "");
            let closure = condition.replace('@', "s.");
            script.push_str(&format!(
                "let by_engine = all.filter(|s| {{ let s = s; {closure} }}).map(\"id\"); by_engine.sort();
                 for way in [list().filter(|s| {closure}), list().filter(`{text}`),
                             list(#{{ where: `{text}` }}), sessions::each().filter(|s| {closure}).to_list(),
                             list().reject(|s| !({closure}))] {{
                     let ids = way.ids; ids.sort();
                     if ids != by_engine {{ throw `{{ids}} instead of {{by_engine}}`; }}
                     if way.count() != ids.len {{ throw `counted ${{way.count()}} of ${{ids}}`; }}
                 }}
                 // JSON has whole seconds: other times, other answers.
                 let by_engine_held = held.to_array().filter(|s| {{ let s = s; {closure} }}).map(\"id\");
                 for way in [held.filter(|s| {closure}), held.filter(`{text}`)] {{
                     if way.ids != by_engine_held {{ throw `held: {{way}} instead of ${{by_engine_held}}`; }}
                 }}
                 if list().count(`{text}`) != by_engine.len {{ throw \"counted otherwise\"; }}
                 if list().filter(|s| {closure}).sum(\"message_count\") != all.filter(|s| by_engine.contains(s.id)).sum(\"message_count\") {{ throw \"summed otherwise\"; }}
                 if list().any(`{text}`) != !by_engine.is_empty() {{ throw \"any is wrong\"; }}\n"
            ).replace("`{ids}", "`${ids}").replace("{by_engine}`", "${by_engine}`"));
        }
        let ran = run_with(Some(&server), Options::default(), |_, _| {}, &script);
        prop_assert!(matches!(ran.result, Ok(Outcome::Done)), "{:?}\n{:#?}", ran.result, conditions);
    }
}
