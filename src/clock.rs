//! The one source of time and of random IDs. Tests fix both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time and makes random numbers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    time: Arc<Time>,
    random: Arc<Random>,
}

#[derive(Debug)]
enum Time {
    System,
    /// Milliseconds since the Unix epoch.
    Fixed(i64),
    /// A file that holds milliseconds since the Unix epoch and is read each time, so that a test can let time pass.
    File(PathBuf),
    Hand(Hand),
}

/// The hand of a clock that stands still until it is moved. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicI64>);

impl Hand {
    /// A hand that points at `millis` since the Unix epoch.
    pub fn new(millis: i64) -> Self {
        Self(Arc::new(AtomicI64::new(millis)))
    }

    /// Moves it to `millis` since the Unix epoch.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }

    /// Where it points: milliseconds since the Unix epoch.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
enum Random {
    System,
    Seeded { seed: u64, count: AtomicU64 },
}

impl Clock {
    /// The machine's time, and IDs that nobody can guess.
    pub fn system() -> Self {
        Self { time: Arc::new(Time::System), random: Arc::new(Random::System) }
    }

    /// The same clock, stopped at `millis` since the Unix epoch.
    pub fn at(self, millis: i64) -> Self {
        Self { time: Arc::new(Time::Fixed(millis)), ..self }
    }

    /// The same clock, with its time read from a file each time: milliseconds since the Unix epoch, as digits.
    pub fn from_file(self, path: PathBuf) -> Self {
        Self { time: Arc::new(Time::File(path)), ..self }
    }

    /// The same clock, with its time where `hand` points.
    pub fn by_hand(self, hand: Hand) -> Self {
        Self { time: Arc::new(Time::Hand(hand)), ..self }
    }

    /// The same clock, with numbers that follow from `seed`.
    pub fn seeded(self, seed: u64) -> Self {
        Self { random: Arc::new(Random::Seeded { seed, count: AtomicU64::new(0) }), ..self }
    }

    /// The same clock with a row of numbers of its own, so that what is taken from it moves no other's.
    pub fn beside(&self) -> Self {
        let random = match &*self.random {
            Random::System => Random::System,
            Random::Seeded { seed, .. } => {
                Random::Seeded { seed: split_mix(!seed), count: AtomicU64::new(0) }
            }
        };
        Self { time: self.time.clone(), random: Arc::new(random) }
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine for the time")]
    pub fn now_millis(&self) -> i64 {
        let system = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        match &*self.time {
            Time::System => system(),
            Time::Fixed(millis) => *millis,
            Time::Hand(hand) => hand.get(),
            Time::File(path) => std::fs::read_to_string(path)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or_else(system),
        }
    }

    /// A number that nobody can guess, or the next of a seeded row.
    #[expect(clippy::disallowed_methods, reason = "the one place that makes random IDs")]
    pub fn random(&self) -> u128 {
        match &*self.random {
            Random::System => uuid::Uuid::new_v4().as_u128(),
            Random::Seeded { seed, count } => {
                let step = count.fetch_add(1, Ordering::Relaxed);
                let high = split_mix(seed.wrapping_add(step.wrapping_mul(2)));
                let low = split_mix(seed.wrapping_add(step.wrapping_mul(2).wrapping_add(1)));
                (u128::from(high) << 64) | u128::from(low)
            }
        }
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): spreads neighbouring numbers over all 64 bits.
fn split_mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_row() {
        let (a, b) = (Clock::system().seeded(1), Clock::system().seeded(1));
        let row: Vec<u128> = (0..4).map(|_| a.random()).collect();
        assert_eq!(row, (0..4).map(|_| b.random()).collect::<Vec<_>>());
        assert_ne!(row[0], row[1]);
        assert_ne!(Clock::system().random(), Clock::system().random());
    }

    #[test]
    fn a_row_beside_another_leaves_it_alone() {
        let (clock, alone) = (Clock::system().seeded(7), Clock::system().seeded(7));
        let beside = clock.beside();
        let numbers: Vec<u128> = (0..4).map(|_| beside.random()).collect();
        let row: Vec<u128> = (0..4).map(|_| clock.random()).collect();
        assert_eq!(row, (0..4).map(|_| alone.random()).collect::<Vec<_>>());
        assert!(numbers.iter().all(|number| !row.contains(number)));
        assert_eq!(Clock::system().seeded(7).beside().random(), numbers[0]);
    }

    #[test]
    fn a_stopped_clock_stands() {
        assert_eq!(Clock::system().at(5).now_millis(), 5);
        let hand = Hand::new(5);
        let clock = Clock::system().by_hand(hand.clone());
        assert_eq!(clock.now_millis(), 5);
        hand.set(7);
        assert_eq!((clock.now_millis(), hand.get()), (7, 7));
        assert!(Clock::system().now_millis() > 1_700_000_000_000);
    }
}
