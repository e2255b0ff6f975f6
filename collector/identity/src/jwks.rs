//! The application's public keys, fetched where the configuration says, kept while the fetching fails.
//!
//! Promise: one fetch at a time, at most one a minute, however many tokens name unknown keys; an answer is bounded in bytes and time, and
//! no redirect is followed. Keys that were there stay while their server does not answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_model::UnixNanos;
use futures_util::StreamExt as _;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::key::PublicKey;

/// A fetch for a key that nobody knows, at most so often.
const EACH: Duration = Duration::from_secs(60);
/// How old keys may become before they are fetched anew for their own sake.
const FRESH: Duration = Duration::from_secs(15 * 60);
const BYTES_MAX: usize = 256 << 10;
const TIME_MAX: Duration = Duration::from_secs(5);
/// More keys than any issuer has.
const KEYS_MAX: usize = 64;

/// Public keys from a URL.
#[derive(Debug)]
pub struct Jwks {
    url: Url,
    client: reqwest::Client,
    keys: Mutex<Arc<Vec<PublicKey>>>,
    /// When it was last tried, in nanoseconds since 1970; held while it is tried.
    tried: tokio::sync::Mutex<Option<u64>>,
}

/// Why keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, or none that is a set of keys.
    #[error("no answer")]
    Http(#[from] reqwest::Error),
    /// The answer is something else.
    #[error("{0}")]
    Answer(&'static str),
}

impl Jwks {
    /// Keys from here; nothing is fetched before [`Jwks::run`] or the first token. A default crypto provider for TLS must be installed.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIME_MAX)
            .build()?;
        Ok(Self { url, client, keys: Mutex::default(), tried: tokio::sync::Mutex::new(None) })
    }

    /// The keys that are there.
    pub(crate) fn keys(&self) -> Arc<Vec<PublicKey>> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches them now and then until `stop`.
    pub async fn run(&self, now: impl Fn() -> UnixNanos, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.refetch(now()).await;
            let wait = if self.keys().is_empty() { EACH } else { FRESH };
            let _ = tokio::time::timeout(wait, stop.cancelled()).await;
        }
    }

    /// Fetches them, unless that was tried within the last minute. Whoever waited for another's fetch has it too; false: nothing new.
    pub(crate) async fn refetch(&self, now: UnixNanos) -> bool {
        let before = self.keys();
        let mut tried = self.tried.lock().await;
        if !Arc::ptr_eq(&before, &self.keys()) {
            return true;
        }
        if tried.is_some_and(|tried| now.0.saturating_sub(tried) < EACH.as_nanos() as u64) {
            return false;
        }
        *tried = Some(now.0);
        match self.fetch().await {
            Ok(keys) => {
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                true
            }
            Err(error) => {
                tracing::warn!(%error, url = %self.url, "public keys could not be fetched: those that are there are kept");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, FetchError> {
        let answer = self.client.get(self.url.clone()).send().await?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Answer("the answer's status is not 200"));
        }
        let mut bytes = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > BYTES_MAX {
                return Err(FetchError::Answer("the answer is longer than 256 KiB"));
            }
        }
        let (mut keys, left_out) = PublicKey::set(&bytes).map_err(FetchError::Answer)?;
        for why in left_out {
            tracing::debug!(why, "a public key is left out");
        }
        keys.truncate(KEYS_MAX);
        if keys.is_empty() { Err(FetchError::Answer("no key in it that can be used")) } else { Ok(keys) }
    }
}

#[cfg(test)]
impl Jwks {
    /// These keys, from nowhere.
    pub(crate) fn holding(jwks: &[u8]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nowhere = Self::new(Url::parse("http://127.0.0.1:1/").unwrap()).unwrap();
        *nowhere.keys.lock().unwrap() = Arc::new(PublicKey::set(jwks).unwrap().0);
        nowhere
    }
}
