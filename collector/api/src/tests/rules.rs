//! Rules on live traffic and what they decided, over HTTP, from both databases alike: made, changed, read, refused.

use emberd_model::TraceId;
use emberd_store::jobs::{Decision, Scored, Subject, TraceScore};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::identity::identity;
use super::world::{Answer, Kind, NOW, World};

const RULES: &str = "/api/evaluation-rules";
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000001";

fn rule(name: &str) -> Value {
    json!({ "name": name, "budget": 2.5, "config": { "share": 0.5, "evaluators": ["json_valid"] } })
}

async fn post(world: &World, body: &Value) -> Answer {
    world.post(RULES, &body.to_string()).await
}

async fn patch(world: &World, id: &str, body: &Value) -> Answer {
    let path = format!("{RULES}/{id}");
    world.ask("PATCH", &path, &[("content-type", "application/json")], &body.to_string()).await
}

/// A rule is made, listed by name, given other contents under its name, switched off and on, and deleted.
#[tokio::test]
async fn a_rule_lives_and_dies() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let made = post(&world, &rule("quality")).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let row = made.json();
        assert_eq!((&row["name"], &row["enabled"], &row["version"]), (&json!("quality"), &json!(true), &json!(1)));
        assert_eq!(row["config"], rule("quality")["config"], "as it was given, and no plan");
        assert_eq!(row["cost"], json!({ "spent": 0.0, "reserved": 0.0, "budget": 2.5, "currency": "USD" }));
        assert_eq!(row["created_at"], "2026-11-21T02:00:00.000000Z");
        let id = row["id"].as_str().unwrap();

        assert_eq!(post(&world, &rule("another")).await.status, StatusCode::CREATED);
        let listed = world.get(RULES).await.json();
        let names: Vec<&str> =
            listed["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!((names, &listed["next_cursor"]), (vec!["another", "quality"], &Value::Null));

        let mut other = rule("quality");
        other["config"]["share"] = json!(0.1);
        let changed = post(&world, &other).await.json();
        assert_eq!((&changed["id"], &changed["version"]), (&row["id"], &json!(2)), "the same rule, anew");
        assert_eq!(changed["config"]["share"], json!(0.1));

        for enabled in [false, true] {
            let switched = patch(&world, id, &json!({ "enabled": enabled })).await;
            assert_eq!((switched.status, &switched.json()["enabled"]), (StatusCode::OK, &json!(enabled)));
        }
        let gone = world.ask("DELETE", &format!("{RULES}/{id}"), &[], "").await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        for answer in [
            world.ask("DELETE", &format!("{RULES}/{id}"), &[], "").await,
            patch(&world, id, &json!({ "enabled": true })).await,
            patch(&world, UNKNOWN, &json!({ "enabled": false })).await,
        ] {
            assert_eq!((answer.status, answer.json()["error"].clone()), (StatusCode::NOT_FOUND, json!("no such rule")));
        }
        assert_eq!(world.get(RULES).await.json()["data"].as_array().unwrap().len(), 1);
        world.end().await;
    }
}

/// All that is wrong with a rule is told at once, each with its path, and nothing is made.
#[tokio::test]
async fn wrong_rules_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    let body = json!({
        "name": " ", "enabled": "yes", "budget": -1, "colour": 1,
        "config": {
            "share": 1.5, "salt": "", "tracesPerSecond": 0, "annotate": "page", "more": 1,
            "filter": { "status": ["odd"], "minTokens": 5, "maxTokens": 1 }, "evaluators": [],
        },
    });
    let wrong = post(&world, &body).await.details();
    let paths: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    for path in [
        "name",
        "enabled",
        "budget",
        "colour",
        "config.share",
        "config.salt",
        "config.tracesPerSecond",
        "config.annotate",
        "config.more",
        "config.filter.status",
        "config.filter.maxTokens",
        "config.evaluators",
    ] {
        assert!(paths.contains(&path), "{path} is not told: {wrong:?}");
    }
    let body = json!({ "name": "n", "config": { "evaluators": ["no_such", "coherence", { "name": "regex" }] } });
    let wrong = post(&world, &body).await.details();
    for at in [0, 2] {
        let path = format!("config.evaluators[{at}]");
        assert!(wrong.iter().any(|(known, _)| known.starts_with(&path)), "{path} is not told: {wrong:?}");
    }
    assert!(wrong.iter().any(|(_, message)| message.contains("model")), "a judge needs one: {wrong:?}");
    for body in ["[]", "{", "\"x\""] {
        assert_eq!(world.post(RULES, body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let id = post(&world, &rule("sound")).await.json()["id"].as_str().unwrap().to_owned();
    for body in [json!({}), json!({ "enabled": 1 }), json!({ "enabled": true, "name": "other" })] {
        assert_eq!(patch(&world, &id, &body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(patch(&world, "x", &json!({ "enabled": true })).await.status, StatusCode::BAD_REQUEST);
    // Rules are one page: there is nothing to go on from.
    for query in ["limit=1", "cursor=x", "colour=1"] {
        assert_eq!(world.get(&format!("{RULES}?{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(world.get(RULES).await.json()["data"].as_array().unwrap().len(), 1);
    world.end().await;
}

/// Of each rule that saw a trace: what it decided and why, with its scores, an error being one in words and never a number.
#[tokio::test]
async fn decisions_say_why() {
    for kind in Kind::ALL {
        let world = World::new(kind).await;
        let trace = TraceId([7; 16]);
        let mut ids = Vec::new();
        for name in ["judged", "passed over"] {
            let id = post(&world, &rule(name)).await.json()["id"].as_str().unwrap().to_owned();
            ids.push(id.parse().unwrap());
        }
        let decision = |rule, decision: &str, detail: Option<&str>| Decision {
            rule,
            trace,
            version: 1,
            epoch: 3,
            decision: decision.into(),
            detail: detail.map(str::to_owned),
            spans: 4,
            at: NOW,
        };
        let decisions =
            vec![decision(ids[0], "run", None), decision(ids[1], "filtered", Some("its project is another"))];
        world.store.decide(decisions).await.unwrap();
        let score = |name: &str, subject, outcome| TraceScore {
            trace,
            rule: ids[0],
            epoch: 3,
            subject,
            scored: Scored { name: name.into(), outcome, ..scored() },
            at: NOW,
        };
        let failed = Err(emberd_store::jobs::Failure { class: "timeout".into(), message: "late".into() });
        let good =
            emberd_store::jobs::Score { score: Some(0.5), label: Some("good".into()), explanation: Some("why".into()) };
        let scores =
            vec![score("a", Subject::Span("0101010101010101".into()), Ok(good)), score("b", Subject::Trace, failed)];
        world.store.put_trace_scores(scores).await.unwrap();

        let told = world.get(&format!("/api/traces/{trace}/decisions")).await.json();
        assert_eq!(told["next_cursor"], Value::Null);
        let of = |rule: &str| {
            let all = told["data"].as_array().unwrap();
            all.iter().find(|one| one["rule"] == rule).unwrap_or_else(|| panic!("{rule} is not in {told}")).clone()
        };
        let judged = of("judged");
        assert_eq!((&judged["decision"], &judged["epoch"], &judged["spans"]), (&json!("run"), &json!(3), &json!(4)));
        assert_eq!(judged["at"], "2026-11-21T02:00:00.000000Z");
        let scores = judged["scores"].as_array().unwrap();
        assert_eq!(
            (&scores[0]["score"], &scores[0]["label"], &scores[0]["subject"]),
            (&json!(0.5), &json!("good"), &json!("0101010101010101"))
        );
        assert_eq!(
            (&scores[1]["score"], &scores[1]["error_class"], &scores[1]["error"]),
            (&Value::Null, &json!("timeout"), &json!("late"))
        );
        let passed = of("passed over");
        assert_eq!((&passed["detail"], &passed["scores"]), (&json!("its project is another"), &json!([])));

        let other = world.get(&format!("/api/traces/{}/decisions", TraceId([8; 16]))).await;
        assert_eq!((other.status, &other.json()["data"]), (StatusCode::OK, &json!([])), "nobody saw it");
        for path in ["x", "0707", &"0".repeat(33), &"g".repeat(32)] {
            let wrong = world.get(&format!("/api/traces/{path}/decisions")).await.details();
            assert_eq!(wrong, [("trace".to_owned(), "expected 32 hex digits".to_owned())], "{path}");
        }
        let more = world.get(&format!("/api/traces/{trace}/decisions?limit=1")).await;
        assert_eq!(more.status, StatusCode::BAD_REQUEST, "they are one page");
        world.end().await;
    }
}

fn scored() -> Scored {
    Scored {
        name: String::new(),
        version: "1".into(),
        outcome: Err(emberd_store::jobs::Failure { class: String::new(), message: String::new() }),
        direction: emberd_store::jobs::Direction::Maximize,
        metadata: json!({}),
        latency: std::time::Duration::ZERO,
        cost: emberd_store::jobs::Money(0),
        cached: false,
    }
}

/// Where callers must say who they are, whoever does not learns nothing and changes nothing, whatever the route asks for.
#[tokio::test]
async fn nobody_reads_or_changes_rules_without_a_token() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let body = rule("quality").to_string();
    let one = format!("{RULES}/{UNKNOWN}");
    let decisions = format!("/api/traces/{}/decisions", TraceId([7; 16]));
    for (method, path, body) in [
        ("GET", RULES, ""),
        ("POST", RULES, body.as_str()),
        ("PATCH", &one, "{\"enabled\":true}"),
        ("DELETE", &one, ""),
        ("GET", &decisions, ""),
    ] {
        let headers = [("content-type", "application/json"), ("authorization", "Bearer x")];
        let answer = world.ask(method, path, &headers, body).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    assert!(world.store.rules().await.unwrap().is_empty());
    world.end().await;
}
