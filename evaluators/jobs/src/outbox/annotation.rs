//! Scores of traces as Phoenix's annotations.
//!
//! The identifier is `emberd:` and the rule's name, so that a newer score takes the older one's place. None is sent before the forwarder saw
//! the trace's spans in Phoenix.

use std::collections::HashSet;

use emberd_model::Offset;
use emberd_phoenix::annotations::{Annotation, Target};
use emberd_phoenix::experiments::{Annotator, Judgement};
use emberd_store::jobs::Outgoing;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Inner, MISSES_MAX, STRIKES_MAX, Trouble};

/// An annotation as it stands in the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Annotated {
    /// span, trace or session.
    pub(crate) level: String,
    /// Which.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) identifier: String,
    /// Whether a model judged.
    pub(crate) is_llm: bool,
    pub(crate) judgement: Judgement,
    pub(crate) metadata: Map<String, Value>,
    /// The place after the last of the trace's spans in the log.
    pub(crate) after: u64,
}

impl Annotated {
    fn annotation(self) -> Option<Annotation> {
        let target = match &*self.level {
            "span" => Target::Span(self.id.parse().ok()?),
            "trace" => Target::Trace(self.id.parse().ok()?),
            "session" => Target::Session(self.id),
            _ => return None,
        };
        Some(Annotation {
            target,
            name: self.name,
            annotator: if self.is_llm { Annotator::Llm } else { Annotator::Code },
            judgement: self.judgement,
            metadata: self.metadata,
            identifier: self.identifier,
        })
    }
}

impl Inner {
    /// Tells annotations whose spans are in Phoenix, and puts off the others.
    pub(super) async fn annotations(&self, rows: Vec<Outgoing>) -> Result<(), Trouble> {
        let mut ready = Vec::new();
        for row in rows {
            match Annotated::deserialize(&row.body).ok() {
                Some(body) if !self.verified.is_past(Offset(body.after)) => {
                    let waited = u32::try_from(row.attempts).unwrap_or(u32::MAX);
                    self.later(&row, self.pause(waited)).await?;
                }
                Some(body) => match body.annotation() {
                    Some(annotation) => ready.push((row, annotation)),
                    None => self.refuse(&row, "its target has no id that can be read").await?,
                },
                None => self.refuse(&row, "it cannot be read").await?,
            }
        }
        self.annotate(ready).await
    }

    async fn annotate(&self, ready: Vec<(Outgoing, Annotation)>) -> Result<(), Trouble> {
        if ready.is_empty() {
            return Ok(());
        }
        for (row, annotation) in &ready {
            self.describe_of_rule(&row.key, &annotation.name).await;
        }
        let annotations: Vec<Annotation> = ready.iter().map(|(_, annotation)| annotation.clone()).collect();
        match self.client.annotate(&annotations).await.map_err(Trouble::from) {
            Ok(done) => {
                let missing: HashSet<Target> = done.missing.into_iter().collect();
                let (lacking, told): (Vec<_>, Vec<_>) =
                    ready.into_iter().partition(|(_, annotation)| missing.contains(&annotation.target));
                self.written(told).await?;
                for (row, _) in lacking {
                    self.missing(&row).await?;
                }
                Ok(())
            }
            Err(Trouble::Away(why)) => {
                for (row, _) in &ready {
                    self.later(row, self.config.backoff).await?;
                }
                Err(Trouble::Away(why))
            }
            // One of them spoils it for all: each for itself.
            Err(Trouble::Refused(_) | Trouble::Strange(_)) if ready.len() > 1 => {
                for one in ready {
                    Box::pin(self.annotate(vec![one])).await?;
                }
                Ok(())
            }
            Err(trouble) => {
                for (row, _) in &ready {
                    self.troubled(row, &trouble).await?;
                }
                Ok(())
            }
        }
    }

    async fn written(&self, told: Vec<(Outgoing, Annotation)>) -> Result<(), Trouble> {
        let told: Vec<Outgoing> = told.into_iter().map(|(row, _)| row).collect();
        told.iter().for_each(|row| self.forget(row));
        self.counting().annotations += told.len() as u64;
        self.store.told(told).await?;
        Ok(())
    }

    /// Its spans were seen in Phoenix, and are not there now: deleted, or given up by the forwarder.
    async fn missing(&self, row: &Outgoing) -> Result<(), Trouble> {
        let misses = self.strike(row);
        if misses >= MISSES_MAX {
            return self.refuse(row, "phoenix does not have what it is of").await;
        }
        self.later(row, self.pause(misses)).await
    }

    async fn troubled(&self, row: &Outgoing, trouble: &Trouble) -> Result<(), Trouble> {
        match trouble {
            Trouble::Refused(why) => self.refuse(row, why).await,
            Trouble::Strange(why) => {
                let strikes = self.strike(row);
                if strikes >= STRIKES_MAX {
                    return self.refuse(row, why).await;
                }
                self.later(row, self.pause(strikes)).await
            }
            Trouble::Away(_) | Trouble::NotYet | Trouble::Lost | Trouble::Store(_) => {
                self.later(row, self.config.backoff).await
            }
        }
    }
}
