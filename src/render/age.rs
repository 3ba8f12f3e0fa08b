//! Moments, ages and durations as people read them.

use crate::wire::Timestamp;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// `Just now`, `2 minutes ago`, `1 hour ago`, `2 days ago`. A moment that is still to come counts as now.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let age = now.millis_since(at);
    let (count, unit) = match age {
        ..MINUTE => return "Just now".to_owned(),
        MINUTE..HOUR => (age / MINUTE, "minute"),
        HOUR..DAY => (age / HOUR, "hour"),
        DAY.. => (age / DAY, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `2026-03-09 10:15:00 UTC`.
pub fn moment(at: Timestamp) -> String {
    at.as_datetime().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long something took, from milliseconds: `900ms`, `1.1s`, `2m 5s`, `1h 2m`.
pub fn duration(millis: u64) -> String {
    match millis {
        ..1000 => format!("{millis}ms"),
        // Rounded to a tenth; what would round to 60.0 belongs to the next unit.
        1000..59_950 => {
            let tenths = (millis + 50) / 100;
            format!("{}.{}s", tenths / 10, tenths % 10)
        }
        59_950..3_600_000 => {
            let seconds = (millis + 500) / 1000;
            format!("{}m {}s", seconds / 60, seconds % 60)
        }
        3_600_000.. => span(i64::try_from(millis).unwrap_or(i64::MAX)),
    }
}

/// A length of time by its two largest units, from milliseconds: `2d 3h`, `3h`, `5m 2s`, `0s`; negative with a `-`.
pub fn span(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let mut rest = millis.saturating_abs();
    if rest < SECOND {
        return if rest == 0 { "0s".to_owned() } else { format!("{sign}{rest}ms") };
    }
    let mut parts = Vec::new();
    for (unit, name) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")] {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    format!("{sign}{}", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let now = Timestamp::from_millis(10 * DAY);
        let at = |age: i64| ago(Timestamp::from_millis(10 * DAY - age), now);
        assert_eq!(at(-5 * HOUR), "Just now");
        assert_eq!(at(59 * SECOND), "Just now");
        assert_eq!(at(MINUTE), "1 minute ago");
        assert_eq!(at(2 * MINUTE + 59 * SECOND), "2 minutes ago");
        assert_eq!(at(HOUR), "1 hour ago");
        assert_eq!(at(2 * DAY + HOUR), "2 days ago");
    }

    #[test]
    fn durations() {
        for (millis, text) in [
            (0, "0ms"),
            (900, "900ms"),
            (1100, "1.1s"),
            (59_949, "59.9s"),
            (59_950, "1m 0s"),
            (125_000, "2m 5s"),
        ] {
            assert_eq!(duration(millis), text);
        }
        for (millis, text) in
            [(0, "0s"), (2 * DAY + 3 * HOUR + MINUTE, "2d 3h"), (DAY + MINUTE, "1d"), (-90_000, "-1m 30s")]
        {
            assert_eq!(span(millis), text);
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment(Timestamp::from_millis(1_773_051_300_999)), "2026-03-09 10:15:00 UTC");
    }
}
