//! The templates that come with emberd: `templates/*.toml`, compiled in.
//!
//! The prompts are emberd's own. Names, labels, scores and directions are those of phoenix-evals where it has the same judgement, so that
//! charts line up (`summarization` and `sql`: those of its earlier templates).

use std::sync::LazyLock;

use super::template::Template;

const FILES: [(&str, &str); 16] = [
    ("coherence", include_str!("../../templates/coherence.toml")),
    ("relevance", include_str!("../../templates/relevance.toml")),
    ("correctness", include_str!("../../templates/correctness.toml")),
    ("faithfulness", include_str!("../../templates/faithfulness.toml")),
    ("hallucination", include_str!("../../templates/hallucination.toml")),
    ("conciseness", include_str!("../../templates/conciseness.toml")),
    ("toxicity", include_str!("../../templates/toxicity.toml")),
    ("refusal", include_str!("../../templates/refusal.toml")),
    ("completeness", include_str!("../../templates/completeness.toml")),
    ("summarization", include_str!("../../templates/summarization.toml")),
    ("sql", include_str!("../../templates/sql.toml")),
    ("tool_selection", include_str!("../../templates/tool_selection.toml")),
    ("tool_invocation", include_str!("../../templates/tool_invocation.toml")),
    ("retrieval_relevance", include_str!("../../templates/retrieval_relevance.toml")),
    ("user_friction", include_str!("../../templates/user_friction.toml")),
    ("custom_rubric", include_str!("../../templates/custom_rubric.toml")),
];

/// A file that cannot be read is left out, which the tests rule out.
static TEMPLATES: LazyLock<Vec<Template>> =
    LazyLock::new(|| FILES.iter().filter_map(|(_, text)| Template::from_toml(text).ok()).collect());

/// The names of the shipped templates.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The shipped template of that name.
pub fn shipped(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file is a template, under the name of its file.
    #[test]
    fn every_file_can_be_read() {
        for (name, text) in FILES {
            let template = Template::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(template.name, name);
            assert!(shipped(name).is_some());
        }
    }
}
