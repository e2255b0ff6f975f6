//! The messages of a run: the prompt's content with an example's input put into it.
//!
//! `{{name}}` is the input's key of that name, where the input is an object that has it; `{{input}}` otherwise is the input as a whole. A text
//! is put in as it is, anything else as JSON. What was put in is never read again, so braces in an input mean nothing. A name that is
//! neither is a failure (`missing_field`), before anything is paid.
//!
//! A content with a variable is the user's message. One without is the system's message, and the input the user's.

use std::borrow::Cow;

use emberd_evaluators_kit::{Class, Failure};
use serde_json::{Value, json};

/// The messages for this input.
pub(crate) fn messages(content: &str, input: &Value) -> Result<Vec<Value>, Failure> {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    match fill(content, input)? {
        Some(filled) => Ok(vec![message("user", &filled)]),
        None => Ok(vec![message("system", content), message("user", &text(input))]),
    }
}

/// None: there is no variable in it.
fn fill(content: &str, input: &Value) -> Result<Option<String>, Failure> {
    let mut filled = String::with_capacity(content.len());
    let (mut rest, mut has_any) = (content, false);
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        match after.split_once("}}").filter(|(name, _)| is_name(name.trim())) {
            Some((name, behind)) => {
                filled.push_str(&value(name.trim(), input)?);
                (rest, has_any) = (behind, true);
            }
            None => {
                filled.push_str("{{");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(has_any.then_some(filled))
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn value<'a>(name: &str, input: &'a Value) -> Result<Cow<'a, str>, Failure> {
    match input.get(name) {
        Some(value) => Ok(text(value)),
        None if name == "input" => Ok(text(input)),
        None => {
            Err(Failure::new(Class::MissingField, format!("the prompt's variable {name:?} is no key of the input")))
        }
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_never_read_again() {
        let input = json!({"a": "{{b}}", "b": "{{a}}", "n": 3});
        let messages = messages("{{ a }}-{{b}}-{{n}} {{ not a name }} {{", &input).unwrap();
        assert_eq!(messages, [json!({"role": "user", "content": "{{b}}-{{a}}-3 {{ not a name }} {{"})]);
    }

    #[test]
    fn without_variables_the_input_is_the_users_message() {
        let both = messages("Be brief.", &json!("why?")).unwrap();
        assert_eq!(
            both,
            [json!({"role": "system", "content": "Be brief."}), json!({"role": "user", "content": "why?"})]
        );
        assert_eq!(messages("{{input}}", &json!({"x": 1})).unwrap()[0]["content"], json!("{\"x\":1}"));
        assert_eq!(messages("{{input}}", &json!({"input": "own key"})).unwrap()[0]["content"], json!("own key"));
    }

    #[test]
    fn a_variable_that_is_not_there_is_named() {
        let failure = messages("{{question}}", &json!({"q": 1})).unwrap_err();
        assert_eq!((failure.class, failure.message.contains("\"question\"")), (Class::MissingField, true));
    }
}
