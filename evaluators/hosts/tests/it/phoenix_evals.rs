//! The real `arize-phoenix-evals` as a plugin: every metric described, code metrics right, a judge against an OpenAI-compatible endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Running, python_plugin};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing::post};
use emberd_evaluators_hosts::{BuildError, Config, Source};
use emberd_evaluators_kit::{Direction, Evaluator as _, Example, Kind, Outcome, Spec, collect};
use serde_json::{Value, json};

/// What the endpoint was asked.
type Asked = Arc<Mutex<Vec<Value>>>;

/// An endpoint that answers as the question's text demands. Its address, and what it was asked.
#[allow(clippy::disallowed_methods, reason = "the server ends with the test")]
async fn endpoint() -> (String, Asked) {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, asked)
}

async fn complete(State(asked): State<Asked>, Json(body): Json<Value>) -> Response {
    let text = body["messages"].to_string();
    asked.lock().unwrap().push(body);
    let refused = |status: StatusCode, code: &str| {
        (status, Json(json!({"error": {"message": "no", "code": code}}))).into_response()
    };
    let says = |content: String| {
        Json(json!({
            "id": "1", "object": "chat.completion", "created": 1, "model": "judge-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }))
        .into_response()
    };
    match () {
        () if text.contains("ANSWER-500") => refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        () if text.contains("ANSWER-401") => refused(StatusCode::UNAUTHORIZED, "invalid_api_key"),
        () if text.contains("ANSWER-429") => refused(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        () if text.contains("ANSWER-QUOTA") => refused(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"),
        () if text.contains("ANSWER-FILTER") => refused(StatusCode::BAD_REQUEST, "content_filter"),
        () if text.contains("ANSWER-RUBBISH") => says("not JSON".into()),
        () if text.contains("ANSWER-UGLY") => says(json!({"label": "ugly", "explanation": "?"}).to_string()),
        () if text.contains("ANSWER-NEVER") => {
            tokio::time::sleep(Duration::from_secs(120)).await;
            says("late".into())
        }
        () if text.contains("ANSWER-BAD") => {
            says(json!({"label": "incorrect", "explanation": "wrong city"}).to_string())
        }
        () => says(json!({"label": "correct", "explanation": "it is"}).to_string()),
    }
}

fn plugin(url: &str) -> Config {
    let mut config = python_plugin(&["-m", "emberd_phoenix_evals"]);
    config.bounds.deadline = Duration::from_secs(25);
    config.bounds.start = Duration::from_secs(300);
    let Source::Command(command) = &mut config.source else { unreachable!() };
    for (key, value) in [("OPENAI_BASE_URL", url), ("OPENAI_API_KEY", "sk-test"), ("EMBERD_LLM_MODEL", "judge-1")] {
        command.env.insert(key.into(), value.into());
    }
    config
}

fn example(output: Value, reference: Value) -> Example {
    Example { input: "What is the capital of France?".into(), output, reference, ..Example::default() }
}

async fn judged(running: &Running, spec: Value, batch: &[Example]) -> Vec<Outcome> {
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let metric = running.hosts.evaluator(&spec, Duration::from_secs(300)).await.unwrap();
    collect(&*metric, batch).await
}

fn value(outcome: &Outcome, name: &str) -> f64 {
    let scores = outcome.result.as_ref().unwrap();
    scores.iter().find(|score| score.name == name).unwrap_or_else(|| panic!("{name}: {scores:?}")).value.unwrap()
}

fn class(outcome: &Outcome) -> &'static str {
    outcome.result.as_ref().expect_err("a failure").class.name()
}

/// Scenario: the plugin with the real library, in one process that stays; an endpoint that answers, refuses and hangs.
/// Guarantees: all seventeen metrics are there with their kinds, directions and labels; scores are the library's; every failure has its class.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_phoenix_evals_is_an_evaluator() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = endpoint().await;
    let running = Running::start(BTreeMap::from([("phoenix".into(), plugin(&url))]), dir.path());

    described(&running).await;
    code(&running).await;
    judges(&running, &asked).await;
    running.stop().await;
}

async fn described(running: &Running) {
    let hallucination = running.metric("phoenix/hallucination").await;
    let all = running.hosts.descriptions();
    assert_eq!(all.len(), 17, "{:?}", all.iter().map(|one| &one.name).collect::<Vec<_>>());
    assert_eq!(all.iter().filter(|one| one.kind == Kind::Code).count(), 3);
    let output = &hallucination.describe().outputs[0];
    assert_eq!(output.direction, Direction::Minimize);
    assert_eq!(output.labels, ["hallucinated", "grounded"]);
    assert_eq!(hallucination.describe().version, "3.9.4");
    let refusal = running.metric("phoenix/refusal").await;
    assert_eq!(refusal.describe().outputs[0].direction, Direction::Neutral);
}

async fn code(running: &Running) {
    let batch = [example("Paris".into(), "Paris".into()), example("paris".into(), "Paris".into()), Example::default()];
    let outcomes = judged(running, json!("phoenix/exact_match"), &batch).await;
    assert_eq!((value(&outcomes[0], "exact_match"), value(&outcomes[1], "exact_match")), (1.0, 0.0));
    assert_eq!(class(&outcomes[2]), "missing_field");

    let spec = json!({"name": "phoenix/matches_regex", "config": {"pattern": "^[A-Z]"}});
    let outcomes = judged(running, spec, &batch[..2]).await;
    assert_eq!((value(&outcomes[0], "matches_regex"), value(&outcomes[1], "matches_regex")), (1.0, 0.0));
    assert!(outcomes[0].result.as_ref().unwrap()[0].explanation.as_ref().unwrap().contains("1 matches"));
    let spec: Spec = serde_json::from_value(json!("phoenix/matches_regex")).unwrap();
    let error = running.hosts.evaluator(&spec, Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, BuildError::Config { .. }), "{error}");
    let spec = json!({"name": "phoenix/matches_regex", "config": {"pattern": "("}});
    assert_eq!(class(&judged(running, spec, &batch[..1]).await[0]), "config_error");

    // Of a: 1 of 2 predicted is right (p 1/2), 1 of 1 found (r 1); of b: p 1, r 1/2. Macro: 3/4 and 3/4, f1 2/3.
    let lists = [example(json!(["a", "a", "b"]), json!(["a", "b", "b"]))];
    let outcomes = judged(running, json!("phoenix/precision_recall_fscore"), &lists).await;
    assert_eq!((value(&outcomes[0], "precision"), value(&outcomes[0], "recall")), (0.75, 0.75));
    assert!((value(&outcomes[0], "f1") - 2.0 / 3.0).abs() < 0.09, "{outcomes:?}");
    let spec = json!({"name": "phoenix/precision_recall_fscore", "config": {"average": "micro", "beta": 2}});
    let outcomes = judged(running, spec, &lists).await;
    assert!((value(&outcomes[0], "f2_micro") - 2.0 / 3.0).abs() < 1e-9);
}

async fn judges(running: &Running, asked: &Asked) {
    let with = |output: &str| example(output.into(), Value::Null);
    let batch: Vec<Example> = [
        "Paris",
        "ANSWER-BAD",
        "ANSWER-500",
        "ANSWER-401",
        "ANSWER-FILTER",
        "ANSWER-RUBBISH",
        "ANSWER-UGLY",
        "ANSWER-NEVER",
    ]
    .map(with)
    .into();
    let spec = json!({"name": "phoenix/correctness", "config": {"temperature": 0.0, "max_tokens": 99}});
    let outcomes = judged(running, spec, &batch).await;
    let right = &outcomes[0].result.as_ref().unwrap()[0];
    assert_eq!((right.value, right.label.as_deref()), (Some(1.0), Some("correct")));
    assert_eq!((right.explanation.as_deref(), right.direction), (Some("it is"), Direction::Maximize));
    let cost = outcomes[0].cost.as_ref().unwrap();
    assert_eq!((cost.prompt_tokens, cost.completion_tokens, cost.model.as_str()), (11, 7, "judge-1"));
    assert_eq!(value(&outcomes[1], "correctness"), 0.0);
    let classes: Vec<_> = outcomes[2..].iter().map(class).collect();
    assert_eq!(classes, ["provider_5xx", "provider_auth", "content_filter", "parse", "parse", "timeout"]);
    {
        let asked = asked.lock().unwrap();
        let first = asked.iter().find(|body| {
            body["messages"].to_string().contains("\"Paris") || body["messages"].to_string().contains("Paris")
        });
        let first = first.unwrap();
        assert_eq!((&first["model"], &first["max_tokens"]), (&json!("judge-1"), &json!(99)));
        assert_eq!(first["response_format"]["type"], "json_schema");
        let retried = asked.iter().filter(|body| body["messages"].to_string().contains("ANSWER-500")).count();
        assert_eq!(retried, 1, "emberd decides about trying again, not the client");
    }
    // Last, for after a 429 the library holds everything back for five seconds.
    let batch = [with("ANSWER-429"), with("ANSWER-QUOTA")];
    let outcomes = judged(running, json!("phoenix/correctness"), &batch).await;
    assert_eq!((class(&outcomes[0]), class(&outcomes[1])), ("provider_rate", "provider_quota"));
    let failure = outcomes[0].result.as_ref().unwrap_err();
    assert_eq!(failure.retry_after, Some(Duration::from_secs(5)));
}
