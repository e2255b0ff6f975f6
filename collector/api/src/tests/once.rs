//! Creations under an idempotency key: once, whatever is created, on both databases.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{bearer, identity, user};
use super::world::{Answer, Kind, World};

async fn post(world: &World, token: &str, key: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", token), ("content-type", "application/json"), ("idempotency-key", key)];
    world.ask("POST", path, &headers, &body.to_string()).await
}

fn creations() -> [(&'static str, Value); 3] {
    let template = json!({
        "direction": "maximize",
        "choices": [{ "label": "yes", "score": 1.0 }, { "label": "no", "score": 0.0 }],
        "messages": [{ "role": "user", "content": "Is {{input}} good?" }],
    });
    [
        ("/api/prompts", json!({ "title": "t", "content": "Say {{input}}." })),
        ("/api/datasets", json!({ "name": "d", "type": "custom", "data": [{ "id": "a", "input": 1 }] })),
        ("/api/evaluation-templates", json!({ "name": "judge", "config": template })),
    ]
}

/// The same key and body is the same row with the same status; another body is told so; a key is its caller's and its list's own.
#[tokio::test]
async fn what_is_created_under_a_key_is_created_once() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let (ada, bob) = (
            bearer(&user(Uuid::from_u128(0xada), "ada", "member")),
            bearer(&user(Uuid::from_u128(0xb0b), "bob", "member")),
        );
        for (path, body) in creations() {
            let first = post(&world, &ada, "one", path, &body).await;
            assert_eq!(first.status, StatusCode::CREATED, "{path} {}", first.text);
            for _ in 0..2 {
                let again = post(&world, &ada, "one", path, &body).await;
                assert_eq!((again.status, again.json()), (StatusCode::CREATED, first.json()), "{path}");
            }
            let (field, mut other) = (if path == "/api/prompts" { "title" } else { "name" }, body.clone());
            other[field] = json!("another");
            let refused = post(&world, &ada, "one", path, &other).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {}", refused.text);
            assert_eq!(refused.json(), json!({ "error": "the idempotency key came before with another body" }));
            let bobs = post(&world, &bob, "one", path, &body).await;
            assert_eq!(bobs.status, StatusCode::CREATED);
            assert_ne!(bobs.json()["id"], first.json()["id"], "{path}");
            let wrong = post(&world, &ada, &"k".repeat(201), path, &body).await.details();
            assert_eq!(wrong[0].0, "Idempotency-Key");
            // What was refused made nothing, and its key is free.
            let bad = post(&world, &ada, "two", path, &json!({ "colour": 1 })).await;
            assert_eq!(bad.status, StatusCode::BAD_REQUEST);
            assert_eq!(post(&world, &ada, "two", path, &body).await.status, StatusCode::CREATED);
        }
        world.end().await;
    }
}

/// Many equal requests at once: one row.
#[tokio::test]
async fn equal_requests_at_once_create_one_row() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        for (path, body) in creations() {
            let ask = || post(&world, "", "race", path, &body);
            let all = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask());
            let ids = [all.0, all.1, all.2, all.3, all.4, all.5].map(|answer| {
                assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
                answer.json()["id"].clone()
            });
            assert!(ids.iter().all(|id| *id == ids[0]), "{path} {ids:?}");
            let listed = world.get(&format!("{path}?limit=200")).await.json();
            let made = listed["data"].as_array().unwrap().iter().filter(|row| row["id"] == ids[0]).count();
            let unassigned = usize::from(path == "/api/prompts");
            assert_eq!((made, listed["data"].as_array().unwrap().len()), (1, 1 + unassigned), "{path}");
        }
        world.end().await;
    }
}

/// A file is what was sent: its bytes, its type, and what the query says of it.
#[tokio::test]
async fn an_upload_is_made_once() {
    let world = World::new(Kind::Sqlite).await;
    let upload = async |query: &str, body: &str| {
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "file")];
        world.ask("POST", &format!("/api/datasets/upload?{query}"), &headers, body).await
    };
    let first = upload("name=a", r#"{"input":1}"#).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert_eq!(upload("name=a", r#"{"input":1}"#).await.json(), first.json());
    for (query, body) in [("name=b", r#"{"input":1}"#), ("name=a", r#"{"input":2}"#)] {
        assert_eq!(upload(query, body).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    world.end().await;
}

/// An evaluation's key is its job's; another body under it is refused too, and the first stays alone.
#[tokio::test]
async fn an_evaluations_key_holds_its_body() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let prompt = world.prompt("p").await;
        let (_, dataset) = &creations()[1];
        let dataset = world.post("/api/datasets", &dataset.to_string()).await.json();
        let body = json!({ "promptId": prompt, "datasetId": dataset["id"], "name": "n", "config": { "evaluators": ["exact_match"] } });
        let mut other = body.clone();
        other["name"] = json!("m");
        let (first, again) = (
            post(&world, "", "e", "/api/evaluations", &body).await,
            post(&world, "", "e", "/api/evaluations", &body).await,
        );
        assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::OK));
        assert_eq!(first.json()["id"], again.json()["id"]);
        assert_eq!(post(&world, "", "e", "/api/evaluations", &other).await.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(world.get("/api/evaluations").await.json()["data"].as_array().unwrap().len(), 1);
        world.end().await;
    }
}
