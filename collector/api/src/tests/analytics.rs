//! Events of the application, and what calls leave of their users.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{ask, bearer, identity, user};
use super::world::{Kind, World};

const EVENTS: &str = "/api/analytics/events";
const ADA: Uuid = Uuid::from_u128(0xada);

fn ada() -> String {
    bearer(&user(ADA, "ada", "member"))
}

/// One or many are taken and written, as the caller's, whoever the body names; one that comes twice is one.
#[tokio::test]
async fn events_are_the_callers() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let id = Uuid::from_u128(17);
        let one = json!({ "name": "prompt.opened", "id": id, "sessionId": Uuid::from_u128(3), "properties": { "from": "search", "n": 1 } });
        let many =
            json!({ "events": [one, { "name": "prompt.copied", "at": "2026-11-21T01:59:00Z", "properties": null }] });
        for (body, accepted) in [(&one, 1), (&many, 2)] {
            let answer = ask(&world, &ada(), "POST", EVENTS, body).await;
            assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({ "accepted": accepted })));
        }
        let store = world.store.clone();
        // What was taken is written before the end.
        let kept = async {
            for _ in 0..200 {
                let events = store.events(10).await.unwrap();
                if events.len() == 2 {
                    return events;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            panic!("{:?}", store.events(10).await.unwrap());
        };
        let kept = kept.await;
        assert!(kept.iter().all(|event| event.user == Some(ADA)));
        assert_eq!((kept[0].id, &kept[0].properties), (id, &json!({ "from": "search", "n": 1 })));
        assert_eq!((kept[1].name.as_str(), &kept[1].properties), ("prompt.copied", &json!({})));
        assert_eq!(kept[1].at.to_string(), "2026-11-21T01:59:00.000000Z");
        world.end().await;
    }
}

/// What is wrong is told with its place, and nothing of the request is taken.
#[tokio::test]
async fn wrong_events_are_refused() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let deep = (0..9).fold(json!(1), |inside, _| json!({ "a": inside }));
    let large = json!({ "a": "x".repeat(17 << 10) });
    let good = json!({ "name": "n" });
    let cases: Vec<(Value, &str)> = vec![
        (json!({}), "name"),
        (json!({ "name": "n", "user": ADA }), "user"),
        (json!({ "name": "n", "user_id": ADA }), "user_id"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "n".repeat(101) }), "name"),
        (json!({ "name": "n", "properties": [] }), "properties"),
        (json!({ "name": "n", "properties": deep }), "properties"),
        (json!({ "name": "n", "properties": large }), "properties"),
        (json!({ "name": "n", "promptId": "x" }), "promptId"),
        (json!({ "name": "n", "at": "2026-11-21T03:00:00Z" }), "at"),
        (json!({ "name": "n", "at": "2026-10-01T03:00:00Z" }), "at"),
        (json!({ "name": "n", "at": "yesterday" }), "at"),
        (json!({ "events": [] }), "events"),
        (json!({ "events": vec![good.clone(); 501] }), "events"),
        (json!({ "events": [good, 3] }), "events[1]"),
        (json!({ "events": [good, { "name": "n", "colour": 1 }] }), "events[1].colour"),
        (json!({ "events": [good], "name": "n" }), "name"),
    ];
    for (body, place) in cases {
        let answer = ask(&world, &ada(), "POST", EVENTS, &body).await;
        let places: Vec<String> = answer.details().into_iter().map(|(path, _)| path).collect();
        assert!(places.contains(&place.to_owned()), "{place}: {places:?}");
    }
    assert_eq!(ask(&world, "", "POST", EVENTS, &good).await.status, StatusCode::UNAUTHORIZED);
    let store = world.store.clone();
    world.end().await;
    drop(store);
}

/// Where no more can be held the answer is that, and nothing is lost of what was taken before.
#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    // The database is away: nothing is written, and what is taken waits.
    let token = ada();
    let many = json!({ "events": vec![json!({ "name": "n" }); 500] });
    assert_eq!(ask(&world, &token, "POST", EVENTS, &many).await.status, StatusCode::ACCEPTED);
    world.store.close().await;
    let (mut taken, mut refused) = (0, None);
    for _ in 0..60 {
        let answer = ask(&world, &token, "POST", EVENTS, &many).await;
        match answer.status {
            StatusCode::ACCEPTED => taken += 1,
            _ => {
                refused = Some(answer);
                break;
            }
        }
    }
    let refused = refused.expect("the queue has an end");
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
    assert!((35..=45).contains(&taken), "{taken}");
}

/// A user's calls are one session, which no call of another or of health begins.
#[tokio::test]
async fn calls_are_a_session_of_their_user() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        for _ in 0..5 {
            ask(&world, &ada(), "GET", "/api/prompts", &Value::Null).await;
        }
        world.get("/healthz").await;
        world.get("/api/prompts").await;
        let store = world.store.clone();
        let mut sessions = Vec::new();
        for _ in 0..200 {
            sessions = store.sessions(10).await.unwrap();
            if !sessions.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        assert_eq!((sessions[0].user, sessions[0].traces), (Some(ADA), 0));
        assert_eq!(sessions[0].first.to_string(), "2026-11-21T02:00:00.000000Z");
        // The day is there from the start.
        let mut days = store.days(20).await.unwrap();
        for _ in 0..200 {
            if !days.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            days = store.days(20).await.unwrap();
        }
        assert_eq!(days[0].day, "2026-11-21");
        world.end().await;
    }
}
