//! What is to be forgotten: one key of a cache, or all that begin alike.
//!
//! On the wire: `CACHE:KEY` or `CACHE:BEGINNING*`. A key that itself ends with a star reads as the wider pattern, which forgets more than
//! was meant and never less; so does a text that is too long.

use std::fmt;

/// Longer texts are not sent, but forget the whole cache. PostgreSQL's NOTIFY takes 8,000 bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Keys of one cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    cache: String,
    text: String,
    is_beginning: bool,
}

impl Pattern {
    /// One key.
    #[must_use]
    pub fn key(cache: &str, key: &str) -> Self {
        Self::new(cache, key, false)
    }

    /// All keys that begin so; all there are where it is empty.
    #[must_use]
    pub fn beginning(cache: &str, beginning: &str) -> Self {
        Self::new(cache, beginning, true)
    }

    fn new(cache: &str, text: &str, is_beginning: bool) -> Self {
        let cache = cache.to_owned();
        if text.len() > TEXT_BYTES_MAX {
            return Self { cache, text: String::new(), is_beginning: true };
        }
        match text.strip_suffix('*') {
            Some(beginning) if !is_beginning => Self { cache, text: beginning.to_owned(), is_beginning: true },
            _ => Self { cache, text: text.to_owned(), is_beginning },
        }
    }

    /// Reads what [`fmt::Display`] writes; none where it names no cache.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (cache, rest) = text.split_once(':').filter(|(cache, _)| !cache.is_empty())?;
        Some(match rest.strip_suffix('*') {
            Some(beginning) => Self::new(cache, beginning, true),
            None => Self::new(cache, rest, false),
        })
    }

    /// The cache it is about.
    #[must_use]
    pub fn cache(&self) -> &str {
        &self.cache
    }

    /// The one key that is meant; none: several.
    #[must_use]
    pub fn one(&self) -> Option<&str> {
        (!self.is_beginning).then_some(&self.text)
    }

    /// Whether a key of its cache is meant.
    #[must_use]
    pub fn is_about(&self, key: &str) -> bool {
        if self.is_beginning { key.starts_with(&self.text) } else { key == self.text }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}{}", self.cache, self.text, if self.is_beginning { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever the key, the pattern that arrives is about it; and about nothing else unless it ends with a star or is very long.
        #[test]
        fn what_arrives_means_what_was_sent(key in ".{0,40}", other in ".{0,40}") {
            for pattern in [Pattern::key("c", &key), Pattern::beginning("c", &key)] {
                let arrived = Pattern::parse(&pattern.to_string()).unwrap();
                proptest::prop_assert!(arrived.is_about(&key));
                proptest::prop_assert_eq!(arrived.cache(), "c");
                if !key.ends_with('*') {
                    proptest::prop_assert_eq!(&arrived, &pattern);
                    proptest::prop_assert_eq!(arrived.is_about(&other), pattern.is_about(&other));
                }
            }
        }
    }

    #[test]
    fn a_beginning_is_about_what_begins_so() {
        let pattern = Pattern::parse("phoenix:member *").unwrap();
        assert!(pattern.is_about("member /v1/projects") && !pattern.is_about("admin /v1/projects"));
        assert!(pattern.one().is_none());
        assert!(Pattern::parse("phoenix:*").unwrap().is_about(""));
        assert_eq!(Pattern::parse("phoenix:a").unwrap().one(), Some("a"));
        assert!(!Pattern::parse("phoenix:a").unwrap().is_about("ab"));
        assert!(Pattern::key("c", &"k".repeat(5_000)).is_about("anything"));
        assert_eq!((Pattern::parse(""), Pattern::parse(":x"), Pattern::parse("x")), (None, None, None));
    }
}
