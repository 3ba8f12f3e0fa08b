//! Mixed traffic for a long time: the server's memory, open files and database must stay flat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::program::{create, verdict};
use crate::served::{Checked, Served};

/// So many users at once.
const USERS: u64 = 8;
/// How many rows the table has.
const ROWS: u32 = 40;
/// The part of the time in which the server may still grow.
const WARM_UP: f64 = 0.25;
/// By how much a fitted line may rise from the end of the warm-up to the end, as a part of where it began.
const FLAT: f64 = 0.05;

#[derive(Default)]
struct Counts {
    sessions: AtomicU64,
    runs: AtomicU64,
    cuts: AtomicU64,
    wrong: AtomicU64,
}

pub async fn measure(time: Duration) {
    let served = Arc::new(Served::new().await);
    println!(
        "\nMixed traffic of {USERS} users for {}, sandbox {}",
        humantime::format_duration(time),
        served.driver
    );
    println!(
        "{:>8} {:>10} {:>8} {:>12} {:>10} {:>8} {:>8}",
        "s", "memory MB", "files", "database MB", "sessions", "runs", "cuts"
    );
    let (counts, over) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let mut users = JoinSet::new();
    for user in 0..USERS {
        let (served, counts, over) = (served.clone(), counts.clone(), over.clone());
        users.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                live(&served, &counts, user).await;
            }
        });
    }
    let begun = Instant::now();
    let mut samples: Vec<[f64; 4]> = Vec::new();
    let step = time / ROWS;
    for number in 1..=ROWS {
        // Between the rows are samples of which the table shows none.
        for part in 1..=10 {
            tokio::time::sleep_until((begun + step * (number - 1) + step * part / 10).into()).await;
            let at = begun.elapsed().as_secs_f64();
            samples.push([at, served.memory(), served.files() as f64, served.database()]);
        }
        let [at, memory, files, database] = samples.last().copied().unwrap_or_default();
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let (sessions, runs, cuts) = (count(&counts.sessions), count(&counts.runs), count(&counts.cuts));
        println!("{at:>8.0} {memory:>10.1} {files:>8.0} {database:>12.2} {sessions:>10} {runs:>8} {cuts:>8}");
    }
    over.store(true, Ordering::SeqCst);
    users.join_all().await;
    let warm: Vec<[f64; 4]> =
        samples.into_iter().filter(|sample| sample[0] > time.as_secs_f64() * WARM_UP).collect();
    println!("\n{:<16} {:>10} {:>14} {:>10}  goal", "after warm-up", "mean", "an hour", "risen by");
    for (place, what) in (1..).zip(["memory MB", "open files", "database MB"]) {
        let points: Vec<(f64, f64)> = warm.iter().map(|sample| (sample[0], sample[place])).collect();
        let (mean, slope, risen) = line(&points);
        let flat = risen <= FLAT;
        println!(
            "{what:<16} {mean:>10.2} {:>+14.2} {:>+9.1}%  at most {:.0}%: {}",
            slope * 3600.0,
            risen * 100.0,
            FLAT * 100.0,
            verdict(flat)
        );
    }
    let wrong = counts.wrong.load(Ordering::SeqCst);
    println!("runs of which something was lost, doubled or out of order: {wrong}: {}", verdict(wrong == 0));
}

/// The mean, the slope a second, and by what part of its begin a fitted line rises.
fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread.max(1e-9);
    let (first, last) = (points.first().map_or(0.0, |p| p.0), points.last().map_or(0.0, |p| p.0));
    let begin = y + slope * (first - x);
    (y, slope, slope * (last - first) / begin.max(1e-9))
}

/// One session from its begin to its end: messages, a connection that is cut and taken up again, lists, a watch, files.
async fn live(served: &Served, counts: &Counts, user: u64) {
    let id = create(&served.client, "counter").await.id;
    for message in 0..4 {
        let body = json!({ "prompt": format!("{} 0.02 {}", 10 + 5 * user, 40) });
        let lines = 10 + 5 * user;
        let mut checked = Checked::default();
        let answer = served.post(&format!("/sessions/{id}/messages"), &body).send().await;
        let mut answer = answer.expect("a run");
        while let Ok(Some(bytes)) = answer.chunk().await {
            checked.feed(&bytes);
            if message == 1 && checked.events >= 5 {
                break;
            }
        }
        if message == 1 && !checked.ended {
            drop(answer);
            counts.cuts.fetch_add(1, Ordering::SeqCst);
            checked.reconnected();
            let path = format!("/sessions/{id}/events?after={}", checked.events);
            let mut rest = served.get(&path).send().await.expect("events");
            while let Ok(Some(bytes)) = rest.chunk().await {
                checked.feed(&bytes);
            }
        }
        checked.finish(lines);
        if !checked.wrong.is_empty() {
            println!("  {:?}", checked.wrong);
            counts.wrong.fetch_add(1, Ordering::SeqCst);
        }
        counts.runs.fetch_add(1, Ordering::SeqCst);
        for path in [
            "/sessions?limit=20".to_owned(),
            format!("/sessions/{id}"),
            format!("/sessions/{id}/messages"),
            format!("/sessions/{id}/files?list=true"),
            "/sessions/stats?count_by=status".to_owned(),
            "/agents".to_owned(),
            "/sessions?status=sleeping".to_owned(),
        ] {
            let _ = served.get(&path).send().await.expect("an answer").bytes().await;
        }
        // Somebody who looks on and goes away.
        let mut watched = served.get(&format!("/sessions/watch?id={id}")).send().await.expect("a watch");
        let _ = watched.chunk().await;
    }
    served.client.end_session(&id).await.expect("ended");
    served.client.delete_session(&id).await.expect("forgotten");
    counts.sessions.fetch_add(1, Ordering::SeqCst);
}
