//! Which traces a rule samples: by a hash, so that every emberd, and every restart, chooses the same.
//!
//! The first 8 bytes (big endian) of SHA-256 over `emberd:sample:`, the salt, `:` and the trace id in lower-case hex, divided by 2^64, are
//! below the share (docs/decisions/0011-evaluation.md). Rules of one salt are nested: a larger share holds all of a smaller one.

use emberd_model::TraceId;
use sha2::{Digest as _, Sha256};

/// The trace's number for this salt.
#[must_use]
pub fn number(salt: &str, trace: TraceId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"emberd:sample:");
    hash.update(salt.as_bytes());
    hash.update(b":");
    hash.update(trace.to_string().as_bytes());
    let digest = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

/// Whether a trace is among the part `share` of all, from 0 to 1.
#[must_use]
pub fn is_in(salt: &str, trace: TraceId, share: f64) -> bool {
    // 2^53 is as fine as a double is; so a share of 1 holds all, and one of 0 none.
    ((number(salt, trace) >> 11) as f64) < share * (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For ever: whoever changes the hash breaks every rule's choice. Made with another program's SHA-256.
    #[test]
    fn golden_vectors() {
        let golden = [
            ("quality", "4bf92f3577b34da6a3ce929d0e0e4736", 0x767e_340d_31f9_f3d4),
            ("quality", "00000000000000000000000000000001", 0x6c08_529d_cdb4_e98d),
            ("", "ffffffffffffffffffffffffffffffff", 0x69c4_3825_e625_78d1),
            ("ünïcode 漢字", "0af7651916cd43dd8448eb211c80319c", 0x77d8_bf51_1fad_fff8),
            ("a:b", "0af7651916cd43dd8448eb211c80319c", 0xc138_1899_f95a_f66d),
        ];
        for (salt, trace, expected) in golden {
            assert_eq!(number(salt, trace.parse().unwrap()), expected, "{salt} {trace}");
        }
    }

    #[test]
    fn shares_are_nested_and_end_at_all_and_nothing() {
        let traces: Vec<TraceId> =
            (1..=4_000_u128).map(|n| TraceId((n * 0x9e37_79b9_7f4a_7c15).to_be_bytes())).collect();
        let of = |share: f64| traces.iter().filter(|trace| is_in("s", **trace, share)).count();
        assert_eq!((of(0.0), of(1.0)), (0, traces.len()));
        assert!((700..900).contains(&of(0.2)), "{}", of(0.2));
        assert!(traces.iter().all(|trace| !is_in("s", *trace, 0.1) || is_in("s", *trace, 0.2)));
    }
}
