//! How long something took, in buckets: a histogram that is counted without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A histogram of seconds. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Times(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// The upper bounds of all buckets but the last, ascending, in seconds.
    bounds: &'static [f64],
    /// How many fell into each bucket and into no lower one.
    buckets: Vec<AtomicU64>,
    nanos: AtomicU64,
}

impl Times {
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counts { bounds, buckets, nanos: AtomicU64::new(0) }))
    }

    /// Counts one thing that took so long.
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.0.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.0.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.0.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts what happens until the timer is dropped.
    pub fn start(&self) -> Timer<'_> {
        Timer { times: self, begun: Instant::now() }
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let Counts { bounds, buckets, nanos } = self.0.as_ref();
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(buckets).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
        // Of the same look at the buckets, so that the last of them and the count agree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Records at its end how long it was there.
#[derive(Debug)]
pub struct Timer<'a> {
    times: &'a Times,
    begun: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.times.record(self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::prometheus_text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn each_time_falls_into_one_bucket() {
        let times = Times::new(&[0.01, 0.1]);
        for millis in [1, 10, 50, 1000] {
            times.record(Duration::from_millis(millis));
        }
        let mut registry = Registry::default();
        registry.register("a", "A", times.clone());
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        assert!(text.contains("a_bucket{le=\"0.01\"} 2\n"), "{text}");
        assert!(
            text.contains("a_bucket{le=\"0.1\"} 3\n") && text.contains("a_bucket{le=\"+Inf\"} 4\n"),
            "{text}"
        );
        assert!(text.contains("a_count 4\n") && text.contains("a_sum 1.061\n"), "{text}");
        drop(times.start());
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        assert!(text.contains("a_count 5\n"), "{text}");
    }
}
