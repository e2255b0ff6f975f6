//! What each route promises, said beside its handler, and `GET /openapi.json` made of it.
//!
//! Promise: a route without a [`Contract`] does not compile; every route of the router is in the document, with its method, parameters,
//! body, answers, permission and part. What it says is held against every answer of every test of this crate
//! (`tests::contract`), so that it cannot lie.
//! Shape: OpenAPI 3.1. [`document`] lays it out; [`answers`] and [`requests`] are the schemas, by name.
//! Not here: what a handler does with what it is asked.
//! Kept by: `tests::contract`, and `the_contract_is_one_that_clients_can_use` of the daemon's stories (a linter, generated types, a typed client).

mod answers;
mod document;
mod requests;

pub(crate) use answers::STATUSES;
pub(crate) use document::document;

/// A route's promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contract {
    /// What it does, in a line.
    says: &'static str,
    query: &'static [Parameter],
    body: Option<Body>,
    answers: &'static [(u16, Given)],
    /// Refusals beside those that every route of its kind has.
    refuses: &'static [u16],
    /// It takes an `Idempotency-Key`.
    is_once: bool,
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    name: &'static str,
    form: Form,
    is_required: bool,
}

/// What a parameter may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Limit,
    Cursor,
    Text,
    Uuid,
    Time,
    Word(&'static [&'static str]),
}

/// What a request brings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// JSON of this schema.
    Json(&'static str),
    /// A file of one of these types.
    File(&'static [&'static str]),
    /// Whatever Phoenix takes.
    Anything,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    /// JSON of this schema.
    Json(&'static str),
    /// Nothing.
    Nothing,
    /// A file of one of these types.
    File(&'static [&'static str]),
    /// Whatever Phoenix answers.
    Anything,
}

/// So many rows of a list.
pub(crate) const LIMIT: Parameter = Parameter::new("limit", Form::Limit);
/// Where a list goes on.
pub(crate) const CURSOR: Parameter = Parameter::new("cursor", Form::Cursor);
/// Not before.
pub(crate) const FROM: Parameter = Parameter::new("from", Form::Time);
/// Before.
pub(crate) const TO: Parameter = Parameter::new("to", Form::Time);

impl Parameter {
    pub(crate) const fn new(name: &'static str, form: Form) -> Self {
        Self { name, form, is_required: false }
    }

    /// Without it nothing is answered.
    pub(crate) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }
}

impl Contract {
    /// A route that does this, and of which nothing else is said yet.
    pub(crate) const fn new(says: &'static str) -> Self {
        Self { says, query: &[], body: None, answers: &[], refuses: &[], is_once: false }
    }

    /// A list that goes on: pages of this schema.
    pub(crate) const fn list(says: &'static str, answers: &'static [(u16, Given)]) -> Self {
        Self::new(says).query(&[LIMIT, CURSOR]).answers(answers)
    }

    pub(crate) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    pub(crate) const fn body(self, body: Body) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(crate) const fn answers(self, answers: &'static [(u16, Given)]) -> Self {
        Self { answers, ..self }
    }

    pub(crate) const fn refuses(self, refuses: &'static [u16]) -> Self {
        Self { refuses, ..self }
    }

    /// It takes an `Idempotency-Key`: asked again with the same key and body, it is done once.
    pub(crate) const fn once(self) -> Self {
        Self { is_once: true, ..self }
    }
}
