//! `cargo bench --bench load`: a server under load, asked by this second process over TCP: 200 streams at once, lists of
//! 100,000 sessions, readers who are slow or stand still, list and get while sessions churn. `-- streams`, `lists`,
//! `readers` or `churn` measures a part, `-- soak 20m` (`8h` for a night) is mixed traffic with the server's memory, open
//! files and database over time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::disallowed_methods
)]

mod program;

#[path = "load/churn.rs"]
mod churn;
#[path = "load/lists.rs"]
mod lists;
#[path = "load/readers.rs"]
mod readers;
#[allow(dead_code)]
#[path = "../examples/seed.rs"]
mod seed;
#[path = "load/served.rs"]
mod served;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/streams.rs"]
mod streams;

use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match args.as_slice() {
            [] => {
                streams::measure(200, Duration::from_secs(60)).await;
                lists::measure(100_000).await;
                readers::measure().await;
                churn::measure(Duration::from_secs(30)).await;
            }
            ["streams"] => streams::measure(200, Duration::from_secs(60)).await,
            ["streams", time] => streams::measure(200, duration(time)).await,
            ["lists"] => lists::measure(100_000).await,
            ["readers"] => readers::measure().await,
            ["churn"] => churn::measure(Duration::from_secs(30)).await,
            ["churn", time] => churn::measure(duration(time)).await,
            ["soak"] => soak::measure(Duration::from_secs(20 * 60)).await,
            ["soak", time] => soak::measure(duration(time)).await,
            _ => println!("usage: cargo bench --bench load -- [streams|lists|readers|churn|soak] [TIME]"),
        }
    });
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn title(text: &str) {
    println!("\n{text}\n{:<58} {:>12}  goal", "what", "");
}

fn row(what: &str, value: String, goal: &str) {
    println!("{what:<58} {value:>12}  {goal}");
}

/// A row that a goal decides.
fn goal(what: &str, value: String, held: bool, goal: &str) {
    row(what, value, &format!("{goal}: {}", program::verdict(held)));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which that part of them lies.
fn at(part: f64, values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len().saturating_sub(1) as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or(0.0)
}
