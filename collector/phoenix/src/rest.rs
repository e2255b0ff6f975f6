//! How the calls to Phoenix's REST API are made: one request, one answer in JSON, lists page by page.
//!
//! Promise: each request is bounded in time and each answer in bytes; a list that does not end is an error. What a caller must tell
//! apart has a variant of its own: not there, there already, refused for what it says; and beneath them, as everywhere in this
//! room, whether Phoenix was there at all ([`client::Error`](crate::client::Error)).
//! Not here: repeating a call that failed. Each writing call says whether its repetition is harmless.
//! Kept by: `tests/evaluation.rs`, against the real Phoenix.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{self, Client, beginning, body};

/// An answer longer than this is not read. A dataset's examples come in one answer, without pages.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// How long a call may take that carries a whole dataset, either way. Storing 10,000 examples takes Phoenix seconds.
const WHOLE_DATASET: Duration = Duration::from_secs(180);

/// Items asked for in one page.
const PAGE: usize = 500;

/// A list is not followed further than this.
const PAGES_MAX: usize = 2_000;

/// Phoenix did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404: the thing itself, or something that the request names, is not there.
    #[error("phoenix does not have it: {said}")]
    NotFound {
        /// The beginning of what it said.
        said: String,
    },
    /// 409: there already.
    #[error("phoenix has it already: {said}")]
    Conflict {
        /// The beginning of what it said.
        said: String,
    },
    /// 400, 413 or 422: the same request will always be refused.
    #[error("phoenix refuses it with {status}: {said}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of what it said.
        said: String,
    },
    /// Phoenix could not hold it, or would change it; it was not sent.
    #[error("{what} cannot be sent to phoenix")]
    Unfit {
        /// What, and of which thing.
        what: String,
    },
    /// Not reachable, not in time, not with this key, or not with an answer.
    #[error(transparent)]
    Phoenix(#[from] client::Error),
}

/// Whether a call carries a whole dataset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Whole,
}

/// Most answers are wrapped so.
#[derive(Deserialize)]
pub(crate) struct Data<T> {
    pub(crate) data: T,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl Client {
    /// The URL of a path, whose segments may hold any text.
    pub(crate) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        let unusable = || client::Error::Config { what: "the url of phoenix" };
        let mut url = Url::parse(&self.base).map_err(|_| unusable())?;
        url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// One request, and the bytes of its answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        url: Url,
        request: Option<&Value>,
        size: Size,
    ) -> Result<Vec<u8>, Error> {
        let mut call = self.http.request(method, url);
        if let Some(request) = request {
            call = call.json(request);
        }
        if size == Size::Whole {
            call = call.timeout(WHOLE_DATASET);
        }
        let answer = self.exchange(call).await?;
        let status = answer.status();
        let body = body(answer, ANSWER_BYTES_MAX).await?;
        let said = || beginning(&body);
        match status {
            status if status.is_success() => Ok(body),
            StatusCode::NOT_FOUND => Err(Error::NotFound { said: said() }),
            StatusCode::CONFLICT => Err(Error::Conflict { said: said() }),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Error::Refused { status, said: said() })
            }
            status => Err(client::Error::Answer { status, said: said() }.into()),
        }
    }

    /// One request, and what its answer says in JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        request: Option<&Value>,
        size: Size,
    ) -> Result<T, Error> {
        let body = self.call(method, url, request, size).await?;
        read(&body)
    }

    /// A list, page after page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, Error> {
        let limit = PAGE.to_string();
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let page: Page<T> = self.ask(Method::GET, self.url(path, &query)?, None, Size::Small).await?;
            all.extend(page.data);
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) => break,
                None => return Ok(all),
            }
        }
        Err(client::Error::Answer { status: StatusCode::OK, said: "a list without an end".to_owned() }.into())
    }
}

/// What an answer of success says. Phoenix's web pages answer 200 to any path that it does not know.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let unreadable = |_| client::Error::Answer { status: StatusCode::OK, said: beginning(body) };
    Ok(serde_json::from_slice(body).map_err(unreadable)?)
}
