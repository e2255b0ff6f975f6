//! Which traces a rule is about.

use emberd_evaluators_kit::Span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::seen::{Seen, models};

/// What a trace must be; all that is given must hold. Of each list, one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Phoenix's project.
    pub project: Vec<String>,
    /// `service.name`.
    pub service: Vec<String>,
    /// success, error or timeout.
    pub status: Vec<String>,
    /// How the spans name the prompt: id or title.
    pub prompt: Vec<String>,
    /// Of some span, together with `spanKind` and `attributes`.
    pub model: Vec<String>,
    /// OpenInference's word; any case.
    pub span_kind: Vec<String>,
    /// Attributes by their flat names, each equal to this.
    pub attributes: Map<String, Value>,
    /// Of the root, milliseconds.
    pub min_duration_ms: Option<f64>,
    /// Of the root, milliseconds.
    pub max_duration_ms: Option<f64>,
    /// Of all calls of models.
    pub min_tokens: Option<i64>,
    /// Of all calls of models.
    pub max_tokens: Option<i64>,
}

impl Filter {
    /// What does not hold, by its key.
    pub(super) fn fault(&self, seen: &Seen) -> Option<&'static str> {
        let any = |wanted: &[String], are: &[String]| wanted.is_empty() || are.iter().any(|is| wanted.contains(is));
        let is = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted == is))
        };
        let checks = [
            ("project", any(&self.project, &seen.projects)),
            ("service", any(&self.service, &seen.services)),
            ("status", is(&self.status, Some(&seen.status))),
            ("prompt", is(&self.prompt, seen.prompt.as_deref())),
            ("minDurationMs", self.min_duration_ms.is_none_or(|min| seen.duration_ms >= min)),
            ("maxDurationMs", self.max_duration_ms.is_none_or(|max| seen.duration_ms <= max)),
            ("minTokens", self.min_tokens.is_none_or(|min| seen.tokens >= min)),
            ("maxTokens", self.max_tokens.is_none_or(|max| seen.tokens <= max)),
            ("model, spanKind, attributes", self.has_span(seen)),
        ];
        checks.into_iter().find(|(_, holds)| !holds).map(|(key, _)| key)
    }

    fn has_span(&self, seen: &Seen) -> bool {
        if self.model.is_empty() && self.span_kind.is_empty() && self.attributes.is_empty() {
            return true;
        }
        let holds = |span: &Span| {
            let model =
                self.model.is_empty() || models(span).any(|model| self.model.iter().any(|wanted| wanted == model));
            let kind =
                self.span_kind.is_empty() || self.span_kind.iter().any(|kind| kind.eq_ignore_ascii_case(&span.kind));
            model && kind && self.attributes.iter().all(|(key, value)| span.attributes.get(key) == Some(value))
        };
        seen.example.trace.as_ref().is_some_and(|trace| trace.spans.iter().any(holds))
    }
}

#[cfg(test)]
mod tests {
    use emberd_evaluators_kit::{Example, Trace};
    use serde_json::json;

    use super::*;

    fn seen() -> Seen {
        let span = |kind: &str, model: &str, tenant: &str| Span {
            kind: kind.into(),
            attributes: json!({"llm.model_name": model, "tenant": tenant}).as_object().unwrap().clone(),
            ..Span::default()
        };
        let trace = Trace { spans: vec![span("LLM", "gpt", "a"), span("TOOL", "other", "b")], ..Trace::default() };
        Seen {
            example: Example { trace: Some(trace), ..Example::default() },
            projects: vec!["p".into()],
            services: vec!["s".into()],
            status: "success".into(),
            prompt: Some("faq".into()),
            duration_ms: 100.0,
            tokens: 10,
            ..Seen::default()
        }
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let cases = [
            (json!({}), None),
            (json!({"project": ["q", "p"], "service": ["s"], "status": ["success"], "prompt": ["faq"]}), None),
            (json!({"project": ["q"]}), Some("project")),
            (json!({"service": ["t"]}), Some("service")),
            (json!({"status": ["error"]}), Some("status")),
            (json!({"prompt": ["other"]}), Some("prompt")),
            (json!({"minDurationMs": 100, "maxDurationMs": 100, "minTokens": 10, "maxTokens": 10}), None),
            (json!({"minDurationMs": 101}), Some("minDurationMs")),
            (json!({"maxDurationMs": 99.5}), Some("maxDurationMs")),
            (json!({"minTokens": 11}), Some("minTokens")),
            (json!({"maxTokens": 9}), Some("maxTokens")),
            (json!({"spanKind": ["llm"], "model": ["gpt"], "attributes": {"tenant": "a"}}), None),
            // Each holds of some span, but of no single one.
            (json!({"spanKind": ["llm"], "attributes": {"tenant": "b"}}), Some("model, spanKind, attributes")),
        ];
        for (filter, expected) in cases {
            let read: Filter = serde_json::from_value(filter.clone()).unwrap();
            assert_eq!(read.fault(&seen()), expected, "{filter}");
        }
    }
}
