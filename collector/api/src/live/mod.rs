//! Socket.IO: how evaluations go on and which traces are complete, told as it happens to whoever is connected.
//!
//! On the wire: Socket.IO v4 over WebSocket (<https://socket.io/docs/v4/socket-io-protocol/>), `io(url, {auth: {token}, transports:
//! ['websocket']})`. The server emits `evaluation:update`, `trace:complete`, each with an `eventId`, and `lagged {missed}` where a client
//! misses some. The client may emit `subscribe {promptId}` to hear of these prompts only, and `unsubscribe {promptId?}`; both are
//! acknowledged with `{promptIds}` or `{error}`. `auth.lastEventId` after a reconnect brings what came since; `auth.promptIds` narrows from
//! the start.
//! Promise: nobody is told anything before the token is believed ([`UNKNOWN_TIME`]); there are only so many connections
//! (`places`); a packet has [`PACKET_BYTES_MAX`] at most; a client that says more than [`WORDS`] is disconnected.
//! Not here: where events come from (`sources`), who hears which (`listener`), what is kept for those who were away (`hub`).
//! Kept by: `hub`, `places` (their tests), `daemon/tests/app/sockets.cjs`.

mod event;
mod hub;
mod listener;
mod pace;
mod places;
mod sources;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use emberd_identity::Caller;
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::{SocketIo, TransportType};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tower::util::{BoxCloneSyncService, MapResponse};
use uuid::Uuid;

pub(crate) use self::hub::Hub;
use self::listener::{Listener, PROMPTS_MAX, may_hear_any};
use self::places::{Full, Place, Places};
use self::sources::is_there;
pub(crate) use self::sources::run;
use crate::Shared;
use crate::contract::{Contract, Given};
use crate::limits::{Bucket, Rate, Whose};
use crate::permission::viewer;
use crate::refusal::Refusal;
use crate::sessions::{Shown, Stranger};
use crate::{gate, meter};

/// How long a socket may take to show its token.
const UNKNOWN_TIME: Duration = Duration::from_secs(5);
/// How often a client is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIME: Duration = Duration::from_secs(10);
const PACKET_BYTES_MAX: usize = 64 << 10;
/// Packets waiting for a client that does not read.
const QUEUE: usize = 64;
/// What a client may say: a hundred words, and ten more a second.
const WORDS: Rate = Rate { per_second: 10.0, burst: 100.0 };
/// Told to whoever shows a token that is not believed.
const UNAUTHORIZED: &str = "unauthorized";

/// All sockets.
pub(crate) struct Live {
    pub(crate) hub: Hub,
    io: SocketIo,
    service: BoxCloneSyncService<Request, Response, Infallible>,
    places: Places,
    /// A task for each socket that was let in.
    listeners: Mutex<JoinSet<()>>,
    refused: AtomicU64,
}

fn axum_body<B>(response: axum::http::Response<B>) -> Response
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    response.map(Body::new)
}

impl Live {
    pub(crate) fn new() -> Self {
        let (service, io) = SocketIo::builder()
            .transports([TransportType::Websocket])
            .connect_timeout(UNKNOWN_TIME)
            .ping_interval(PING_EVERY)
            .ping_timeout(PING_TIME)
            .max_payload(PACKET_BYTES_MAX as u64)
            .ws_max_message_size(PACKET_BYTES_MAX)
            .ws_max_frame_size(PACKET_BYTES_MAX)
            .max_buffer_size(QUEUE)
            .build_svc();
        let service = BoxCloneSyncService::new(MapResponse::new(service, axum_body));
        Self {
            hub: Hub::new(),
            io,
            service,
            places: Places::default(),
            listeners: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// Lets sockets in. They hold nothing of `shared` alive.
    pub(crate) fn open(shared: &Arc<Shared>) {
        let weak = Arc::downgrade(shared);
        let for_door = weak.clone();
        let door = move |socket: SocketRef, auth: TryData<Value>| {
            let shared = for_door.clone();
            async move { let_in(&shared, &socket, auth).await }
        };
        let inside = move |socket: SocketRef| {
            let shared = weak.clone();
            async move { listen(shared, socket) }
        };
        shared.live.io.ns("/", inside.with(door));
    }

    /// Ends all sockets.
    pub(crate) async fn close(&self) {
        self.io.close().await;
        let mut listeners = std::mem::take(&mut *self.listeners());
        listeners.shutdown().await;
    }

    fn listeners(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, listener: impl Future<Output = ()> + Send + 'static) {
        let mut listeners = self.listeners();
        while let Some(ended) = listeners.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a socket's task died");
            }
        }
        listeners.spawn(listener);
    }

    /// Appends how it goes, in Prometheus' text format.
    pub(crate) fn write(&self, out: &mut String) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let metrics = [
            ("emberd_sockets", "gauge", "Connections of sockets.", self.places.all() as u64),
            ("emberd_socket_events_total", "counter", "Events told to sockets.", count(&self.hub.told)),
            ("emberd_socket_lagged_total", "counter", "Times a socket missed events.", count(&self.hub.lagged)),
            (
                "emberd_socket_skipped_total",
                "counter",
                "Events that came too fast to be told.",
                count(&self.hub.skipped),
            ),
            ("emberd_socket_refused_total", "counter", "Sockets that were not let in.", count(&self.refused)),
        ];
        for (name, kind, help, value) in metrics {
            meter::metric(out, name, kind, help, value);
        }
    }
}

pub(crate) const CONNECT: Contract = Contract::new(
    "Socket.IO v4 over WebSocket, at `/socket.io/`: `evaluation:update` and `trace:complete`; the token goes into the client's `auth`",
)
.answers(&[(101, Given::Nothing), (400, Given::Anything)])
.refuses(&[404, 429, 503]);

/// `/socket.io/`: a connection becomes a socket; who is there is asked when it says its first word.
pub(crate) async fn connect(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    if !is_there(&shared) {
        return Refusal::Missing("path").into_response();
    }
    let from = Whose::stranger(gate::from(&request));
    let query = request.uri().query().unwrap_or_default();
    if query.split('&').any(|pair| pair.split('=').next() == Some("token")) {
        return Refusal::invalid("token", "belongs into the client's `auth`: addresses are written into logs")
            .into_response();
    }
    match shared.live.places.take(from) {
        Ok(place) => drop(request.extensions_mut().insert(Arc::new(place))),
        Err(full) => {
            shared.live.refused.fetch_add(1, Ordering::Relaxed);
            return match full {
                Full::All => Refusal::Unavailable("there are as many sockets as can be"),
                Full::Address => Refusal::TooOften(UNKNOWN_TIME),
            }
            .into_response();
        }
    }
    let Ok(response) = shared.live.service.clone().call(request).await;
    response
}

/// What a client says when it connects.
#[derive(Default)]
struct Auth {
    token: Option<String>,
    last_event: Option<event::Id>,
    prompts: Vec<Uuid>,
}

impl Auth {
    fn read(said: TryData<Value>) -> Self {
        let Ok(said) = said.0 else { return Self::default() };
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        let prompts = said.get("promptIds").and_then(Value::as_array);
        let prompts = prompts.into_iter().flatten().filter_map(|id| Uuid::try_parse(id.as_str()?).ok());
        Self {
            token: text("token").map(str::to_owned),
            last_event: text("lastEventId").and_then(|id| id.parse().ok()),
            prompts: prompts.take(PROMPTS_MAX).collect(),
        }
    }
}

/// The session of a socket: its token is believed, or the client hears `connect_error`.
async fn let_in(shared: &Weak<Shared>, socket: &SocketRef, auth: TryData<Value>) -> Result<(), &'static str> {
    let shared = shared.upgrade().ok_or("stopping")?;
    let auth = Auth::read(auth);
    let known = whose(&shared, auth.token.as_deref()).await.and_then(|caller| {
        if may_hear_any(&shared, &caller) { Ok(caller) } else { Err("there is nothing that you may hear of") }
    });
    let caller = known.inspect_err(|_| {
        shared.live.refused.fetch_add(1, Ordering::Relaxed);
    })?;
    if let Some(place) = socket.req_parts().extensions.get::<Arc<Place>>() {
        place.known();
    }
    let ends = match (&shared.gate.sessions, &auth.token) {
        (Some(sessions), Some(token)) => sessions.ends(&Shown(token), shared.clock.now()),
        _ => None,
    };
    let listener = Listener {
        caller: Mutex::new(caller),
        token: auth.token.filter(|_| shared.gate.sessions.is_some()),
        ends,
        last_event: auth.last_event,
        prompts: Mutex::new(auth.prompts.into_iter().collect()),
        gone: CancellationToken::new(),
    };
    socket.extensions.insert(Arc::new(listener));
    Ok(())
}

async fn whose(shared: &Shared, token: Option<&str>) -> Result<Caller, &'static str> {
    let Some(sessions) = &shared.gate.sessions else { return Ok(Caller::LocalAdministrator) };
    let shown = Shown(token.ok_or(UNAUTHORIZED)?);
    match sessions.user(&shared.store, &shown, shared.clock.now()).await {
        Ok(user) => Ok(Caller::User(user)),
        Err(Stranger::Unavailable(_)) => Err("who you are cannot be looked up now: try again"),
        Err(Stranger::Refused(_) | Stranger::Revoked) => Err(UNAUTHORIZED),
    }
}

/// A socket that was let in.
fn listen(shared: Weak<Shared>, socket: SocketRef) {
    let (Some(alive), Some(listener)) = (shared.upgrade(), socket.extensions.get::<Arc<Listener>>()) else {
        let _ = socket.disconnect();
        return;
    };
    let words = Arc::new(Mutex::new(Bucket::full(WORDS, Instant::now())));
    let heard = {
        let words = Arc::clone(&words);
        move |socket: &SocketRef| {
            let is_fine = words.lock().unwrap_or_else(PoisonError::into_inner).take(WORDS, Instant::now()).is_ok();
            if !is_fine {
                let _ = socket.clone().disconnect();
            }
            is_fine
        }
    };
    let (on_subscribe, on_unsubscribe, on_other) = (heard.clone(), heard.clone(), heard);
    let (weak, narrowed) = (shared.clone(), Arc::clone(&listener));
    socket.on("subscribe", move |socket: SocketRef, TryData::<Value>(said), ack: AckSender| {
        let (weak, listener, is_fine) = (weak.clone(), Arc::clone(&narrowed), on_subscribe(&socket));
        async move {
            if is_fine {
                let _ = ack.send(&told(subscribe(&weak, &listener, said.ok()).await, &listener));
            }
        }
    });
    let widened = Arc::clone(&listener);
    socket.on("unsubscribe", move |socket: SocketRef, TryData::<Value>(said), ack: AckSender| {
        let (listener, is_fine) = (Arc::clone(&widened), on_unsubscribe(&socket));
        async move {
            if is_fine {
                let _ = ack.send(&told(unsubscribe(&listener, said.ok()), &listener));
            }
        }
    });
    socket.on_fallback(move |socket: SocketRef| {
        on_other(&socket);
        async {}
    });
    let gone = listener.gone.clone();
    socket.on_disconnect(async move || gone.cancel());
    let joined = alive.live.hub.join(listener.last_event);
    alive.live.spawn(listener::run(shared, socket, listener, joined));
}

fn told(outcome: Result<(), &'static str>, listener: &Listener) -> Value {
    match outcome {
        Ok(()) => {
            let prompts: BTreeSet<Uuid> = listener.prompts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            json!({ "promptIds": prompts })
        }
        Err(error) => json!({ "error": error }),
    }
}

fn prompt_of(said: Option<&Value>) -> Result<Uuid, &'static str> {
    let id = said.and_then(|said| said.get("promptId")).and_then(Value::as_str);
    id.and_then(|id| Uuid::try_parse(id).ok()).ok_or("promptId: expected a UUID")
}

/// Only what is there and may be seen can be listened to.
async fn subscribe(shared: &Weak<Shared>, listener: &Listener, said: Option<Value>) -> Result<(), &'static str> {
    let prompt = prompt_of(said.as_ref())?;
    let shared = shared.upgrade().ok_or("stopping")?;
    let store = shared.store.seen_by(viewer(&listener.caller()));
    match store.prompt(prompt).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err("no such prompt"),
        Err(_) => return Err("the prompt cannot be looked up now: try again"),
    }
    let mut prompts = listener.prompts.lock().unwrap_or_else(PoisonError::into_inner);
    if prompts.len() >= PROMPTS_MAX && !prompts.contains(&prompt) {
        return Err("too many prompts: unsubscribe from some, or from all");
    }
    prompts.insert(prompt);
    Ok(())
}

fn unsubscribe(listener: &Listener, said: Option<Value>) -> Result<(), &'static str> {
    let names_one = said.as_ref().is_some_and(|said| said.get("promptId").is_some());
    let mut prompts = listener.prompts.lock().unwrap_or_else(PoisonError::into_inner);
    if names_one {
        prompts.remove(&prompt_of(said.as_ref())?);
    } else {
        prompts.clear();
    }
    Ok(())
}
