//! What every request passes, in one place: the outer gate that all pass ([`front`]), and the one at each route ([`guard`]).
//!
//! Order: host, session, origin, permission, rate limit, answer, access log, which has the refusals too. Promise: a handler runs only
//! for a caller who may, and not oftener than it may; every answer carries the headers that keep browsers from guessing, framing and
//! storing it.
//! Not here: which permission a route asks for (`routes.rs`), whom a token names (`sessions.rs`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use emberd_identity::Caller;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::flags::{Flags, Part};
use crate::hops::{self, Network};
use crate::limits::{Limits, Rate, Whose};
use crate::meter::NO_ROUTE;
use crate::permission::{self, Asked, may, viewer};
use crate::refusal::Refusal;
use crate::sessions::{Sessions, Shown, Stranger};
use crate::usage::Call;
use crate::{Callers, Config, Shared, Tuning};

/// No answer takes longer, the reading of the body included.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// On every answer: it is what its type says, is shown in nobody's frame, runs nothing, and is kept by no cache.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    // Browsers mind it where they came by TLS.
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
];

/// The methods and headers that pages of a listed origin may use.
const CORS_METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const CORS_HEADERS: &str = "authorization, content-type, idempotency-key, traceparent";
const CORS_SECONDS: &str = "600";

/// What callers that are nobody may ask from one address before they are told to wait; health and the login do not count.
const STRANGERS: Rate = Rate { per_second: 20.0, burst: 100.0 };
/// What scrapers and probes ask every few seconds is no use of the API.
const UNLOGGED: [&str; 3] = ["healthz", "readyz", "metrics"];

/// What the gate is told.
pub(crate) struct Gate {
    /// None: every caller is the local administrator.
    pub(crate) sessions: Option<Sessions>,
    /// Of users, by profile.
    users: Option<Limits>,
    /// Of callers that are nobody, by address.
    strangers: Limits,
    tuned: watch::Sender<Arc<Tuned>>,
    /// Bound to loopback: a name that leads there from a browser must be a loopback name, or some other site's page has made
    /// its own name lead here (DNS rebinding) and would count as the same origin.
    loopback: bool,
}

/// What may change while requests pass: each goes by what there was when it asked.
struct Tuned {
    flags: Flags,
    origins: Vec<String>,
    trusted: Vec<Network>,
}

/// Who calls could not be found out, and why.
#[derive(Clone)]
struct Unsure(Arc<Refusal>);

/// From where a request comes: [`hops`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct From(pub(crate) IpAddr);

/// Which route answered.
#[derive(Clone, Copy)]
struct Operation(&'static str);

impl Gate {
    pub(crate) fn new(config: Config, address: SocketAddr) -> Self {
        let Config { callers, cors: origins, rate, flags, trusted, caches, .. } = config;
        let (sessions, users) = match callers {
            Callers::LocalAdministrator => (None, None),
            Callers::Tokens(identity) => (Some(Sessions::new(*identity, &caches)), Some(Limits::new(rate))),
        };
        Self {
            sessions,
            users,
            strangers: Limits::new(STRANGERS),
            tuned: watch::Sender::new(Arc::new(Tuned { flags, origins, trusted })),
            loopback: address.ip().is_loopback(),
        }
    }

    /// Which parts are there now, and for whom.
    pub(crate) fn flags(&self) -> Flags {
        self.tuned.borrow().flags
    }

    /// From now on requests are let in by this. Who is known by tokens stays known by tokens, and who is not, not: an identity where there is
    /// none changes nothing.
    pub(crate) fn tune(&self, tuning: Tuning) {
        let Tuning { flags, cors: origins, trusted, rate, identity } = tuning;
        self.tuned.send_replace(Arc::new(Tuned { flags, origins, trusted }));
        if let Some(users) = &self.users {
            users.set(rate);
        }
        if let (Some(sessions), Some(identity)) = (&self.sessions, identity) {
            sessions.set(identity);
        }
    }

    fn host(&self, request: &Request) -> Result<Authority, Refusal> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let (first, second) = (named.next(), named.next());
        if second.is_some() {
            return Err(Refusal::Host);
        }
        let named: Option<Authority> = first.and_then(|host| host.to_str().ok()?.parse().ok());
        // In the absolute form both are there, and the line counts; a rebound name may stand in neither.
        let line = request.uri().authority().cloned();
        let hosts = [line, named];
        if self.loopback && hosts.iter().flatten().any(|host| !is_loopback(host)) {
            return Err(Refusal::Host);
        }
        hosts.into_iter().flatten().next().ok_or(Refusal::Host)
    }

    /// Who calls; `Err` where that cannot be known now. A token that is not believed is told like none at all, and counted against the
    /// address it came from.
    async fn session(&self, shared: &Shared, headers: &HeaderMap, from: IpAddr) -> Result<Caller, Refusal> {
        let Some(sessions) = &self.sessions else { return Ok(Caller::LocalAdministrator) };
        let Some(shown) = Shown::of(headers) else { return Ok(Caller::Nobody) };
        match sessions.user(&shared.store, &shown, shared.clock.now()).await {
            Ok(user) => Ok(Caller::User(user)),
            Err(Stranger::Unavailable(error)) => Err((&*error).into()),
            Err(Stranger::Refused(why)) => {
                tracing::info!(%from, %why, "a token is not believed");
                Ok(Caller::Nobody)
            }
            Err(Stranger::Revoked) => {
                tracing::info!(%from, "a token was ended before");
                Ok(Caller::Nobody)
            }
        }
    }

    /// Takes one from the caller's bucket. Health is asked by those who are nobody, and is never refused for its pace.
    fn pace(&self, caller: &Caller, from: IpAddr) -> Result<(), Refusal> {
        let taken = match (caller, &self.users) {
            (Caller::User(user), Some(users)) => users.take(Whose::User(user.id)),
            (Caller::Nobody, _) => self.strangers.take(Whose::stranger(from)),
            _ => Ok(()),
        };
        taken.map_err(Refusal::TooOften)
    }

    fn origin(&self, headers: &HeaderMap, host: &Authority) -> Origin {
        let Some(value) = headers.get(header::ORIGIN) else { return Origin::None };
        let Ok(origin) = value.to_str() else { return Origin::Foreign };
        let own = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        if own.is_some_and(|own| own.eq_ignore_ascii_case(host.as_str())) {
            return Origin::None;
        }
        if self.tuned.borrow().origins.iter().any(|listed| listed == origin) {
            Origin::Listed(value.clone())
        } else {
            Origin::Foreign
        }
    }
}

/// Where the page comes from that makes the request.
enum Origin {
    /// No page of another site.
    None,
    /// A page that may.
    Listed(HeaderValue),
    /// A page that may not.
    Foreign,
}

fn is_loopback(host: &Authority) -> bool {
    let name = host.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(name == "localhost" || name.ends_with(".localhost"), |address| address.is_loopback())
}

/// The outer gate.
pub(crate) async fn front(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let gate = &shared.gate;
    let from = hops::origin(peer(&request), request.headers(), &gate.tuned.borrow().trusted);
    request.extensions_mut().insert(From(from));
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(256).collect();

    let mut caller = Caller::Nobody;
    let (origin, answer) = match gate.host(&request) {
        Err(refusal) => (Origin::None, Err(refusal)),
        Ok(host) => {
            match gate.session(&shared, request.headers(), from).await {
                Ok(known) => caller = known,
                // Told by the routes that ask who calls: health does not.
                Err(refusal) => drop(request.extensions_mut().insert(Unsure(Arc::new(refusal)))),
            }
            match gate.origin(request.headers(), &host) {
                Origin::Foreign => (Origin::Foreign, Err(Refusal::Origin)),
                origin @ Origin::Listed(_) if is_preflight(&request) => (origin, Ok(preflight())),
                origin => {
                    request.extensions_mut().insert(viewer(&caller));
                    request.extensions_mut().insert(caller.clone());
                    let answer = tokio::time::timeout(ANSWER_TIME_MAX, next.run(request)).await;
                    (origin, answer.map_err(|_| Refusal::TimedOut))
                }
            }
        }
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    dress(response.headers_mut(), origin);

    let status = response.status();
    let took = began.elapsed();
    let operation = response.extensions().get::<Operation>().map_or(NO_ROUTE, |operation| operation.0);
    if operation == NO_ROUTE {
        shared.meter.answered(NO_ROUTE, status, took);
    }
    access_log(&format!("{method} {path}"), operation, status, &caller, from, took);
    if !UNLOGGED.contains(&operation) {
        shared.usage.note(Call::new(&caller, method, path, status, took, shared.clock.now()));
    }
    response
}

/// Who is at the other end of the connection.
fn peer(request: &Request) -> IpAddr {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
}

pub(crate) fn from(request: &Request) -> IpAddr {
    request.extensions().get::<From>().map_or_else(|| peer(request), |from| from.0)
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, CORS_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, CORS_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn dress(headers: &mut HeaderMap, origin: Origin) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Origin::Listed(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn access_log(line: &str, operation: &str, status: StatusCode, caller: &Caller, from: IpAddr, took: Duration) {
    let (status, caller, ms) = (status.as_u16(), permission::name(caller), took.as_millis());
    if status >= 500 {
        tracing::warn!(operation, status, caller, %from, ms, "failed: {line}");
    } else if status >= 400 || !line.starts_with("GET ") {
        tracing::info!(operation, status, caller, %from, ms, "answered: {line}");
    } else {
        // Dashboards and scrapers ask every few seconds.
        tracing::debug!(operation, status, caller, %from, ms, "answered: {line}");
    }
}

/// The gate at a route.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) permission: Asked,
    /// Which part of the API it belongs to; none: it is always there.
    pub(crate) part: Option<Part>,
    pub(crate) operation: &'static str,
}

/// Lets a caller through who may, and measures the answer.
pub(crate) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard { shared, permission, part, operation } = guard;
    let began = Instant::now();
    let active = shared.meter.begin(operation);
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Nobody);
    let paced = if permission.is_some() { shared.gate.pace(&caller, from(&request)) } else { Ok(()) };
    let is_out = caller.is_known() && part.is_some_and(|part| !shared.gate.flags().let_in(part, &caller));
    let unsure = request.extensions().get::<Unsure>().map(|unsure| unsure.0.told());
    let mut response = match (may(&caller, permission), caller.is_known(), paced) {
        (_, _, Ok(())) if is_out => Refusal::Missing("path").into_response(),
        (true, _, Ok(())) => next.run(request).await,
        (true, _, Err(refusal)) => refusal.into_response(),
        (false, true, _) => Refusal::Forbidden.into_response(),
        (false, false, Ok(())) => unsure.unwrap_or_else(|| Refusal::Unknown.into_response()),
        (false, false, Err(refusal)) => refusal.into_response(),
    };
    drop(active);
    shared.meter.answered(operation, response.status(), began.elapsed());
    response.extensions_mut().insert(Operation(operation));
    response
}

/// What a path without a route hears. Who may not know anything does not learn which paths there are.
pub(crate) async fn unknown_path(axum::Extension(caller): axum::Extension<Caller>) -> Refusal {
    if caller.is_known() { Refusal::Missing("path") } else { Refusal::Unknown }
}

/// What a path hears that has a route, but not for this method.
pub(crate) async fn unknown_method(axum::Extension(caller): axum::Extension<Caller>) -> Refusal {
    if caller.is_known() { Refusal::Method } else { Refusal::Unknown }
}
