//! Evaluations and datasets over HTTP, from both databases alike: made, run to their end, read, changed, refused.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::world::{Answer, Kind, Made, World};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000001";

async fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.post(path, &body.to_string()).await
}

async fn patch(world: &World, path: &str, body: &Value) -> Answer {
    world.ask("PATCH", path, &[("content-type", "application/json")], &body.to_string()).await
}

async fn made(world: &World, path: &str, body: &Value) -> Value {
    let answer = post(world, path, body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()
}

fn capitals() -> Value {
    json!({
        "name": "capitals", "type": "custom",
        "data": [
            { "id": "fr", "input": "Capital of France?", "output": "Paris", "reference": "Paris" },
            { "id": "it", "input": "Capital of Italy?", "output": "Milan", "reference": "Rome" },
            { "id": "no", "input": "Capital of Norway?", "reference": "Oslo" },
        ],
    })
}

/// Waits for an evaluation's end.
async fn ended(world: &World, id: &str) -> Value {
    for _ in 0..600 {
        let row = world.get(&format!("/api/evaluations/{id}")).await.json();
        if !matches!(row["status"].as_str().unwrap(), "pending" | "running") {
            return row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("evaluation {id} does not end")
}

/// A dataset is made, judged, and each result is where spec/3 says; what has no output is an error, not a score.
#[tokio::test]
async fn an_evaluation_runs_to_its_end() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let prompt = world.prompt("geography").await;
        let dataset = made(&world, "/api/datasets", &capitals()).await;
        assert_eq!((&dataset["examples"], &dataset["type"]), (&json!(3), &json!("custom")));
        let body = json!({
            "promptId": prompt, "datasetId": dataset["id"], "name": "first",
            "config": { "evaluators": ["exact_match", { "name": "contains", "config": { "words": ["a"] } }] },
        });
        let quote = post(&world, "/api/evaluations/quote", &body).await.json();
        assert_eq!((&quote["items"], &quote["calls"], &quote["cost"]["high"]), (&json!(6), &json!(0), &json!(0.0)));

        let row = made(&world, "/api/evaluations", &body).await;
        assert!(row["phoenix_eval_id"].as_str().unwrap().starts_with("local:"), "{row}");
        let id = row["id"].as_str().unwrap();
        let row = ended(&world, id).await;
        assert_eq!((&row["status"], &row["progress"]["total"]), (&json!("completed"), &json!(6)), "{row}");
        let metric = &row["metrics"]["evaluators"]["exact_match"];
        assert_eq!(
            (&metric["mean"], &metric["scored"], &metric["errors"], &metric["of"]),
            (&json!(0.5), &json!(2), &json!(1), &json!(3))
        );

        let page = world.get(&format!("/api/evaluations/{id}/results?evaluator=exact_match")).await.json();
        let results = page["data"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        let of = |example: &str| results.iter().find(|result| result["example_id"] == example).unwrap();
        assert_eq!((&of("fr")["score"], &of("it")["score"]), (&json!(1.0), &json!(0.0)));
        assert_eq!(
            (&of("no")["score"], &of("no")["error_class"]),
            (&Value::Null, &json!("missing_field")),
            "{}",
            of("no")
        );
        let errors = world.get(&format!("/api/evaluations/{id}/results?errors=true&limit=1")).await.json();
        assert_eq!(errors["data"].as_array().unwrap().len(), 1);
        assert!(errors["next_cursor"].is_string());

        let listed = world.get(&format!("/api/evaluations?promptId={prompt}&status=completed")).await.json();
        assert_eq!(listed["data"][0]["id"], *id);
        let listed = world.get(&format!("/api/prompts/{prompt}/evaluations")).await.json();
        assert_eq!(listed["data"][0]["id"], *id);

        let renamed =
            patch(&world, &format!("/api/evaluations/{id}"), &json!({ "name": "second", "description": "why" })).await;
        assert_eq!(
            (renamed.json()["name"].clone(), renamed.json()["description"].clone()),
            (json!("second"), json!("why"))
        );
        let over = post(&world, &format!("/api/evaluations/{id}/cancel"), &json!({})).await;
        assert_eq!(over.status, StatusCode::CONFLICT);
        let in_use = world.ask("DELETE", &format!("/api/datasets/{}", dataset["id"].as_str().unwrap()), &[], "").await;
        assert_eq!(in_use.status, StatusCode::CONFLICT);
        assert_eq!(
            world.ask("DELETE", &format!("/api/evaluations/{id}"), &[], "").await.status,
            StatusCode::NO_CONTENT
        );
        assert_eq!(world.get(&format!("/api/evaluations/{id}")).await.status, StatusCode::NOT_FOUND);
        world.end().await;
    }
}

/// The same key by the same caller makes one evaluation.
#[tokio::test]
async fn a_key_makes_a_creation_happen_once() {
    let world = World::new(Kind::Sqlite).await;
    let prompt = world.prompt("geography").await;
    let dataset = made(&world, "/api/datasets", &capitals()).await;
    let body = json!({ "promptId": prompt, "datasetId": dataset["id"], "name": "n", "config": { "evaluators": ["exact_match"] } });
    let ask = |key: &'static str| {
        let (world, body) = (&world, body.to_string());
        async move {
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            world.ask("POST", "/api/evaluations", &headers, &body).await
        }
    };
    let (first, again, other) = (ask("k").await, ask("k").await, ask("l").await);
    assert_eq!((first.status, again.status, other.status), (StatusCode::CREATED, StatusCode::OK, StatusCode::CREATED));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_ne!(first.json()["id"], other.json()["id"]);
    world.end().await;
}

/// All that is wrong with a request is told at once, each with its path, and nothing is made.
#[tokio::test]
async fn wrong_requests_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    let prompt = world.prompt("geography").await;
    let body = json!({
        "promptId": UNKNOWN, "datasetId": UNKNOWN, "name": "", "colour": 1,
        "config": { "temperature": 3, "evaluators": ["no_such", { "name": "regex", "config": { "pattern": "(" } }] },
    });
    let wrong = post(&world, "/api/evaluations", &body).await.details();
    let paths: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    assert!(["name", "colour", "config.temperature"].iter().all(|path| paths.contains(path)), "{wrong:?}");
    let body = json!({
        "promptId": UNKNOWN, "datasetId": UNKNOWN, "name": "n",
        "config": { "evaluators": ["no_such", { "name": "regex", "config": { "pattern": "(" } }] },
    });
    let wrong = post(&world, "/api/evaluations", &body).await.details();
    let paths: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    assert!(paths.contains(&"promptId") && paths.contains(&"datasetId"), "{wrong:?}");
    assert!(paths.iter().any(|path| path.starts_with("config.evaluators[0]")), "{wrong:?}");
    assert!(paths.iter().any(|path| path.starts_with("config.evaluators[1]")), "{wrong:?}");
    let judged =
        json!({ "promptId": prompt, "traces": { "limit": 5 }, "name": "n", "config": { "evaluators": ["coherence"] } });
    let wrong = post(&world, "/api/evaluations", &judged).await.details();
    assert!(wrong.iter().any(|(_, message)| message.contains("model")), "{wrong:?}");
    assert_eq!(world.get("/api/evaluations").await.json()["data"], json!([]));
    assert_eq!(world.get(&format!("/api/evaluations/{UNKNOWN}/results")).await.status, StatusCode::NOT_FOUND);
    world.end().await;
}

/// Files of each format come in and go out as the same examples; what is wrong in them is told by row.
#[tokio::test]
async fn datasets_come_as_files_and_go_as_files() {
    let world = World::new(Kind::Sqlite).await;
    let dataset = made(&world, "/api/datasets", &capitals()).await;
    let path = format!("/api/datasets/{}/export", dataset["id"].as_str().unwrap());
    for media_type in ["application/json", "application/x-ndjson", "text/csv"] {
        let file = world.ask("GET", &path, &[("accept", media_type)], "").await;
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, Some(media_type)));
        let uploaded =
            world.ask("POST", "/api/datasets/upload?name=again", &[("content-type", media_type)], &file.text).await;
        assert_eq!(uploaded.status, StatusCode::CREATED, "{}", uploaded.text);
        let id = uploaded.json()["id"].as_str().unwrap().to_owned();
        let examples = world.get(&format!("/api/datasets/{id}/examples")).await.json();
        let before = world.get(&format!("/api/datasets/{}/examples", dataset["id"].as_str().unwrap())).await.json();
        assert_eq!(examples["data"], before["data"], "{media_type}");
    }
    let wrong = world.ask("POST", "/api/datasets/upload?name=x", &[("content-type", "image/png")], "x").await;
    assert_eq!(wrong.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let body =
        json!({ "name": "n", "type": "qa_pairs", "data": [{ "question": "a", "answer": "b" }, { "question": 1 }] });
    let wrong = post(&world, "/api/datasets", &body).await.details();
    assert!(wrong.iter().all(|(path, _)| path.starts_with("data[1]")), "{wrong:?}");
    let changed =
        patch(&world, &format!("/api/datasets/{}", dataset["id"].as_str().unwrap()), &json!({ "isPublic": true }))
            .await;
    assert_eq!(changed.json()["is_public"], json!(true));
    world.end().await;
}

/// A prompt's traces become a dataset, as far as they say what was asked: these do not, and so there is none.
#[tokio::test]
async fn traces_without_input_are_no_examples() {
    let world = World::new(Kind::Sqlite).await;
    let prompt = world.prompt("greet").await;
    world.record(&[Made::new(1, &prompt), Made::new(2, &prompt)]).await;
    let body = json!({ "name": "of traces", "traces": { "promptId": prompt, "limit": 10 } });
    let wrong = post(&world, "/api/datasets/from-traces", &body).await.details();
    assert_eq!(wrong, [("data".to_owned(), "there are no examples".to_owned())]);
    world.end().await;
}

/// A template that no job could use is not kept; one that is, is an evaluator's.
#[tokio::test]
async fn templates_are_checked() {
    let world = World::new(Kind::Sqlite).await;
    let wrong = post(&world, "/api/evaluation-templates", &json!({ "name": "t", "config": { "messages": 3 } })).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text);
    let listed = world.get("/api/evaluators").await.json();
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"exact_match") && names.contains(&"coherence"), "{names:?}");
    world.end().await;
}
