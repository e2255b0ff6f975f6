//! Ids of spans and traces, places in the log, and points in time.

use std::fmt;
use std::str::FromStr;

/// A trace's 16 bytes; shown as lower-case hex, as Phoenix and the OTLP/JSON form write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// A span's 8 bytes; shown as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

/// The text is not the hex of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hex digits")]
pub struct NotHex {
    /// How many digits the id has.
    pub digits: usize,
}

macro_rules! hex_id {
    ($id:ident, $bytes:literal) => {
        impl $id {
            /// The id in these bytes; none if they are not exactly as many as the id has, or all zero,
            /// which OTLP calls invalid.
            pub fn from_wire(bytes: &[u8]) -> Option<Self> {
                let id = <[u8; $bytes]>::try_from(bytes).ok()?;
                (id != [0; $bytes]).then_some(Self(id))
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $id {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let wrong = NotHex { digits: 2 * $bytes };
                if text.len() != 2 * $bytes || !text.is_ascii() {
                    return Err(wrong);
                }
                let mut id = [0; $bytes];
                for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |c: u8| (c as char).to_digit(16).ok_or(wrong);
                    *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
                }
                Ok(Self(id))
            }
        }
    };
}

impl TraceId {
    /// A number that looks random, and is the same for this trace everywhere: the halves of the id (big endian), the second turned by
    /// 32 bits, xored, and mixed as by MurmurHash3's 64-bit finalizer. So any part of all traces can be chosen without asking anyone.
    #[must_use]
    pub fn chance(self) -> u64 {
        let half = |from: usize| u64::from_be_bytes(std::array::from_fn(|at| self.0[from + at]));
        let mut mixed = half(0) ^ half(8).rotate_left(32);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ (mixed >> 33)
    }

    /// Whether this trace is among the part `share` of all traces, from 0 to 1. A larger share holds all of a smaller one.
    #[must_use]
    pub fn is_in_share(self, share: f64) -> bool {
        // 2^53 is as fine as a double is.
        ((self.chance() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

hex_id!(TraceId, 16);
hex_id!(SpanId, 8);

/// A place in the log: how many spans were accepted before it.
///
/// A batch of `n` spans at offset `o` covers `o .. o + n`, so each span has an offset of its own, the head of the log is
/// the number of spans ever accepted, and a consumer's lag in spans is `head - cursor`: the ledger's sums need no counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// As a signed number, for sums and databases; beyond those the largest.
    #[must_use]
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The place `spans` further on.
    #[must_use]
    pub fn plus(self, spans: u64) -> Self {
        Self(self.0.saturating_add(spans))
    }

    /// How many spans lie between `earlier` and this place; 0 if `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since 1970-01-01 UTC, as OTLP writes times (up to the year 2554).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// Whole microseconds, rounded down: what the databases keep.
    #[must_use]
    pub fn micros(self) -> i64 {
        (self.0 / 1_000) as i64
    }

    /// Milliseconds from `start` to this point, rounded half up; 0 if it lies before `start`.
    #[must_use]
    pub fn millis_since(self, start: Self) -> u64 {
        let nanos = self.0.saturating_sub(start.0);
        nanos / 1_000_000 + u64::from(nanos % 1_000_000 >= 500_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that other programs must come to, to choose the same traces.
    #[test]
    fn a_traces_chance_is_the_same_everywhere() {
        let golden = [
            ("00000000000000000000000000000001", 0xba3a_9e16_0a5f_1419),
            ("938e78615ac854eae7e7384d1d4195e6", 0xc472_6f06_c0d3_e853),
            ("ffffffffffffffffffffffffffffffff", 0x0000_0000_0000_0000),
        ];
        for (trace, chance) in golden {
            let trace: TraceId = trace.parse().unwrap();
            assert_eq!(trace.chance(), chance, "{trace} {:#x}", trace.chance());
            let share = (chance >> 11) as f64 / (1_u64 << 53) as f64;
            assert!(!trace.is_in_share(share) && trace.is_in_share(share + 1e-9));
        }
    }

    #[test]
    fn ids_survive_their_text() {
        let trace: TraceId = "938e78615ac854eae7e7384d1d4195e6".parse().unwrap();
        assert_eq!(trace.to_string(), "938e78615ac854eae7e7384d1d4195e6");
        assert_eq!("BE0CD078F70FF744".parse::<SpanId>().unwrap().to_string(), "be0cd078f70ff744");
        for bad in ["", "0x", "be0cd078f70ff74", "be0cd078f70ff7444", "ge0cd078f70ff744", "ééééé"] {
            assert_eq!(bad.parse::<SpanId>(), Err(NotHex { digits: 16 }), "{bad}");
        }
    }

    #[test]
    fn wire_ids_are_whole_and_not_zero() {
        assert_eq!(SpanId::from_wire(&[1; 8]), Some(SpanId([1; 8])));
        for bad in [&[0; 8][..], &[1; 7], &[1; 9], &[]] {
            assert_eq!(SpanId::from_wire(bad), None);
        }
    }

    #[test]
    fn durations_round_half_up_and_never_wrap() {
        let at = UnixNanos;
        assert_eq!(at(1_499_999).millis_since(at(0)), 1);
        assert_eq!(at(1_500_000).millis_since(at(0)), 2);
        assert_eq!(at(1).millis_since(at(u64::MAX)), 0);
    }
}
