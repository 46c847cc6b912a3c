//! Moments, and their form in documents and tables.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{Date, Month, OffsetDateTime, Time};

/// A moment: Unix time, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A moment later than every one that a certificate or a document can name.
    pub const NEVER: Self = Self(i64::MAX);

    /// The moment at this Unix time.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// The Unix time, in seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Parses a date and time of RFC 3339 in UTC, in whole seconds, such as `2026-01-31T12:00:00Z`.
    ///
    /// # Errors
    /// Returns [`TimestampError`] for anything else, including an offset other than `Z`.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        Self::read(text.as_bytes()).ok_or(TimestampError)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'Z'] = text else {
            return None;
        };
        let number = |digits: &[&u8]| {
            digits.iter().try_fold(0_u16, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + u16::from(**digit - b'0'))
            })
        };
        let two = |tens, ones| u8::try_from(number(&[tens, ones])?).ok();
        let year = i32::from(number(&[y1, y2, y3, y4])?);
        let date = Date::from_calendar_date(year, Month::try_from(two(m1, m2)?).ok()?, two(d1, d2)?).ok()?;
        let time = Time::from_hms(two(h1, h2)?, two(n1, n2)?, two(s1, s2)?).ok()?;
        Some(Self(date.with_time(time).assume_utc().unix_timestamp()))
    }

    /// Returns the moment after this duration.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(duration.as_secs()))
    }
}

/// Writes the form that [`Timestamp::parse`] reads, or seconds for a year that RFC 3339 cannot write.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0) {
            Ok(moment) if (0..10_000).contains(&moment.year()) => {
                let (year, month, day) = moment.to_calendar_date();
                let (hour, minute, second) = moment.to_hms();
                write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
            }
            _ => write!(f, "{} s", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error of [`Timestamp::parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampError;

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a date and time in UTC, such as `2026-01-31T12:00:00Z`")
    }
}

impl std::error::Error for TimestampError {}

/// Parses a duration: a positive integer and one of the units `s`, `m`, `h` and `d`, such as `90m`. Returns `None` for anything
/// else.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, seconds) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
    Some(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Timestamp, parse_duration};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn moments_are_parsed_and_printed() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-25T14:11:14Z", 1_795_615_874),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            let moment = Timestamp::parse(text).unwrap();
            assert_eq!((moment.seconds(), moment.to_string()), (seconds, text.to_owned()));
        }
        for text in [
            "",
            "2026-11-25",
            "2026-11-25T14:11:14",
            "2026-11-25 14:11:14Z",
            "2026-11-25t14:11:14z",
            "2026-11-25T14:11:14+00:00",
            "2026-11-25T14:11:14.5Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T14:11:60Z",
            "+026-11-25T14:11:14Z",
            "2026-11-25T14:11:14Z ",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
        assert_eq!(Timestamp::NEVER.to_string(), format!("{} s", i64::MAX));
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        for (text, seconds) in [("1s", 1), ("90m", 5400), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "0s", "-1s", "+1s", "1", "1.5h", "1h30m", "1 h", "4294967296s", "1w"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        let moment = Timestamp::from_seconds(10).after(Duration::from_secs(5));
        assert_eq!(moment, Timestamp::from_seconds(15));
        assert_eq!(Timestamp::NEVER.after(Duration::from_secs(1)), Timestamp::NEVER);
    }
}
