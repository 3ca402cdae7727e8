//! Moments and durations as JSON writes them.

use std::time::Duration;

use crate::types::ids::Timestamp;

/// Reads RFC 3339, such as `2026-11-23T08:00:00Z`; `None` for anything else.
/// What is finer than a millisecond is cut off, for Kafka has nothing finer.
pub(crate) fn read_timestamp(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

/// Writes RFC 3339 in UTC. A moment beyond the calendar's end is written as
/// its last one.
pub(crate) fn write_timestamp(timestamp: Timestamp) -> String {
    let millis = timestamp.as_millis();
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(match millis {
        0.. => jiff::Timestamp::MAX,
        _ => jiff::Timestamp::MIN,
    });
    time.to_string()
}

/// Reads a whole number with one unit, such as `15m`; `None` for anything else.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Writes what [`read_duration`] reads, cut to whole milliseconds.
pub(crate) fn write_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_one_unit() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            assert_eq!(read_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(read_duration("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "15", "m", "-1s", "1.5h", "1h30m", "1 h", "99999999999999999999s"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
        assert_eq!(read_duration("99999999999999999d"), None);
    }

    #[test]
    fn moments_are_rfc_3339() {
        let at = Some(Timestamp::from_millis(1_795_420_800_250));
        assert_eq!(read_timestamp("2026-11-23T08:00:00.250999Z"), at);
        assert_eq!(read_timestamp("2026-11-23T09:00:00.25+01:00"), at);
        assert_eq!(read_timestamp("2026-11-23T08:00:00"), None);
        assert_eq!(read_timestamp("yesterday"), None);
        assert_eq!(write_timestamp(Timestamp::from_millis(0)), "1970-01-01T00:00:00Z");
        assert!(write_timestamp(Timestamp::from_millis(i64::MAX)).starts_with("9999-"));
    }
}
