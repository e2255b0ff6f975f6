//! The names under which the table may know a model, from as it came to bare of path, cloud and date.

use std::borrow::Cow;

/// No model's name is longer; what is, is not looked up.
const NAME_BYTES_MAX: usize = 200;

/// Where a model runs, as Amazon Bedrock writes it before the maker.
const REGIONS: [&str; 6] = ["us.", "us-gov.", "eu.", "apac.", "jp.", "global."];
/// Who made it, likewise.
const MAKERS: [&str; 8] = ["anthropic.", "amazon.", "openai.", "mistral.", "cohere.", "meta.", "deepseek.", "ai21."];

/// The names to look up, in order: the nearest to what came is first.
pub(super) fn candidates(model: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let lower = lower(model.trim());
    let mut next = (lower.len() <= NAME_BYTES_MAX).then_some(lower);
    let mut bare = false;
    std::iter::from_fn(move || {
        let name = next.take()?;
        next = if bare {
            shorter(&name)
        } else {
            bare = true;
            let stripped = without_place(&name);
            if stripped.len() < name.len() { Some(Cow::Owned(stripped.to_owned())) } else { shorter(&name) }
        };
        Some(name)
    })
}

fn lower(model: &str) -> Cow<'_, str> {
    if model.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(model.to_ascii_lowercase())
    } else {
        Cow::Borrowed(model)
    }
}

/// Without `openai/`, `models/`, `us.anthropic.`.
fn without_place(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = REGIONS.iter().find_map(|region| name.strip_prefix(region)).unwrap_or(name);
    MAKERS.iter().find_map(|maker| name.strip_prefix(maker)).unwrap_or(name)
}

/// Without the last part of the name, if that is a date or a revision.
fn shorter<'a>(name: &str) -> Option<Cow<'a, str>> {
    let cut = |end: usize| (end > 0).then(|| Cow::Owned(name[..end].to_owned()));
    // `-2024-08-06`, `-09-2025` and `-05-06` first, or their last part would look like a revision.
    for shape in ["-dddd-dd-dd", "-dd-dddd", "-dd-dd", "-dddddddd", "@dddddddd", "-dddd", "-ddd", ":d"] {
        if ends_like(name, shape) {
            return cut(name.len() - shape.len());
        }
    }
    if ends_like(name, "-vd") {
        return cut(name.len() - 3);
    }
    name.strip_suffix("-latest").and_then(|rest| cut(rest.len()))
}

/// Whether the end of `name` has this shape, where `d` stands for a digit.
fn ends_like(name: &str, shape: &str) -> bool {
    let (name, shape) = (name.as_bytes(), shape.as_bytes());
    let Some(start) = name.len().checked_sub(shape.len()) else { return false };
    name[start..].iter().zip(shape).all(|(&byte, &wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        literal => byte == literal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_path_cloud_and_date_one_after_the_other() {
        let of = |name| candidates(name).map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(of("gpt-4o"), ["gpt-4o"]);
        assert_eq!(of("GPT-4o-2024-08-06"), ["gpt-4o-2024-08-06", "gpt-4o"]);
        assert_eq!(of("openai/gpt-4o-mini"), ["openai/gpt-4o-mini", "gpt-4o-mini"]);
        assert_eq!(
            of("us.anthropic.claude-3-5-sonnet-20241022-v2:0"),
            [
                "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
                "claude-3-5-sonnet-20241022-v2:0",
                "claude-3-5-sonnet-20241022-v2",
                "claude-3-5-sonnet-20241022",
                "claude-3-5-sonnet"
            ]
        );
        assert_eq!(of("claude-sonnet-4-5@20250929").last().unwrap(), "claude-sonnet-4-5");
        assert_eq!(of("models/gemini-2.0-flash-001").last().unwrap(), "gemini-2.0-flash");
        assert_eq!(of("gpt-4-0613").last().unwrap(), "gpt-4");
        assert_eq!(of("mistral-large-latest").last().unwrap(), "mistral-large");
    }

    #[test]
    fn no_name_shrinks_to_nothing() {
        for name in ["gpt-4o-err-429x", "ft:gpt-4o:org::abc", "-2024", "", "é-2024-é", "/", "@20240101"] {
            assert_eq!(
                candidates(name).last().map(Cow::into_owned).unwrap().is_empty(),
                name.is_empty() || name == "/"
            );
        }
        assert_eq!(candidates(&"x".repeat(201)).count(), 0);
    }
}
