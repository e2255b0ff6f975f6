//! Other emberds on the same PostgreSQL: one line to them for all who have something to tell or to hear, and caches that forget together.
//!
//! Promise: what a write here lets count no more is forgotten there within a moment, where no Redis does that already; what could not be told,
//! or may not have been heard, is everything: then all is forgotten. No request waits for any of it.
//! Not here: how a message goes ([`emberd_store::told`]), sockets' events (`live::sources`), Redis (`emberd-cache`).
//! Kept by: `daemon/tests/it/redis.rs`: `without_a_redis_the_database_tells_what_to_forget`; `daemon/tests/app/sockets.cjs`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use emberd_cache::{Pattern, State};
use emberd_store::Store;
use emberd_store::told::{Heard, Others, Voice};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::Shared;

/// The topic under which emberds tell each other what caches are to forget: a pattern, or [`ALL`].
pub const FORGET: &str = "forget";
/// Everything, in every cache.
pub const ALL: &str = "*";
/// Messages that a listener may lag behind; who lags more has missed some.
const HEARD_MAX: usize = 1_024;
/// A database that hangs must not keep those here from going on.
const TELL_TIME: Duration = Duration::from_millis(500);
/// How long after what could not be told it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The line.
pub(crate) struct Neighbours {
    heard: broadcast::Sender<Heard>,
    voice: Voice,
    /// Until it runs.
    line: Mutex<Option<Others>>,
    can_be: bool,
}

impl Neighbours {
    pub(crate) fn new(store: &Store) -> Self {
        let others = store.others();
        Self {
            heard: broadcast::Sender::new(HEARD_MAX),
            voice: others.voice(),
            can_be: others.can_be(),
            line: Mutex::new(Some(others)),
        }
    }

    /// Whether there can be any: a file has one emberd.
    pub(crate) fn can_be(&self) -> bool {
        self.can_be
    }

    /// What they say from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// Tells them; whether they could be told.
    pub(crate) async fn tell(&self, topic: &str, messages: &[String]) -> bool {
        if messages.is_empty() || !self.can_be {
            return true;
        }
        match tokio::time::timeout(TELL_TIME, self.voice.tell(topic, messages)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::debug!(%error, topic, "other emberds could not be told"),
            Err(_) => tracing::debug!(topic, "other emberds could not be told in time"),
        }
        false
    }

    /// Hears them until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut line) = line.filter(|_| self.can_be) else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // Nobody may listen.
                heard = line.next() => drop(self.heard.send(heard)),
            }
        }
    }
}

/// What came, told of a lag as of what was missed.
pub(crate) async fn heard(from: &mut broadcast::Receiver<Heard>) -> Heard {
    match from.recv().await {
        Ok(heard) => heard,
        Err(RecvError::Lagged(_)) => Heard::Missed,
        // The line is held for as long as anybody is.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

/// Lets the caches here and there forget together, until `stop`. Where there is a Redis, it does that.
pub(crate) async fn forget_together(shared: &Shared, stop: &CancellationToken) {
    let neighbours = &shared.neighbours;
    if !neighbours.can_be() || shared.caches.state() != State::Absent {
        return;
    }
    let (mut said, mut from) = (shared.caches.said(), neighbours.listen());
    let mut is_untold = false;
    loop {
        let again = async { if is_untold { tokio::time::sleep(AGAIN).await } else { std::future::pending().await } };
        let pattern = tokio::select! {
            () = stop.cancelled() => return,
            heard = heard(&mut from) => {
                forget(shared, &heard);
                continue;
            }
            said = said.recv() => match said {
                Ok(pattern) => pattern.to_string(),
                Err(_) => ALL.to_owned(),
            },
            () = again => ALL.to_owned(),
        };
        is_untold = !neighbours.tell(FORGET, &[if is_untold { ALL.to_owned() } else { pattern }]).await;
    }
}

fn forget(shared: &Shared, heard: &Heard) {
    match heard {
        Heard::Missed => shared.caches.hear_all(),
        Heard::Message { topic, body } if topic == FORGET => match Pattern::parse(body) {
            Some(pattern) => shared.caches.hear(&pattern),
            None => shared.caches.hear_all(),
        },
        Heard::Message { .. } => {}
    }
}
