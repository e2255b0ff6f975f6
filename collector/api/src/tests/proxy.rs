//! The way to Phoenix, with a server behind it that answers as the test says, and notes what it was asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::identity::{ask, bearer, identity, user};
use super::world::{Kind, World};
use crate::proxy::Config;

/// Phoenix's place, taken by a server that misbehaves on demand.
struct Behind {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    hangs: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Behind {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        let (asked, hangs) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let mut running = JoinSet::new();
        let (noted, hanging) = (Arc::clone(&asked), Arc::clone(&hangs));
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (noted, hanging) = (Arc::clone(&noted), Arc::clone(&hanging));
                connections.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read_exact(&mut byte).await.is_err() {
                            return;
                        }
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    noted.lock().unwrap().push(head);
                    if hanging.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(&answer(&path).await).await;
                });
            }
        });
        Self { url, asked, hangs, running }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn world(&self) -> World {
        let config = Config {
            url: self.url.parse().unwrap(),
            public_url: "https://phoenix.example".parse().unwrap(),
            admin_key: Some("the-admins-key".into()),
            member_key: Some("the-members-key".into()),
            cache: Duration::from_secs(300),
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        World::with_all(Kind::Sqlite, identity(), &[], Default::default(), Some(config)).await
    }
}

async fn answer(path: &str) -> Vec<u8> {
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nx-secret: 1\r\nserver: phoenix\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    match path.strip_prefix("/base/v1/").unwrap_or_default() {
        "slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ok("\"slow\"")
        }
        "late" => {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            ok("\"late\"")
        }
        "moved" => {
            b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                .to_vec()
        }
        "long" => ok(&"x".repeat(3 << 20)),
        "page" => b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>"
            .to_vec(),
        "missing" => b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno".to_vec(),
        "broken" => b"HTTP/1.1 503 Oh\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno".to_vec(),
        "cut" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec(),
        _ => ok(&json!({ "path": path }).to_string()),
    }
}

fn ada() -> String {
    bearer(&user(Uuid::from_u128(0xada), "ada", "member"))
}

fn admin() -> String {
    bearer(&user(Uuid::from_u128(0xe4e), "eve", "admin"))
}

#[tokio::test]
async fn a_request_goes_on_under_the_roles_key_and_without_the_callers_own() {
    let behind = Behind::new().await;
    let world = behind.world().await;
    for (token, key) in [(ada(), "the-members-key"), (admin(), "the-admins-key")] {
        let headers = [
            ("authorization", token.as_str()),
            ("cookie", "session=mine"),
            ("x-forwarded-for", "10.9.8.7"),
            ("x-forwarded-host", "evil.example"),
            ("x-base-url", "http://evil.example"),
            ("x-api-key", "mine"),
            ("te", "trailers"),
            ("accept", "application/json"),
            ("traceparent", "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01"),
        ];
        let answer = world.ask("GET", "/api/phoenix/v1/projects?limit=5&cursor=a%2Fb", &headers, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.json()["path"], "/base/v1/projects?limit=5&cursor=a%2Fb");
        for name in ["set-cookie", "x-secret", "server", "connection"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let seen = behind.asked().last().unwrap().to_lowercase();
        assert!(seen.contains(&format!("authorization: bearer {key}\r\n")), "{seen}");
        assert!(
            seen.contains("x-forwarded-for: 127.0.0.1\r\n") && seen.contains("x-original-host: 127.0.0.1"),
            "{seen}"
        );
        assert!(seen.contains("traceparent: 00-0102"), "{seen}");
        for gone in ["cookie", "evil", "10.9.8.7", "mine", "te: trailers"] {
            assert!(!seen.contains(gone), "{gone}: {seen}");
        }
    }
    assert_eq!(behind.asked().len(), 2, "what one role was told is not told to another");
    world.end().await;
}

#[tokio::test]
async fn what_leads_elsewhere_or_is_not_allowed_is_never_asked() {
    let behind = Behind::new().await;
    let world = behind.world().await;
    let status =
        async |token: &str, method: &str, path: &str| ask(&world, token, method, path, &Value::Null).await.status;
    for path in [
        "v1/%2e%2e/users",
        "v1/..%2fusers",
        "v1/%252e%252e/users",
        "v1/;/..",
        "v1/%00",
        "v1/%c0%ae",
        "http://169.254.169.254/",
        "/evil",
        "@evil",
        "v1//projects",
    ] {
        let path = format!("/api/phoenix/{path}");
        assert_eq!(status(&admin(), "GET", &path).await, StatusCode::BAD_REQUEST, "{path}");
    }
    for (method, path) in [
        ("GET", "v1/users"),
        ("POST", "v1/system/api_keys"),
        ("POST", "auth/login"),
        ("GET", "oauth2/x/login"),
        ("GET", "assets/x.js"),
    ] {
        assert_eq!(status(&admin(), method, &format!("/api/phoenix/{path}")).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(status(&ada(), "DELETE", "/api/phoenix/v1/projects/x").await, StatusCode::FORBIDDEN);
    assert_eq!(status(&ada(), "POST", "/api/phoenix/graphql").await, StatusCode::FORBIDDEN);
    assert_eq!(behind.asked(), Vec::<String>::new());
    assert_eq!(status(&admin(), "GET", "/api/phoenix/v1/moved").await, StatusCode::BAD_GATEWAY);
    assert_eq!(behind.asked().len(), 1, "no redirect is followed");
    world.end().await;
}

#[tokio::test]
async fn an_equal_question_is_asked_once_until_something_is_written() {
    let behind = Behind::new().await;
    let world = behind.world().await;
    let token = ada();
    let all = futures_util::future::join_all(
        (0..20).map(|_| ask(&world, &token, "GET", "/api/phoenix/v1/slow", &Value::Null)),
    )
    .await;
    assert!(all.iter().all(|answer| answer.text == "\"slow\""));
    assert_eq!(behind.asked().len(), 1, "equal questions on their way are one");
    let again = ask(&world, &token, "GET", "/api/phoenix/v1/slow", &Value::Null).await;
    assert_eq!((again.header("x-emberd-cache"), behind.asked().len()), (Some("hit"), 1));
    let body = json!({ "data": [] });
    let written = ask(&world, &token, "POST", "/api/phoenix/v1/span_annotations", &body).await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text);
    let after = ask(&world, &token, "GET", "/api/phoenix/v1/slow", &Value::Null).await;
    assert_eq!((after.header("x-emberd-cache"), behind.asked().len()), (Some("miss"), 3));
    // Phoenix answers a path that it does not have with its own page.
    let page = ask(&world, &token, "GET", "/api/phoenix/v1/page", &Value::Null).await;
    assert_eq!((page.status, page.text.as_str()), (StatusCode::NOT_FOUND, r#"{"error":"no such path"}"#));
    // What is no answer is not kept, and what is long is passed on as it comes.
    for _ in 0..2 {
        assert_eq!(
            ask(&world, &token, "GET", "/api/phoenix/v1/missing", &Value::Null).await.status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(ask(&world, &token, "GET", "/api/phoenix/v1/long", &Value::Null).await.text.len(), 3 << 20);
    }
    assert_eq!(behind.asked().iter().filter(|asked| asked.contains("missing")).count(), 2);
    world.end().await;
}

#[tokio::test]
async fn without_phoenix_an_old_answer_is_given_or_503_within_a_second() {
    let mut behind = Behind::new().await;
    let world = behind.world().await;
    let token = ada();
    let get = async |path: &str| {
        let began = Instant::now();
        let answer = ask(&world, &token, "GET", &format!("/api/phoenix/v1/{path}"), &Value::Null).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{path} took {:?}", began.elapsed());
        answer
    };
    assert_eq!(get("projects").await.status, StatusCode::OK);
    ask(&world, &token, "POST", "/api/phoenix/v1/span_annotations", &json!({})).await;
    // It takes connections and does not answer: the old answer comes, and says so.
    behind.hangs.store(true, Ordering::SeqCst);
    let old = get("projects").await;
    assert_eq!((old.status, old.header("x-emberd-cache")), (StatusCode::OK, Some("stale")));
    behind.running.shutdown().await;
    for _ in 0..8 {
        let gone = get("other").await;
        assert_eq!(gone.status, StatusCode::SERVICE_UNAVAILABLE, "{}", gone.text);
        assert!(gone.json()["retryAfter"].as_u64().unwrap() > 0);
        assert_eq!(get("projects").await.header("x-emberd-cache"), Some("stale"));
    }
    let health = ask(&world, &token, "GET", "/api/phoenix/health", &Value::Null).await.json();
    assert_eq!(health["phoenix"]["healthy"], false, "{health}");
    assert_eq!(health["database"]["healthy"], true, "{health}");
    // emberd's own routes are as they were.
    assert_eq!(ask(&world, &token, "GET", "/api/prompts", &Value::Null).await.status, StatusCode::OK);
    world.end().await;
}

/// Phoenix takes its time: the old answer is given meanwhile, the new one when it has come, and nobody is taken for dead.
#[tokio::test]
async fn a_late_answer_replaces_the_old_one() {
    let behind = Behind::new().await;
    let world = behind.world().await;
    let token = ada();
    let get = async || ask(&world, &token, "GET", "/api/phoenix/v1/late", &Value::Null).await;
    assert_eq!(get().await.header("x-emberd-cache"), Some("miss"));
    for round in 0..3 {
        ask(&world, &token, "POST", "/api/phoenix/v1/span_annotations", &json!({})).await;
        let old = get().await;
        assert_eq!((old.text.as_str(), old.header("x-emberd-cache")), ("\"late\"", Some("stale")), "{round}");
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(get().await.header("x-emberd-cache"), Some("hit"), "{round}");
    }
    let health = ask(&world, &token, "GET", "/api/phoenix/health", &Value::Null).await.json();
    assert_eq!((&health["phoenix"]["healthy"], &health["phoenix"]["faults"]), (&json!(true), &json!(0)), "{health}");
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let behind = Behind::new().await;
    let world = behind.world().await;
    assert_eq!(
        ask(&world, &ada(), "GET", "/api/phoenix/v1/cut", &Value::Null).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        ask(&world, &ada(), "GET", "/api/phoenix/v1/broken", &Value::Null).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let health = ask(&world, &ada(), "GET", "/api/phoenix/health", &Value::Null).await.json();
    assert!(health["cache"]["metrics"]["profiles"]["hits"].as_u64().unwrap() > 0, "{health}");
    let stats = ask(&world, &ada(), "GET", "/api/phoenix/stats", &Value::Null).await.json();
    assert!(stats["data"].is_array() && stats["traces"] == 0, "{stats}");
    assert_eq!(stats["phoenix_url"], "https://phoenix.example/");
    world.end().await;
}
