//! One socket: what it wants to hear, what it may, and how long it stays.
//!
//! Promise: an event goes to a socket only while its token counts and its user may read what the event is about. A client that does not
//! read has at most [`super::QUEUE`] packets waiting; beyond that events wait in the hub, the oldest go, `lagged` tells how many, and
//! after [`STALL_MAX`] of no reading it is disconnected. It ends when its token ends or is ended.
//! Kept by: `daemon/tests/app/sockets.cjs`, `daemon/tests/it/slow_socket.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use emberd_identity::{Caller, Permission};
use emberd_model::UnixNanos;
use serde_json::json;
use socketioxide::SendError;
use socketioxide::extract::SocketRef;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::event::{Event, Id, Kind};
use super::hub::{Batch, Joined};
use crate::Shared;
use crate::flags::Part;
use crate::permission::may;
use crate::sessions::Shown;

/// How often it is asked whether the token still counts.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How often the user is looked up again, for a role may have changed.
const LOOK_UP_EVERY: u32 = 15;
/// How long a client may read nothing.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long a full queue is given before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Prompts that a socket can name.
pub(super) const PROMPTS_MAX: usize = 100;

/// Who is at the other end.
pub(crate) struct Listener {
    pub(super) caller: Mutex<Caller>,
    pub(super) token: Option<String>,
    /// When the token ends by itself.
    pub(super) ends: Option<UnixNanos>,
    /// The last event that the client heard before.
    pub(super) last_event: Option<Id>,
    /// Only events of these; none: of all.
    pub(super) prompts: Mutex<BTreeSet<Uuid>>,
    pub(super) gone: CancellationToken,
}

/// Why a socket is ended.
enum End {
    Gone,
    Token,
    Stalled,
}

impl Listener {
    pub(super) fn caller(&self) -> Caller {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wants(&self, event: &Event) -> bool {
        let prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        prompts.is_empty() || prompts.contains(&event.prompt)
    }

    /// Whether the token still counts; every now and then its user is looked up again.
    async fn is_in(&self, shared: &Shared, checks: u32) -> bool {
        let (Some(sessions), Some(token)) = (&shared.gate.sessions, &self.token) else { return true };
        let now = shared.clock.now();
        if self.ends.is_some_and(|ends| ends <= now) || sessions.is_ended(&Shown(token)) {
            return false;
        }
        if checks.is_multiple_of(LOOK_UP_EVERY) {
            match sessions.user(&shared.store, &Shown(token), now).await {
                Ok(user) => *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Caller::User(user),
                // What was known counts for as long as nobody can say otherwise.
                Err(crate::sessions::Stranger::Unavailable(_)) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// What this caller may hear of.
fn may_hear(shared: &Shared, caller: &Caller, kind: Kind) -> bool {
    let (permission, part) = match kind {
        Kind::Evaluation => (Permission::ReadEvaluations, Part::Evaluations),
        Kind::Trace => (Permission::ReadTraces, Part::Traces),
    };
    may(caller, Some(permission)) && shared.gate.flags().let_in(part, caller)
}

/// Whether there is anything that this caller may hear of.
pub(super) fn may_hear_any(shared: &Shared, caller: &Caller) -> bool {
    [Kind::Evaluation, Kind::Trace].into_iter().any(|kind| may_hear(shared, caller, kind))
}

/// Tells a socket what it is to hear, until it is gone.
pub(super) async fn run(shared: Weak<Shared>, socket: SocketRef, listener: Arc<Listener>, joined: Joined) {
    if let Some(live) = shared.upgrade() {
        live.live.hub.sockets().send_modify(|count| *count += 1);
    }
    let end = until_end(&shared, &socket, &listener, joined).await;
    if !matches!(end, End::Gone) {
        let why = if matches!(end, End::Token) { "unauthorized" } else { "too slow" };
        disconnect(&socket, &listener, why).await;
    }
    if let Some(live) = shared.upgrade() {
        live.live.hub.sockets().send_modify(|count| *count = count.saturating_sub(1));
    }
}

async fn until_end(shared: &Weak<Shared>, socket: &SocketRef, listener: &Listener, joined: Joined) -> End {
    let Joined { missed, is_gap, mut next } = joined;
    let mut lagged = Lagged { is_unknown: is_gap, ..Lagged::default() };
    let first = Batch { events: missed, skipped: 0 };
    if let Err(end) = tell(shared, socket, listener, &first, &mut lagged).await {
        return end;
    }
    let mut check = tokio::time::interval(CHECK_EVERY);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checks = 0;
    loop {
        let batch = tokio::select! {
            () = listener.gone.cancelled() => return End::Gone,
            _ = check.tick() => {
                checks += 1;
                let Some(shared) = shared.upgrade() else { return End::Gone };
                if !listener.is_in(&shared, checks).await {
                    return End::Token;
                }
                continue;
            }
            batch = next.recv() => batch,
        };
        let told = match batch {
            Ok(batch) => tell(shared, socket, listener, &batch, &mut lagged).await,
            Err(RecvError::Closed) => return End::Gone,
            Err(RecvError::Lagged(_)) => {
                // Batches are gone, and with them how many events they had.
                lagged.is_unknown = true;
                Ok(())
            }
        };
        if let Err(end) = told {
            return end;
        }
    }
}

/// Disconnects, as soon as that can be told: a queue that stays full ends with the library's own heartbeat.
async fn disconnect(socket: &SocketRef, listener: &Listener, why: &str) {
    let mut is_told = false;
    while !listener.gone.is_cancelled() && socket.connected() {
        is_told = is_told || socket.emit("ended", &json!({"reason": why})).is_ok();
        if is_told && socket.clone().disconnect().is_ok() {
            return;
        }
        tokio::select! {
            () = listener.gone.cancelled() => return,
            () = tokio::time::sleep(FULL_PAUSE) => {}
        }
    }
}

/// What a socket did not hear, and has yet to hear of.
#[derive(Default)]
struct Lagged {
    missed: u64,
    is_unknown: bool,
}

async fn tell(
    shared: &Weak<Shared>,
    socket: &SocketRef,
    listener: &Listener,
    batch: &Batch,
    lagged: &mut Lagged,
) -> Result<(), End> {
    let Some(shared) = shared.upgrade() else { return Err(End::Gone) };
    lagged.missed += batch.skipped;
    if lagged.missed > 0 || lagged.is_unknown {
        let missed = if lagged.is_unknown { None } else { Some(lagged.missed) };
        send(socket, listener, "lagged", &json!({"missed": missed})).await?;
        shared.live.hub.lagged.fetch_add(1, Ordering::Relaxed);
        *lagged = Lagged::default();
    }
    if batch.events.is_empty() {
        return Ok(());
    }
    let caller = listener.caller();
    let hears = |kind| may_hear(&shared, &caller, kind);
    let (evaluations, traces) = (hears(Kind::Evaluation), hears(Kind::Trace));
    for event in &batch.events {
        let may = if event.kind == Kind::Evaluation { evaluations } else { traces };
        if may && listener.wants(event) {
            send(socket, listener, event.kind.name(), &event.body).await?;
            shared.live.hub.told.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Puts a packet into the socket's queue, and waits while that is full.
async fn send(socket: &SocketRef, listener: &Listener, event: &str, body: &serde_json::Value) -> Result<(), End> {
    let began = Instant::now();
    loop {
        match socket.emit(event, body) {
            Ok(()) => return Ok(()),
            Err(SendError::Socket(socketioxide::SocketError::InternalChannelFull)) => {}
            Err(_) => return Err(End::Gone),
        }
        if began.elapsed() > STALL_MAX {
            return Err(End::Stalled);
        }
        tokio::select! {
            () = listener.gone.cancelled() => return Err(End::Gone),
            () = tokio::time::sleep(FULL_PAUSE) => {}
        }
    }
}
