//! The bytes that stand in Redis, which anyone who reaches it may have written.
//!
//! On the wire: `SCHEMA u8 | made at, ms since 1970, u64 LE | length u8, version of the cache | length u8, version of the key | value | tag`.
//! A value counts only while both versions are what Redis says they are. The tag is HMAC-SHA-256 over the key's name in Redis and all
//! before it, where there is a secret to make one with: then nobody who can write to Redis can make a value up, or move one.
//! Promise: whatever the bytes, the answer is a value that was written under this name, or none.
//! Kept by: `tests`, and the fuzz target `cache_wire`.

use std::time::Duration;

use emberd_model::UnixNanos;
use ring::{digest, hmac};

/// Changes with the form of these bytes, and with the form of any value in them.
pub const SCHEMA: u8 = 1;
/// A value that was made so much later than now was made by a clock that goes wrong.
const AHEAD_MAX_MS: u64 = 5_000;
/// Versions are sixteen digits, or empty where there was no invalidation yet.
pub(crate) const VERSION_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
/// What there is beside the value, at most.
pub(crate) const HEAD_BYTES_MAX: usize = 1 + 8 + 2 * (1 + VERSION_BYTES) + TAG_BYTES;

/// Which invalidations there were when a value was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the whole cache.
    pub cache: Vec<u8>,
    /// Of the key.
    pub key: Vec<u8>,
}

/// Makes tags and checks them.
#[derive(Clone)]
pub struct Seal(hmac::Key);

impl std::fmt::Debug for Seal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Seal(..)")
    }
}

impl Seal {
    /// From a secret that all emberds of this Redis share; the secret itself is used for nothing here but to make another of it.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"emberd cache seal");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    fn covered(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut covered = Vec::with_capacity(4 + name.len() + bytes.len());
        covered.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        covered.extend_from_slice(name.as_bytes());
        covered.extend_from_slice(bytes);
        covered
    }
}

/// What a key is called in Redis: nothing of the key itself is to be seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Where its value stands; another schema's stands elsewhere.
    pub(crate) value: String,
    /// Where its version does, whatever the schema: emberds of two schemas tell each other what counts no more.
    pub(crate) key_version: String,
    /// Where the whole cache's does.
    pub(crate) cache_version: String,
}

impl Names {
    pub(crate) fn new(prefix: &str, cache: &str, key: &str) -> Self {
        use std::fmt::Write as _;
        let mut hash = String::with_capacity(64);
        for byte in digest::digest(&digest::SHA256, key.as_bytes()).as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        Self {
            value: format!("{prefix}:{SCHEMA}:{cache}:{hash}"),
            key_version: format!("{prefix}:v:{cache}:{hash}"),
            cache_version: cache_version(prefix, cache),
        }
    }
}

/// Where a whole cache's version stands.
pub(crate) fn cache_version(prefix: &str, cache: &str) -> String {
    format!("{prefix}:v:{cache}")
}

/// A value's bytes under a name.
#[must_use]
pub fn encode(name: &str, value: &[u8], versions: &Versions, made: UnixNanos, seal: Option<&Seal>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX + value.len());
    bytes.push(SCHEMA);
    bytes.extend_from_slice(&(made.0 / 1_000_000).to_le_bytes());
    for version in [&versions.cache, &versions.key] {
        let version = &version[..version.len().min(VERSION_BYTES)];
        bytes.push(version.len() as u8);
        bytes.extend_from_slice(version);
    }
    bytes.extend_from_slice(value);
    if let Some(Seal(key)) = seal {
        let tag = hmac::sign(key, &Seal::covered(name, &bytes));
        bytes.extend_from_slice(tag.as_ref());
    }
    bytes
}

/// The value in bytes that stood under a name, and its age; none where they are not one that counts.
#[must_use]
pub fn decode<'b>(
    name: &str,
    bytes: &'b [u8],
    versions: &Versions,
    now: UnixNanos,
    seal: Option<&Seal>,
) -> Option<(&'b [u8], Duration)> {
    let mut rest = match seal {
        None => bytes,
        Some(Seal(key)) => {
            let (sealed, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
            hmac::verify(key, &Seal::covered(name, sealed), tag).ok()?;
            sealed
        }
    };
    if *rest.split_off_first()? != SCHEMA {
        return None;
    }
    let made = u64::from_le_bytes(*take(&mut rest, 8)?.first_chunk()?);
    for version in [&versions.cache, &versions.key] {
        let length = *rest.split_off_first()?;
        if take(&mut rest, length.into())? != version.as_slice() {
            return None;
        }
    }
    let now = now.0 / 1_000_000;
    if made > now.saturating_add(AHEAD_MAX_MS) {
        return None;
    }
    Some((rest, Duration::from_millis(now.saturating_sub(made))))
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_795_226_400_000_000_000);

    fn versions(cache: &str, key: &str) -> Versions {
        Versions { cache: cache.into(), key: key.into() }
    }

    #[test]
    fn a_value_counts_under_its_name_its_versions_and_its_time() {
        let (one, later) = (versions("00000000000000aa", ""), UnixNanos(NOW.0 + 90_000_000_000));
        for seal in [None, Some(Seal::new(b"a secret"))] {
            let bytes = encode("n", b"value", &one, NOW, seal.as_ref());
            let read = |name: &str, versions: &Versions, now| decode(name, &bytes, versions, now, seal.as_ref());
            assert_eq!(read("n", &one, later), Some((&b"value"[..], Duration::from_secs(90))));
            assert_eq!(read("n", &versions("00000000000000ab", ""), later), None, "the cache was invalidated");
            assert_eq!(read("n", &versions("00000000000000aa", "1"), later), None, "the key was");
            assert_eq!(read("n", &one, UnixNanos(NOW.0 - 6_000_000_000)), None, "it comes from the future");
            assert_eq!(read("n", &one, UnixNanos(NOW.0 - 4_000_000_000)), Some((&b"value"[..], Duration::ZERO)));
            assert_eq!(read("other", &one, later).is_some(), seal.is_none(), "moved to another name");
            assert_eq!(decode("n", &bytes, &one, NOW, Some(&Seal::new(b"another secret"))), None);
        }
    }

    #[test]
    fn a_value_without_a_tag_is_none_where_there_must_be_one() {
        let bytes = encode("n", b"{\"role\":\"admin\"}", &Versions::default(), NOW, None);
        assert_eq!(decode("n", &bytes, &Versions::default(), NOW, Some(&Seal::new(b"a secret"))), None);
    }

    #[test]
    fn names_show_nothing_and_differ() {
        let ada = Names::new("emberd", "profiles", "ada@example.com");
        assert!(ada.value.starts_with("emberd:1:profiles:") && !ada.value.contains("ada"), "{ada:?}");
        let bob = Names::new("emberd", "profiles", "bob@example.com");
        assert!(ada.value != bob.value && ada.key_version != bob.key_version && ada.cache_version == bob.cache_version);
    }

    proptest::proptest! {
        /// One bit that is another makes a sealed value none, wherever it is.
        #[test]
        fn a_changed_bit_makes_it_none(value in proptest::collection::vec(0..=255_u8, 0..60), at in 0..10_000_usize, bit in 0..8_u32) {
            let (seal, versions) = (Seal::new(b"a secret"), versions("v", ""));
            let mut bytes = encode("n", &value, &versions, NOW, Some(&seal));
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            proptest::prop_assert!(decode("n", &bytes, &versions, NOW, Some(&seal)).is_none());
        }

        /// Any bytes are a value or none.
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(0..=255_u8, 0..80), version in proptest::collection::vec(0..=255_u8, 0..20)) {
            let versions = Versions { cache: version.clone(), key: version };
            if let Some((value, _)) = decode("n", &bytes, &versions, NOW, None) {
                proptest::prop_assert!(bytes.ends_with(value));
            }
        }
    }
}
