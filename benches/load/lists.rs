//! Lists of many sessions: how long a page takes.

use std::sync::Arc;
use std::time::Instant;

use superserve::clock::Clock;
use tokio::task::JoinSet;

use crate::served::Served;
use crate::{at, goal, millis, row, seed, title};

/// How often each page is asked for.
const ASKED: usize = 2000;
/// The goal for the page that old clients ask for, in ms.
const GOAL: f64 = 5.0;

const PAGES: [&str; 5] = [
    "?limit=20",
    "?limit=20&agent_id=&status=",
    "?limit=20&status=IDLE",
    "?limit=20&agent=notes",
    "?limit=20&order=created",
];

pub async fn measure(sessions: u64) {
    let folder = tempfile::tempdir().expect("a home");
    let home = folder.path().join("home");
    let options =
        seed::Options { home: home.clone(), sessions, now: Clock::system().now_millis(), json: None };
    tokio::task::spawn_blocking(move || seed::seed(&options).expect("sessions")).await.expect("sessions");
    let served = Arc::new(Served::of(&home).await);
    title(&format!("GET /v1/sessions of {sessions}, over TCP with a token, {ASKED} times"));
    for page in PAGES {
        one(&served, page).await; // The first answer reads the database's pages from the disk.
        let mut times = Vec::new();
        for _ in 0..ASKED {
            times.push(one(&served, page).await);
        }
        told(page, &mut times, page == PAGES[0]);
    }
    let mut times = Vec::new();
    for _ in 0..ASKED / 20 {
        let begun = Instant::now();
        let answer = served.get("/metrics").send().await.expect("an answer");
        assert!(answer.status().is_success() && answer.bytes().await.expect("metrics").len() > 5000);
        times.push(millis(begun.elapsed()));
    }
    told("/v1/metrics", &mut times, false);
    let before = served.memory();
    for at_once in [4, 32] {
        let mut readers = JoinSet::new();
        for _ in 0..at_once {
            let served = served.clone();
            readers.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..ASKED / 4 {
                    times.push(one(&served, PAGES[0]).await);
                }
                times
            });
        }
        let begun = Instant::now();
        let mut times = readers.join_all().await.concat();
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        told(&format!("{}, {at_once} at once ({rate:.0} a second)", PAGES[0]), &mut times, false);
    }
    let after = served.memory();
    row("the server's memory before and after these, MB", format!("{before:.0} / {after:.0}"), "");
}

fn told(what: &str, times: &mut [f64], decides: bool) {
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|part| at(part, times));
    let what = format!("{what}: p50 / p99 / worst, ms");
    let value = format!("{p50:.2} / {p99:.2} / {worst:.1}");
    match decides {
        true => goal(&what, value, p99 < GOAL, "p99 under 5 ms"),
        false => row(&what, value, ""),
    }
}

async fn one(served: &Served, page: &str) -> f64 {
    let begun = Instant::now();
    let answer = served.get(&format!("/sessions{page}")).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    let bytes = answer.bytes().await.expect("a page");
    let time = millis(begun.elapsed());
    assert!(bytes.len() > 5000, "20 sessions: {}", String::from_utf8_lossy(&bytes));
    time
}
