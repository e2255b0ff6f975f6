//! Reads what a request says: ids in the path, parameters, JSON fields. All that is wrong is told at once, and what nobody asked
//! for is wrong: a parameter that is ignored is a filter that does not filter.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use emberd_store::jobs::Viewer;
use emberd_store::once::Once;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cursors::Listing;
use crate::refusal::{Detail, Refusal};

/// The largest body that a route takes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// The largest body that a route takes which takes whole datasets.
pub(crate) const UPLOAD_BYTES_MAX: usize = 64 << 20;

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
    path: String,
    caller: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::invalid("", "the query cannot be read"))?;
        let caller = parts.extensions.get::<Viewer>().map_or(Uuid::max(), |viewer| viewer.user);
        let path = parts.uri.path().to_owned();
        let mut parameters = Self { left: BTreeMap::new(), wrong: Vec::new(), path, caller };
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

    /// How many rows of a list, and where it goes on.
    pub(crate) fn listing(&mut self) -> Listing {
        let (limit, given) = (self.limit(), self.text("cursor"));
        Listing { limit, given, list: self.path.clone(), caller: self.caller }
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

/// The header under whose value a creation happens once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const KEY_BYTES_MAX: usize = 200;

/// A key that makes a creation happen once, with what is sent under it; which caller and operation it is of says [`Key::of`].
#[derive(Clone, Debug)]
pub(crate) struct Key {
    text: String,
    digest: [u8; 32],
}

impl Key {
    /// The request's key, if it has one; `sent` is what makes it this request.
    pub(crate) fn read(headers: &HeaderMap, sent: &[&[u8]]) -> Result<Option<Self>, Detail> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let text = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
        let text = text.ok_or_else(|| Detail {
            path: "Idempotency-Key".into(),
            message: format!("expected 1 to {KEY_BYTES_MAX} bytes of ASCII"),
        })?;
        let mut context = Context::new(&SHA256);
        for part in sent {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Some(Self { text: text.to_owned(), digest }))
    }

    /// Of this caller, for this.
    pub(crate) fn of(self, creator: Uuid, operation: &'static str) -> Once {
        Once { creator, operation, key: self.text, digest: self.digest }
    }

    /// As the caller wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// How large a body the route takes, for what its caller hears.
#[derive(Clone, Copy)]
pub(crate) struct Bound(pub(crate) usize);

/// The whole body, whatever it is. One that says beforehand that it is too large is refused before any of it came.
pub(crate) struct Sent(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bound = request.extensions().get::<Bound>().map_or(BODY_BYTES_MAX, |bound| bound.0);
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > bound as u64) {
            return Err(Refusal::TooLarge(bound));
        }
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(bound),
            _ => Refusal::invalid("", "the body ended early"),
        })
    }
}

/// The fields of a JSON object in the body, or of one inside it.
pub(crate) struct Fields {
    left: Map<String, Value>,
    wrong: Vec<Detail>,
    /// What stands before a field's name in what is wrong.
    within: String,
    key: Option<Key>,
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
        let headers = request.headers().clone();
        let Sent(body) = Sent::from_request(request, state).await?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(left)) => {
                let (key, wrong) = match Key::read(&headers, &[&body]) {
                    Ok(key) => (key, Vec::new()),
                    Err(wrong) => (None, vec![wrong]),
                };
                Ok(Self { left, wrong, within: String::new(), key })
            }
            Ok(_) => Err(Refusal::invalid("", "expected an object")),
            Err(error) => Err(Refusal::NotJson(error.to_string())),
        }
    }
}

impl Fields {
    pub(crate) fn fault(&mut self, name: &str, message: impl Into<String>) {
        let path = format!("{}{}", self.within, shortened(name));
        self.wrong.push(Detail { path, message: message.into() });
    }

    /// The key under which this is asked, if there is one.
    pub(crate) fn key(&self) -> Option<Key> {
        self.key.clone()
    }

    /// The whole object, for whoever checks it by himself.
    pub(crate) fn whole(self) -> Value {
        Value::Object(self.left)
    }

    /// The same, unless something is wrong already.
    pub(crate) fn checked(self) -> Result<Value, Refusal> {
        if self.wrong.is_empty() { Ok(self.whole()) } else { Err(Refusal::Invalid(self.wrong)) }
    }

    /// Whether the field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// A text of so many characters, not all of them white.
    pub(crate) fn text(&mut self, name: &str, chars_max: usize) -> String {
        if matches!(self.left.get(name), None | Some(Value::Null)) {
            self.left.remove(name);
            self.fault(name, "is missing");
            return String::new();
        }
        self.maybe_text(name, chars_max).unwrap_or_default()
    }

    /// The same, if it is there.
    pub(crate) fn maybe_text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        let wrong = match self.left.remove(name)? {
            Value::Null => return None,
            Value::String(text) if text.contains('\0') => "must not hold a NUL".to_owned(),
            Value::String(text) if text.trim().is_empty() => "must not be empty".to_owned(),
            Value::String(text) if text.chars().count() > chars_max => format!("longer than {chars_max} characters"),
            Value::String(text) => return Some(text),
            _ => "expected a text".to_owned(),
        };
        self.fault(name, wrong);
        None
    }

    /// The same where null takes away what was there: none if nothing is said.
    pub(crate) fn nullable_text(&mut self, name: &str, chars_max: usize) -> Option<Option<String>> {
        if self.left.get(name)?.is_null() {
            self.left.remove(name);
            return Some(None);
        }
        self.maybe_text(name, chars_max).map(Some)
    }

    /// One of the words, if it is there.
    pub(crate) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.left.remove(name)?;
        let found = words.iter().find(|(word, _)| value == *word).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.fault(name, format!("expected {}", names.join(", ")));
        }
        found
    }

    /// Yes or no, if it is there.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.left.remove(name)?;
        if value.as_bool().is_none() {
            self.fault(name, "expected true or false");
        }
        value.as_bool()
    }

    /// A list, which must be there.
    pub(crate) fn array(&mut self, name: &str) -> Vec<Value> {
        match self.left.remove(name) {
            Some(Value::Array(array)) => return array,
            Some(_) => self.fault(name, "expected a list"),
            None => self.fault(name, "is missing"),
        }
        Vec::new()
    }

    /// A list of texts, empty if nothing is said.
    pub(crate) fn texts(&mut self, name: &str, count_max: usize) -> Vec<String> {
        if !self.has(name) {
            return Vec::new();
        }
        let array = self.array(name);
        let texts: Option<Vec<String>> = array.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        match texts {
            Some(texts) if texts.len() <= count_max => texts,
            _ => {
                self.fault(name, format!("expected at most {count_max} texts"));
                Vec::new()
            }
        }
    }

    /// A whole number within bounds, if it is there.
    pub(crate) fn number(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        let number = self.left.remove(name)?.as_i64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.fault(name, format!("expected a number from {least} to {most}"));
        }
        number
    }

    /// A UUID, which must be there.
    pub(crate) fn id(&mut self, name: &str) -> Option<Uuid> {
        let id = self.left.remove(name).as_ref().and_then(Value::as_str).and_then(uuid);
        if id.is_none() {
            self.fault(name, "expected a UUID");
        }
        id
    }

    /// An object inside, which must be there; [`Fields::join`] brings back what was wrong in it.
    pub(crate) fn object(&mut self, name: &str) -> Self {
        let left = match self.left.remove(name) {
            Some(Value::Object(left)) => left,
            _ => {
                self.fault(name, "expected an object");
                Map::new()
            }
        };
        Self { left, wrong: Vec::new(), within: format!("{}{name}.", self.within), key: None }
    }

    /// A list of 1 to so many objects, which must be there; each is brought back by [`Fields::join`].
    pub(crate) fn objects(&mut self, name: &str, count_max: usize) -> Vec<Self> {
        let array = self.array(name);
        if !(1..=count_max).contains(&array.len()) {
            self.fault(name, format!("expected 1 to {count_max} objects"));
            return Vec::new();
        }
        let mut objects = Vec::with_capacity(array.len());
        for (at, value) in array.into_iter().enumerate() {
            let within = format!("{}{name}[{at}].", self.within);
            match value {
                Value::Object(left) => objects.push(Self { left, wrong: Vec::new(), within, key: None }),
                _ => self.fault(&format!("{name}[{at}]"), "expected an object"),
            }
        }
        objects
    }

    /// Whatever is there, if anything is.
    pub(crate) fn maybe(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// A UUID, if it is there.
    pub(crate) fn maybe_id(&mut self, name: &str) -> Option<Uuid> {
        let value = self.maybe(name)?;
        let id = value.as_str().and_then(uuid);
        if id.is_none() {
            self.fault(name, "expected a UUID");
        }
        id
    }

    /// Takes over what was wrong, or is left over, in an object inside.
    pub(crate) fn join(&mut self, mut inside: Self) {
        inside.nothing_more();
        self.wrong.append(&mut inside.wrong);
    }

    fn nothing_more(&mut self) {
        for name in std::mem::take(&mut self.left).into_iter().map(|(name, _)| name) {
            self.fault(&name, "unknown field");
        }
    }

    /// Refuses the request if anything was wrong, or is left over.
    pub(crate) fn finish(mut self) -> Result<(), Refusal> {
        self.nothing_more();
        if self.wrong.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self.wrong)) }
    }
}

/// A name that the caller made up, short enough to be told back.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}
