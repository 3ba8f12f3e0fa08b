//! Moments in time: `now()`, `ago(2.days)`, a session's times, and how they compare and subtract.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, Timelike, Utc};
use rhai::NativeCallContext;
use rhai::plugin::*;

use super::duration::{Span, too_long};
use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;
use crate::wire::Timestamp;

/// A moment. `Time` in scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Timestamp);

impl Moment {
    /// A moment from text as RFC 3339 writes it.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        text.trim().parse().map(Self).map_err(|_| {
            Failure::hinted(format!("'{text}' is no time"), "Write it like 2026-03-09T10:15:00Z.")
        })
    }

    fn calendar(self) -> DateTime<Utc> {
        self.0.as_datetime()
    }

    /// The moment as `strftime` writes it.
    fn format(self, form: &str) -> Result<String, Failure> {
        let items: Vec<Item> = StrftimeItems::new(form).collect();
        if items.contains(&Item::Error) {
            return Err(Failure::hinted(
                format!("'{form}' is no form of a time"),
                "Write it as strftime takes it: %Y-%m-%d %H:%M:%S, %A, %d %B.",
            ));
        }
        Ok(self.calendar().format_with_items(items.into_iter()).to_string())
    }
}

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
        Moment::parse(text).at(&ctx)
    }

    /// The year, in UTC.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").year);   // 2026
    /// ```
    #[rhai_fn(get = "year", pure)]
    pub fn year(time: &mut Time) -> i64 {
        time.calendar().year().into()
    }

    /// The month from 1 to 12, in UTC.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").month);   // 3
    /// ```
    #[rhai_fn(get = "month", pure)]
    pub fn month(time: &mut Time) -> i64 {
        time.calendar().month().into()
    }

    /// The day of the month from 1 to 31, in UTC.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").day);   // 9
    /// ```
    #[rhai_fn(get = "day", pure)]
    pub fn day(time: &mut Time) -> i64 {
        time.calendar().day().into()
    }

    /// The hour from 0 to 23, in UTC.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").hour);   // 10
    /// ```
    #[rhai_fn(get = "hour", pure)]
    pub fn hour(time: &mut Time) -> i64 {
        time.calendar().hour().into()
    }

    /// The minute from 0 to 59.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").minute);   // 15
    /// ```
    #[rhai_fn(get = "minute", pure)]
    pub fn minute(time: &mut Time) -> i64 {
        time.calendar().minute().into()
    }

    /// The second from 0 to 59.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:07Z").second);   // 7
    /// ```
    #[rhai_fn(get = "second", pure)]
    pub fn second(time: &mut Time) -> i64 {
        time.calendar().second().into()
    }

    /// The day of the week from 1, Monday, to 7, Sunday, in UTC.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").weekday);   // 1
    /// ```
    #[rhai_fn(get = "weekday", pure)]
    pub fn weekday(time: &mut Time) -> i64 {
        time.calendar().weekday().number_from_monday().into()
    }

    /// The moment as text in a form that `strftime` takes, in UTC. Error: the form is none.
    ///
    /// ```rhai
    /// print(time("2026-03-09T10:15:00Z").format("%A, %d %B %Y"));   // Monday, 09 March 2026
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn format(ctx: NativeCallContext, time: &mut Time, form: &str) -> Fallible<String> {
        time.format(form).at(&ctx)
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
