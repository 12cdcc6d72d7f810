//! Durations and times as text.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, de};

/// Seconds from 1970 to the end of the year 9999, where RFC 3339 ends.
const RFC3339_END: Duration = Duration::from_secs(253_402_300_800);

/// `None` for a time that RFC 3339 can't express.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since < RFC3339_END).then(|| humantime::format_rfc3339(time).to_string())
}

/// From hours to nanoseconds without gaps between them, as `1h30m`: what resources in a cluster may hold too.
fn compact(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanos = duration.subsec_nanos();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let text: String = (parts.iter().filter(|(count, _)| *count > 0))
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a string; what is wrong with it is said inside the visitor, so that a parser that keeps track names the
/// field's full path and place.
struct Parsed<T, E> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, E>,
}

impl<T, E: fmt::Display> de::Visitor<'_> for Parsed<T, E> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<F: de::Error>(self, text: &str) -> Result<T, F> {
        let wrong = |e| F::custom(format_args!("`{text}` is not {}: {e}", self.expected));
        (self.parse)(text).map_err(wrong)
    }
}

/// Durations as people write them: `100ms`, `5m`, `1h30m`.
pub(super) mod duration_text {
    use super::{Duration, Parsed};
    use serde::{Deserializer, Serializer};

    pub(in crate::spec) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&super::compact(*value))
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(Parsed {
            expected: "a duration such as 100ms, 5m or 1h30m",
            parse: humantime::parse_duration,
        })
    }
}

pub(super) mod duration_option {
    use super::{Deserialize, Duration, Serialize, duration_text};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrap(#[serde(with = "duration_text")] Duration);

    pub(in crate::spec) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Wrap).serialize(to)
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrap>::deserialize(from)?.map(|w| w.0))
    }
}

pub(super) mod duration_list {
    use super::{Deserialize, Duration, Serialize, duration_text};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrap(#[serde(with = "duration_text")] Duration);

    pub(in crate::spec) fn serialize<S: Serializer>(value: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().copied().map(Wrap))
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Wrap>::deserialize(from)?.into_iter().map(|w| w.0).collect())
    }
}

mod timestamp_text {
    use super::{Parsed, SystemTime};
    use serde::{Deserializer, Serializer, ser};

    pub(in crate::spec) fn serialize<S: Serializer>(value: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        match super::rfc3339(*value) {
            Some(text) => to.serialize_str(&text),
            None => Err(ser::Error::custom(
                "the time is not between the years 1970 and 9999",
            )),
        }
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        from.deserialize_str(Parsed {
            expected: "an RFC 3339 time",
            parse: humantime::parse_rfc3339_weak,
        })
    }
}

pub(super) mod timestamp_option {
    use super::{Deserialize, Serialize, SystemTime, timestamp_text};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrap(#[serde(with = "timestamp_text")] SystemTime);

    pub(in crate::spec) fn serialize<S: Serializer>(
        value: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Wrap).serialize(to)
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Wrap>::deserialize(from)?.map(|w| w.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_so_that_they_read_back_the_same() {
        for (text, nanos) in [
            ("0s", 0),
            ("100ms", 100_000_000),
            ("1m30s", 90_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("49h", 176_400_000_000_000),
            ("2s3us4ns", 2_000_003_004),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(compact(duration), text);
            assert_eq!(humantime::parse_duration(text), Ok(duration));
        }
        let longest = Duration::MAX;
        assert_eq!(humantime::parse_duration(&compact(longest)), Ok(longest));
    }
}
