//! What the OpenAPI document says, held against the code: every request and answer of every test of this crate goes through
//! [`Promised::check`].

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{bearer, user};
use super::world::{Answer, Kind, World};
use crate::Callers;

/// Where the document lies that `emberd openapi` prints.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

/// A request, as the test made it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
}

/// The document, and what was seen of it.
pub(super) struct Promised {
    document: Value,
    validators: Mutex<HashMap<String, Validator>>,
    /// Operations that were answered as asked.
    pub(super) seen: Mutex<BTreeSet<String>>,
}

impl Promised {
    pub(super) fn new(document: Value) -> Self {
        Self { document, validators: Mutex::default(), seen: Mutex::default() }
    }

    /// The operation that a request reaches; a path that is written out comes before one with names in it.
    fn operation(&self, asked: &Asked<'_>) -> Option<&Value> {
        let path = asked.path.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        let fits = |template: &&String| {
            let (mut wanted, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some("{path}"), Some(_)) => return true,
                    (Some(name), Some(is)) if name.starts_with('{') => _ = is,
                    (Some(word), Some(is)) if word == is => {}
                    _ => return false,
                }
            }
        };
        let found = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
        paths[found].get(asked.method.to_lowercase())
    }

    /// Whether a value is what the schema says, and holds nothing that it does not name.
    fn fits(&self, schema: &Value, value: &Value, what: &str) {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = self.document["components"].clone();
            close(&mut whole);
            jsonschema::options().should_validate_formats(true).build(&whole).unwrap_or_else(|error| panic!("{error}"))
        });
        let wrong: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:#?}\n{value}");
    }

    /// Holds a request and its answer against the document.
    pub(super) fn check(&self, asked: &Asked<'_>, answer: &Answer) {
        let status = answer.status.as_u16();
        let what = format!("{} {} -> {status}", asked.method, asked.path.chars().take(200).collect::<String>());
        let Some(operation) = self.operation(asked) else {
            assert!(status >= 400 || matches!(asked.method, "HEAD" | "OPTIONS"), "{what}: not in the document");
            return;
        };
        // What the gate and the router say before a route is reached, and what nobody can foresee.
        if matches!(status, 421 | 500) || matches!((status, asked.path.len()), (414 | 431, _)) {
            return self.fits(&json!({ "$ref": "#/components/schemas/Error" }), &answer.json(), &what);
        }
        let is_foreign = status == 403 && answer.text.contains("origin");
        let said = match &operation["responses"][status.to_string()] {
            Value::Null if is_foreign => return,
            Value::Null => match &operation["responses"]["default"] {
                Value::Null => panic!("{what}: no such answer is promised\n{}", answer.text),
                said => said,
            },
            said => said,
        };
        let said = match said["$ref"].as_str() {
            Some(name) => self.document.pointer(name.trim_start_matches('#')).unwrap(),
            None => said,
        };
        self.check_body(said, answer, &what);
        if said["headers"]["Retry-After"].is_object() {
            assert!(answer.header("retry-after").is_some(), "{what}");
        }
        if (200..300).contains(&status) {
            self.check_request(operation, asked, &what);
            self.seen.lock().unwrap().insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }

    fn check_body(&self, said: &Value, answer: &Answer, what: &str) {
        let Some(content) = said["content"].as_object() else {
            assert_eq!(answer.text, "", "{what}: nothing was promised");
            return;
        };
        let media_type = answer.header("content-type").unwrap_or_default().split(';').next().unwrap();
        let Some(schema) = content.get(media_type) else {
            assert!(content.contains_key("*/*"), "{what}: {media_type} is not promised");
            return;
        };
        if media_type == "application/json" {
            self.fits(&schema["schema"], &answer.json(), what);
        }
    }

    /// A request that was taken is one that the document describes.
    fn check_request(&self, operation: &Value, asked: &Asked<'_>, what: &str) {
        let names: Vec<&str> =
            operation["parameters"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        let query = asked.path.split_once('?').map_or("", |(_, query)| query);
        if !names.contains(&"path") && operation["operationId"] != "healthz" {
            for name in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap()) {
                assert!(names.contains(&name), "{what}: the parameter {name} is not described");
            }
        }
        let media_type = asked.headers.iter().find(|(name, _)| *name == "content-type").map_or("", |(_, value)| value);
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema["$ref"].is_string() && media_type == "application/json" {
            self.fits(schema, &serde_json::from_str(asked.body).unwrap(), what);
        }
    }
}

/// Objects hold what they name and nothing more, unless they say otherwise.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// Every route of the router is in the document, with what it asks of its caller, and nothing else is.
#[tokio::test]
async fn every_route_is_in_the_document() {
    let world = World::new(Kind::Sqlite).await;
    let served = world.get("/openapi.json").await.json();
    assert_eq!(served["openapi"], "3.1.0");
    let mut said = 0;
    for route in &world.routes {
        let path = route.path.trim_end_matches('/').replace("{*", "{");
        let operation = &served["paths"][&path][route.method.as_str().to_lowercase()];
        assert!(operation["summary"].as_str().is_some_and(|says| says.len() > 8), "{} {path}", route.method);
        assert_eq!(
            operation["x-emberd-permission"].as_str(),
            route.asked.map(emberd_identity::Permission::name),
            "{path}"
        );
        assert_eq!(operation["x-emberd-part"].is_string(), route.part.is_some(), "{path}");
        assert_eq!(operation["security"] == json!([]), route.asked.is_none(), "{path}");
        let named = path.matches('{').count();
        let in_path = operation["parameters"].as_array().unwrap().iter().filter(|one| one["in"] == "path").count();
        assert_eq!(named, in_path, "{path}");
        assert!(
            operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('2') || status == "101"),
            "{path}"
        );
        said += 1;
    }
    let all: usize = served["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(all, said);
    world.end().await;
}

/// What the document refers to is there, all of it, and nothing is there that nobody refers to.
#[tokio::test]
async fn every_schema_is_used() {
    let world = World::new(Kind::Sqlite).await;
    let document = world.get("/openapi.json").await.json();
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    for name in &named {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name} is nowhere");
    }
    for kind in ["schemas", "responses", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(named.contains(&format!("#/components/{kind}/{name}")), "{kind} {name} is used nowhere");
        }
    }
    world.end().await;
}

fn references(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            named.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, named));
        }
        Value::Array(all) => all.iter().for_each(|one| references(one, named)),
        _ => {}
    }
}

/// `docs/openapi.json`, which `emberd openapi` prints, is what the code says.
/// Renew it: `EMBERD_RENEW=1 cargo test -p emberd-api the_kept_document_is_the_served_one`.
#[tokio::test]
async fn the_kept_document_is_the_served_one() {
    let world = World::with(Kind::Sqlite, Callers::LocalAdministrator, &[]).await;
    let served = format!("{:#}\n", world.get("/openapi.json").await.json());
    if std::env::var_os("EMBERD_RENEW").is_some() {
        std::fs::write(KEPT, &served).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap();
    assert!(kept == served, "docs/openapi.json is not what the code says: renew it as the head of this test says");
    world.end().await;
}

/// Every operation of the document is asked so that it does what it is for, and its answer is what the document says. Phoenix's own are
/// asked in `tests::proxy`.
#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let world = World::with(Kind::Sqlite, super::identity::identity(), &[]).await;
    let eve = user(Uuid::from_u128(0xe4e), "eve", "admin");
    let token = bearer(&eve);
    let ask = async |method: &str, path: &str, body: Value| {
        let answer = super::identity::ask(&world, &token, method, path, &body).await;
        assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text);
        if answer.text.starts_with('{') { answer.json() } else { Value::Null }
    };
    let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/api/status",
        "/api/ledger",
        "/api/evaluators",
        "/api/phoenix/health",
        "/api/phoenix/stats",
        "/api/evaluation-rules",
    ] {
        ask("GET", path, Value::Null).await;
    }
    ask("POST", "/graphql", json!({ "query": "{ traces(first: 1) { phoenixTraceId } }" })).await;
    ask("POST", "/api/auth/phoenix", json!({ "token": token.trim_start_matches("Bearer ") })).await;
    ask("POST", "/api/analytics/events", json!({ "name": "opened" })).await;
    let prompt = id(&ask("POST", "/api/prompts", json!({ "title": "t", "content": "c" })).await);
    world.record(&[super::world::Made::new(1, &prompt)]).await;
    for path in ["performance?window=1h", "traces?limit=1&status=success", "evaluations"] {
        ask("GET", &format!("/api/prompts/{prompt}/{path}"), Value::Null).await;
    }
    ask("GET", "/api/prompts?limit=1", Value::Null).await;
    ask("GET", &format!("/api/traces/{}/decisions", "1".repeat(32)), Value::Null).await;
    let data = json!([{ "id": "a", "input": "i", "output": "o", "reference": "o" }]);
    let dataset = id(&ask("POST", "/api/datasets", json!({ "name": "d", "type": "custom", "data": data })).await);
    ask("POST", "/api/datasets/upload?name=u", data.clone()).await;
    for path in ["", "/examples?limit=1", "/export"] {
        ask("GET", &format!("/api/datasets/{dataset}{path}"), Value::Null).await;
    }
    ask("GET", "/api/datasets", Value::Null).await;
    ask("PATCH", &format!("/api/datasets/{dataset}"), json!({ "description": "d" })).await;
    let evaluation =
        json!({ "promptId": prompt, "datasetId": dataset, "name": "n", "config": { "evaluators": ["exact_match"] } });
    ask("POST", "/api/evaluations/quote", evaluation.clone()).await;
    let evaluation = id(&ask("POST", "/api/evaluations", evaluation).await);
    let of_it = format!("/api/evaluations/{evaluation}");
    ask("GET", "/api/evaluations?status=running", Value::Null).await;
    ask("PATCH", &of_it, json!({ "name": "m" })).await;
    while matches!(ask("GET", &of_it, Value::Null).await["status"].as_str(), Some("pending" | "running")) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    ask("GET", &format!("{of_it}/results?limit=1"), Value::Null).await;
    ask("POST", &format!("{of_it}/retry"), json!({})).await;
    ask("DELETE", &of_it, Value::Null).await;
    ask("DELETE", &format!("/api/datasets/{dataset}"), Value::Null).await;
    let config = json!({
        "direction": "maximize",
        "choices": [{ "label": "yes", "score": 1.0 }, { "label": "no", "score": 0.0 }],
        "messages": [{ "role": "user", "content": "Is {{input}} good?" }],
    });
    let template = id(&ask("POST", "/api/evaluation-templates", json!({ "name": "judge", "config": config })).await);
    let of_it = format!("/api/evaluation-templates/{template}");
    ask("GET", "/api/evaluation-templates", Value::Null).await;
    ask("GET", &of_it, Value::Null).await;
    ask("PATCH", &of_it, json!({ "isPublic": true })).await;
    ask("DELETE", &of_it, Value::Null).await;
    let rule = json!({ "name": "quality", "budget": 2.5, "config": { "share": 0.5, "evaluators": ["json_valid"] } });
    let rule = id(&ask("POST", "/api/evaluation-rules", rule).await);
    ask("PATCH", &format!("/api/evaluation-rules/{rule}"), json!({ "enabled": false })).await;
    ask("DELETE", &format!("/api/evaluation-rules/{rule}"), Value::Null).await;
    ask("DELETE", "/api/auth/phoenix", Value::Null).await;

    // These cannot be met here: a job that is still running, traces that say what was asked, a connection that becomes a socket.
    let elsewhere = ["cancel_evaluation", "dataset_from_traces", "socket"];
    let seen = world.promised.seen.lock().unwrap().clone();
    for route in &world.routes {
        let is_there =
            seen.contains(route.operation) || route.operation == "proxy" || elsewhere.contains(&route.operation);
        assert!(is_there, "{} was not asked", route.operation);
    }
    world.end().await;
}
