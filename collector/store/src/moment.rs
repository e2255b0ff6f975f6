//! A point in time as the tables hold it.

use std::fmt;
use std::str::FromStr;

use emberd_model::UnixNanos;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since 1970-01-01 UTC. Its text is RFC 3339 of fixed width, so that texts sort as times do:
/// `2026-11-21T02:15:41.123456Z`. Years 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

/// 0000-01-01T00:00:00Z.
const FIRST: i64 = -62_167_219_200_000_000;
/// 9999-12-31T23:59:59.999999Z.
const LAST: i64 = 253_402_300_799_999_999;

/// A [`Moment`]'s text.
pub(crate) struct MomentText([u8; 27]);

impl MomentText {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

/// The text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time like 2026-11-21T02:15:41Z")]
pub struct NotATime;

impl Moment {
    /// The moment so many microseconds after 1970, moved into the years that can be written.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(FIRST, LAST))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// In nanoseconds; a moment before 1970 becomes 1970.
    #[must_use]
    pub fn nanos(self) -> UnixNanos {
        UnixNanos(u64::try_from(self.0).unwrap_or(0).saturating_mul(1_000))
    }

    /// Its text, without an allocation.
    pub(crate) fn text(self) -> MomentText {
        let at = self.datetime();
        let (hour, minute, second, micro) = at.time().as_hms_micro();
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |from: usize, digits: usize, mut number: u32| {
            for place in text[from..from + digits].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, at.year().unsigned_abs());
        put(5, 2, u8::from(at.month()).into());
        put(8, 2, at.day().into());
        put(11, 2, hour.into());
        put(14, 2, minute.into());
        put(17, 2, second.into());
        put(20, 6, micro);
        MomentText(text)
    }

    pub(crate) fn datetime(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .expect("a moment lies in the years 0000 to 9999, which OffsetDateTime holds")
    }
}

impl From<UnixNanos> for Moment {
    fn from(at: UnixNanos) -> Self {
        Self::from_micros(at.micros())
    }
}

impl From<OffsetDateTime> for Moment {
    fn from(at: OffsetDateTime) -> Self {
        Self::from_micros((at.unix_timestamp_nanos().div_euclid(1_000)) as i64)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for Moment {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self::from).map_err(|_| NotATime)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_width_and_sort_as_times() {
        let mut texts = Vec::new();
        for micros in [FIRST, -1, 0, 1, 1_795_221_129_761_519, i64::from(u32::MAX) * 1_000_000, LAST] {
            let moment = Moment::from_micros(micros);
            let text = moment.to_string();
            assert_eq!(text.len(), 27, "{text}");
            assert_eq!(text.parse(), Ok(moment));
            texts.push(text);
        }
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(Moment::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn other_zones_and_hostile_clocks_are_taken() {
        assert_eq!("2026-11-21T03:15:41+01:00".parse::<Moment>().unwrap().to_string(), "2026-11-21T02:15:41.000000Z");
        assert_eq!("yesterday".parse::<Moment>(), Err(NotATime));
        assert_eq!(Moment::from_micros(i64::MAX), Moment::from_micros(LAST));
        assert_eq!(Moment::from(UnixNanos(u64::MAX)).to_string(), "2554-07-21T23:34:33.709551Z");
        assert_eq!(Moment::from_micros(-1).nanos(), UnixNanos(0));
    }
}
