//! Moments in time: `now()`, `ago(2.days)`, a session's times, and how they compare and subtract.

use rhai::NativeCallContext;
use rhai::plugin::*;

use super::duration::{Span, too_long};
use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;
use crate::wire::Timestamp;

/// A moment. `Time` in scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Timestamp);

/// Moments in time.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod time_methods {
    use super::Moment as Time;
    use super::Span as Duration;

    /// The moment of this call.
    ///
    /// ```rhai
    /// let old = list().filter(|s| now() - s.created_at > 7.days);
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn now(ctx: NativeCallContext) -> Fallible<Time> {
        Ok(Moment(Timestamp::from_millis(Runtime::of(&ctx)?.now())))
    }

    /// The moment that lies this long before now.
    ///
    /// ```rhai
    /// let fresh = list().filter(|s| s.created_at > ago(2.days));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn ago(ctx: NativeCallContext, duration: Duration) -> Fallible<Time> {
        let now = Timestamp::from_millis(Runtime::of(&ctx)?.now());
        Ok(Moment(now.plus_millis(duration.0.saturating_neg())))
    }

    /// A moment from text as RFC 3339 writes it. Error: the text is no time.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z") < now());   // true
    /// ```
    #[rhai_fn(return_raw)]
    pub fn time(ctx: NativeCallContext, text: &str) -> Fallible<Time> {
        text.trim()
            .parse()
            .map(Moment)
            .map_err(|_| {
                Failure::hinted(format!("'{text}' is no time"), "Write it like 2026-03-09T10:15:00Z.")
            })
            .at(&ctx)
    }

    /// Milliseconds since the beginning of 1970, UTC.
    ///
    /// ```rhai
    /// print(time("1970-01-01T00:00:01Z").millis);   // 1000
    /// ```
    #[rhai_fn(get = "millis", pure)]
    pub fn time_millis(time: &mut Time) -> i64 {
        time.0.as_millis()
    }

    /// The moment as RFC 3339, in UTC.
    ///
    /// ```rhai
    /// print(list()[0].created_at);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(time: &mut Time) -> String {
        time.0.to_string()
    }

    #[rhai_fn(name = "-", return_raw)]
    pub fn between(ctx: NativeCallContext, a: Time, b: Time) -> Fallible<Duration> {
        a.0.as_millis().checked_sub(b.0.as_millis()).map(Span).ok_or_else(too_long).at(&ctx)
    }

    #[rhai_fn(name = "+")]
    pub fn later(a: Time, b: Duration) -> Time {
        Moment(a.0.plus_millis(b.0))
    }

    #[rhai_fn(name = "-")]
    pub fn earlier(a: Time, b: Duration) -> Time {
        Moment(a.0.plus_millis(b.0.saturating_neg()))
    }

    #[rhai_fn(name = "==")]
    pub fn equal(a: Time, b: Time) -> bool {
        a == b
    }

    #[rhai_fn(name = "!=")]
    pub fn unequal(a: Time, b: Time) -> bool {
        a != b
    }

    #[rhai_fn(name = "<")]
    pub fn before(a: Time, b: Time) -> bool {
        a < b
    }

    #[rhai_fn(name = "<=")]
    pub fn not_after(a: Time, b: Time) -> bool {
        a <= b
    }

    #[rhai_fn(name = ">")]
    pub fn after(a: Time, b: Time) -> bool {
        a > b
    }

    #[rhai_fn(name = ">=")]
    pub fn not_before(a: Time, b: Time) -> bool {
        a >= b
    }
}
