//! OpenAI-compatible endpoints: a call at the endpoint's pace, its answer or its failure by class.
//!
//! Promise: a call has a deadline, its answer a size; no redirect is followed, so the key goes to no other host; what a failure tells never
//! holds what was sent. Whether the endpoint may have billed a failed call is told ([`Failed::bill`]).
//! Not here: money, answers that are kept, when another try is made.
//!
//! - [`Pace`](pace::Pace): how many calls at once and how fast, by what the endpoint answers. `answer`: its status, headers and body.

mod answer;
mod pace;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_evaluators_kit::{Class, Failure};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tokio::time::Instant;

pub(crate) use answer::completion;
use pace::{Heard, Pace, Place};

use crate::config::{ConfigError, Endpoint};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Failures are read no further.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long an endpoint that does not accept the key is not asked again.
const AUTH_PAUSE: Duration = Duration::from_secs(5);
/// How long an endpoint whose quota is used up is not asked again.
const QUOTA_PAUSE: Duration = Duration::from_secs(30);

/// All endpoints of a configuration, with a pace for each model.
pub(crate) struct Providers {
    endpoints: Vec<Arc<Reached>>,
    by_model: Mutex<HashMap<String, Arc<Provider>>>,
}

/// Models that are kept apart; those of later jobs share the last one's pace.
const MODELS_MAX: usize = 1_000;

struct Reached {
    endpoint: Endpoint,
    url: reqwest::Url,
    key: Option<HeaderValue>,
    http: reqwest::Client,
}

/// One model of one endpoint.
pub(crate) struct Provider {
    reached: Arc<Reached>,
    pace: Pace,
    /// Until when no call is worth making, and why.
    closed: Mutex<Option<(Instant, Failure)>>,
}

/// A call that gave no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// Whether the endpoint may have billed it.
    pub(crate) bill: Bill,
}

/// What a failed call may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bill {
    /// Nothing: the endpoint refused it, or was never reached.
    Nothing,
    /// The endpoint may have done the work: as much as was reserved.
    Unknown,
}

/// An answer with status 200, as it came.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) body: Vec<u8>,
    pub(crate) latency: Duration,
}

impl Providers {
    pub(crate) fn new(endpoints: &[Endpoint]) -> Result<Self, ConfigError> {
        let reach = |(at, endpoint): (usize, &Endpoint)| {
            let wrong = |what: &str| ConfigError { key: format!("endpoints[{at}]"), what: what.to_owned() };
            let base = endpoint.base_url.trim_end_matches('/');
            let url =
                reqwest::Url::parse(&format!("{base}/chat/completions")).map_err(|_| wrong("base_url is no URL"))?;
            let key = endpoint.api_key.as_ref().map(|secret| HeaderValue::from_str(&format!("Bearer {}", secret.0)));
            let mut key = key.transpose().map_err(|_| wrong("api_key cannot be sent"))?;
            key.iter_mut().for_each(|key| key.set_sensitive(true));
            let http = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(endpoint.deadline)
                .connect_timeout(endpoint.deadline.min(Duration::from_secs(10)));
            let http = http.build().map_err(|_| wrong("the network cannot be used"))?;
            Ok(Arc::new(Reached { endpoint: endpoint.clone(), url, key, http }))
        };
        let endpoints = endpoints.iter().enumerate().map(reach).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, by_model: Mutex::default() })
    }

    /// Where a model is asked; none where no endpoint has it.
    pub(crate) fn of(&self, model: &str) -> Option<Arc<Provider>> {
        let mut by_model = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_model.get(model) {
            return Some(Arc::clone(known));
        }
        let reached = self.endpoints.iter().find(|reached| reached.endpoint.has(model))?;
        let key = if by_model.len() < MODELS_MAX { model } else { "" };
        let provider = by_model.entry(key.to_owned()).or_insert_with(|| {
            let pace = Pace::new(reached.endpoint.concurrency_max, reached.endpoint.retry_after_max);
            Arc::new(Provider { reached: Arc::clone(reached), pace, closed: Mutex::new(None) })
        });
        Some(Arc::clone(provider))
    }
}

impl Provider {
    /// What answers of it are kept under.
    pub(crate) fn endpoint(&self) -> &str {
        &self.reached.endpoint.base_url
    }

    /// How many more calls are worth holding in hand, when so many are: twice as many as may be made, so that none waits for the database.
    pub(crate) fn room(&self, in_hand: usize) -> usize {
        if self.pace.is_paused_for(Duration::from_secs(2)) {
            0
        } else {
            (2 * self.pace.limit()).saturating_sub(in_hand)
        }
    }

    /// Waits until a call may leave.
    pub(crate) async fn place(&self) -> Result<Place<'_>, Failure> {
        if let Some(failure) = self.closed() {
            return Err(failure);
        }
        let place = self.pace.place().await;
        match self.closed() {
            Some(failure) => Err(failure),
            None => Ok(place),
        }
    }

    fn closed(&self) -> Option<Failure> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, failure)| failure.clone())
    }

    fn close(&self, failure: &Failure) {
        let pause = match failure.class {
            Class::ProviderAuth => AUTH_PAUSE,
            Class::ProviderQuota => QUOTA_PAUSE.min(self.reached.endpoint.retry_after_max),
            _ => return,
        };
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now() + pause, failure.clone()));
    }

    /// Asks once.
    pub(crate) async fn ask(&self, place: Place<'_>, body: Vec<u8>) -> Result<Answered, Failed> {
        let started = Instant::now();
        let asked = self.post(body).await;
        let latency = started.elapsed();
        match asked {
            Ok((heard, body)) => {
                place.done(heard);
                Ok(Answered { body, latency })
            }
            Err((heard, failed)) => {
                place.done(heard);
                self.close(&failed.failure);
                Err(failed)
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(Heard, Vec<u8>), (Heard, Failed)> {
        let Reached { url, key, http, .. } = &*self.reached;
        let mut request = http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let response = request.send().await.map_err(|error| (Heard::Trouble, unsent(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let limits = answer::limits(&headers);
        if status.is_success() {
            let body = read(response, ANSWER_BYTES_MAX).await.map_err(|failed| (Heard::Trouble, failed))?;
            return Ok((Heard::Answer(limits), body));
        }
        let body = read(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let failure = answer::refused(status, &headers, &body);
        let heard = match failure.class {
            Class::ProviderRate => Heard::TooFast(failure.retry_after.or(limits.wait)),
            Class::Provider5xx if failure.retry_after.is_some() => Heard::TooFast(failure.retry_after),
            Class::Provider5xx | Class::Timeout => Heard::Trouble,
            _ => Heard::Answer(limits),
        };
        Err((heard, Failed { failure, bill: Bill::Nothing }))
    }
}

/// The whole body, or why not.
async fn read(mut response: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                let failure = Failure::new(Class::Parse, format!("the answer is longer than {bytes_max} bytes"));
                return Err(Failed { failure, bill: Bill::Unknown });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err(late()),
            Err(_) => {
                let failure = Failure::new(Class::Provider5xx, "the endpoint broke off its answer");
                return Err(Failed { failure, bill: Bill::Unknown });
            }
        }
    }
}

fn late() -> Failed {
    Failed {
        failure: Failure::new(Class::Timeout, "no whole answer from the endpoint at the deadline"),
        bill: Bill::Unknown,
    }
}

/// The call did not come to a status.
fn unsent(error: &reqwest::Error) -> Failed {
    if error.is_connect() {
        return Failed {
            failure: Failure::new(Class::Provider5xx, "the endpoint cannot be reached"),
            bill: Bill::Nothing,
        };
    }
    if error.is_timeout() {
        return late();
    }
    Failed { failure: Failure::new(Class::Provider5xx, "the endpoint broke off"), bill: Bill::Unknown }
}
