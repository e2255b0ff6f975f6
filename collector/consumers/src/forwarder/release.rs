//! What someone decided about quarantined spans: sent once more, or given up.
//!
//! Promise: an item that is released is booked once, in the step that names it, before its files go, and not before the durable cursor has
//! passed it, with which it is booked as put aside; one that the endpoint still does not keep stays, with its new answer. One at a
//! time, beside what is sent otherwise.
//! Kept by: `daemon/tests/it/quarantine.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::ledger::{Fate, Reason, Runs};
use emberd_model::wire;
use emberd_phoenix::Client;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::courier::Courier;
use super::load::{Load, Part};
use super::source::Source;
use crate::quarantine::{DROPPED, Decision, Item};

/// How often decisions are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a span that was sent once more may take to be seen in Phoenix, and how often it is looked for.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
const SEEN_EVERY: Duration = Duration::from_millis(500);

/// An item, done with or not.
pub(super) struct Tried {
    item: Item,
    /// What it is booked as; or why it stays.
    came_to: Result<Fate, String>,
}

type Trying = BoxFuture<'static, Option<Tried>>;

/// The decisions of one consumer, as they are done.
pub(super) struct Releases {
    consumer: String,
    courier: Arc<Courier>,
    /// Set where what was sent is read back.
    client: Option<Arc<Client>>,
    trying: Option<Trying>,
    look_at: Instant,
}

impl Releases {
    pub(super) fn new(consumer: &str, courier: Arc<Courier>, client: Option<Arc<Client>>) -> Self {
        Self { consumer: consumer.to_owned(), courier, client, trying: None, look_at: Instant::now() }
    }

    /// The next item that is done with. Cancel-safe; never ends by itself.
    pub(super) async fn next(&mut self) -> Tried {
        loop {
            if self.trying.is_none() {
                tokio::time::sleep_until(self.look_at).await;
                self.look_at = Instant::now() + LOOK_EVERY;
                self.trying = Some(Box::pin(next(self.consumer.clone(), self.courier.clone(), self.client.clone())));
            }
            if let Some(trying) = &mut self.trying {
                let tried = trying.await;
                self.trying = None;
                if let Some(tried) = tried {
                    return tried;
                }
            }
        }
    }

    /// Books it, and then lets its files go.
    pub(super) async fn settle(&mut self, tried: Tried, source: &mut Source) {
        let Tried { item, came_to } = tried;
        let done = match came_to {
            Ok(fate) => {
                let tally = item.released(&fate, &source.progress.book());
                if !source.release(&item.name(), tally).await {
                    return;
                }
                tracing::info!(consumer = %self.consumer, item = item.name(), spans = item.spans, "released from quarantine");
                self.courier.quarantine().remove(&self.consumer, &item.name())
            }
            Err(answer) => {
                tracing::warn!(consumer = %self.consumer, item = item.name(), answer, "it stays in quarantine");
                self.courier.quarantine().stays(&item, &answer)
            }
        };
        if let Err(error) = done {
            source.progress.failed("quarantine", &error);
        }
        self.look_at = Instant::now();
    }
}

async fn next(consumer: String, courier: Arc<Courier>, client: Option<Arc<Client>>) -> Option<Tried> {
    let found = read(&courier, &consumer).await;
    let (item, decision, body) = match found {
        Ok(found) => found?,
        Err(error) => {
            courier.progress().failed("quarantine", &error);
            return None;
        }
    };
    let came_to = match decision {
        Decision::Drop => Ok(Fate::Shed(Reason::new(DROPPED))),
        Decision::Retry => once_more(&courier, client.as_deref(), &item, body).await,
    };
    Some(Tried { item, came_to })
}

async fn read(courier: &Courier, consumer: &str) -> io::Result<Option<(Item, Decision, bytes::Bytes)>> {
    let (quarantine, consumer) = (courier.quarantine().clone(), consumer.to_owned());
    let cursor = courier.progress().book().cursor();
    let reading = tokio::task::spawn_blocking(move || {
        // What is put aside is booked when the cursor passes it, which a crash may have kept from happening.
        let mut booked = quarantine.decided(&consumer)?.into_iter().filter(|(item, _)| item.at() < cursor);
        let Some((item, decision)) = booked.next() else { return Ok(None) };
        let body = quarantine.body(&item)?;
        Ok(Some((item, decision, body)))
    });
    reading.await.map_err(io::Error::other)?
}

/// Sends an item's spans as they came, which the courier mends where that helps.
async fn once_more(
    courier: &Courier,
    client: Option<&Client>,
    item: &Item,
    body: bytes::Bytes,
) -> Result<Fate, String> {
    let ids: Vec<_> = wire::spans(&body).map(|found| (found.span.trace_id, found.span.span_id)).collect();
    let part = Part { body, first: item.at(), spans: ids.len() as u64, accounts: Runs::default() };
    let delivered = courier.deliver_again(Load::from(part)).await;
    if let Some((_, reason)) = delivered.aside.first() {
        return Err(format!("tried again: {reason}"));
    }
    let Some(client) = client else { return Ok(Fate::Done) };
    let spans: Vec<_> = ids.iter().map(|(_, span)| *span).collect();
    let until = Instant::now() + SEEN_WITHIN;
    loop {
        if let Ok(held) = client.whereabouts(&spans).await {
            if ids.iter().all(|(trace, span)| held.get(span) == Some(trace)) {
                return Ok(Fate::Done);
            }
            if let Some((_, span)) = ids.iter().find(|(trace, span)| held.get(span).is_some_and(|under| under != trace))
            {
                return Err(format!("tried again: phoenix holds span {span} under another trace"));
            }
        }
        if Instant::now() > until {
            return Err("tried again: acknowledged, and not stored within a minute".to_owned());
        }
        tokio::time::sleep(SEEN_EVERY).await;
    }
}
