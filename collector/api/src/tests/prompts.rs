//! Prompts and what their pages show, from both databases alike.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::world::{Kind, Made, World};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000001";

/// A prompt that was made is in the list, newest first, in the table's names.
#[tokio::test]
async fn prompts_are_made_and_listed() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let made = world.post("/api/prompts", r#"{"title":"greet","content":"Say hello to {name}. 你好"}"#).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let row = made.json();
        assert_eq!(
            (&row["title"], &row["content"], &row["created_by"]),
            (&json!("greet"), &json!("Say hello to {name}. 你好"), &Value::Null)
        );
        assert_eq!(row["created_at"], "2026-11-21T02:00:00.000000Z");
        uuid::Uuid::parse_str(row["id"].as_str().unwrap()).unwrap();

        for title in ["two", "three"] {
            world.prompt(title).await;
        }
        let mut seen = Vec::new();
        let mut path = "/api/prompts?limit=2".to_owned();
        loop {
            let page = world.get(&path).await.json();
            let rows = page["data"].as_array().unwrap();
            assert!((1..=2).contains(&rows.len()), "{page}");
            seen.extend(rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/prompts?limit=2&cursor={cursor}");
        }
        seen.sort();
        assert!(["greet", "three", "two"].iter().all(|title| seen.contains(&(*title).to_owned())), "{seen:?}");
        seen.dedup();
        assert!(seen.len() <= 4, "only the reserved prompt beside: {seen:?}");
        world.end().await;
    }
}

/// What is wrong with a prompt is said, all of it, by field.
#[tokio::test]
async fn wrong_prompts_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    let long = "x".repeat(256);
    for (body, expected) in [
        ("{}".to_owned(), &[("title", "is missing"), ("content", "is missing")][..]),
        (r#"{"title":null,"content":3}"#.into(), &[("title", "is missing"), ("content", "expected a text")]),
        (r#"{"title":"  ","content":"c"}"#.into(), &[("title", "must not be empty")]),
        (r#"{"title":"a\u0000b","content":"c"}"#.into(), &[("title", "must not hold a NUL")]),
        (format!(r#"{{"title":"{long}","content":"c"}}"#), &[("title", "longer than 255 characters")]),
        (
            r#"{"title":"t","content":"c","created_by":"me","id":1,"createdAt":0}"#.into(),
            &[("createdAt", "unknown field"), ("created_by", "unknown field"), ("id", "unknown field")],
        ),
        ("[]".into(), &[("", "expected an object")]),
    ] {
        let answer = world.post("/api/prompts", &body).await;
        let expected: Vec<_> =
            expected.iter().map(|(path, message)| ((*path).to_owned(), (*message).to_owned())).collect();
        let mut details = answer.details();
        if details.iter().all(|(_, message)| message == "unknown field") {
            details.sort();
        }
        assert_eq!(details, expected, "{body}");
    }
    for body in ["", "{", "{}x", "\u{feff}{}", &"[".repeat(100_000)] {
        let answer = world.post("/api/prompts", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.json()["error"].as_str().unwrap().starts_with("not JSON: "), "{}", answer.text);
    }
    let good = r#"{"title":"t","content":"c"}"#;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")] {
        let headers: Vec<_> = kind.iter().map(|kind| ("content-type", *kind)).collect();
        let answer = world.ask("POST", "/api/prompts", &headers, good).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
    let upper = world.ask("POST", "/api/prompts", &[("content-type", "Application/JSON; charset=utf-8")], good).await;
    assert_eq!(upper.status, StatusCode::CREATED);
    let huge = format!(r#"{{"title":"t","content":"{}"}}"#, "x".repeat(1 << 20));
    let answer = world.post("/api/prompts", &huge).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::PAYLOAD_TOO_LARGE, json!({ "error": "larger than 1048576 bytes" }))
    );
    assert_eq!(world.post("/api/prompts?dry", good).await.details(), [("dry".into(), "unknown parameter".into())]);
    world.end().await;
}

/// Parameters that are wrong are refused, all at once; so is what nobody asked for.
#[tokio::test]
async fn wrong_parameters_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    let id = world.prompt("p").await;
    for (path, expected) in [
        ("/api/prompts?limit=0", &["limit: expected a number from 1 to 200"][..]),
        ("/api/prompts?limit=201", &["limit: expected a number from 1 to 200"]),
        ("/api/prompts?limit=-1", &["limit: expected a number from 1 to 200"]),
        ("/api/prompts?limit=1000000000000", &["limit: expected a number from 1 to 200"]),
        ("/api/prompts?limit=", &["limit: expected 1 to 1024 bytes"]),
        ("/api/prompts?limit=1&limit=2", &["limit: is there twice"]),
        ("/api/prompts?cursor=made-up", &["cursor: not a cursor of this list"]),
        ("/api/prompts?sort=;DROP%20TABLE", &["sort: unknown parameter"]),
        ("/api/prompts/ID/performance?window=2h", &["window: expected 1h, 1d, 7d, 30d"]),
        (
            "/api/prompts/ID/performance?from=yesterday&to=1&x=y",
            &[
                "from: expected a time such as 2026-11-21T02:15:41Z",
                "to: expected a time such as 2026-11-21T02:15:41Z",
                "x: unknown parameter",
            ],
        ),
        (
            "/api/prompts/ID/performance?from=2026-11-21T00:00:00Z&to=2026-11-21T01:00:00%2B01:00",
            &["to: must be later than `from`"],
        ),
        ("/api/prompts/ID/performance?limit=3", &["limit: unknown parameter"]),
        (
            "/api/prompts/ID/traces?status=failed&model=%00",
            &["status: expected success, error, timeout", "model: must not hold a NUL"],
        ),
        ("/api/prompts/ID/traces?cursor=%ff", &["cursor: not a cursor of this list"]),
        ("/api/prompts/ID/traces?window=1h&project=x", &["project: unknown parameter", "window: unknown parameter"]),
        ("/api/prompts/1/traces", &["id: expected a UUID"]),
        ("/api/prompts/%ff/traces", &["id: expected a UUID"]),
        ("/api/prompts/00000000000040008000000000000001/performance", &["id: expected a UUID"]),
        ("/api/prompts/%7B00000000-0000-4000-8000-000000000001%7D/performance", &["id: expected a UUID"]),
    ] {
        let answer = world.get(&path.replace("ID", &id)).await;
        let details: Vec<_> =
            answer.details().into_iter().map(|(path, message)| format!("{path}: {message}")).collect();
        assert_eq!(details, expected, "{path}");
    }
    let endless = format!("/api/prompts/{id}/traces?model={}", "x".repeat(2_000));
    assert_eq!(world.get(&endless).await.details(), [("model".into(), "expected 1 to 1024 bytes".into())]);
    for part in ["performance", "traces"] {
        let answer = world.get(&format!("/api/prompts/{UNKNOWN}/{part}")).await;
        assert_eq!(
            (answer.status, answer.json()),
            (StatusCode::NOT_FOUND, json!({ "error": "no such prompt" })),
            "{part}"
        );
    }
    world.end().await;
}

/// A prompt's traces are the table's rows, newest first, by any filter, page by page without gap or repetition.
#[tokio::test]
async fn traces_are_filtered_and_paged() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let id = world.prompt("p").await;
        let other = world.prompt("other").await;
        let mut traces: Vec<Made> = (1..=7).map(|number| Made::new(number, &id)).collect();
        traces[1].fails = true;
        traces[2].model = "claude";
        traces[3].session = "6b6f0a4e-0d2f-4f7e-9a51-1a2b3c4d5e6f";
        traces.push(Made::new(8, &other));
        world.record(&traces).await;

        let ids = async |query: &str| -> Vec<u8> {
            let page = world.get(&format!("/api/prompts/{id}/traces{query}")).await.json();
            let number = |row: &Value| u8::from_str_radix(&row["phoenix_trace_id"].as_str().unwrap()[..2], 16).unwrap();
            page["data"].as_array().unwrap_or_else(|| panic!("{page}")).iter().map(number).collect()
        };
        // The higher the number, the longer ago.
        assert_eq!(ids("").await, [1, 2, 3, 4, 5, 6, 7], "{kind:?}");
        assert_eq!(ids("?status=error").await, [2]);
        assert_eq!(ids("?status=success&model=claude").await, [3]);
        assert_eq!(ids("?status=timeout").await, [0; 0]);
        assert_eq!(ids("?session=6b6f0a4e-0d2f-4f7e-9a51-1a2b3c4d5e6f").await, [4]);
        assert_eq!(ids("?session=chat").await, [1, 2, 3, 5, 6, 7], "a session may have any name");
        assert_eq!(ids("?from=2026-11-21T01:51:00Z&to=2026-11-21T01:54:00Z").await, [2, 3, 4]);
        assert_eq!(ids("?from=2026-11-21T02:51:00%2B01:00").await, [1, 2, 3, 4]);

        let mut seen = Vec::new();
        let mut query = "?limit=3".to_owned();
        loop {
            let page = world.get(&format!("/api/prompts/{id}/traces{query}")).await.json();
            seen.extend(
                page["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["phoenix_trace_id"].as_str().unwrap()[..2].to_owned()),
            );
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("?limit=3&cursor={cursor}");
        }
        assert_eq!(seen, ["01", "02", "03", "04", "05", "06", "07"]);

        let page = world.get(&format!("/api/prompts/{id}/traces?status=error")).await.json();
        let row = &page["data"][0];
        assert_eq!(row["phoenix_trace_id"], "02".repeat(16));
        assert_eq!(row["prompt_id"], json!(id));
        assert_eq!(
            (&row["execution_time_ms"], &row["status"], &row["error"]),
            (&json!(100), &json!("error"), &json!("broken"))
        );
        assert_eq!((&row["model"], &row["user_id"]), (&json!("gpt-4o"), &Value::Null));
        assert_eq!(row["tokens_used"]["total"], 15);
        assert_eq!(row["created_at"], "2026-11-21T01:53:00.000000Z");
        assert_eq!(row["metadata"]["prompt_ref"], json!(id));
        let columns: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = vec![
            "id",
            "prompt_id",
            "phoenix_trace_id",
            "session_id",
            "execution_time_ms",
            "tokens_used",
            "model",
            "status",
            "error",
            "metadata",
            "created_at",
            "user_id",
        ];
        expected.sort_unstable();
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        world.end().await;
    }
}

/// A prompt's performance is the table's rows by window, and its line of the summary.
#[tokio::test]
async fn performance_is_told_by_window() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let id = world.prompt("p").await;
        let empty = world.get(&format!("/api/prompts/{id}/performance")).await.json();
        assert_eq!(empty["data"], json!([]));
        assert!(empty["summary"].is_null() || empty["summary"]["total_traces"] == 0, "{empty}");

        let mut traces: Vec<Made> = (1..=3).map(|number| Made::new(number, &id)).collect();
        traces[0].fails = true;
        traces[2].minutes_ago = 3 * 60;
        traces[2].millis = 400;
        world.record(&traces).await;

        let performance = async |query: &str| world.get(&format!("/api/prompts/{id}/performance{query}")).await.json();
        let hours = performance("?window=1h").await;
        let rows = hours["data"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["aggregation_window"] == "1h" && row["prompt_id"] == json!(id)));
        let value = |timestamp: &str, metric: &str| {
            let mut found = rows.iter().filter(|row| row["timestamp"] == timestamp && row["metric_type"] == metric);
            let value = found.next().unwrap_or_else(|| panic!("{kind:?} {timestamp} {metric}: {hours}"))["value"]
                .as_f64()
                .unwrap();
            assert!(found.next().is_none());
            value
        };
        let (late, early) = ("2026-11-21T01:00:00.000000Z", "2026-11-20T23:00:00.000000Z");
        assert_eq!((value(late, "latency_p50"), value(early, "latency_p50")), (100.0, 400.0));
        assert_eq!((value(late, "success_rate"), value(late, "error_rate")), (0.5, 0.5));

        let all = performance("").await;
        for window in ["1h", "1d", "7d", "30d"] {
            assert!(all["data"].as_array().unwrap().iter().any(|row| row["aggregation_window"] == window), "{window}");
        }
        let after = performance("?window=1h&from=2026-11-21T00:00:00Z").await;
        assert!(after["data"].as_array().unwrap().iter().all(|row| row["timestamp"] == late));
        assert!(!after["data"].as_array().unwrap().is_empty());
        let before = performance("?window=1h&to=2026-11-21T01:00:00Z").await;
        assert!(before["data"].as_array().unwrap().iter().all(|row| row["timestamp"] == early));

        let summary = &all["summary"];
        assert_eq!((&summary["prompt_title"], &summary["total_traces"]), (&json!("p"), &json!(3)));
        assert_eq!((&summary["avg_latency"], &summary["avg_tokens"]), (&json!(200.0), &json!(15.0)));
        assert_eq!(summary["last_used_at"], "2026-11-21T01:54:00.000000Z");
        world.end().await;
    }
}
