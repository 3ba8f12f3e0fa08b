//! Spans of time: `2.hours`, `duration("2d")`, and how they compare, add and print.

use std::fmt;

use rhai::plugin::*;
use rhai::{Engine, ImmutableString, NativeCallContext};

use super::failure::{At, Failure, Fallible};
use crate::render;

/// A span of time in milliseconds; may be negative. `Duration` in scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

pub const SECOND: i64 = 1000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

impl Span {
    /// `2d`, `1h 30m`, `90 seconds`, `500ms`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        humantime::parse_duration(text.trim())
            .ok()
            .and_then(|duration| i64::try_from(duration.as_millis()).ok())
            .map(Self)
            .ok_or_else(|| {
                Failure::hinted(
                    format!("'{text}' is no duration"),
                    "Write it like 2d, 3h, 1h 30m, 90s or 500ms.",
                )
            })
    }

    fn of(count: i64, unit: i64) -> Result<Self, Failure> {
        count.checked_mul(unit).map(Self).ok_or_else(too_long)
    }
}

pub fn too_long() -> Failure {
    Failure::script("a duration is longer than this machine can count")
}

impl fmt::Display for Span {
    /// The two largest units: `2d 3h`, `2m 5s`; tenths of a second below a minute: `1.1s`, `900ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.0 % SECOND / 100) {
            (SECOND..MINUTE, 1..) => write!(f, "{}.{}s", self.0 / SECOND, self.0 % SECOND / 100),
            _ => f.write_str(&render::span(self.0)),
        }
    }
}

/// Comparisons of a duration or a time with something else would silently be false: they are errors instead.
pub fn refuse_mixed_comparisons<T: rhai::Variant + Clone>(engine: &mut Engine, hint: &'static str) {
    refuse_with::<T, i64>(engine, hint);
    refuse_with::<T, f64>(engine, hint);
    refuse_with::<T, ImmutableString>(engine, hint);
}

fn refuse_with<T: rhai::Variant + Clone, U: rhai::Variant + Clone>(engine: &mut Engine, hint: &'static str) {
    for operator in ["==", "!=", "<", "<=", ">", ">="] {
        engine.register_fn(operator, move |context: NativeCallContext, _: T, _: U| refused(&context, hint));
        engine.register_fn(operator, move |context: NativeCallContext, _: U, _: T| refused(&context, hint));
    }
}

fn refused(context: &NativeCallContext, hint: &'static str) -> Fallible<bool> {
    Err(Failure::hinted("these can't be compared", hint).at(context))
}

/// Durations of time.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod duration_methods {
    use super::Span as Duration;

    /// `n` milliseconds.
    ///
    /// ```rhai
    /// print(1500.millis);   // 1.5s
    /// ```
    #[rhai_fn(get = "millis")]
    pub fn millis_of(n: i64) -> Duration {
        Span(n)
    }

    /// `n` seconds. Error: more than fit, about 292 million years.
    ///
    /// ```rhai
    /// print(90.seconds);   // 1m 30s
    /// ```
    #[rhai_fn(get = "seconds", return_raw)]
    pub fn seconds_of(ctx: NativeCallContext, n: i64) -> Fallible<Duration> {
        Span::of(n, SECOND).at(&ctx)
    }

    /// `n` minutes. Error: more than fit.
    ///
    /// ```rhai
    /// print(90.minutes);   // 1h 30m
    /// ```
    #[rhai_fn(get = "minutes", return_raw)]
    pub fn minutes_of(ctx: NativeCallContext, n: i64) -> Fallible<Duration> {
        Span::of(n, MINUTE).at(&ctx)
    }

    /// `n` hours. Error: more than fit.
    ///
    /// ```rhai
    /// let stale = list().filter(|s| s.idle > 2.hours);
    /// ```
    #[rhai_fn(get = "hours", return_raw)]
    pub fn hours_of(ctx: NativeCallContext, n: i64) -> Fallible<Duration> {
        Span::of(n, HOUR).at(&ctx)
    }

    /// `n` days of 24 hours. Error: more than fit.
    ///
    /// ```rhai
    /// print(2.days + 3.hours);   // 2d 3h
    /// ```
    #[rhai_fn(get = "days", return_raw)]
    pub fn days_of(ctx: NativeCallContext, n: i64) -> Fallible<Duration> {
        Span::of(n, DAY).at(&ctx)
    }

    /// A duration from text: `2d`, `3h`, `1h 30m`, `90s`, `500ms`. Error: the text is no duration.
    ///
    /// ```rhai
    /// print(duration("2d") == 48.hours);   // true
    /// ```
    #[rhai_fn(return_raw)]
    pub fn duration(ctx: NativeCallContext, text: &str) -> Fallible<Duration> {
        Span::parse(text).at(&ctx)
    }

    /// A duration as it is, so that a script can take either text or a duration.
    ///
    /// ```rhai
    /// print(duration(2.hours));   // 2h
    /// ```
    #[rhai_fn(name = "duration")]
    pub fn duration_of_duration(duration: Duration) -> Duration {
        duration
    }

    /// The duration in whole milliseconds.
    ///
    /// ```rhai
    /// print(2.seconds.millis);   // 2000
    /// ```
    #[rhai_fn(get = "millis", pure)]
    pub fn in_millis(duration: &mut Duration) -> i64 {
        duration.0
    }

    /// The duration in whole seconds, rounded down.
    ///
    /// ```rhai
    /// print(2.minutes.seconds);   // 120
    /// ```
    #[rhai_fn(get = "seconds", pure)]
    pub fn in_seconds(duration: &mut Duration) -> i64 {
        duration.0.div_euclid(SECOND)
    }

    /// The duration in whole minutes, rounded down.
    ///
    /// ```rhai
    /// print(2.hours.minutes);   // 120
    /// ```
    #[rhai_fn(get = "minutes", pure)]
    pub fn in_minutes(duration: &mut Duration) -> i64 {
        duration.0.div_euclid(MINUTE)
    }

    /// The duration in whole hours, rounded down.
    ///
    /// ```rhai
    /// print(2.days.hours);   // 48
    /// ```
    #[rhai_fn(get = "hours", pure)]
    pub fn in_hours(duration: &mut Duration) -> i64 {
        duration.0.div_euclid(HOUR)
    }

    /// The duration in whole days, rounded down.
    ///
    /// ```rhai
    /// print(50.hours.days);   // 2
    /// ```
    #[rhai_fn(get = "days", pure)]
    pub fn in_days(duration: &mut Duration) -> i64 {
        duration.0.div_euclid(DAY)
    }

    /// The duration as text, in its two largest units.
    ///
    /// ```rhai
    /// print(`idle for ${51.hours}`);   // idle for 2d 3h
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(duration: &mut Duration) -> String {
        ToString::to_string(duration)
    }

    #[rhai_fn(name = "+", return_raw)]
    pub fn add(ctx: NativeCallContext, a: Duration, b: Duration) -> Fallible<Duration> {
        a.0.checked_add(b.0).map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "-", return_raw)]
    pub fn subtract(ctx: NativeCallContext, a: Duration, b: Duration) -> Fallible<Duration> {
        a.0.checked_sub(b.0).map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "*", return_raw)]
    pub fn times(ctx: NativeCallContext, a: Duration, n: i64) -> Fallible<Duration> {
        a.0.checked_mul(n).map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "*", return_raw)]
    pub fn times_from_left(ctx: NativeCallContext, n: i64, a: Duration) -> Fallible<Duration> {
        a.0.checked_mul(n).map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "/", return_raw)]
    pub fn divided(ctx: NativeCallContext, a: Duration, n: i64) -> Fallible<Duration> {
        a.0.checked_div(n).map(Span).ok_or_else(|| Failure::script("a duration is divided by 0")).at(&ctx)
    }

    #[rhai_fn(name = "-", return_raw)]
    pub fn negated(ctx: NativeCallContext, a: Duration) -> Fallible<Duration> {
        a.0.checked_neg().map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "==")]
    pub fn equal(a: Duration, b: Duration) -> bool {
        a == b
    }

    #[rhai_fn(name = "!=")]
    pub fn unequal(a: Duration, b: Duration) -> bool {
        a != b
    }

    #[rhai_fn(name = "<")]
    pub fn shorter(a: Duration, b: Duration) -> bool {
        a < b
    }

    #[rhai_fn(name = "<=")]
    pub fn not_longer(a: Duration, b: Duration) -> bool {
        a <= b
    }

    #[rhai_fn(name = ">")]
    pub fn longer(a: Duration, b: Duration) -> bool {
        a > b
    }

    #[rhai_fn(name = ">=")]
    pub fn not_shorter(a: Duration, b: Duration) -> bool {
        a >= b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_two_largest_units() {
        for (millis, expected) in [
            (0, "0s"),
            (900, "900ms"),
            (1100, "1.1s"),
            (2000, "2s"),
            (125_000, "2m 5s"),
            (2 * HOUR, "2h"),
            (51 * HOUR + 5, "2d 3h"),
            (-90_000, "-1m 30s"),
            (DAY + MINUTE, "1d"),
        ] {
            assert_eq!(Span(millis).to_string(), expected);
        }
    }

    #[test]
    fn parses_what_people_write() {
        assert_eq!(Span::parse("2d").expect("a duration"), Span(2 * DAY));
        assert_eq!(Span::parse(" 1h 30m ").expect("a duration"), Span(90 * MINUTE));
        assert!(Span::parse("2").is_err());
        assert!(Span::parse("").is_err());
        assert!(Span::parse("99999999999999999999d").is_err());
    }
}
