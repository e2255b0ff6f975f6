//! How a Phoenix is and what a key may do there, for `emberd doctor`.
//!
//! Promise: four small requests, of which none writes anything: whether a key may write is asked by a list of no annotations, which Phoenix
//! refuses to a viewer like any other.
//! Kept by: `daemon/tests/it/doctor.rs`, against the real one.

use reqwest::header::DATE;
use serde_json::json;

use crate::client::{Client, Error, beginning, body};

/// The Phoenix whose ways this emberd knows, from running against it.
pub const KNOWN_VERSION: &str = crate::process::VERSION;

/// Answers to what is asked here are short.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How a Phoenix is.
#[derive(Debug)]
pub struct Examined {
    /// Its version.
    pub version: String,
    /// Its clock, as HTTP tells it: to the second.
    pub date: Option<String>,
    /// Whether the key may read.
    pub reads: Result<(), Error>,
    /// Whether the key may write.
    pub writes: Result<(), Error>,
}

impl Client {
    /// Asks how it is.
    ///
    /// # Errors
    /// Nobody is there, or it is no Phoenix. That it does not take the key is told in the answer.
    pub async fn examine(&self) -> Result<Examined, Error> {
        let version = self.version().await?;
        let reads = self.exchange(self.http.get(format!("{}/v1/projects?limit=1", self.base))).await;
        let date = match &reads {
            Ok(answer) => answer.headers().get(DATE).and_then(|date| Some(date.to_str().ok()?.to_owned())),
            Err(_) => None,
        };
        let writes =
            self.http.post(format!("{}/v1/span_annotations?sync=true", self.base)).json(&json!({ "data": [] }));
        let writes = self.exchange(writes).await;
        Ok(Examined { version, date, reads: good(reads).await, writes: good(writes).await })
    }
}

async fn good(answer: Result<reqwest::Response, Error>) -> Result<(), Error> {
    let answer = answer?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(Error::Answer { status, said: beginning(&body(answer, ANSWER_BYTES_MAX).await?) }),
    }
}
