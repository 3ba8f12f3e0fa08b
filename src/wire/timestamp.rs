//! A moment in time as it goes over the wire: RFC 3339 in UTC with a `Z`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// Milliseconds since the Unix epoch. Printed with a fraction only if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest and the latest moment that this type holds: years 1 and 9999.
    const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

    /// A moment from milliseconds since the Unix epoch; out of range it is held at the nearest end.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*Self::RANGE.start(), *Self::RANGE.end()))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The same moment as chrono's type.
    pub fn as_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    /// Milliseconds from `earlier` to this moment; negative if `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// This moment moved by `millis`, held inside the range.
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The same moment without its fraction of a second, as the command line prints it.
    pub fn whole_seconds(self) -> Self {
        Self(self.0.div_euclid(1000) * 1000)
    }
}

/// A moment's text: `2026-03-09T10:15:00.007Z` at the longest.
struct Text {
    bytes: [u8; 24],
    length: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        // Digits and signs alone.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

const SECOND: i64 = 1000;
const DAY: i64 = 86_400 * SECOND;

impl Timestamp {
    /// A list of sessions holds several for each, and chrono takes ten times as long.
    fn text(self) -> Text {
        let (year, month, day) = date(self.0.div_euclid(DAY));
        let millis = self.0.rem_euclid(DAY);
        let seconds = millis / SECOND;
        let mut bytes = *b"0000-00-00T00:00:00.000Z";
        let mut write = |at: usize, digits: usize, mut number: i64| {
            for place in (at..at + digits).rev() {
                bytes[place] = b'0' + u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        };
        write(0, 4, year);
        write(5, 2, month);
        write(8, 2, day);
        write(11, 2, seconds / 3600);
        write(14, 2, seconds / 60 % 60);
        write(17, 2, seconds % 60);
        if millis % SECOND == 0 {
            bytes[19] = b'Z';
            return Text { bytes, length: 20 };
        }
        write(20, 3, millis % SECOND);
        Text { bytes, length: 24 }
    }

    /// Reads what `text` writes, and nothing else.
    fn read(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if !matches!(bytes.len(), 20 | 24) || bytes.last() != Some(&b'Z') {
            return None;
        }
        let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if signs.iter().any(|(at, sign)| bytes[*at] != *sign) || (bytes.len() == 24 && bytes[19] != b'.') {
            return None;
        }
        let number = |at: usize, digits: usize| {
            bytes[at..at + digits].iter().try_fold(0i64, |number, byte| {
                byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
            })
        };
        let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
        let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
        let millis = if bytes.len() == 24 { number(20, 3)? } else { 0 };
        // A leap second is left to chrono.
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days(year, month, day);
        // Back and forth, so that the 30th of February is none.
        (date(days) == (year, month, day) && year > 0)
            .then(|| Self(days * DAY + ((hour * 60 + minute) * 60 + second) * SECOND + millis))
    }
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar: Howard Hinnant's `civil_from_days`.
fn date(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of `date`, for what `date` gives: Hinnant's `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for Timestamp {
    type Err = chrono::ParseError;

    /// Any RFC 3339 time; what is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::read(text) {
            Some(at) => Ok(at),
            None => DateTime::parse_from_rfc3339(text).map(|at| Self::from_millis(at.timestamp_millis())),
        }
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A moment, RFC 3339. Answers have it in UTC with a `Z`, to the millisecond."))
            .examples(["2026-03-09T10:15:00Z"])
            .build()
            .into()
    }
}

impl ToSchema for Timestamp {}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl de::Visitor<'_> for Reader {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as 2026-03-09T10:15:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_a_fraction_only_if_there_is_one() {
        assert_eq!(Timestamp::from_millis(1_773_051_300_000).to_string(), "2026-03-09T10:15:00Z");
        assert_eq!(Timestamp::from_millis(1_773_051_300_007).to_string(), "2026-03-09T10:15:00.007Z");
        assert_eq!("2026-03-09T11:15:00+01:00".parse(), Ok(Timestamp::from_millis(1_773_051_300_000)));
    }

    proptest! {
        #[test]
        fn is_written_and_read_as_chrono_does(millis in any::<i64>(), far in Timestamp::RANGE, near in 0..4_000_000_000_000i64) {
            for millis in [millis, far, near, far / SECOND * SECOND, near / DAY * DAY] {
                let at = Timestamp::from_millis(millis);
                let whole = at.as_millis().rem_euclid(SECOND) == 0;
                let format = if whole { SecondsFormat::Secs } else { SecondsFormat::Millis };
                let text = at.to_string();
                prop_assert_eq!(&text, &at.as_datetime().to_rfc3339_opts(format, true));
                prop_assert_eq!(Timestamp::read(&text), Some(at));
                prop_assert_eq!(serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).ok(), Some(at));
            }
        }

        #[test]
        fn is_refused_where_chrono_refuses(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?Z",
        ) {
            let chrono = DateTime::parse_from_rfc3339(&text).ok().map(|at| Timestamp::from_millis(at.timestamp_millis()));
            prop_assert_eq!(text.parse::<Timestamp>().ok(), chrono);
            if let Some(at) = Timestamp::read(&text) {
                prop_assert_eq!(Some(at), chrono);
            }
        }
    }

    #[test]
    fn other_forms_are_read_too() {
        for text in ["2026-03-09T10:15:00.0079Z", "2026-03-09t10:15:00.007z", "2026-03-09T11:15:00.007+01:00"]
        {
            assert_eq!(text.parse(), Ok(Timestamp::from_millis(1_773_051_300_007)), "{text}");
        }
        for text in
            ["", "2026-02-30T10:15:00Z", "2026-03-09T24:00:00Z", "2026-03-09 10:15", "é026-03-09T10:15:00Z"]
        {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn out_of_range_is_held_at_the_end() {
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_millis(0).plus_millis(i64::MIN).to_string(), "0001-01-01T00:00:00Z");
    }
}
