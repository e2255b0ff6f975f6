//! Annotations of spans, traces and sessions: judgements of what was recorded.
//!
//! Promise: [`Client::annotate`] returns when Phoenix has stored every annotation whose target it holds, and names the targets that
//! it does not hold. The key is (target, name, identifier): repeated, nothing changes; changed, the latest wins, whole.
//! On the wire: `POST /v1/{span,trace,session}_annotations?sync=true`, up to [`BATCH`] at a time. One missing target makes Phoenix
//! write nothing of a batch and say 404, so that batch is halved until the missing ones stand alone. Without `sync` Phoenix says yes
//! at once, and forgets at its next restart.
//! Not here: which spans Phoenix holds ([`Client::held`]); a failed evaluation (Phoenix's annotations have no place for one).
//! Kept by: `tests/evaluation.rs`, against the real Phoenix.

use std::collections::VecDeque;

use emberd_model::{SpanId, TraceId};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::client::{self, Client};
use crate::experiments::{Annotator, Judgement};
use crate::rest::{Data, Error, Size};
use crate::text;

/// Annotations in one request: 0.2 s of Phoenix's time.
pub const BATCH: usize = 100;

/// Targets that one request asks about; they stand in its URL.
const TARGETS_MAX: usize = 100;

/// What is judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A span.
    Span(SpanId),
    /// A trace.
    Trace(TraceId),
    /// A session, by the application's own id.
    Session(String),
}

/// The three kinds of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Spans.
    Span,
    /// Traces.
    Trace,
    /// Sessions.
    Session,
}

impl Target {
    /// Its kind.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Span(_) => Level::Span,
            Self::Trace(_) => Level::Trace,
            Self::Session(_) => Level::Session,
        }
    }

    /// As Phoenix writes it: ids in lower-case hex.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Span(span) => span.to_string(),
            Self::Trace(trace) => trace.to_string(),
            Self::Session(session) => session.clone(),
        }
    }
}

impl Level {
    const ALL: [Self; 3] = [Self::Span, Self::Trace, Self::Session];

    fn path(self) -> &'static str {
        match self {
            Self::Span => "span_annotations",
            Self::Trace => "trace_annotations",
            Self::Session => "session_annotations",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Span => "span_id",
            Self::Trace => "trace_id",
            Self::Session => "session_id",
        }
    }

    fn ids(self) -> &'static str {
        match self {
            Self::Span => "span_ids",
            Self::Trace => "trace_ids",
            Self::Session => "session_ids",
        }
    }
}

/// An annotation to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// What is judged.
    pub target: Target,
    /// The evaluator. Not empty, and not `note`, which Phoenix keeps for itself.
    pub name: String,
    /// Who judges.
    pub annotator: Annotator,
    /// The judgement.
    pub judgement: Judgement,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// With target and name, the key: such as an evaluator's version.
    pub identifier: String,
}

/// What became of annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    /// Annotations that Phoenix stored.
    pub written: usize,
    /// Targets that Phoenix does not hold, as often as they were named: their annotations were not written.
    pub missing: Vec<Target>,
    /// NULs taken out before sending.
    pub nuls_removed: usize,
}

/// An annotation, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Phoenix's id.
    pub id: String,
    /// The span's, trace's or session's id.
    pub target: String,
    /// The evaluator.
    pub name: String,
    /// Who judges.
    pub annotator: Annotator,
    /// The judgement.
    pub judgement: Judgement,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// With target and name, the key.
    pub identifier: String,
}

/// Which annotations are asked for. At least one of the first two must say something.
#[derive(Clone, Debug, Default)]
pub struct Sought<'a> {
    /// Of these spans, traces or sessions; of any, if there are none here.
    pub targets: &'a [String],
    /// With this identifier.
    pub identifier: Option<&'a str>,
    /// With one of these names; with any, if there are none here.
    pub names: &'a [&'a str],
}

#[derive(Deserialize)]
struct Raw {
    id: String,
    #[serde(alias = "span_id", alias = "trace_id", alias = "session_id")]
    target: String,
    name: String,
    annotator_kind: Annotator,
    result: Option<Judgement>,
    metadata: Option<Map<String, Value>>,
    #[serde(default)]
    identifier: String,
}

impl Client {
    /// Writes annotations. An error tells nothing about how many were written; repeating the call is harmless.
    pub async fn annotate(&self, annotations: &[Annotation]) -> Result<Annotated, Error> {
        for annotation in annotations {
            annotation.judgement.check(&annotation.name)?;
            if annotation.name.is_empty() {
                return Err(Error::Unfit { what: "an annotation without a name".to_owned() });
            }
        }
        let mut done = Annotated::default();
        for level in Level::ALL {
            let of_level: Vec<_> = annotations.iter().filter(|annotation| annotation.target.level() == level).collect();
            for batch in of_level.chunks(BATCH) {
                self.annotate_batch(level, batch, &mut done).await?;
            }
        }
        Ok(done)
    }

    /// Writes a batch, or its halves in order, or their halves: of two annotations with one key the later must win.
    async fn annotate_batch(&self, level: Level, batch: &[&Annotation], done: &mut Annotated) -> Result<(), Error> {
        let url = self.url(&["v1", level.path()], &[("sync", "true")])?;
        let mut waiting = VecDeque::from([batch]);
        while let Some(part) = waiting.pop_front() {
            let mut request = json!({ "data": part.iter().map(|one| wire(level, one)).collect::<Vec<_>>() });
            let nuls_removed = text::remove_nuls(&mut request);
            match self.ask::<Data<Vec<Value>>>(Method::POST, url.clone(), Some(&request), Size::Small).await {
                Ok(_) => {
                    done.written += part.len();
                    done.nuls_removed += nuls_removed;
                }
                Err(Error::NotFound { .. }) if part.len() == 1 => {
                    done.missing.extend(part.iter().map(|one| one.target.clone()));
                }
                Err(Error::NotFound { .. }) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.push_front(second);
                    waiting.push_front(first);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads annotations in a project, by its name or id: see [`Client::project_id`] for names that no path can hold.
    pub async fn annotations(&self, level: Level, project: &str, sought: &Sought<'_>) -> Result<Vec<Stored>, Error> {
        if sought.targets.is_empty() {
            return self.annotations_of(level, project, &[], sought).await;
        }
        let mut all = Vec::new();
        for targets in sought.targets.chunks(TARGETS_MAX) {
            match self.annotations_of(level, project, targets, sought).await {
                Ok(found) => all.extend(found),
                // It says 404 also when the project is there, but none of the targets.
                Err(Error::NotFound { said }) if said.starts_with("None of the supplied") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn annotations_of(
        &self,
        level: Level,
        project: &str,
        targets: &[String],
        sought: &Sought<'_>,
    ) -> Result<Vec<Stored>, Error> {
        let mut query: Vec<_> = targets.iter().map(|target| (level.ids(), target.as_str())).collect();
        query.extend(sought.identifier.map(|identifier| ("identifier", identifier)));
        query.extend(sought.names.iter().map(|name| ("include_annotation_names", *name)));
        let found: Vec<Raw> = self.list(&["v1", "projects", project, level.path()], &query).await?;
        let of = |raw: Raw| Stored {
            id: raw.id,
            target: raw.target,
            name: raw.name,
            annotator: raw.annotator_kind,
            judgement: raw.result.unwrap_or_default(),
            metadata: raw.metadata.unwrap_or_default(),
            identifier: raw.identifier,
        };
        Ok(found.into_iter().map(of).collect())
    }

    /// Deletes a project's annotations that have this identifier, and this name if one is given.
    pub async fn delete_annotations(
        &self,
        level: Level,
        project: &str,
        identifier: &str,
        name: Option<&str>,
    ) -> Result<(), Error> {
        // Those without an identifier are other people's.
        if identifier.is_empty() {
            return Err(Error::Unfit { what: "a deletion without an identifier".to_owned() });
        }
        let mut query = vec![("identifier", identifier), ("delete_all", "true")];
        query.extend(name.map(|name| ("name", name)));
        let url = self.url(&["v1", "projects", project, level.path()], &query)?;
        self.call(Method::DELETE, url, None, Size::Whole).await.map(drop)
    }

    /// Phoenix's id of a project: for names with `/`, `?` or `#`, which no path of Phoenix's can hold.
    pub async fn project_id(&self, name: &str) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            project: Option<Project>,
        }
        #[derive(Deserialize)]
        struct Project {
            id: String,
        }
        let query = "query($name:String!){project:getProjectByName(name:$name){id}}";
        let query = json!({ "query": query, "variables": { "name": name.replace('\0', "") } });
        let url = self.url(&["graphql"], &[])?;
        let answer: Data<Option<Answer>> = self.ask(Method::POST, url, Some(&query), Size::Small).await?;
        let unanswered =
            || client::Error::Answer { status: reqwest::StatusCode::OK, said: "an answer without data".to_owned() };
        Ok(answer.data.ok_or_else(unanswered)?.project.map(|project| project.id))
    }
}

fn wire(level: Level, annotation: &Annotation) -> Value {
    let mut wire = json!({
        "name": annotation.name,
        "annotator_kind": annotation.annotator,
        "result": annotation.judgement,
        "metadata": annotation.metadata,
        "identifier": annotation.identifier,
    });
    wire[level.id()] = annotation.target.id().into();
    wire
}
