//! Reads what a request says: ids in the path, parameters, JSON fields. All that is wrong is told at once, and what nobody asked
//! for is wrong: a parameter that is ignored is a filter that does not filter.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::refusal::{Detail, Refusal};

/// The largest body that any route takes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// The `{id}` of the path, a UUID.
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let wrong = || Refusal::invalid("id", "expected a UUID");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| wrong())?;
        uuid(&text).map(Self).ok_or_else(wrong)
    }
}

/// A UUID in its usual form, with hyphens; the others that are known would make two names for one thing.
fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::parse_str(text).ok()).flatten()
}

/// The parameters of a list or a filter.
pub(crate) struct Parameters {
    left: BTreeMap<String, String>,
    wrong: Vec<Detail>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::invalid("", "the query cannot be read"))?;
        let mut parameters = Self { left: BTreeMap::new(), wrong: Vec::new() };
        for (name, value) in pairs {
            if parameters.left.contains_key(&name) {
                parameters.fault(&name, "is there twice");
            }
            parameters.left.insert(name, value);
        }
        Ok(parameters)
    }
}

impl Parameters {
    fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.wrong.push(Detail { path: shortened(name), message: message.into() });
    }

    /// A text of 1 to 1024 bytes.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let text = self.left.remove(name)?;
        match text.len() {
            1..=1024 if text.contains('\0') => self.fault(name, "must not hold a NUL"),
            1..=1024 => return Some(text),
            _ => self.fault(name, "expected 1 to 1024 bytes"),
        }
        None
    }

    /// A value that has a form of its own.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, form: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| self.fault(name, format!("expected {form}"))).ok()
    }

    /// One of the words.
    pub(crate) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let word = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if word.is_none() {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.fault(name, format!("expected {}", names.join(", ")));
        }
        word
    }

    /// How many rows of a list: 1 to 200, 50 if nothing is said.
    pub(crate) fn limit(&mut self) -> u32 {
        const FORM: &str = "a number from 1 to 200";
        let limit = self.parsed("limit", FORM).unwrap_or(50);
        if !(1..=200).contains(&limit) {
            self.fault("limit", format!("expected {FORM}"));
        }
        limit
    }

    /// A span of time, either end of it open: `from` inclusive, `to` exclusive.
    pub(crate) fn period<T: FromStr + PartialOrd>(&mut self) -> (Option<T>, Option<T>) {
        const FORM: &str = "a time such as 2026-11-21T02:15:41Z";
        let (from, to): (Option<T>, Option<T>) = (self.parsed("from", FORM), self.parsed("to", FORM));
        if from.is_some() && to.is_some() && from >= to {
            self.fault("to", "must be later than `from`");
        }
        (from, to)
    }

    /// Refuses the request if anything was wrong, or is left over.
    pub(crate) fn finish(mut self) -> Result<(), Refusal> {
        for name in std::mem::take(&mut self.left).into_keys() {
            self.fault(&name, "unknown parameter");
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self.wrong)) }
    }
}

/// The fields of a JSON object in the body.
pub(crate) struct Fields {
    left: Map<String, Value>,
    wrong: Vec<Detail>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        // A page of another site can send any other type without asking first.
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|value| value.split(';').next()).unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::MediaType);
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(BODY_BYTES_MAX),
            _ => Refusal::NotJson("the body ended early".into()),
        })?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(left)) => Ok(Self { left, wrong: Vec::new() }),
            Ok(_) => Err(Refusal::invalid("", "expected an object")),
            Err(error) => Err(Refusal::NotJson(error.to_string())),
        }
    }
}

impl Fields {
    /// A text of so many characters, not all of them white.
    pub(crate) fn text(&mut self, name: &str, chars_max: usize) -> String {
        let wrong = match self.left.remove(name) {
            None | Some(Value::Null) => "is missing".to_owned(),
            Some(Value::String(text)) if text.contains('\0') => "must not hold a NUL".to_owned(),
            Some(Value::String(text)) if text.trim().is_empty() => "must not be empty".to_owned(),
            Some(Value::String(text)) if text.chars().count() > chars_max => {
                format!("longer than {chars_max} characters")
            }
            Some(Value::String(text)) => return text,
            Some(_) => "expected a text".to_owned(),
        };
        self.wrong.push(Detail { path: name.into(), message: wrong });
        String::new()
    }

    /// Refuses the request if anything was wrong, or is left over.
    pub(crate) fn finish(mut self) -> Result<(), Refusal> {
        for (name, _) in self.left {
            self.wrong.push(Detail { path: shortened(&name), message: "unknown field".into() });
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self.wrong)) }
    }
}

/// A name that the caller made up, short enough to be told back.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}
