//! The GraphQL subgraph: prompts as the library knows them, with the evaluations, traces and numbers that emberd knows of them.
//!
//! Promise: a question costs a bounded number of statements: lists under many prompts are read together, a question deeper than
//! [`DEPTH_MAX`] or dearer than [`COST_MAX`] is refused before anything is read. Everything is read as the caller sees it, and a field asks for the
//! permission that the REST route of the same thing asks for.
//! On the wire: Apollo Federation 2; `Prompt @key(fields: "id")` belongs to whoever owns the prompts, and is completed here. Lists are plain; each
//! entry's `cursor` is what `after` takes.
//! Not here: HTTP, who the caller is (`emberd-api`), SQL (`emberd-store`).
//! Kept by: `emberd-api`'s `tests::graph`; `daemon/tests/it/app.rs` (the real Apollo gateway beside a prompts subgraph).
//!
//! - [`nodes`]: the types. [`together`]: lists under many prompts in one statement.

mod nodes;
mod together;

use async_graphql::dataloader::DataLoader;
use async_graphql::{EmptyMutation, EmptySubscription, Request, Schema, ServerError, Variables};
use emberd_identity::{Caller, Permission};
use emberd_store::Store;
use emberd_store::jobs::Viewer;
use serde_json::{Value, json};

use self::nodes::Query;
use self::together::{EvaluationsOf, TracesOf};

/// Fields within fields.
pub const DEPTH_MAX: usize = 12;
/// Entries and fields that a question may ask for at most: what it would read if every list were full.
pub const COST_MAX: usize = 50_000;
/// Entities in one question of a gateway.
const ENTITIES_MAX: usize = 1_000;
/// Braces in a document, before it is read at all.
const RECURSION_MAX: usize = 32;
const DIRECTIVES_MAX: usize = 10;
const QUERY_BYTES_MAX: usize = 32 << 10;

/// The schema, ready to be asked; cheap to clone.
#[derive(Clone)]
pub struct Graph {
    schema: Schema<Query, EmptyMutation, EmptySubscription>,
    store: Store,
}

/// Which parts of the graph are there for whoever asks; the others' fields are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Traces and numbers.
    pub traces: bool,
    /// Evaluations.
    pub evaluations: bool,
}

/// Who asks, as the fields need it.
pub(crate) struct Asker {
    caller: Caller,
    parts: Parts,
    pub(crate) store: Store,
}

impl Asker {
    /// Refuses a field that the caller may not see.
    pub(crate) fn may(&self, permission: Permission) -> async_graphql::Result<()> {
        let is_there = match permission {
            Permission::ReadTraces => self.parts.traces,
            Permission::ReadEvaluations => self.parts.evaluations,
            _ => true,
        };
        match (is_there, self.caller.may(permission)) {
            (true, true) => Ok(()),
            (true, false) => Err(async_graphql::Error::new("not allowed")),
            (false, _) => Err(async_graphql::Error::new("no such field here")),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Whether the question was answered, if only in parts; else it was refused whole.
    pub is_answered: bool,
    /// `{data, errors}`.
    pub body: Value,
}

impl Graph {
    /// The subgraph over this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
            .enable_federation()
            .limit_depth(DEPTH_MAX)
            .limit_complexity(COST_MAX)
            .limit_recursive_depth(RECURSION_MAX)
            .limit_directives(DIRECTIVES_MAX)
            .disable_suggestions()
            .finish();
        Self { schema, store }
    }

    /// The schema as a gateway's composition takes it.
    #[must_use]
    pub fn sdl(&self) -> String {
        self.schema.sdl()
    }

    /// Answers `{query, variables?, operationName?}`. Only administrators may ask for the schema's own structure.
    pub async fn answer(&self, asked: &Value, caller: &Caller, viewer: Viewer, parts: Parts) -> Answer {
        let mut request = match read(asked) {
            Ok(request) => request,
            Err(why) => return refused(why, "BAD_REQUEST"),
        };
        if !caller.may(Permission::Administer) {
            request = request.disable_introspection();
        }
        let store = self.store.seen_by(viewer);
        let runtime = tokio::runtime::Handle::current();
        // Each loads once, within the question that asked for it.
        let spawner = move |load| drop(runtime.spawn(load));
        let request = request
            .data(DataLoader::new(EvaluationsOf(store.clone()), spawner.clone()))
            .data(DataLoader::new(TracesOf(store.clone()), spawner))
            .data(Asker { caller: caller.clone(), parts, store });
        let response = self.schema.execute(request).await;
        let is_answered = response.errors.iter().all(|error| !is_of_the_question(error));
        let code = response.errors.first().map(|error| code(error));
        let mut body = serde_json::to_value(&response).unwrap_or_else(|_| json!({ "data": null }));
        if let (false, Some(code), Some(errors)) =
            (is_answered, code, body.get_mut("errors").and_then(Value::as_array_mut))
        {
            for error in errors {
                error["extensions"]["code"] = code.into();
                error["message"] = shortened(error["message"].as_str().unwrap_or_default()).into();
            }
        }
        Answer { is_answered, body }
    }
}

fn read(asked: &Value) -> Result<Request, &'static str> {
    let Some(fields) = asked.as_object() else { return Err("one operation is asked at a time, as an object") };
    let query = fields.get("query").and_then(Value::as_str).ok_or("`query` is missing")?;
    if query.len() > QUERY_BYTES_MAX {
        return Err("a query has 32 KiB at most");
    }
    let variables = fields.get("variables").cloned().unwrap_or(Value::Null);
    if variables["representations"].as_array().is_some_and(|all| all.len() > ENTITIES_MAX) {
        return Err("more than 1000 representations");
    }
    let variables = match variables {
        Value::Null => Variables::default(),
        Value::Object(_) => Variables::from_json(variables),
        _ => return Err("`variables` must be an object"),
    };
    let request = Request::new(query).variables(variables);
    Ok(match fields.get("operationName").and_then(Value::as_str) {
        Some(name) => request.operation_name(name),
        None => request,
    })
}

fn refused(why: &str, code: &str) -> Answer {
    Answer {
        is_answered: false,
        body: json!({ "data": null, "errors": [{ "message": why, "extensions": { "code": code } }] }),
    }
}

/// A parser shows the whole line that it could not read: where and why is enough.
fn shortened(message: &str) -> String {
    let (mut lines, cut) = (message.lines(), |line: &str| line.trim().chars().take(200).collect::<String>());
    let first = cut(lines.next().unwrap_or_default());
    lines.next_back().map_or(first.clone(), |last| format!("{first} {}", cut(last)))
}

/// Whether the question itself is wrong, rather than a field of it: such an error names no path.
fn is_of_the_question(error: &ServerError) -> bool {
    error.path.is_empty()
}

fn code(error: &ServerError) -> &'static str {
    match error.message.as_str() {
        "Query is nested too deep." => "DEPTH",
        "Query is too complex." => "COMPLEXITY",
        message if message.starts_with("The recursion depth") || message.contains("limit reached") => "DEPTH",
        _ => "BAD_REQUEST",
    }
}
