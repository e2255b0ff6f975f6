//! `/api/phoenix/*`: Phoenix's own API for the callers of emberd, with the key of the caller's role.
//!
//! Promise: nothing of a request but its checked path, its query, a few headers and its body reaches Phoenix, and no host but the configured
//! one is asked; of the answer, cookies and redirects do not come back. Equal questions on their way are one; an answer is kept for a
//! while ([`kept`]); where Phoenix does not answer in [`IMPATIENT`], an old one is given and says so, while the new one is still waited
//! for; without an old one it is 503, within a second where Phoenix is gone.
//! On the wire: `x-emberd-cache: hit | miss | stale` on answers of GET.
//! Not here: who the caller is (`gate.rs`).
//! Kept by: `path::tests`, `tests::proxy` (a server that misbehaves), and `daemon/tests/it/app.rs` (the real Phoenix, asking for keys).

mod kept;
mod path;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use emberd_cache::{Cache, Found, Ticket};
use emberd_identity::{Caller, Permission};
use emberd_model::breaker::Breaker;
use futures_util::{StreamExt as _, stream};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::kept::{ANSWER_BYTES_MAX, Answer, Kept, Question};
use self::path::Sought;
use crate::contract::{self, Contract, Given};
use crate::refusal::Refusal;
use crate::{Caching, Shared};

/// How long a connection may take to come about, and how long an answer is waited for where an old one could be given.
const IMPATIENT: Duration = Duration::from_millis(800);
/// How long an answer's head is waited for otherwise, and each further piece of it.
const PATIENT: Duration = Duration::from_secs(25);
/// Faults in a row after which Phoenix is not asked for a while.
const FAULTS_MAX: u32 = 5;
const COOLDOWN: Duration = Duration::from_secs(5);
/// Questions on their way at once: Phoenix does its work one piece after the other, and more only wait there.
const AT_ONCE: usize = 10;
/// Different questions that wait for their answers.
const FLIGHTS_MAX: usize = 500;
const REQUEST_BYTES_MAX: usize = 64 << 20;
const ANSWER_STREAM_BYTES_MAX: u64 = 1 << 30;
/// What of a request is passed on.
const REQUEST_HEADERS: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// What of an answer is passed back.
const ANSWER_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];
/// The cache of answers, by name.
pub const ANSWERS: &str = "phoenix";
const CACHE: HeaderName = HeaderName::from_static("x-emberd-cache");

/// Where Phoenix is, and how it is asked.
#[derive(Clone)]
pub struct Config {
    /// Its root.
    pub url: Url,
    /// Where people look at it.
    pub public_url: Url,
    /// The key of an administrator there.
    pub admin_key: Option<String>,
    /// The key of everyone else.
    pub member_key: Option<String>,
    /// How long an answer counts; zero: none is kept.
    pub cache: Duration,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Config").field("url", &self.url.as_str()).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// The way to Phoenix.
pub(crate) struct Proxy {
    config: Config,
    client: reqwest::Client,
    answers: Arc<Cache<Kept>>,
    breaker: Mutex<Breaker>,
    places: Semaphore,
    flights: Mutex<Flights>,
    /// The flights themselves: one goes on when whoever asked first is gone.
    flying: Mutex<JoinSet<()>>,
    asked: AtomicU64,
    faults: AtomicU64,
}

/// Questions on their way, each with what was written when it went.
type Flights = HashMap<Question, (Ticket, watch::Receiver<Option<Flown>>)>;

/// What became of a question.
#[derive(Clone)]
enum Flown {
    Answer(Arc<Answer>),
    /// Another emberd has asked it.
    Kept(Arc<Answer>),
    /// Too long to be kept: whoever wants it asks for himself.
    Long,
    /// Phoenix has no such path: it answers with the page of its own application.
    Page,
    Trouble(Trouble),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Not reached, or broken off.
    Unreached,
    TimedOut,
    /// It sends elsewhere, which nobody follows.
    Redirects,
    /// It is not asked for now.
    Resting(Duration),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreached | Trouble::Resting(_) => Self::Unavailable("Phoenix does not answer"),
            Trouble::TimedOut => Self::TimedOut,
            Trouble::Redirects => Self::BadGateway("Phoenix sends elsewhere, where nobody follows"),
        }
    }
}

/// What is passed on of a request beside its body.
#[derive(Clone)]
struct Onward {
    method: Method,
    url: Url,
    headers: HeaderMap,
    role: &'static str,
}

impl Proxy {
    pub(crate) fn new(config: Config, caching: &Caching) -> std::io::Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(IMPATIENT)
            .pool_max_idle_per_host(AT_ONCE)
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self {
            answers: kept::answers(config.cache, caching),
            config,
            client,
            breaker: Mutex::new(Breaker::new(FAULTS_MAX, COOLDOWN)),
            places: Semaphore::new(AT_ONCE),
            flights: Mutex::default(),
            flying: Mutex::default(),
            asked: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        })
    }

    /// Where people look at Phoenix.
    pub(crate) fn public_url(&self) -> &Url {
        &self.config.public_url
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Phoenix's answer, its body still on the way.
    async fn send(&self, onward: &Onward, body: reqwest::Body) -> Result<reqwest::Response, Trouble> {
        self.breaker().admit(Instant::now().into_std(), PATIENT).map_err(Trouble::Resting)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let ask = async {
            // Never closed.
            let _place = self.places.acquire().await;
            let request =
                self.client.request(onward.method.clone(), onward.url.clone()).headers(onward.headers.clone());
            request.body(body).send().await
        };
        let outcome = match tokio::time::timeout(PATIENT, ask).await {
            Err(_) => Err(Trouble::TimedOut),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Phoenix is not reached");
                Err(Trouble::Unreached)
            }
            Ok(Ok(response)) if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED => {
                Err(Trouble::Redirects)
            }
            Ok(Ok(response)) => Ok(response),
        };
        let is_fault = match &outcome {
            Ok(response) => matches!(response.status().as_u16(), 502..=504),
            Err(trouble) => *trouble != Trouble::Redirects,
        };
        if is_fault {
            self.faults.fetch_add(1, Ordering::Relaxed);
            if self.breaker().fail(Instant::now().into_std()) {
                tracing::warn!("Phoenix does not answer: it is not asked for a while");
            }
        } else {
            self.breaker().succeed();
        }
        outcome
    }

    /// A whole answer, as long as it is short.
    async fn fetch(&self, onward: &Onward) -> Flown {
        let response = match self.send(onward, reqwest::Body::default()).await {
            Ok(response) => response,
            Err(trouble) => return Flown::Trouble(trouble),
        };
        let (status, headers) = (response.status(), passed(response.headers(), &ANSWER_HEADERS));
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/html") {
            return Flown::Page;
        }
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX as u64) {
            return Flown::Long;
        }
        let (mut body, mut pieces) = (Vec::new(), response.bytes_stream());
        loop {
            match tokio::time::timeout(PATIENT, pieces.next()).await {
                Ok(None) => return Flown::Answer(Arc::new(Answer { status, headers, body: body.into() })),
                Ok(Some(Ok(piece))) if body.len() + piece.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&piece),
                Ok(Some(Ok(_))) => return Flown::Long,
                Ok(Some(Err(_))) => return Flown::Trouble(Trouble::Unreached),
                Err(_) => return Flown::Trouble(Trouble::TimedOut),
            }
        }
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question that others may be asking, if it comes within `patience`; it is kept whenever it comes.
    async fn fly(self: &Arc<Self>, question: &Question, onward: Onward, patience: Duration) -> Flown {
        let mut flight = {
            let mut flights = self.flights();
            // One that went before something was written is for those who asked before it.
            match flights.get(question).filter(|(ticket, _)| !self.answers.is_past(ticket)) {
                Some((_, flight)) => flight.clone(),
                None if flights.len() >= FLIGHTS_MAX => return Flown::Trouble(Trouble::Resting(COOLDOWN)),
                None => {
                    let (told, flight) = watch::channel(None);
                    flights.insert(question.clone(), (self.answers.ticket(), flight.clone()));
                    let landing = Arc::clone(self).land(question.clone(), onward, told);
                    let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
                    while flying.try_join_next().is_some() {}
                    flying.spawn(landing);
                    flight
                }
            }
        };
        let landed = tokio::time::timeout(patience, flight.wait_for(Option::is_some)).await;
        landed.ok().and_then(Result::ok).and_then(|flown| flown.clone()).unwrap_or(Flown::Trouble(Trouble::TimedOut))
    }

    /// Asks, keeps the answer, and tells those who wait; the next one asks anew.
    async fn land(self: Arc<Self>, question: Question, onward: Onward, told: watch::Sender<Option<Flown>>) {
        let key = question.key();
        let (kept, ticket) = self.answers.find_far(&key, Duration::MAX).await;
        let flown = match kept {
            Some((Kept(answer), _)) => Flown::Kept(answer),
            None => self.fetch(&onward).await,
        };
        if let Flown::Answer(answer) = &flown
            && answer.status == StatusCode::OK
        {
            self.answers.keep(&key, Kept(Arc::clone(answer)), &ticket);
        }
        self.flights().remove(&question);
        told.send_replace(Some(flown));
    }

    async fn get(self: &Arc<Self>, onward: Onward) -> Result<Response, Refusal> {
        let accept = onward.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let target = onward.url.as_str().to_owned();
        let question = Question { role: onward.role, target, accept: accept.to_owned() };
        let stale = match self.answers.find(&question.key()) {
            Some(Found::Fresh(Kept(answer), _)) => return Ok(given(&answer, "hit")),
            Some(Found::Old(Kept(answer))) => Some(answer),
            None => None,
        };
        let patience = if stale.is_some() { IMPATIENT } else { PATIENT };
        let flown = self.fly(&question, onward.clone(), patience).await;
        self.answers.asked(matches!(flown, Flown::Kept(_)));
        match (flown, stale) {
            (Flown::Kept(answer), _) => Ok(given(&answer, "hit")),
            (Flown::Answer(answer), Some(stale)) if answer.status.is_server_error() => Ok(given(&stale, "stale")),
            (Flown::Answer(answer), _) => Ok(given(&answer, "miss")),
            (Flown::Page, _) => Err(Refusal::Missing("path")),
            (Flown::Long, _) => Ok(streamed(self.send(&onward, reqwest::Body::default()).await?)),
            (Flown::Trouble(_), Some(stale)) => Ok(given(&stale, "stale")),
            (Flown::Trouble(trouble), None) => Err(trouble.into()),
        }
    }

    async fn write(&self, onward: Onward, body: Body) -> Result<Response, Refusal> {
        let mut left = REQUEST_BYTES_MAX;
        let bounded = body.into_data_stream().map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            left = left.checked_sub(piece.len()).ok_or_else(|| std::io::Error::other("too long"))?;
            Ok::<_, std::io::Error>(piece)
        });
        // Also where the caller goes away meanwhile: Phoenix may have taken it.
        let _written = Written(&self.answers);
        Ok(streamed(self.send(&onward, reqwest::Body::wrap_stream(bounded)).await?))
    }

    /// How the way to Phoenix is doing.
    pub(crate) fn standing(&self) -> Value {
        json!({
            "healthy": !self.breaker().is_open(),
            "asked": self.asked.load(Ordering::Relaxed),
            "faults": self.faults.load(Ordering::Relaxed),
        })
    }
}

/// A write on its way. When it is over no answer counts any more, on any emberd: Phoenix alone knows what it changes.
struct Written<'p>(&'p Cache<Kept>);

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.0.forget_all("");
    }
}

fn passed(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let known = names.iter().filter_map(|name| Some((name.clone(), from.get(name)?.clone())));
    known.collect()
}

fn given(answer: &Answer, cache: &'static str) -> Response {
    let mut response = (answer.status, answer.headers.clone(), answer.body.clone()).into_response();
    response.headers_mut().insert(CACHE, HeaderValue::from_static(cache));
    response
}

/// An answer passed back as it comes, as long as it comes.
fn streamed(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), passed(answer.headers(), &ANSWER_HEADERS));
    let pieces = Box::pin(answer.bytes_stream());
    let bounded = stream::unfold((pieces, 0_u64), |(mut pieces, so_far)| async move {
        let piece = match tokio::time::timeout(PATIENT, pieces.next()).await {
            Ok(None) => return None,
            Ok(Some(piece)) => piece.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        let so_far = so_far + piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let is_long = so_far > ANSWER_STREAM_BYTES_MAX;
        Some((if is_long { Err(std::io::Error::other("longer than is passed on")) } else { piece }, (pieces, so_far)))
    });
    (status, headers, Body::from_stream(bounded)).into_response()
}

pub(crate) const READ: Contract =
    Contract::new("Asks Phoenix, as far as the caller may").answers(&[(200, Given::Anything)]).refuses(&[405, 502]);
pub(crate) const WRITE: Contract = Contract::new("Asks Phoenix, as far as the caller may")
    .body(contract::Body::Anything)
    .answers(&[(200, Given::Anything)]);

pub(crate) async fn pass(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let proxy = shared.proxy.as_ref().ok_or(Refusal::Missing("path"))?;
    let onward = onward(&shared, proxy, &caller, &request)?;
    if onward.method == Method::GET { proxy.get(onward).await } else { proxy.write(onward, request.into_body()).await }
}

fn onward(shared: &Shared, proxy: &Proxy, caller: &Caller, request: &Request) -> Result<Onward, Refusal> {
    let raw = request.uri().path().strip_prefix("/api/phoenix/").ok_or(Refusal::Missing("path"))?;
    let sought = Sought::parse(raw)?;
    sought.allowed(request.method(), caller)?;
    let mut url = proxy.config.url.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/{}", sought.raw()));
    url.set_query(request.uri().query());
    // What was checked is what is asked: a URL that reads it in another way is not asked at all.
    let is_there = url.origin() == proxy.config.url.origin() && url.path() == format!("{base}/{}", sought.raw());
    if !is_there {
        return Err(Refusal::invalid("path", "not a path of Phoenix's API"));
    }
    let mut headers = passed(request.headers(), &REQUEST_HEADERS);
    let is_admin = caller.may(Permission::Administer);
    let key = if is_admin { &proxy.config.admin_key } else { &proxy.config.member_key };
    let token = key.clone().or_else(|| match (caller, &shared.gate.sessions) {
        (Caller::User(user), Some(sessions)) => sessions.bridge_token(user, shared.clock.now()).map(|token| token.text),
        _ => None,
    });
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    if let Some(token) = token {
        put(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        put(HeaderName::from_static("x-forwarded-for"), peer.ip().to_string());
    }
    if let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) {
        put(HeaderName::from_static("x-original-host"), host.to_owned());
    }
    let role = if is_admin { "admin" } else { "member" };
    Ok(Onward { method: request.method().clone(), url, headers, role })
}
