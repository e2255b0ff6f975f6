//! Whose trace it is: prompt, session, user, what the application put into `metadata`, and where it ran.
//!
//! Several spans may name each: the root is asked first, then the others by start and id, and the first that names it counts.

use serde_json::{Map, Value};

use super::metadata::{json_or_text, put};
use crate::SpanId;
use crate::facts::{Facts, Marks, Text};
use crate::trace::TraceState;

/// The spans that name something, in the order in which they are asked.
pub(super) struct Names(Vec<Facts>);

impl Names {
    pub(super) fn of(state: &TraceState, root: Option<&(SpanId, Facts)>) -> Self {
        let mut spans: Vec<(SpanId, Facts)> = state.roots().chain(state.calls()).chain(state.names()).collect();
        spans.sort_by_key(|(id, facts)| (root.is_none_or(|root| root.0 != *id), facts.start, *id));
        Self(spans.into_iter().map(|(_, facts)| facts).collect())
    }

    fn first(&self, text: Text) -> Option<&str> {
        self.0.iter().find_map(|facts| facts.text(text))
    }

    /// A span's word counts before that of any resource.
    pub(super) fn prompt(&self) -> Option<&str> {
        self.first(Text::PromptRef).or_else(|| self.first(Text::ResourcePrompt))
    }

    /// The version that the span says which names the prompt, else whichever is said.
    fn prompt_version(&self) -> Option<&str> {
        let namer = self.0.iter().find(|facts| facts.text(Text::PromptRef).is_some());
        namer.and_then(|facts| facts.text(Text::PromptVersion)).or_else(|| self.first(Text::PromptVersion))
    }

    pub(super) fn session(&self) -> Option<&str> {
        self.first(Text::Session)
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.first(Text::User)
    }

    pub(super) fn put(&self, metadata: &mut Map<String, Value>, marks: &mut Marks) {
        put(metadata, "prompt_ref", self.prompt());
        put(metadata, "prompt_version", self.prompt_version());
        put(metadata, "session_id", self.session());
        put(metadata, "user_id", self.user());
        put(metadata, "service", self.first(Text::Service));
        put(metadata, "environment", self.first(Text::Environment));
        put(metadata, "tags", self.first(Text::Tags).map(|tags| json_or_text(tags, marks)));
        put(metadata, "user", self.first(Text::Metadata).map(|user| json_or_text(user, marks)));
    }
}
