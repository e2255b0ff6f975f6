//! Callers with tokens: who they are, what they may, how often, and that one sees nothing of another's.

use emberd_identity::bridge::Bridge;
use emberd_identity::claims::Party;
use emberd_identity::verifier::LIFETIME_MAX;
use emberd_identity::{Permission, Permissions, Secret, User, Verifier, password};
use emberd_store::people::Profile;
use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{Answer, Kind, NOW, World};
use crate::{Callers, Identity};

const SECRET: &str = "a shared secret of more than thirty-two bytes";
const ADA: Uuid = Uuid::from_u128(0xada);
const BOB: Uuid = Uuid::from_u128(0xb0b);
const EVE: Uuid = Uuid::from_u128(0xe4e);

fn maker() -> Bridge {
    let party = Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() };
    Bridge::new(Secret::new(SECRET).unwrap(), party, "sambatv".into(), "SambaTV".into())
}

/// Callers who must show a token of [`SECRET`].
pub(super) fn identity() -> Callers {
    let secret = Secret::new(SECRET).unwrap();
    let verifier = Verifier {
        secret: Some(secret),
        jwks: None,
        session: None,
        bridge: Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() },
        accept_plain: false,
        lifetime_max: LIFETIME_MAX,
    };
    Callers::Tokens(Box::new(Identity { verifier, bridge: Some(maker()), admin_roles: vec!["admin".into()] }))
}

pub(super) fn user(id: Uuid, name: &str, role: &str) -> User {
    User {
        id,
        subject: id.to_string(),
        email: Some(format!("{name}@example.com")),
        name: Some(name.into()),
        role: role.into(),
        department: None,
        permissions: Permissions::of_role(role == "admin"),
    }
}

pub(super) fn bearer(user: &User) -> String {
    format!("Bearer {}", maker().token(user, NOW).text)
}

fn ada() -> String {
    bearer(&user(ADA, "ada", "member"))
}

fn bob() -> String {
    bearer(&user(BOB, "bob", "member"))
}

fn admin() -> String {
    bearer(&user(EVE, "eve", "admin"))
}

pub(super) async fn ask(world: &World, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", token), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.ask(method, path, &headers, &body).await
}

/// Something of Ada's of each kind, each with a word in it that nobody else may see.
struct Adas {
    prompt: String,
    dataset: String,
    template: String,
}

async fn of_adas(world: &World) -> Adas {
    let made = |answer: Answer| {
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let prompt = json!({ "title": "faq", "content": "Say {what}." });
    let prompt = made(ask(world, &ada(), "POST", "/api/prompts", &prompt).await);
    let dataset = json!({
        "name": "canary-dataset", "type": "qa_pairs",
        "data": [{ "id": "canary-example", "question": "canary-question", "answer": "canary-answer" }],
    });
    let dataset = made(ask(world, &ada(), "POST", "/api/datasets", &dataset).await);
    let template = json!({
        "name": "canary-template",
        "config": {
            "direction": "maximize",
            "choices": [{ "label": "yes", "score": 1.0 }, { "label": "no", "score": 0.0 }],
            "messages": [{ "role": "user", "content": "Is {{input}} canary-prompt?" }],
        },
    });
    let template = ask(world, &ada(), "POST", "/api/evaluation-templates", &template).await;
    assert_eq!(template.status, StatusCode::CREATED, "{}", template.text);
    Adas { prompt, dataset, template: template.json()["id"].as_str().unwrap().to_owned() }
}

/// Every route there is, asked by everyone: nobody is told to show a token, a token that grants less than the route asks is told so, and
/// whatever is answered to Bob holds nothing of Ada's.
async fn nobody_passes_who_may_not(kind: Kind) {
    let world = World::with(kind, identity(), &[]).await;
    let adas = of_adas(&world).await;
    // A token for each route: one of them ends the token that it is shown.
    let bobs = |operation: &str, permissions: Permissions| {
        let mut user = user(BOB, "bob", "member");
        user.permissions = permissions;
        user.department = Some(operation.to_owned());
        bearer(&user)
    };
    let mut asked = 0;
    for route in world.routes.clone() {
        let (method, operation) = (route.method.as_str(), route.operation);
        let id = match () {
            () if route.path.starts_with("/api/prompts") => adas.prompt.clone(),
            () if route.path.starts_with("/api/evaluation-templates") => adas.template.clone(),
            () if route.path.starts_with("/api/datasets") => adas.dataset.clone(),
            () => Uuid::from_u128(17).to_string(),
        };
        let path = route
            .path
            .replace("{id}", &id)
            .replace("{trace}", "0102030405060708090a0b0c0d0e0f10")
            .replace("{*path}", "v1/projects");
        let nobody = world.ask(method, &path, &[], "").await;
        let Some(permission) = route.asked else {
            assert_ne!(nobody.status, StatusCode::FORBIDDEN, "{operation}");
            continue;
        };
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{operation}");
        assert_eq!(nobody.text, r#"{"error":"a token is needed"}"#, "{operation}");
        for granted in Permission::ALL {
            let token = bobs(operation, Permissions::of(&[granted]));
            let answer = ask(&world, &token, method, &path, &json!({})).await;
            let allows = Permissions::of_role(false).and(Permissions::of(&[granted])).allow(permission);
            assert_eq!(
                allows,
                answer.status != StatusCode::FORBIDDEN || !is_gates(&answer),
                "{operation} {granted:?}: {}",
                answer.text
            );
        }
        let bobs = ask(&world, &bobs(operation, Permissions::of_role(false)), method, &path, &json!({})).await;
        assert!(!bobs.text.contains("canary"), "{operation}: {}", bobs.text);
        if permission == Permission::Administer {
            assert_eq!(bobs.status, StatusCode::FORBIDDEN, "{operation}");
        }
        let hidden = route.path.contains("{id}") && !route.path.starts_with("/api/prompts");
        if hidden && bobs.status != StatusCode::BAD_REQUEST && permission != Permission::Administer {
            assert_eq!(bobs.status, StatusCode::NOT_FOUND, "{operation}: {}", bobs.text);
        }
        asked += 1;
    }
    assert!(asked > 35, "{asked}");
    // What Bob tried left everything of Ada's as it was.
    let datasets = ask(&world, &ada(), "GET", &format!("/api/datasets/{}/examples", adas.dataset), &Value::Null).await;
    assert!(datasets.text.contains("canary-question"), "{}", datasets.text);
    let template =
        ask(&world, &ada(), "GET", &format!("/api/evaluation-templates/{}", adas.template), &Value::Null).await;
    assert!(template.text.contains("canary-prompt"), "{}", template.text);
    // The administrator sees it.
    let seen = ask(&world, &admin(), "GET", &format!("/api/datasets/{}", adas.dataset), &Value::Null).await;
    assert!(seen.text.contains("canary-dataset"), "{}", seen.text);
    world.end().await;
}

/// Whether it is the gate that says no, not a handler which knows whose the thing is.
fn is_gates(answer: &Answer) -> bool {
    answer.text == r#"{"error":"not allowed"}"#
}

#[tokio::test]
async fn nobody_passes_who_may_not_on_sqlite() {
    nobody_passes_who_may_not(Kind::Sqlite).await;
}

#[tokio::test]
async fn nobody_passes_who_may_not_on_postgres() {
    nobody_passes_who_may_not(Kind::Postgres).await;
}

/// A user that is seen for the first time gets a profile, and what they make is theirs.
#[tokio::test]
async fn a_new_user_gets_a_profile() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        assert_eq!(world.store.profile(ADA).await.unwrap(), None);
        let adas = of_adas(&world).await;
        let profile = world.store.profile(ADA).await.unwrap().unwrap();
        assert_eq!((profile.email.as_str(), profile.role.as_deref()), ("ada@example.com", Some("member")));
        let dataset = ask(&world, &ada(), "GET", &format!("/api/datasets/{}", adas.dataset), &Value::Null).await;
        assert_eq!(dataset.json()["created_by"], ADA.to_string());
        // Whose subject is no UUID is found by the address, else gets one made of the subject, always the same.
        let mut named = user(EVE, "ada", "member");
        named.subject = "google-oauth2|17".into();
        let seen = ask(&world, &bearer(&named), "GET", &format!("/api/datasets/{}", adas.dataset), &Value::Null).await;
        assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
        named.email = Some("new@example.com".into());
        let prompt = json!({ "title": "new", "content": "x" });
        let prompt = ask(&world, &bearer(&named), "POST", "/api/prompts", &prompt).await;
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"emberd:user:google-oauth2|17");
        assert_eq!(prompt.json()["created_by"], id.to_string());
        world.end().await;
    }
}

#[tokio::test]
async fn a_password_gives_a_bridge_token() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let profile = Profile {
            id: ADA,
            email: "ada@example.com".into(),
            name: Some("Ada".into()),
            role: Some("admin".into()),
            department: Some("Research".into()),
        };
        assert!(world.store.make_profile(profile).await.unwrap());
        assert!(world.store.set_password(ADA, Some(password::hash("correct horse").unwrap()), NOW).await.unwrap());
        let login = |email: &str, password: &str| {
            let body = json!({ "email": email, "password": password }).to_string();
            let world = &world;
            async move { world.post("/api/auth/phoenix", &body).await }
        };
        let good = login(" Ada@Example.com ", "correct horse").await;
        assert_eq!(good.status, StatusCode::OK, "{}", good.text);
        let good = good.json();
        assert_eq!(good["user"]["role"], "admin");
        assert!(good["performance"]["totalTime"].as_f64().unwrap() > 0.0, "{good}");
        assert!(good["performance"]["databaseTime"].is_number() && good["performance"]["cacheHits"].is_number());
        let token = format!("Bearer {}", good["token"].as_str().unwrap());
        assert_eq!(ask(&world, &token, "GET", "/api/status", &Value::Null).await.status, StatusCode::OK);

        // A wrong password and an unknown address are told in the same words and take the same time, at least.
        for (email, password) in [("ada@example.com", "wrong"), ("nobody@example.com", "correct horse")] {
            let began = std::time::Instant::now();
            let bad = login(email, password).await;
            assert!(began.elapsed() >= std::time::Duration::from_millis(250));
            assert_eq!(
                (bad.status, bad.text.as_str()),
                (StatusCode::UNAUTHORIZED, r#"{"error":"Invalid credentials"}"#)
            );
        }
        // Tries run out.
        let mut refused = None;
        for _ in 0..10 {
            let answer = login("ada@example.com", "wrong").await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("ten tries are enough");
        assert!(refused.json()["retryAfter"].as_u64().unwrap() >= 1);
        assert_eq!(refused.json()["error"], "Rate limit exceeded");

        // A session token gives one too.
        let own = world
            .ask("POST", "/api/auth/phoenix", &[("authorization", &token), ("content-type", "application/json")], "{}")
            .await;
        assert_eq!(own.status, StatusCode::OK, "{}", own.text);
        assert_eq!(own.json()["user"]["id"], ADA.to_string());
        for body in ["{}", r#"{"email":"ada@example.com"}"#, r#"{"token":"x"}"#] {
            let answer = world.post("/api/auth/phoenix", body).await;
            assert!(answer.status.is_client_error(), "{body}: {}", answer.text);
        }
        world.end().await;
    }
}

/// What a login reads is kept: the second one says so, and so do health and metrics. An address that nobody has is not kept.
#[tokio::test]
async fn a_second_login_is_answered_by_the_cache() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let login = async || {
        let body = json!({ "email": "ada@example.com", "password": "correct horse" });
        world.post("/api/auth/phoenix", &body.to_string()).await
    };
    assert_eq!(login().await.status, StatusCode::UNAUTHORIZED);
    let profile =
        Profile { id: ADA, email: "ada@example.com".into(), name: None, role: Some("admin".into()), department: None };
    assert!(world.store.make_profile(profile).await.unwrap());
    assert!(world.store.set_password(ADA, Some(password::hash("correct horse").unwrap()), NOW).await.unwrap());
    for hits in [0, 1] {
        let answer = login().await.json();
        assert_eq!(answer["performance"]["cacheHits"], hits, "{answer}");
        // Not as a bearer: the gate would have looked its user up already.
        let token = ada().strip_prefix("Bearer ").unwrap().to_owned();
        let own = world.post("/api/auth/phoenix", &json!({ "token": token }).to_string()).await.json();
        assert_eq!(own["performance"]["cacheHits"], hits, "{own}");
        assert_eq!(own["performance"]["databaseTime"] == 0.0, hits == 1, "{own}");
    }
    // The password counts as it stands in the database, whatever is kept of its owner.
    assert!(world.store.set_password(ADA, Some(password::hash("another one").unwrap()), NOW).await.unwrap());
    assert_eq!(login().await.status, StatusCode::UNAUTHORIZED);
    let health = ask(&world, &ada(), "GET", "/api/phoenix/health", &Value::Null).await.json();
    let profiles = &health["cache"]["metrics"]["profiles"];
    // By address: missed twice, found twice; by token: missed once, found once and now.
    assert_eq!((&profiles["hits"], &profiles["misses"], &profiles["l2"]["hits"]), (&json!(4), &json!(3), &json!(0)));
    assert_eq!(profiles["l1"]["ratio"], 4.0 / 7.0, "{health}");
    let stats = &health["cache"]["stats"];
    assert_eq!((&stats["profiles"]["entries"], &stats["redis"]["state"]), (&json!(2), &json!("absent")), "{health}");
    let metrics = ask(&world, &admin(), "GET", "/metrics", &Value::Null).await.text;
    assert!(metrics.contains("emberd_cache_entries{cache=\"profiles\"} 3\n"), "{metrics}");
    assert!(metrics.contains("emberd_cache_lookups_total{cache=\"profiles\",result=\"miss\"} 4\n"), "{metrics}");
    assert!(!metrics.contains("redis"), "none is configured");
    world.end().await;
}

/// A token that was ended is refused at once here, and soon on every other emberd of the same database.
#[tokio::test]
async fn a_token_that_was_ended_is_refused() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let (ada, bob) = (ada(), bob());
        assert_eq!(ask(&world, &ada, "GET", "/api/prompts", &Value::Null).await.status, StatusCode::OK);
        assert_eq!(ask(&world, &ada, "DELETE", "/api/auth/phoenix", &Value::Null).await.status, StatusCode::NO_CONTENT);
        assert_eq!(ask(&world, &ada, "GET", "/api/prompts", &Value::Null).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&world, &bob, "GET", "/api/prompts", &Value::Null).await.status, StatusCode::OK);
        assert_eq!(world.store.revoked(NOW).await.unwrap().len(), 1);
        let shown = crate::sessions::Shown(bob.strip_prefix("Bearer ").unwrap());
        let later = emberd_model::UnixNanos(NOW.0 + 3_600_000_000_000);
        world.store.revoke(shown.digest(), later, NOW).await.unwrap();
        let mut tries = 0;
        while ask(&world, &bob, "GET", "/api/prompts", &Value::Null).await.status != StatusCode::UNAUTHORIZED {
            tries += 1;
            assert!(tries < 100);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        world.end().await;
    }
}

/// One user's haste is another's no less.
#[tokio::test]
async fn who_asks_too_often_waits() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let (ada, bob) = (ada(), bob());
    let mut refused = None;
    for n in 0..600 {
        let answer = ask(&world, &ada, "GET", "/api/prompts", &Value::Null).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some((n, answer));
            break;
        }
    }
    let (n, refused) = refused.expect("500 at once are too many");
    assert!(n >= 500, "{n}");
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(ask(&world, &bob, "GET", "/api/prompts", &Value::Null).await.status, StatusCode::OK);
    world.end().await;
}

/// Every call stands in `api_usage_logs`, refusals too, and health checks do not.
#[tokio::test]
async fn calls_are_written_down() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        ask(&world, &ada(), "GET", "/api/prompts?limit=5", &Value::Null).await;
        world.get("/api/prompts").await;
        world.get("/healthz").await;
        let mut rows = Vec::new();
        for _ in 0..100 {
            rows = world.store.usage(10).await.unwrap();
            if rows.len() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let told: Vec<_> =
            rows.iter().map(|used| (used.user, used.method.as_str(), used.path.as_str(), used.status)).collect();
        assert!(told.contains(&(Some(ADA), "GET", "/api/prompts", 200)), "{told:?}");
        assert!(told.contains(&(None, "GET", "/api/prompts", 401)), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
        world.end().await;
    }
}

/// Who calls cannot be found out without the database: that is 503 and not 401, and health is told all the same.
#[tokio::test]
async fn without_the_database_nobody_is_taken_for_a_stranger() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    world.store.close().await;
    let answer = ask(&world, &ada(), "GET", "/api/prompts", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    assert_eq!(ask(&world, &ada(), "GET", "/healthz", &Value::Null).await.status, StatusCode::OK);
    assert_eq!(world.get("/api/prompts").await.status, StatusCode::UNAUTHORIZED);
    world.end().await;
}
