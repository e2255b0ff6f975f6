//! What sockets are told, and how a client names the last that it heard.

use std::fmt;
use std::str::FromStr;

use emberd_evaluators_jobs::Event as Progress;
use emberd_store::told::Completed;
use serde_json::Value;
use uuid::Uuid;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Evaluation,
    Trace,
}

impl Kind {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation:update",
            Self::Trace => "trace:complete",
        }
    }
}

/// An event's own name: when, by whom, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    /// Microseconds since 1970.
    pub(crate) at: u64,
    /// The emberd, anew with each start.
    pub(crate) origin: u32,
    pub(crate) nr: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}-{}", self.at, self.origin, self.nr)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(());
        let at = part()?.parse().map_err(drop)?;
        let origin = u32::from_str_radix(part()?, 16).map_err(drop)?;
        Ok(Self { at, origin, nr: part()?.parse().map_err(drop)? })
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Id,
    pub(crate) kind: Kind,
    pub(crate) prompt: Uuid,
    /// An object, with `eventId`.
    pub(crate) body: Value,
}

impl Event {
    pub(crate) fn of_evaluation(id: Id, progress: &Progress) -> Option<Self> {
        Some(Self::new(id, Kind::Evaluation, progress.prompt_id, serde_json::to_value(progress).ok()?))
    }

    pub(crate) fn of_trace(id: Id, row: &Completed) -> Option<Self> {
        Some(Self::new(id, Kind::Trace, row.prompt_id, serde_json::to_value(row).ok()?))
    }

    /// A trace that another emberd tells of.
    pub(crate) fn heard(text: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(text).ok()?;
        let id = body.get("eventId")?.as_str()?.parse().ok()?;
        let prompt = body.get("promptId")?.as_str()?.parse().ok()?;
        Some(Self { id, kind: Kind::Trace, prompt, body })
    }

    fn new(id: Id, kind: Kind, prompt: Uuid, mut body: Value) -> Self {
        if let Some(body) = body.as_object_mut() {
            body.insert("eventId".to_owned(), id.to_string().into());
        }
        Self { id, kind, prompt, body }
    }
}
