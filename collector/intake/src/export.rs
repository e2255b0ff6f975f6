//! What both doors do with a request once they have its bytes: walk, cut out what cannot be kept, redact, append, wait, answer.
//!
//! Promise: [`Intake::export`] says that spans were kept only after the log said that they are durable. When nothing is cut
//! out and no rule redacts, the log gets the request's own bytes.
//! Not here: reading and inflating bodies (`body`, `inflate`), the forms of answers (`grpc`, `http`).
//! Kept by: `tests/it/durability.rs`, `tests/it/fixtures.rs`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use emberd_log::{AppendError, Appender, Entry};
use emberd_model::wire::{self, Checked};
use emberd_model::{Clock, Flags, json};
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::append::{Append, Pending};
use crate::config::Config;
use crate::counters::{Counters, Transport};
use crate::in_flight::{Held, InFlight};
use crate::keys::Key;
use crate::redact::Redact;
use crate::refusal::Refusal;
use crate::senders::Senders;

/// A body of this size is rewritten on a thread that may take its time.
const BLOCKING_BYTES: usize = 128 << 10;
/// What rewriting takes beside the body: the protobuf form, which is smaller, and twice of it while its buffer grows.
const JSON_COST: usize = 2;
/// What a client is told about rejected spans, at most.
const REASONS_BYTES_MAX: usize = 1024;

/// What the doors share.
pub(crate) struct Intake {
    pub(crate) config: Config,
    pub(crate) senders: Senders,
    pub(crate) counters: Arc<Counters>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) appender: Arc<dyn Appender>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) strays: mpsc::UnboundedSender<Pending>,
    pub(crate) stopping: AtomicBool,
    pub(crate) serving: Arc<AtomicBool>,
}

/// How and when a request came, and when it must be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) transport: Transport,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
}

/// A request whose body may be read.
pub(crate) struct Admitted {
    from: Head,
    /// Its number in the log's entries; 0 if none was asked for.
    key: u16,
    sender: Option<Arc<Key>>,
}

/// The answer to a request that was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Spans that can never be kept; 0: all were.
    pub(crate) rejected: u32,
    /// Why.
    pub(crate) message: String,
}

impl Intake {
    /// Whether a request may be read at all; asked before a byte of its body is.
    pub(crate) fn admit(&self, from: Head, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        let mut admitted = Admitted { from, key: 0, sender: None };
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping);
        }
        if let Some(keys) = &self.senders.borrow().keys {
            let (number, key) = keys.check(headers)?;
            key.admit()?;
            admitted.key = number;
            admitted.sender = Some(Arc::clone(key));
        }
        Ok(admitted)
    }

    /// Takes an encoded `ExportTraceServiceRequest`; resolves when its spans are durable, or refused.
    pub(crate) async fn export(&self, admitted: &Admitted, body: Bytes, mut held: Held) -> Result<Answer, Refusal> {
        let limits = &self.config.limits;
        let checked = wire::check(&body, limits)?;
        let Head { transport, since, deadline } = admitted.from;
        self.counters.received_spans(transport, u64::from(checked.spans) + u64::from(checked.rejected));
        self.counters.rejected_spans(transport, checked.rejected);
        let answer = Answer::to(&checked);
        let Some(spans) = NonZeroU32::new(checked.spans) else { return Ok(answer) };
        if Instant::now() >= deadline {
            let late = Refusal::Deadline(deadline - since);
            self.counters.refused_spans(transport, late.verdict().reason, checked.spans);
            return Err(late);
        }
        if let Some(key) = &admitted.sender {
            key.spend(checked.spans);
        }
        let body = match checked.rejected {
            0 => body,
            _ => wire::without_rejected(&body, limits).into(),
        };
        let (body, flags) = match &self.config.redact {
            None => (body, checked.flags),
            Some(rules) => self.redacted(rules, body, &mut held).await.inspect_err(|refusal| {
                self.counters.refused_spans(transport, refusal.verdict().reason, checked.spans);
            })?,
        };
        let flags = flags.and(Flags::COUNTED);
        let entry = Entry { spans, received_at: self.clock.now(), key: admitted.key, flags, body };
        match self.append(transport, entry, held).await {
            Ok(_offset) => Ok(answer),
            Err(error) => {
                if let AppendError::Disk { .. } = &error {
                    tracing::error!(error = &error as &dyn std::error::Error, "spans refused, the log cannot write");
                }
                Err(Refusal::from(&error))
            }
        }
    }

    /// The spans as the rules want them, before the first byte of them is kept anywhere.
    async fn redacted(&self, rules: &Arc<Redact>, body: Bytes, held: &mut Held) -> Result<(Bytes, Flags), Refusal> {
        self.in_flight.grow(held, body.len().saturating_mul(2)).await?;
        let (rules, limits) = (Arc::clone(rules), self.config.limits);
        let blocking = body.len() >= BLOCKING_BYTES;
        let redact = move || {
            let redacted = rules.request(&body, &limits)?;
            Ok::<_, Refusal>((redacted.body.map_or(body, Bytes::from), redacted.flags))
        };
        let (body, flags) = match blocking {
            false => redact()?,
            true => tokio::task::spawn_blocking(redact).await.unwrap_or(Err(Refusal::Stopping))?,
        };
        self.in_flight.grow(held, body.len()).await?;
        held.shrink_to(body.len());
        Ok((body, flags))
    }

    fn append(&self, transport: Transport, entry: Entry, held: Held) -> Append {
        let spans = entry.spans.get();
        let appending = self.appender.append(entry);
        let pending = Pending { appending, _held: held, spans, transport, counters: Arc::clone(&self.counters) };
        Append::new(pending, self.strays.clone())
    }

    /// Rewrites OTLP/JSON as protobuf.
    pub(crate) async fn rewrite(&self, body: Bytes, mut held: Held) -> Result<(Bytes, Held), Refusal> {
        self.in_flight.grow(&mut held, body.len().saturating_mul(1 + JSON_COST)).await?;
        let blocking = body.len() >= BLOCKING_BYTES;
        // `held` goes along, so that the bytes stay paid for if the client leaves meanwhile.
        let rewrite = move || {
            let rewritten = json::to_protobuf(&body)?;
            held.shrink_to(rewritten.len());
            Ok((rewritten.into(), held))
        };
        if !blocking {
            return rewrite();
        }
        // Only a runtime that shuts down gives up on it.
        tokio::task::spawn_blocking(rewrite).await.unwrap_or(Err(Refusal::Stopping))
    }
}

impl Answer {
    fn to(checked: &Checked) -> Self {
        if checked.rejected == 0 {
            return Self::default();
        }
        let all = u64::from(checked.spans) + u64::from(checked.rejected);
        let mut message = format!("{} of {all} spans cannot be kept", checked.rejected);
        for (at, reason) in checked.reasons.iter().enumerate() {
            if message.len() + reason.len() > REASONS_BYTES_MAX {
                break;
            }
            message.push_str(if at == 0 { ": " } else { "; " });
            message.push_str(reason);
        }
        Self { rejected: checked.rejected, message }
    }
}

#[cfg(test)]
mod tests;
