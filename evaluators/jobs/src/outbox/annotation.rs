//! Scores of traces as Phoenix's annotations.
//!
//! The identifier is `emberd:` and the rule's name, so that a newer score takes the older one's place. None is sent before the forwarder saw
//! the trace's spans in Phoenix.

use std::collections::HashSet;

use emberd_evaluators_kit::Kind;
use emberd_model::Offset;
use emberd_phoenix::annotations::{Annotation, Target};
use emberd_phoenix::experiments::{Annotator, Judgement};
use emberd_store::jobs::{Decision, Outgoing, Rule, Scored, Subject, TraceScore};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Inner, MISSES_MAX, STRIKES_MAX, Trouble};
use crate::plan::Planned;

/// An annotation as it stands in the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Annotated {
    #[serde(flatten)]
    of: Named,
    name: String,
    identifier: String,
    /// Whether a model judged.
    is_llm: bool,
    judgement: Judgement,
    metadata: Map<String, Value>,
    /// The place after the last of the trace's spans in the log.
    after: u64,
}

/// What a score is of, by its name in Phoenix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Named {
    /// span, trace or session.
    level: String,
    /// Which.
    id: String,
}

impl Named {
    pub(crate) fn new(level: &str, id: String) -> Self {
        Self { level: level.to_owned(), id }
    }
}

/// How a score came to be.
pub(crate) struct By<'a> {
    /// The rule's name, and its version then.
    pub(crate) rule: &'a str,
    pub(crate) version: i64,
    /// Of how many spans of the trace.
    pub(crate) spans: i64,
    /// Whether a model judged.
    pub(crate) is_llm: bool,
}

impl Annotated {
    /// What Phoenix is told of a score; none where it is told nothing.
    pub(crate) fn of(score: &TraceScore, by: &By<'_>, of: Named, after: Offset) -> Option<Self> {
        Some(Self {
            of,
            name: score.scored.name.clone(),
            identifier: identifier(by.rule),
            is_llm: by.is_llm,
            judgement: judgement(&score.scored, score.epoch)?,
            metadata: about(score, by),
            after: after.0,
        })
    }

    fn annotation(self) -> Option<Annotation> {
        let Named { level, id } = self.of;
        let target = match &*level {
            "span" => Target::Span(id.parse().ok()?),
            "trace" => Target::Trace(id.parse().ok()?),
            "session" => Target::Session(id),
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

fn identifier(rule: &str) -> String {
    format!("emberd:{rule}")
}

/// What Phoenix is told of a score. A failure is none, so nothing is told of it; but when the trace was judged before, an older score may stand
/// there: in its place comes why there is none now, without a number or a label that a chart could count. Whether one stands there is not
/// asked: a crash may have come between the tables and the outbox.
fn judgement(scored: &Scored, epoch: i64) -> Option<Judgement> {
    match &scored.outcome {
        Ok(score) => Some(Judgement {
            label: score.label.clone(),
            score: score.score.filter(|score| score.is_finite()),
            explanation: score.explanation.clone(),
        }),
        Err(failure) if epoch > 0 => {
            let explanation = format!("no score of the whole trace: {}: {}", failure.class, failure.message);
            Some(Judgement { explanation: Some(explanation), ..Judgement::default() })
        }
        Err(_) => None,
    }
}

fn about(score: &TraceScore, by: &By<'_>) -> Map<String, Value> {
    let scored = &score.scored;
    let mut about = scored.metadata.as_object().cloned().unwrap_or_default();
    let emberd = json!({
        "rule": by.rule,
        "rule_version": by.version,
        "evaluator_version": scored.version,
        "epoch": score.epoch,
        "spans": by.spans,
        "trace_id": score.trace.to_string(),
        "error": scored.outcome.as_ref().err().map(|failure| failure.class.as_str()),
    });
    about.insert("emberd".to_owned(), emberd);
    about
}

/// What Phoenix should hold of a score that stands in the tables, for whoever compares; `session` is the trace's, `decision` its rule's. None:
/// it is told nothing of it, or what it is of is not known any more.
#[must_use]
pub fn due(score: &TraceScore, rule: &Rule, decision: Option<&Decision>, session: Option<&str>) -> Option<Annotation> {
    let of = match &score.subject {
        Subject::Trace => Named::new("trace", score.trace.to_string()),
        Subject::Span(id) => Named::new("span", id.clone()),
        Subject::Session => Named::new("session", session?.to_owned()),
    };
    let planned: Vec<Planned> =
        rule.config.get("plan").and_then(|plan| Vec::deserialize(plan).ok()).unwrap_or_default();
    let judge = planned.iter().find(|planned| planned.scores.iter().any(|one| one.name == score.scored.name));
    let by = By {
        rule: &rule.name,
        version: decision.map_or(rule.version, |decision| decision.version),
        spans: decision.map_or(0, |decision| decision.spans),
        is_llm: judge.is_some_and(|planned| planned.kind == Kind::Llm),
    };
    Annotated::of(score, &by, of, Offset(0))?.annotation()
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
