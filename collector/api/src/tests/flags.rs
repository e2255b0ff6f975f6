//! For whom a part of the API is there.

use emberd_identity::{Permissions, User};
use hyper::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use super::identity::{ask, bearer, identity};
use super::world::{Kind, World};
use crate::{Callers, Flag, Flags};

/// The application's check, as its source has it: a sum of `charCodeAt`, modulo 100.
const GOLDEN: [(&str, u64); 5] =
    [("", 0), ("a", 97), ("00000000-0000-0000-0000-0000000000da", 17), ("google-oauth2|117", 54), ("\u{1f525}", 70)];

#[test]
fn a_user_is_in_by_its_id() {
    for (id, place) in GOLDEN {
        let sum: u64 = id.encode_utf16().map(u64::from).sum();
        assert_eq!(sum % 100, place, "{id}");
        for rollout in 0..=100 {
            assert_eq!(Flag { enabled: true, rollout }.lets_in(id), place < u64::from(rollout), "{id} at {rollout} %");
        }
    }
}

fn user(n: u128) -> User {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, n.to_string().as_bytes());
    User {
        id,
        subject: id.to_string(),
        email: Some(format!("{n}@example.com")),
        name: None,
        role: "member".into(),
        department: None,
        permissions: Permissions::of_role(false),
    }
}

/// At 25 % exactly the users are in whose hash says so; the others hear what they would of a path that there is not.
#[tokio::test]
async fn a_part_is_there_for_a_share_of_the_users() {
    let flags = Flags { evaluations: Flag { enabled: true, rollout: 25 }, ..Flags::default() };
    let world = World::with_flags(Kind::Sqlite, identity(), &[], flags).await;
    let mut inside = 0;
    for n in 0..120 {
        let user = user(n);
        let answer = ask(&world, &bearer(&user), "GET", "/api/evaluations", &Value::Null).await;
        let is_in = user.subject.encode_utf16().map(u64::from).sum::<u64>() % 100 < 25;
        inside += u32::from(is_in);
        let expected = if is_in { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(answer.status, expected, "{}", user.subject);
        if !is_in {
            assert_eq!(answer.text, r#"{"error":"no such path"}"#);
        }
        let other = ask(&world, &bearer(&user), "GET", "/api/prompts", &Value::Null).await;
        assert_eq!(other.status, StatusCode::OK);
    }
    assert!((10..110).contains(&inside), "{inside}");
    assert_eq!(world.get("/api/evaluations").await.status, StatusCode::UNAUTHORIZED);
    world.end().await;
}

#[tokio::test]
async fn off_is_off_for_everyone() {
    let flags = Flags { evaluations: Flag { enabled: false, rollout: 100 }, ..Flags::default() };
    let world = World::with_flags(Kind::Sqlite, Callers::LocalAdministrator, &[], flags).await;
    for route in world.routes.clone() {
        let path = route
            .path
            .replace("{id}", &Uuid::nil().to_string())
            .replace("{trace}", &"1".repeat(32))
            .replace("{*path}", "v1/projects");
        if route.operation == "proxy" {
            continue; // There is no Phoenix here.
        }
        let answer = world.ask(route.method.as_str(), &path, &[], "").await;
        let is_gone = answer.text == r#"{"error":"no such path"}"#;
        assert_eq!(is_gone, route.part == Some(crate::flags::Part::Evaluations), "{}", route.operation);
    }
    world.end().await;
}

/// Where there is nothing to hear of, for anyone, there is no socket, and nothing is gathered.
#[tokio::test]
async fn without_evaluations_and_traces_there_are_no_sockets() {
    let off = Flag { enabled: false, rollout: 100 };
    let flags = Flags { evaluations: off, traces: off, ..Flags::default() };
    let world = World::with_flags(Kind::Sqlite, Callers::LocalAdministrator, &[], flags).await;
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let answer = world.ask("GET", "/socket.io/?EIO=4&transport=websocket", &upgrade, "").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NOT_FOUND, r#"{"error":"no such path"}"#));
    world.end().await;
}
