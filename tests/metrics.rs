//! What the server counts: each number moves when the thing happens, and Prometheus can read all of it.

use std::collections::BTreeMap;

use crate::process::wait_until;
use crate::request::{request, send};
use crate::test::Test;

/// What was counted, by name and labels.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks, and reads the answer as strictly as Prometheus does.
    fn of(test: &Test) -> Self {
        let answer = request(test, "GET", "/metrics", None);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let mut types = BTreeMap::new();
        let mut samples = BTreeMap::new();
        assert!(answer.body.ends_with('\n'), "the last line has an end");
        for line in answer.body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (_, about) = rest.split_once(' ').expect("a sentence");
                assert!(about.len() > 10 && about.ends_with('.'), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                let name = sample.split('{').next().expect("a name");
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
                let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| {
                    let name = name.strip_suffix(end)?;
                    (types.get(name)? == "histogram").then_some(name)
                });
                assert!(types.contains_key(family.unwrap_or(name)), "no type is told of {line}");
                assert!(name == sample || sample.ends_with('}'), "{line}");
                let value = value.parse().expect("a number");
                assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} is there twice");
            }
        }
        let scrape = Self { text: answer.body, samples };
        for (name, _) in types.iter().filter(|(_, kind)| *kind == "histogram") {
            scrape.check_histogram(name);
        }
        scrape
    }

    /// Buckets only grow, and the last holds everything.
    fn check_histogram(&self, name: &str) {
        let start = format!("{name}_bucket{{");
        let mut whole = BTreeMap::new();
        for line in self.text.lines().filter_map(|line| line.strip_prefix(&start)) {
            let (labels, count) = line.rsplit_once("} ").expect("a value");
            let (rest, bound) = labels.rsplit_once("le=\"").expect("a bound");
            let bound = match bound.trim_end_matches('"') {
                "+Inf" => f64::INFINITY,
                text => text.parse().expect("a bound"),
            };
            let count: f64 = count.parse().expect("a number");
            let before = whole.insert(rest.trim_end_matches(',').to_owned(), (bound, count));
            assert!(before.is_none_or(|before| before.0 < bound && before.1 <= count), "{name}: {line}");
        }
        for (labels, (bound, count)) in whole {
            assert_eq!(bound, f64::INFINITY, "{name}");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            assert_eq!(self.samples[&format!("{name}_count{labels}")], count, "{name}{labels}");
        }
    }

    fn get(&self, sample: &str) -> f64 {
        let name = format!("superserve_{sample}");
        *self.samples.get(&name).unwrap_or_else(|| panic!("no {name}:\n{}", self.text))
    }

    /// How much a number has grown; one that was not there was 0.
    fn since(&self, before: &Self, sample: &str) -> f64 {
        let name = format!("superserve_{sample}");
        self.get(sample) - before.samples.get(&name).copied().unwrap_or(0.0)
    }
}

#[test]
fn runs_and_starts_are_counted_by_what_became_of_them() {
    let test = Test::new();
    for agent in ["echo", "crash", "missing", "slow"] {
        test.deploy(agent);
    }
    let before = Scrape::of(&test);
    let id = test.begin("echo", "hello");
    test.send(&id, "again");
    let now = Scrape::of(&test);
    assert_eq!(now.since(&before, "runs_total{outcome=\"completed\"}"), 2.0);
    assert_eq!(now.since(&before, "run_seconds_count"), 2.0);
    assert_eq!(now.since(&before, "run_first_byte_seconds_count"), 2.0);
    assert!(now.get("run_seconds_sum") >= now.get("run_first_byte_seconds_sum"));
    assert_eq!(now.since(&before, "sandbox_starts_total{outcome=\"started\"}"), 1.0);
    assert_eq!(now.since(&before, "sandbox_start_seconds_count"), 1.0);
    assert_eq!(now.get("sessions{status=\"idle\"}"), 1.0);
    assert_eq!(now.get("live_agents"), 1.0);
    for operation in ["create_session", "begin_run", "finish_run", "get_session", "get_agent"] {
        let counted = format!("store_seconds_count{{operation=\"{operation}\"}}");
        assert!(now.since(&before, &counted) >= 1.0, "{operation}");
    }
    test.begin("missing", "hello");
    let missing = Scrape::of(&test);
    assert_eq!(missing.since(&now, "sandbox_starts_total{outcome=\"failed\"}"), 1.0);
    assert_eq!(missing.since(&now, "runs_total{outcome=\"failed\"}"), 1.0);
    let (run, active) = test.wait_in("slow");
    let going = Scrape::of(&test);
    assert_eq!((going.get("active_runs"), going.get("sessions{status=\"active\"}")), (1.0, 1.0));
    assert_eq!(going.get("open_streams"), 1.0);
    assert!(going.since(&missing, "store_seconds_count{operation=\"append_events\"}") >= 1.0);
    test.args(["sessions", "cancel", &active]).any_stderr().run();
    run.finish();
    let over = Scrape::of(&test);
    assert_eq!(over.since(&going, "runs_total{outcome=\"cancelled\"}"), 1.0);
    assert_eq!(over.get("active_runs"), 0.0);
    test.args(["sessions", "end", &id]).any_stderr().run();
    assert_eq!(Scrape::of(&test).get("sessions{status=\"ended\"}"), 1.0);
    assert!(!over.text.contains(&id[4..16]) && !over.text.contains("hello"), "{}", over.text);
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let test = Test::new();
    test.deploy("echo");
    let before = Scrape::of(&test);
    let zeros = "0".repeat(32);
    for _ in 0..3 {
        request(&test, "GET", &format!("/sessions/{zeros}"), None);
    }
    request(&test, "GET", "/agents/echo", None);
    request(&test, "GET", "/no/such/route", None);
    request(&test, "BREW", "/agents", None);
    let now = Scrape::of(&test);
    let requests = |method: &str, route: &str, status: u16| {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        now.since(&before, &format!("requests_total{labels}"))
    };
    assert_eq!(requests("GET", "/v1/sessions/{id}", 404), 3.0);
    assert_eq!(requests("GET", "/v1/agents/{agent}", 200), 1.0);
    assert_eq!(requests("GET", "other", 404), 1.0);
    assert_eq!(requests("other", "/v1/agents", 405), 1.0);
    let timed = "request_seconds_count{method=\"GET\",route=\"/v1/sessions/{id}\"}";
    assert_eq!(now.since(&before, timed), 3.0);
    assert!(!now.text.contains(&zeros) && !now.text.contains("no/such") && !now.text.contains("BREW"));
}

#[test]
fn open_streams_and_the_process_are_looked_at() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.create("echo");
    let before = Scrape::of(&test);
    assert_eq!((before.get("open_streams"), before.get("sessions{status=\"pending\"}")), (0.0, 1.0));
    let stream = send(&test, "GET", &format!("/sessions/watch?id={id}"), None, "close");
    wait_until("the stream to be open", || Scrape::of(&test).get("open_streams") == 1.0);
    let now = Scrape::of(&test);
    let process = |scrape: &Scrape, name: &str| scrape.samples[&format!("process_{name}")];
    assert!(process(&now, "open_fds") > process(&before, "open_fds"));
    assert!(process(&now, "resident_memory_bytes") > 1e6);
    assert_eq!(process(&now, "start_time_seconds"), 1_773_051_300.0);
    drop(stream);
    request(&test, "POST", &format!("/sessions/{id}/end"), None);
    wait_until("the stream to be gone", || Scrape::of(&test).get("open_streams") == 0.0);
}
