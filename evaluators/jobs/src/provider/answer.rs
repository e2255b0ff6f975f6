//! What an endpoint answered: failures by class, what its headers say about its pace, and a completion's text and usage.

use std::time::Duration;

use emberd_evaluators_kit::{Class, Failure};
use emberd_model::cost::Usage;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::pace::Limits;

/// An answer with another status than 200.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let word = code(body);
    let is = |words: &[&str]| words.iter().any(|known| word.contains(known));
    let class = match status.as_u16() {
        401 | 403 => Class::ProviderAuth,
        402 => Class::ProviderQuota,
        429 if is(&["insufficient_quota", "billing"]) => Class::ProviderQuota,
        429 => Class::ProviderRate,
        408 | 504 => Class::Timeout,
        413 => Class::TooLarge,
        400 | 422 if is(&["content_filter", "content_policy"]) => Class::ContentFilter,
        400 | 422 if is(&["context_length", "string_above_max_length"]) => Class::TooLarge,
        500.. => Class::Provider5xx,
        // A model that it does not have, a parameter that it does not take, another place: the next example fails alike.
        _ => Class::ConfigError,
    };
    let status = status.as_u16();
    let what = match class {
        Class::ProviderAuth => "the endpoint does not accept the key",
        Class::ProviderQuota => "the endpoint's quota is used up",
        Class::ProviderRate => "the endpoint asks to slow down",
        Class::Timeout => "the endpoint ran out of time",
        Class::TooLarge => "the prompt is longer than the model takes",
        Class::ContentFilter => "the endpoint's filter refused the prompt",
        Class::Provider5xx => "the endpoint is out of order",
        _ if (300..400).contains(&status) => "the endpoint answers with a redirect, which is not followed",
        _ => "the endpoint does not take the call",
    };
    let word = if word.is_empty() { word } else { format!(", {word}") };
    let mut failure = Failure::new(class, format!("{what} (status {status}{word})"));
    failure.retry_after = retry_after(headers);
    failure
}

/// `code` or `type` of OpenAI's error object: words of the endpoint's, never a text that may hold what was sent.
fn code(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let error = body.get("error").unwrap_or(&body);
    let word = |key: &str| error.get(key).and_then(Value::as_str).filter(|word| is_word(word));
    word("code").or_else(|| word("type")).unwrap_or_default().to_ascii_lowercase()
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Seconds; the form with a date is not taken, for clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(millis) = text(headers, "retry-after-ms").and_then(|text| text.parse::<u64>().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let seconds = text(headers, "retry-after")?.parse::<f64>().ok().filter(|seconds| (0.0..1e9).contains(seconds))?;
    Some(Duration::from_secs_f64(seconds))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// How long nothing is left, by `x-ratelimit-remaining-*` and `x-ratelimit-reset-*`.
pub(super) fn limits(headers: &HeaderMap) -> Limits {
    let wait = ["requests", "tokens"].into_iter().filter_map(|what| {
        let left = text(headers, &format!("x-ratelimit-remaining-{what}"))?.parse::<f64>().ok()?;
        let reset = span(text(headers, &format!("x-ratelimit-reset-{what}"))?)?;
        (left <= 0.0).then_some(reset)
    });
    Limits { wait: wait.max() }
}

/// `1s`, `6m0s`, `120ms`, `1.5` (seconds).
fn span(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "ms" => 0.001,
                "s" | "" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

/// A chat completion, as far as a run needs it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Completion {
    pub(crate) usage: Usage,
    pub(crate) model: Option<String>,
    /// The message, or why there is none.
    pub(crate) content: Result<String, Failure>,
    pub(crate) finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// Reads what is there of a completion. Its usage is told also where it has no message.
pub(crate) fn completion(body: &[u8]) -> Completion {
    let parse = |what: &str| Err(Failure::new(Class::Parse, what));
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        let content = parse("the answer is no chat completion");
        return Completion { usage: Usage::default(), model: None, content, finish_reason: None };
    };
    let usage = body.usage.as_ref().map(usage).unwrap_or_default();
    let finish_reason = body.choices.first().and_then(|choice| choice.finish_reason.clone());
    let content = match body.choices.as_slice() {
        [choice] => {
            let word = |key: &str| choice.message.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            match word("content").or_else(|| word("refusal")) {
                Some(text) => Ok(text.to_owned()),
                None if matches!(finish_reason.as_deref(), Some("content_filter")) => {
                    Err(Failure::new(Class::ContentFilter, "the provider withheld the answer"))
                }
                None if finish_reason.as_deref() == Some("length") => {
                    Err(Failure::new(Class::Truncated, "the token limit was reached before the answer began"))
                }
                None => parse("the answer has no content"),
            }
        }
        choices => parse(&format!("{} choices in the answer, not one", choices.len())),
    };
    Completion { usage, model: body.model.filter(|model| model.len() <= 256), content, finish_reason }
}

fn usage(usage: &Value) -> Usage {
    let count = |value: Option<&Value>| value.and_then(Value::as_i64).filter(|count| *count >= 0);
    let of = |part: &str, key: &str| count(usage.get(part).and_then(|part| part.get(key)));
    Usage {
        prompt: count(usage.get("prompt_tokens")),
        completion: count(usage.get("completion_tokens")),
        total: count(usage.get("total_tokens")),
        cache_read: of("prompt_tokens_details", "cached_tokens"),
        audio_input: of("prompt_tokens_details", "audio_tokens"),
        reasoning: of("completion_tokens_details", "reasoning_tokens"),
        audio_output: of("completion_tokens_details", "audio_tokens"),
        cache_write: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_class() {
        let error = |code: &str| format!(r#"{{"error": {{"message": "secret text", "code": "{code}"}}}}"#);
        for (status, code, class) in [
            (401, "invalid_api_key", Class::ProviderAuth),
            (403, "", Class::ProviderAuth),
            (402, "", Class::ProviderQuota),
            (429, "insufficient_quota", Class::ProviderQuota),
            (429, "rate_limit_exceeded", Class::ProviderRate),
            (400, "content_filter", Class::ContentFilter),
            (400, "context_length_exceeded", Class::TooLarge),
            (400, "unknown_parameter", Class::ConfigError),
            (404, "model_not_found", Class::ConfigError),
            (302, "", Class::ConfigError),
            (500, "", Class::Provider5xx),
            (503, "", Class::Provider5xx),
            (529, "overloaded", Class::Provider5xx),
            (504, "", Class::Timeout),
        ] {
            let failure = refused(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), error(code).as_bytes());
            assert_eq!(failure.class, class, "{status} {code}");
            assert!(!failure.message.contains("secret"), "{}", failure.message);
        }
    }

    #[test]
    fn headers_tell_how_long_to_wait() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(retry_after(&headers(&[("retry-after", "2")])), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&headers(&[("retry-after", "-1")])), None);
        assert_eq!(retry_after(&headers(&[("retry-after", "NaN")])), None);
        let left = headers(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")]);
        assert_eq!(limits(&left).wait, Some(Duration::from_secs(360)));
        let left = headers(&[("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-reset-requests", "1s")]);
        assert_eq!(limits(&left).wait, None);
        assert_eq!(span("120ms"), Some(Duration::from_millis(120)));
        assert_eq!(span("soon"), None);
    }
}
