//! What operators and scrapers ask.

use hyper::StatusCode;
use serde_json::json;

use super::world::{Kind, World};

/// Alive is that it answers; ready is what the other rooms say, with their reasons. Plugins are named, and make nobody unready.
#[tokio::test]
async fn health_and_readiness() {
    let world = World::new(Kind::Sqlite).await;
    assert_eq!(world.get("/healthz").await.json(), json!({ "healthy": true }));
    let ready = world.get("/readyz").await;
    let plugins = json!({ "shout": "down", "words": "ready" });
    assert_eq!((ready.status, ready.json()), (StatusCode::OK, json!({ "ready": true, "plugins": plugins })));
    *world.told.reasons.lock().unwrap() = vec!["the log is full".into(), "the recorder stands still".into()];
    let ready = world.get("/readyz").await;
    let reasons = ["the log is full", "the recorder stands still"];
    let expected = json!({ "ready": false, "reasons": reasons, "plugins": plugins });
    assert_eq!((ready.status, ready.json()), (StatusCode::SERVICE_UNAVAILABLE, expected));
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
    world.end().await;
}

/// The status is what the other rooms tell, and how the database is.
#[tokio::test]
async fn status_tells_the_ledger_and_the_database() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let status = world.get("/api/status").await.json();
        assert_eq!(status["ledger"]["accepted_spans"], 3);
        assert_eq!(status["database"]["told"], "by the view");
        assert_eq!(status["database"]["kind"], if kind == Kind::Sqlite { "sqlite" } else { "postgres" });
        assert_eq!(status["database"]["healthy"], true, "{status}");
        assert_eq!(status["database"]["counts"]["traces"], 0);
        assert_eq!(status["database"]["pool"]["max"], 4);
        assert_eq!(world.get("/api/status?verbose").await.details(), [("verbose".into(), "unknown parameter".into())]);
        world.end().await;
    }
}

/// A database that is gone is said in the status, which answers all the same; what needs it is refused for now.
#[tokio::test]
async fn a_dead_database_does_not_take_the_status_along() {
    let world = World::new(Kind::Sqlite).await;
    world.store.close().await;
    let status = world.get("/api/status").await;
    assert_eq!(status.status, StatusCode::OK);
    assert_eq!(status.json()["database"]["healthy"], false);
    let refused = world.get("/api/prompts").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
    assert_eq!(refused.json(), json!({ "error": "the database is unavailable", "retryAfter": 5 }));
    let metrics = world.get("/metrics").await.text;
    assert!(
        metrics.contains("phoenix_errors_total{operation=\"prompts\",error_type=\"unavailable\"} 1\n"),
        "{metrics}"
    );
    world.end().await;
}

/// Requests are counted by route, in the form that Prometheus reads, with the names that dashboards ask for.
#[tokio::test]
async fn requests_are_measured() {
    let world = World::new(Kind::Sqlite).await;
    world.get("/api/prompts").await;
    world.get("/api/prompts").await;
    world.get("/api/prompts?limit=0").await;
    world.get("/nowhere").await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "# TYPE phoenix_request_latency histogram",
        "phoenix_request_latency_bucket{operation=\"prompts\",status=\"success\",le=\"+Inf\"} 3",
        "phoenix_request_latency_count{operation=\"prompts\",status=\"success\"} 3",
        "phoenix_request_latency_count{operation=\"prompts\",status=\"error\"} 0",
        "# TYPE phoenix_errors_total counter",
        "# TYPE phoenix_active_requests gauge",
        "phoenix_active_requests{operation=\"metrics\"} 1",
        "phoenix_active_requests{operation=\"prompts\"} 0",
        "phoenix_active_requests{operation=\"prompt_traces\"} 0",
        "emberd_api_refusals_total{operation=\"prompts\",status=\"400\"} 1",
        "emberd_api_refusals_total{operation=\"none\",status=\"404\"} 1",
        "emberd_told 1",
    ] {
        assert!(answer.text.lines().any(|one| one == line), "{line}\n{}", answer.text);
    }
    well_formed(&answer.text);
    world.end().await;
}

/// Every sample has a name that was announced, labels in quotes and a number; buckets only grow.
fn well_formed(text: &str) {
    let mut family = "";
    let mut last_bucket = ("", 0.0);
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().unwrap();
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(sample.starts_with(family), "{line} is not of {family}");
        if let Some((series, _)) = sample.split_once(",le=") {
            assert!(series != last_bucket.0 || value >= last_bucket.1, "{line}");
            last_bucket = (series, value);
        }
    }
}
