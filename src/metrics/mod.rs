//! What a running server counts and how long things take: fed by store, platform and server, read at `/v1/metrics`.
//!
//! Counting never waits. A label's values are words of a closed set, or routes: never an ID, a name or what somebody has
//! written, so that their number stays small.

mod process;
mod times;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use times::{Timer, Times};

/// The media type of what [`Metrics::text`] answers.
pub const MEDIA_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Bounds of what takes from microseconds to seconds, in seconds.
const SHORT: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Bounds of what takes from milliseconds to minutes, in seconds.
const LONG: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The methods that a label tells apart; what is none of them, and a path that is no route, is this.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const OTHER: &str = "other";

/// A closed set of words that a label can be.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($variant,)+
        }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words!(
    /// What the store is asked for.
    Operation {
        AppendEvents = "append_events",
        BeginRun = "begin_run",
        CreateSession = "create_session",
        EndSession = "end_session",
        FinishRun = "finish_run",
        GetAgent = "get_agent",
        GetSession = "get_session",
        ListSessions = "list_sessions",
        PutAgent = "put_agent",
        ReadEvents = "read_events",
        ReadMessages = "read_messages",
        SetStatus = "set_status",
        Stats = "stats",
    }
);

words!(
    /// What became of a run.
    Outcome { Cancelled = "cancelled", Completed = "completed", Failed = "failed", }
);

words!(
    /// What became of the start of a sandbox.
    Start { Failed = "failed", Started = "started", }
);

/// The counters of one server; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    store: Vec<Times>,
    runs: Vec<Counter>,
    run: Times,
    first_byte: Times,
    starts: Vec<Counter>,
    start: Times,
    requests: Family<Answered, Counter>,
    request: Family<Asked, Times, fn() -> Times>,
    streams: Gauge,
    sessions: Family<OfStatus, Gauge>,
    active_runs: Gauge,
    live_agents: Gauge,
    memory: Gauge,
    open_files: Gauge,
    started: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

/// What is looked at when somebody asks, instead of being counted.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// How many sessions there are, by the words of every status.
    pub sessions: Vec<(&'static str, u64)>,
    pub active_runs: u64,
    pub live_agents: u64,
    /// When the server was started, in milliseconds since the epoch.
    pub started: i64,
}

impl Default for Metrics {
    fn default() -> Self {
        let store: Family<Named, Times, fn() -> Times> = Family::new_with_constructor(|| Times::new(SHORT));
        let runs: Family<Became, Counter> = Family::default();
        let starts: Family<Became, Counter> = Family::default();
        let became =
            |family: &Family<Became, Counter>, outcome| family.get_or_create_owned(&Became { outcome });
        let mut inner = Inner {
            store: Operation::ALL
                .iter()
                .map(|one| store.get_or_create_owned(&Named { operation: one.as_str() }))
                .collect(),
            runs: Outcome::ALL.iter().map(|one| became(&runs, one.as_str())).collect(),
            run: Times::new(LONG),
            first_byte: Times::new(LONG),
            starts: Start::ALL.iter().map(|one| became(&starts, one.as_str())).collect(),
            start: Times::new(SHORT),
            requests: Family::default(),
            request: Family::new_with_constructor(|| Times::new(SHORT)),
            streams: Gauge::default(),
            sessions: Family::default(),
            active_runs: Gauge::default(),
            live_agents: Gauge::default(),
            memory: Gauge::default(),
            open_files: Gauge::default(),
            started: Gauge::default(),
            registry: Registry::default(),
        };
        inner.registry = inner.registered(store, runs, starts);
        Self(Arc::new(inner))
    }
}

impl Inner {
    /// Every metric with its name. A full stop is put after each sentence.
    fn registered(
        &self,
        store: Family<Named, Times, fn() -> Times>,
        runs: Family<Became, Counter>,
        starts: Family<Became, Counter>,
    ) -> Registry {
        let mut all = Registry::default();
        let ours = all.sub_registry_with_prefix("superserve");
        ours.register("sessions", "Sessions by their status", self.sessions.clone());
        ours.register("active_runs", "Runs that are going on", self.active_runs.clone());
        ours.register("live_agents", "Agents' processes, working or waiting", self.live_agents.clone());
        ours.register("runs", "Runs that are over", runs);
        let about = "From a message to the first thing that its agent says";
        ours.register("run_first_byte_seconds", about, self.first_byte.clone());
        ours.register("run_seconds", "From a message to the end of its run", self.run.clone());
        ours.register("sandbox_starts", "Starts of agents' sandboxes", starts);
        ours.register("sandbox_start_seconds", "How long such a start takes", self.start.clone());
        ours.register("store_seconds", "How long the store takes, with the wait for its turn", store);
        ours.register("requests", "Requests that were answered", self.requests.clone());
        let about = "From a request to the head of its answer, after which a stream goes on";
        ours.register("request_seconds", about, self.request.clone());
        ours.register("open_streams", "Streams of events that somebody reads", self.streams.clone());
        // The names that every exporter gives them.
        all.register("process_resident_memory_bytes", "The server's memory", self.memory.clone());
        all.register("process_open_fds", "The server's open files", self.open_files.clone());
        all.register("process_start_time_seconds", "When the server was started", self.started.clone());
        all
    }
}

impl Metrics {
    /// Times an operation of the store until the timer is dropped.
    pub fn store(&self, operation: Operation) -> Option<Timer<'_>> {
        self.0.store.get(operation as usize).map(Times::start)
    }

    /// A message has come.
    pub fn run(&self) -> RunTimer {
        RunTimer { metrics: self.clone(), begun: Instant::now(), is_answered: false }
    }

    /// The start of a sandbox is over, after so long.
    pub fn sandbox_start(&self, became: Start, took: Duration) {
        self.0.starts.get(became as usize).map(Counter::inc);
        if became == Start::Started {
            self.0.start.record(took);
        }
    }

    /// A request is answered, after so long. `route` is the one that it has taken, with the names of its parameters
    /// instead of what stands for them.
    pub fn request(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        // Whoever asks may make up methods and paths.
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER);
        let route = route.unwrap_or(OTHER).to_owned();
        self.0.requests.get_or_create(&Answered { method, route: route.clone(), status }).inc();
        self.0.request.get_or_create(&Asked { method, route }).record(took);
    }

    /// A stream is open as long as this is held.
    pub fn stream(&self) -> OpenStream {
        self.0.streams.inc();
        OpenStream(self.clone())
    }

    /// Everything in Prometheus' text format, of the media type [`MEDIA_TYPE`].
    pub fn text(&self, present: &Present) -> Result<String, fmt::Error> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (status, count) in &present.sessions {
            self.0.sessions.get_or_create(&OfStatus { status }).set(number(*count));
        }
        self.0.active_runs.set(number(present.active_runs));
        self.0.live_agents.set(number(present.live_agents));
        self.0.started.set(present.started / 1000);
        if let Some(memory) = process::memory() {
            self.0.memory.set(number(memory));
        }
        if let Some(files) = process::open_files() {
            self.0.open_files.set(number(files));
        }
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Times one run.
#[derive(Clone, Debug)]
pub struct RunTimer {
    metrics: Metrics,
    begun: Instant,
    is_answered: bool,
}

impl RunTimer {
    /// The agent has said something.
    pub fn said(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.metrics.0.first_byte.record(self.begun.elapsed());
        }
    }

    /// The run is over.
    pub fn over(&self, outcome: Outcome) {
        self.metrics.0.runs.get(outcome as usize).map(Counter::inc);
        self.metrics.0.run.record(self.begun.elapsed());
    }
}

/// Counts a stream as open.
#[derive(Debug)]
pub struct OpenStream(Metrics);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(metrics: &Metrics, start: &str) -> Option<String> {
        let text = metrics.text(&Present::default()).expect("text");
        text.lines().find_map(|line| line.strip_prefix(start)?.strip_prefix(' ').map(str::to_owned))
    }

    #[test]
    fn words_are_where_their_number_says() {
        for (at, one) in Operation::ALL.iter().enumerate() {
            assert_eq!(*one as usize, at);
            let metrics = Metrics::default();
            drop(metrics.store(*one));
            let counted = format!("superserve_store_seconds_count{{operation=\"{}\"}}", one.as_str());
            assert_eq!(line(&metrics, &counted).as_deref(), Some("1"), "{counted}");
        }
        for (at, one) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*one as usize, at);
        }
        for (at, one) in Start::ALL.iter().enumerate() {
            assert_eq!(*one as usize, at);
        }
    }

    #[test]
    fn a_run_has_one_first_byte() {
        let metrics = Metrics::default();
        let mut run = metrics.run();
        run.said();
        run.said();
        run.over(Outcome::Failed);
        assert_eq!(line(&metrics, "superserve_run_first_byte_seconds_count").as_deref(), Some("1"));
        assert_eq!(line(&metrics, "superserve_run_seconds_count").as_deref(), Some("1"));
        assert_eq!(line(&metrics, "superserve_runs_total{outcome=\"failed\"}").as_deref(), Some("1"));
        assert_eq!(line(&metrics, "superserve_runs_total{outcome=\"completed\"}").as_deref(), Some("0"));
    }

    #[test]
    fn what_somebody_makes_up_is_no_label() {
        let metrics = Metrics::default();
        for method in ["BREW", "POST\"} 1"] {
            metrics.request(method, None, 404, Duration::ZERO);
        }
        let counted = "superserve_requests_total{method=\"other\",route=\"other\",status=\"404\"}";
        assert_eq!(line(&metrics, counted).as_deref(), Some("2"));
    }

    #[test]
    fn streams_are_counted_while_they_are_open() {
        let metrics = Metrics::default();
        let stream = metrics.stream();
        assert_eq!(line(&metrics, "superserve_open_streams").as_deref(), Some("1"));
        drop(stream);
        assert_eq!(line(&metrics, "superserve_open_streams").as_deref(), Some("0"));
    }
}
