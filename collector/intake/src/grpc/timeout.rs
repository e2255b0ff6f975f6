//! `grpc-timeout`: up to eight digits and a unit.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// When a request that came at `since` must be answered: at most `longest` later.
pub(crate) fn deadline(headers: &HeaderMap, since: Instant, longest: Duration) -> Result<Instant, Refusal> {
    let asked = match headers.get("grpc-timeout") {
        None => longest,
        Some(value) => parse(value.as_bytes()).ok_or(Refusal::Framing("grpc-timeout is malformed"))?,
    };
    Ok(since + asked.min(longest))
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form that the specification allows is read, and nothing else.
    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let cases: &[(&str, Option<Duration>)] = &[
            ("1n", Some(Duration::from_nanos(1))),
            ("250u", Some(Duration::from_micros(250))),
            ("10000m", Some(Duration::from_secs(10))),
            ("3S", Some(Duration::from_secs(3))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
            (" 1S", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), *expected, "{text:?}");
        }
    }

    /// A client cannot ask for more time than the config gives.
    #[test]
    fn long_timeouts_are_clamped() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", "99999999H".parse().unwrap());
        let since = Instant::now();
        let minute = Duration::from_secs(60);
        assert_eq!(deadline(&headers, since, minute).unwrap(), since + minute);
    }
}
