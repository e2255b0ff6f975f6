//! Ingest keys: who may send, and how much.
//!
//! Promise: a key is checked before a byte of the body is read; comparing takes the same time whichever key is wrong and
//! wherever; a key is kept as its SHA-256 only.
//! In the file:  `[[key]]` with `name`, and `sha256` (hex of the key's digest) or `key` (its text); optionally `rate` in spans a
//! second and `project`.
//! Not here: reading the file (`daemon/config`); binding spans to `project`, which would have to rewrite them: it is kept and shown.
//! Kept by: `tests` below, `tests/it/keys.rs`.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::refusal::Refusal;

/// The known keys.
#[derive(Debug)]
pub struct Keys(Vec<Arc<Key>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Key {
    name: String,
    digest: [u8; 32],
    project: Option<String>,
    pace: Option<Pace>,
}

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// It is not TOML, or not of this form.
    #[error("{0}")]
    Form(#[from] toml::de::Error),
    /// What it says makes no sense.
    #[error("key {name:?}: {what}")]
    Key {
        /// The key's name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It has no key, so nobody could send.
    #[error("there is no [[key]] in the file")]
    Empty,
    /// An entry of the log has two bytes for the key's number.
    #[error("there are more than {} keys", u16::MAX)]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    sha256: Option<String>,
    key: Option<String>,
    project: Option<String>,
    rate: Option<NonZeroU32>,
}

impl Keys {
    /// Reads the key file's text.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let file: File = toml::from_str(text)?;
        if file.key.is_empty() {
            return Err(BadKeys::Empty);
        }
        if file.key.len() > usize::from(u16::MAX) {
            return Err(BadKeys::TooMany);
        }
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(file.key.len());
        for line in file.key {
            let bad = |what| BadKeys::Key { name: line.name.clone(), what };
            let digest = match (&line.sha256, &line.key) {
                (Some(hex), None) => digest_from_hex(hex).ok_or_else(|| bad("sha256 is not 64 hex digits"))?,
                (None, Some(key)) if key.trim().is_empty() => return Err(bad("the key is empty")),
                (None, Some(key)) => Sha256::digest(key.trim()).into(),
                _ => return Err(bad("give either sha256 or key")),
            };
            if keys.iter().any(|known| known.name == line.name || known.digest == digest) {
                return Err(bad("the name or the key is there twice"));
            }
            keys.push(Arc::new(Key { name: line.name, digest, project: line.project, pace: line.rate.map(Pace::of) }));
        }
        Ok(Self(keys))
    }

    /// Names and projects of the keys, in the order of their numbers, which begin at 1.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|key| (key.name.as_str(), key.project.as_deref()))
    }

    /// These, where `older` counted until now: a key that is the same in both goes on at its pace.
    #[must_use]
    pub fn following(mut self, older: &Self) -> Self {
        for key in &mut self.0 {
            if let Some(same) = older.0.iter().find(|other| other.is_same(key)) {
                *key = Arc::clone(same);
            }
        }
        self
    }

    /// The key that a request carries, and its number in the log's entries.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(u16, &Arc<Key>), Refusal> {
        let mut shown: Option<[u8; 32]> = None;
        for key in presented(headers) {
            let digest = Sha256::digest(key?).into();
            // Which of two different keys counts is nobody's guess to make.
            if shown.is_some_and(|other| other != digest) {
                return Err(Refusal::WrongKey);
            }
            shown = Some(digest);
        }
        let shown = shown.ok_or(Refusal::NoKey)?;
        let mut found = None;
        for (at, key) in self.0.iter().enumerate() {
            if is_equal(&key.digest, &shown) {
                found = Some((at as u16 + 1, key));
            }
        }
        found.ok_or(Refusal::WrongKey)
    }
}

impl Key {
    fn is_same(&self, other: &Self) -> bool {
        let rate = |key: &Self| key.pace.as_ref().map(|pace| pace.rate);
        (&self.name, self.digest, &self.project, rate(self)) == (&other.name, other.digest, &other.project, rate(other))
    }

    /// Whether it may send now; asked before the body is read, so that what is over the rate costs nothing.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        let Some(pace) = &self.pace else { return Ok(()) };
        match pace.debt(Instant::now()) {
            Duration::ZERO => Ok(()),
            retry => Err(Refusal::Rate { key: self.name.clone(), rate: pace.rate.get(), retry }),
        }
    }

    /// Counts what it sent. May run into debt: a request may be larger than a second's worth.
    pub(crate) fn spend(&self, spans: u32) {
        if let Some(pace) = &self.pace {
            pace.spend(spans, Instant::now());
        }
    }
}

/// Spans a second, with a second's worth of burst.
#[derive(Debug)]
struct Pace {
    rate: NonZeroU32,
    /// When the debt will be paid off. What lies further back than a second is forgotten.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    fn of(rate: NonZeroU32) -> Self {
        Self { rate, paid: Mutex::new(None) }
    }

    /// A poisoned lock holds a time like any other.
    fn paid(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.paid.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn debt(&self, now: Instant) -> Duration {
        self.paid().map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }

    fn spend(&self, spans: u32, now: Instant) {
        let cost = Duration::from_secs(spans.into()) / self.rate.get();
        let mut paid = self.paid();
        let credit = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        *paid = Some(paid.map_or(credit, |paid| paid.max(credit)) + cost);
    }
}

/// The keys that a request shows, wherever SDKs and Phoenix's clients put them.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = Result<&[u8], Refusal>> {
    let bearer = headers.get_all(AUTHORIZATION).iter().map(|value| {
        let bytes = value.as_bytes();
        match bytes.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(bytes[7..].trim_ascii()),
            _ => Err(Refusal::WrongKey),
        }
    });
    let plain = ["api_key", "x-api-key"];
    bearer
        .chain(plain.into_iter().flat_map(|name| headers.get_all(name)).map(|value| Ok(value.as_bytes().trim_ascii())))
}

fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    difference == 0
}

fn digest_from_hex(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.trim().as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
