//! The routes and their contracts as an OpenAPI 3.1 document.

use serde_json::{Map, Value, json};

use super::{Body, Contract, Form, Given, Parameter, answers, requests};
use crate::flags::Part;
use crate::routes::Route;

/// What any route may answer that goes wrong, by status: the component's name, and what it means.
const REFUSALS: [(u16, &str, &str); 11] = [
    (
        400,
        "Invalid",
        "Parameters, fields or headers are wrong: `details` names each. Also: a cursor that is not this list's",
    ),
    (401, "Unknown", "No token, or one that is not believed"),
    (403, "Forbidden", "The caller may not, or a page of this origin may not"),
    (404, "Missing", "There is no such thing, or the caller may not see it, or the part is off"),
    (409, "Conflict", "It cannot be done as things are"),
    (413, "TooLarge", "The body is too large"),
    (415, "MediaType", "The body's content-type is not taken here"),
    (422, "OtherBody", "The idempotency key came before with another body"),
    (429, "TooOften", "Too often: come again after `retryAfter` seconds"),
    (503, "Unavailable", "Not now: come again after `retryAfter` seconds"),
    (504, "TimedOut", "It took too long"),
];

/// The whole contract.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(path_of(&route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    let mut schemas = answers::schemas();
    schemas.extend(requests::schemas());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "emberd",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Traces, evaluations and what is computed of them, beside Phoenix.",
            "description": "Requests are camelCase; answers hold the tables' rows in snake_case; times are RFC 3339 UTC. Lists are \
                `{data, next_cursor}`: ask again with `cursor` until `next_cursor` is null. Every refusal is `{error, details?, retryAfter?}`, also those that any path may hear: 405 for a method that it has not, 421 for another host, 500 where someone has to look. \
                `x-emberd-permission` is what a caller's role must grant, `x-emberd-part` the feature flag that a path hangs on: where it is off for a caller, the path answers 404.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "Where this was fetched" }],
        "security": [{ "bearer": [] }],
        "tags": TAGS.iter().map(|(name, says)| json!({ "name": name, "description": says })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "The application's session token, or a bridge token of POST /api/auth/phoenix. Where no identity is configured, every caller is the local administrator and needs none",
            } },
            "parameters": { "IdempotencyKey": {
                "name": "Idempotency-Key", "in": "header",
                "description": "Asked again with the same key and body by the same caller, the row is made once and answered again. Kept for a week",
                "schema": { "type": "string", "minLength": 1, "maxLength": 200 },
            } },
            "responses": REFUSALS.iter().map(|(status, name, says)| ((*name).to_owned(), refusal(*status, says))).collect::<Map<_, _>>(),
            "schemas": schemas,
        },
    })
}

/// As OpenAPI writes it: `{path}` for the rest of one, and no slash at the end (Socket.IO's own path has one).
fn path_of(path: &str) -> String {
    path.trim_end_matches('/').replace("{*", "{")
}

const TAGS: [(&str, &str); 10] = [
    ("operations", "Health, metrics, status, the ledger"),
    ("auth", "Tokens for Phoenix and for emberd"),
    ("phoenix", "Phoenix's own API, as far as a caller may use it"),
    ("graphql", "The subgraph"),
    ("prompts", "Prompts and what their pages show"),
    ("evaluations", "Jobs, evaluators, results"),
    ("datasets", "What evaluations run on"),
    ("templates", "Judges' templates"),
    ("rules", "Rules on live traffic"),
    ("analytics", "Product events"),
];

fn tag(path: &str) -> &'static str {
    let of = [
        ("/api/auth", "auth"),
        ("/api/phoenix/{", "phoenix"),
        ("/graphql", "graphql"),
        ("/api/prompts", "prompts"),
        ("/api/evaluation-rules", "rules"),
        ("/api/traces", "rules"),
        ("/api/evaluation-templates", "templates"),
        ("/api/evalua", "evaluations"),
        ("/api/datasets", "datasets"),
        ("/api/analytics", "analytics"),
    ];
    of.iter().find(|(start, _)| path.starts_with(start)).map_or("operations", |(_, tag)| tag)
}

fn operation(route: &Route) -> Value {
    let Contract { says, query, body, answers, is_once, .. } = route.contract;
    let mut parameters: Vec<Value> = path_parameters(&route.path);
    parameters.extend(query.iter().map(parameter));
    if is_once {
        parameters.push(json!({ "$ref": "#/components/parameters/IdempotencyKey" }));
    }
    let mut operation = json!({
        "operationId": match route.operation {
            // One handler, and an operation for each method.
            "proxy" => format!("proxy_{}", route.method.as_str().to_lowercase()),
            name => name.to_owned(),
        },
        "summary": says,
        "tags": [tag(&route.path)],
        "parameters": parameters,
        "responses": responses(route, answers),
    });
    match route.asked {
        Some(permission) => operation["x-emberd-permission"] = permission.name().into(),
        None => operation["security"] = json!([]),
    }
    if let Some(part) = route.part {
        operation["x-emberd-part"] = flag(part).into();
    }
    if let Some(body) = body {
        operation["requestBody"] = request_body(body);
    }
    operation
}

/// The flag's name in the configuration.
fn flag(part: Part) -> &'static str {
    match part {
        Part::Evaluations => "evaluations",
        Part::Traces => "traces",
        Part::Experiments => "experiments",
        Part::AdvancedMetrics => "advancedMetrics",
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let schema = |name: &str| match name {
        "id" => json!({ "type": "string", "format": "uuid" }),
        "trace" => json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" }),
        _ => json!({ "type": "string" }),
    };
    let one = |name: &str| {
        let name = name.trim_start_matches('*');
        json!({ "name": name, "in": "path", "required": true, "schema": schema(name) })
    };
    names.map(one).collect()
}

fn parameter(parameter: &Parameter) -> Value {
    let (schema, says) = match parameter.form {
        Form::Limit => {
            (json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }), "So many rows at most")
        }
        Form::Cursor => (json!({ "type": "string" }), "`next_cursor` of the page before, of the same list and caller"),
        Form::Text => (json!({ "type": "string", "minLength": 1, "maxLength": 1024 }), "Equal to this"),
        Form::Uuid => (json!({ "type": "string", "format": "uuid" }), "Equal to this"),
        Form::Time if parameter.name == "to" => (json!({ "type": "string", "format": "date-time" }), "Before"),
        Form::Time => (json!({ "type": "string", "format": "date-time" }), "At or after"),
        Form::Word(words) => (json!({ "type": "string", "enum": words }), "One of these"),
    };
    let is_required = parameter.is_required;
    json!({ "name": parameter.name, "in": "query", "required": is_required, "description": says, "schema": schema })
}

fn json_of(name: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{name}") } } })
}

fn files(types: &[&str]) -> Value {
    let file = |name: &&str| match *name {
        "application/json" => ((*name).to_owned(), json!({ "schema": {} })),
        "application/x-ndjson" | "text/csv" => ((*name).to_owned(), json!({ "schema": { "type": "string" } })),
        text if text.starts_with("text/") => (text.to_owned(), json!({ "schema": { "type": "string" } })),
        other => (other.to_owned(), json!({ "schema": { "type": "string", "contentMediaType": other } })),
    };
    Value::Object(types.iter().map(file).collect())
}

fn request_body(body: Body) -> Value {
    match body {
        Body::Json(name) => json!({ "required": true, "content": json_of(name) }),
        Body::File(types) => json!({ "required": true, "content": files(types) }),
        Body::Anything => json!({ "required": false, "content": { "application/json": { "schema": {} } } }),
    }
}

fn responses(route: &Route, answers: &[(u16, Given)]) -> Value {
    let mut responses = Map::new();
    for (status, given) in answers {
        let (description, content) = match given {
            Given::Json(name) => (meaning(*status), Some(json_of(name))),
            Given::Nothing => (meaning(*status), None),
            Given::File(types) => (meaning(*status), Some(files(types))),
            Given::Anything => ("What Phoenix answers", Some(json!({ "*/*": { "schema": {} } }))),
        };
        let mut response = json!({ "description": description });
        if let Some(content) = content {
            response["content"] = content;
        }
        responses.insert(status.to_string(), response);
    }
    if answers.iter().any(|(_, given)| matches!(given, Given::Anything)) {
        // Phoenix answers as it likes; what emberd itself refuses there is an `Error` like everywhere.
        let content = json!({ "*/*": { "schema": {} } });
        let says = "What Phoenix answers, or an `Error` of emberd's own";
        responses.insert("default".to_owned(), json!({ "description": says, "content": content }));
        return Value::Object(responses);
    }
    for (status, name, _) in REFUSALS.iter().filter(|(status, ..)| refuses(route, *status)) {
        let of = json!({ "$ref": format!("#/components/responses/{name}") });
        responses.entry(status.to_string()).or_insert(of);
    }
    Value::Object(responses)
}

fn meaning(status: u16) -> &'static str {
    match status {
        200 => "As asked",
        201 => "Made",
        202 => "Taken, and written soon",
        204 => "Done",
        _ => "Otherwise",
    }
}

/// Whether a route may be refused so.
fn refuses(route: &Route, status: u16) -> bool {
    let contract = &route.contract;
    let by_kind = match status {
        400 | 401 | 403 | 429 | 503 | 504 => route.asked.is_some(),
        404 => route.path.contains('{') || route.part.is_some(),
        413 | 415 => contract.body.is_some(),
        422 => contract.is_once,
        _ => false,
    };
    by_kind || contract.refuses.contains(&status)
}

fn refusal(status: u16, says: &str) -> Value {
    let mut refusal = json!({ "description": says, "content": json_of("Error") });
    if matches!(status, 429 | 503) {
        refusal["headers"] = json!({ "Retry-After": {
            "description": "The same as `retryAfter`", "schema": { "type": "integer", "minimum": 1 },
        } });
    }
    refusal
}
