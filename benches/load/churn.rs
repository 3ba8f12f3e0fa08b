//! List and get agree while sessions are made, used, ended and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::program::create;
use crate::served::Served;
use crate::{goal, row, title};

/// So many make and end sessions at once, and so many look.
const MAKERS: usize = 6;
const LOOKERS: usize = 2;

pub async fn measure(time: Duration) {
    let served = Arc::new(Served::new().await);
    title(&format!("{MAKERS} make, use and end sessions for {} s, {LOOKERS} compare", time.as_secs()));
    let over = Arc::new(AtomicBool::new(false));
    let (made, looked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut makers = JoinSet::new();
    for number in 0..MAKERS {
        let (served, over, made) = (served.clone(), over.clone(), made.clone());
        makers.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                live(&served, number % 2 == 0).await;
                made.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut lookers = JoinSet::new();
    for _ in 0..LOOKERS {
        let (served, over, looked) = (served.clone(), over.clone(), looked.clone());
        lookers.spawn(async move {
            let mut wrong = Vec::new();
            while !over.load(Ordering::SeqCst) {
                looked.fetch_add(look(&served, &mut wrong).await, Ordering::SeqCst);
            }
            wrong
        });
    }
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::SeqCst);
    makers.join_all().await;
    let wrong = lookers.join_all().await.concat();
    let rate = made.load(Ordering::SeqCst) as f64 / begun.elapsed().as_secs_f64();
    row("sessions made, used and ended a second", format!("{rate:.1}"), "");
    row("rows compared", looked.load(Ordering::SeqCst).to_string(), "");
    goal("rows and answers that no change explains", wrong.len().to_string(), wrong.is_empty(), "0");
    wrong.iter().take(5).for_each(|what| println!("  {what}"));
}

/// The life of one session.
async fn live(served: &Served, forget: bool) {
    let id = create(&served.client, "counter").await.id;
    for _ in 0..2 {
        let body = json!({ "prompt": "3 0.01 0" });
        let answer = served.post(&format!("/sessions/{id}/messages"), &body).send().await.expect("a run");
        let _ = answer.bytes().await;
    }
    served.client.end_session(&id).await.expect("ended");
    if forget {
        served.client.delete_session(&id).await.expect("forgotten");
    }
}

/// A session by get, by list, and by get again; how many rows were compared.
async fn look(served: &Served, wrong: &mut Vec<String>) -> usize {
    let page = ask(served, "/sessions?limit=20").await.unwrap_or_default();
    let ids: Vec<String> =
        page["sessions"].as_array().into_iter().flatten().map(|row| word(row, "id").to_owned()).collect();
    let mut count = 0;
    for id in ids.iter().take(8) {
        let before = ask(served, &format!("/sessions/{id}")).await;
        let page = ask(served, "/sessions?limit=100").await.unwrap_or_default();
        let row =
            page["sessions"].as_array().into_iter().flatten().find(|row| word(row, "id") == *id).cloned();
        let after = ask(served, &format!("/sessions/{id}")).await;
        count += 1;
        // It leaves the page when a hundred others are newer, or when it is forgotten.
        let is_on_page = row.is_some();
        if let (Some(before), Some(row)) = (&before, &row) {
            compare("get, then list", before, row, wrong);
        }
        match (&row, &after) {
            (Some(row), Some(after)) => compare("list, then get", row, after, wrong),
            (Some(row), None) if word(row, "status") != "ended" => {
                // It may have ended and been forgotten between the two.
                let again = ask(served, &format!("/sessions/{id}")).await;
                if again.is_some() {
                    wrong.push(format!("{id} was gone and is back"));
                }
            }
            _ => {}
        }
        if before.is_none() && (is_on_page || after.is_some()) {
            wrong.push(format!("{id} was gone and is back"));
        }
    }
    count
}

fn compare(what: &str, earlier: &Value, later: &Value, wrong: &mut Vec<String>) {
    let (from, to) = (word(earlier, "status"), word(later, "status"));
    let messages = |session: &Value| session["message_count"].as_u64().unwrap_or_default();
    let (sent, sent_later) = (messages(earlier), messages(later));
    let legal = match (from, to) {
        ("ended", _) => to == "ended",
        ("pending", "idle" | "active") => sent_later > sent,
        (_, "pending") => from == "pending",
        // A message has come and gone in between, or was under way.
        ("idle", "active") => sent_later > sent,
        ("active", "idle") => sent_later >= sent,
        (_, "ended") => true,
        _ => from == to,
    };
    let same = from == to && sent == sent_later && earlier != later;
    // While it is active, its time of activity moves; an end that goes on has no receipt yet.
    let moves = from == "active" || from == "ended";
    if !legal || sent_later < sent || (same && !moves) {
        wrong.push(format!("{what}: {earlier} → {later}"));
    }
}

fn word<'a>(session: &'a Value, key: &str) -> &'a str {
    session[key].as_str().unwrap_or_default()
}

/// `None` if it is not there.
async fn ask(served: &Served, path: &str) -> Option<Value> {
    let answer = served.get(path).send().await.expect("an answer");
    if answer.status().as_u16() == 404 {
        return None;
    }
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    Some(answer.json().await.expect("JSON"))
}
