//! Many streams at once: agents print numbered lines, and nothing may be lost, doubled or out of order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::program::create;
use crate::served::{Checked, Served};
use crate::{at, goal, row, title};

/// How long an agent waits between two lines, in seconds.
const PAUSE: f64 = 0.2;

pub async fn measure(count: usize, time: Duration) {
    let served = Arc::new(Served::new().await);
    title(&format!("{count} streams at once for {} s, sandbox {}", time.as_secs(), served.driver));
    let lines = (time.as_secs_f64() / PAUSE) as u64;
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(create(&served.client, "counter").await.id);
    }
    // Each agent is there before the minute begins.
    let begun = Instant::now();
    let mut first = JoinSet::new();
    for id in sessions.clone() {
        let served = served.clone();
        first.spawn(async move { run(&served, id.as_str(), 1).await });
    }
    while let Some(done) = first.join_next().await {
        let done = done.expect("a stream");
        assert!(done.wrong.is_empty(), "{:?}", done.wrong);
    }
    row("until every agent has answered once", format!("{:.1} s", begun.elapsed().as_secs_f64()), "");
    let before = served.memory();
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for id in sessions {
        let served = served.clone();
        streams.spawn(async move { (run(&served, id.as_str(), lines).await, id) });
    }
    let (mut late, mut wrong, mut events, mut received, mut replays) = (Vec::new(), Vec::new(), 0, 0, 0);
    while let Some(done) = streams.join_next().await {
        let (mut checked, id) = done.expect("a stream");
        late.append(&mut checked.late);
        wrong.append(&mut checked.wrong);
        events += checked.events;
        received += checked.lines;
        // What is read again from the middle is the rest.
        let after = checked.events / 2;
        let mut again = Checked::after(after);
        let path = format!("/sessions/{id}/events?after={after}");
        let bytes = served.get(&path).send().await.expect("an answer").bytes().await.expect("events");
        again.feed(&bytes);
        let numbers = again.events == checked.events && again.ended;
        replays += usize::from(!numbers);
    }
    let took = begun.elapsed().as_secs_f64();
    let expected = lines * count as u64;
    row("lines received", format!("{received}"), &format!("of {expected}"));
    row("events a second", format!("{:.0}", events as f64 / took), "");
    goal("lost, doubled, out of order or broken off", wrong.len().to_string(), wrong.is_empty(), "0");
    goal("replays from the middle that are not the rest", replays.to_string(), replays == 0, "0");
    wrong.iter().take(5).for_each(|what| println!("  {what}"));
    let (p50, p99, worst) = (at(0.5, &mut late), at(0.99, &mut late), at(1.0, &mut late));
    row(
        "from the agent's print to here, p50 / p99 / worst, ms",
        format!("{p50:.1} / {p99:.1} / {worst:.0}"),
        "",
    );
    let after = served.memory();
    row("the server's memory before and after, MB", format!("{before:.0} / {after:.0}"), "");
    row("after over before", format!("{:.2}", after / before), "");
}

/// Sends a session a message and reads its run to the end, over one connection.
async fn run(served: &Served, id: &str, lines: u64) -> Checked {
    let mut checked = Checked::default();
    let body = json!({ "prompt": format!("{lines} {PAUSE} 0") });
    let response = served.post(&format!("/sessions/{id}/messages"), &body).send().await;
    match response {
        Ok(mut response) => loop {
            match response.chunk().await {
                Ok(Some(bytes)) => checked.feed(&bytes),
                Ok(None) => break,
                Err(error) => {
                    checked.wrong.push(error.to_string());
                    break;
                }
            }
        },
        Err(error) => checked.wrong.push(error.to_string()),
    }
    checked.finish(lines);
    checked
}
