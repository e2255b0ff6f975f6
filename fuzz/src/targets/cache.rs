//! What stands in Redis, which anyone who reaches it may have written.

use emberd_cache::Pattern;
use emberd_cache::wire::{Seal, Versions, decode, encode};
use emberd_model::UnixNanos;

const NOW: UnixNanos = UnixNanos(1_795_264_496_000_000_000);

fn versions() -> Versions {
    Versions { cache: b"00000000000000aa".into(), key: Vec::new() }
}

/// Any bytes are a value that ends them, and is written as just these bytes, or none; sealed ones are none unless this seal made them.
pub(super) fn cache_wire(input: &[u8]) {
    let versions = versions();
    if let Some((value, age)) = decode("n", input, &versions, NOW, None) {
        assert!(input.ends_with(value));
        // What comes from a little ahead counts as of now.
        let made = UnixNanos(NOW.0 - u64::try_from(age.as_nanos()).expect("no older than the epoch"));
        let again = encode("n", value, &versions, made, None);
        if !age.is_zero() {
            assert_eq!(again, input);
        }
    }
    assert!(decode("n", input, &versions, NOW, Some(&Seal::new(b"a secret that no input knows"))).is_none());
    let seal = Seal::new(b"a secret");
    let sealed = encode("n", input, &versions, NOW, Some(&seal));
    assert_eq!(decode("n", &sealed, &versions, NOW, Some(&seal)).map(|(value, _)| value), Some(input));
    assert!(decode("m", &sealed, &versions, NOW, Some(&seal)).is_none());
}

/// Any message is a pattern, which means the same when it is written and read again, or none.
pub(super) fn cache_pattern(input: &[u8]) {
    let Some(pattern) = std::str::from_utf8(input).ok().and_then(Pattern::parse) else { return };
    let again = Pattern::parse(&pattern.to_string());
    assert_eq!(again.as_ref(), Some(&pattern));
    if let Some(key) = pattern.one() {
        assert!(pattern.is_about(key) && !pattern.is_about(&format!("{key}x")));
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let old = UnixNanos(NOW.0 - 90_000_000_000);
    let values: [&[u8]; 3] = [b"", b"{\"role\":\"admin\"}", &[0xff; 70]];
    values.iter().map(|value| encode("n", value, &versions(), old, None)).collect()
}

pub(super) fn pattern_seeds() -> Vec<Vec<u8>> {
    [&b"profiles:*"[..], b"phoenix:member\nx\n/v1*", b"profiles:user a\0b", b"a:**"].map(<[u8]>::to_vec).to_vec()
}
