//! What every request passes, whatever it asks for.

use std::sync::Arc;

use emberd_model::clock::Still;
use hyper::StatusCode;

use super::identity::identity;
use super::world::{Kind, NOW, RATE, Told, World, caches, engine};
use crate::{Api, Callers, Config};

/// Paths and methods that there are not, in JSON like everything else.
#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    for path in ["/", "/api", "/api/prompts/", "/api/prompts/x", "/api/../healthz", "//healthz", "/API/status"] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::NOT_FOUND, r#"{"error":"no such path"}"#),
            "{path}"
        );
    }
    for (method, path, allow) in [
        ("POST", "/healthz", "GET,HEAD"),
        ("DELETE", "/api/prompts", "GET,HEAD,POST"),
        ("OPTIONS", "/api/status", "GET,HEAD"),
        ("BREW", "/metrics", "GET,HEAD"),
    ] {
        let answer = world.ask(method, path, &[], "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(answer.text, r#"{"error":"no such method here"}"#);
    }
    let head = world.ask("HEAD", "/healthz", &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    let endless = world.get(&format!("/api/prompts/{}/traces", "a".repeat(60_000))).await;
    assert_eq!(endless.details(), [("id".into(), "expected a UUID".into())]);
    assert!(
        world
            .raw(&format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(1_000_000)))
            .await
            .starts_with("HTTP/1.1 4")
    );
    world.end().await;
}

/// Every answer, refusals included, tells browsers not to guess, frame, run or store it.
#[tokio::test]
async fn every_answer_is_dressed() {
    let world = World::new(Kind::Sqlite).await;
    for path in ["/healthz", "/metrics", "/api/prompts", "/nowhere", "/api/prompts?limit=0"] {
        let answer = world.get(path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    world.end().await;
}

/// A page of another site whose name was made to lead here is refused: its origin would count as ours.
#[tokio::test]
async fn other_hosts_are_refused() {
    let world = World::new(Kind::Sqlite).await;
    for host in
        ["localhost", "LOCALHOST:8317", "emberd.localhost", "localhost.", "127.0.0.1", "127.8.8.8:1", "[::1]:8317"]
    {
        assert_eq!(world.ask("GET", "/healthz", &[("host", host)], "").await.status, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8317",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]",
        "a b",
        "",
    ] {
        let answer = world.ask("GET", "/api/status", &[("host", host)], "").await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
        assert_eq!(answer.text, r#"{"error":"meant for another host"}"#);
    }
    for lines in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.0\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        "GET http://evil.example/healthz HTTP/1.0\r\nhost: localhost\r\n\r\n",
        "GET http://localhost/healthz HTTP/1.0\r\nhost: evil.example\r\n\r\n",
    ] {
        let back = world.raw(lines).await;
        assert!(back.starts_with("HTTP/1.0 421 "), "{lines}{back}");
    }
    assert!(
        world
            .raw("GET http://localhost/healthz HTTP/1.0\r\nhost: localhost\r\n\r\n")
            .await
            .starts_with("HTTP/1.0 200 ")
    );
    assert!(world.raw("NOT HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    world.end().await;
}

/// Pages of other sites may call only where their origin is listed; pages of this one always may.
#[tokio::test]
async fn pages_of_other_sites_are_refused_unless_listed() {
    let world = World::with(Kind::Sqlite, Callers::LocalAdministrator, &["https://app.example"]).await;
    let own = format!("http://{}", world.address);
    let answer = world.ask("GET", "/api/prompts", &[("origin", &own)], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::OK, None));

    for origin in [
        "https://evil.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example.evil",
        "null",
        "http://127.0.0.1:1",
    ] {
        for method in ["GET", "OPTIONS"] {
            let asks = [("origin", origin), ("access-control-request-method", "POST")];
            let answer = world.ask(method, "/api/prompts", &asks, "").await;
            assert_eq!(
                (answer.status, answer.header("access-control-allow-origin")),
                (StatusCode::FORBIDDEN, None),
                "{origin}"
            );
        }
    }

    let listed = [("origin", "https://app.example")];
    let answer = world.ask("GET", "/api/prompts", &listed, "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("vary"), Some("origin"));

    let asks = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    let preflight = world.ask("OPTIONS", "/api/prompts", &asks, "").await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, POST, PUT, PATCH, DELETE"));
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("authorization, content-type, idempotency-key, traceparent")
    );
    world.end().await;
}

/// Where tokens are asked for, nobody learns anything without one, not even which paths there are.
#[tokio::test]
async fn without_a_token_nothing_answers_but_health() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path}");
    }
    for (method, path) in [
        ("GET", "/api/status"),
        ("GET", "/metrics"),
        ("GET", "/api/prompts"),
        ("POST", "/api/prompts"),
        ("GET", "/nowhere"),
        ("DELETE", "/healthz"),
    ] {
        let answer = world.ask(method, path, &[("authorization", "Bearer x")], "").await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (StatusCode::UNAUTHORIZED, Some("Bearer")),
            "{path}"
        );
        assert_eq!(answer.text, r#"{"error":"a token is needed"}"#);
    }
    world.end().await;
}

/// A port that other machines reach is not opened to callers who are all the administrator; a taken one is an error.
#[tokio::test]
async fn ports_that_must_not_or_cannot_be_bound() {
    let world = World::new(Kind::Sqlite).await;
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&world.store, home.path());
    let bind = |listen: &str, callers| {
        let (listen, cors, flags) = (listen.parse().unwrap(), Vec::new(), Default::default());
        let config = Config {
            listen,
            handed: None,
            callers,
            cors,
            rate: RATE,
            flags,
            phoenix: None,
            trusted: Vec::new(),
            reader: Default::default(),
            summary: true,
            caches: caches(),
        };
        Api::bind(config, world.store.clone(), engine.handle(), Arc::new(Told::default()), Arc::new(Still::at(NOW)))
            .map(|api| api.address())
    };
    let open = bind("0.0.0.0:0", Callers::LocalAdministrator).unwrap_err();
    assert_eq!(open.kind(), std::io::ErrorKind::InvalidInput);
    bind("0.0.0.0:0", identity()).unwrap();
    let taken = bind(&world.address.to_string(), Callers::LocalAdministrator).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    world.end().await;
}

/// After stop, the one inside gets its answer, an idle connection is closed, and a new one is not taken.
#[tokio::test]
async fn stopping_lets_those_inside_finish() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new(Kind::Sqlite).await;
    let mut idle = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let mut inside = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let body = r#"{"title":"t","content":"c"}"#;
    let head = format!(
        "POST /api/prompts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    inside.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    // The handler is reading the body now.
    inside.read_exact(&mut go_on).await.unwrap();
    world.stop.cancel();
    let mut back = Vec::new();
    idle.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"");
    inside.write_all(body.as_bytes()).await.unwrap();
    inside.read_to_end(&mut back).await.unwrap();
    assert!(back.starts_with(b"HTTP/1.1 201 "), "{}", String::from_utf8_lossy(&back));
    let address = world.address;
    world.end().await;
    tokio::net::TcpStream::connect(address).await.unwrap_err();
}

/// Strangers are paced by where they come from, as a trusted proxy says; whatever stands before its word is the caller's own and changes
/// nothing (reliability row 75). The tests' own address is trusted here.
#[tokio::test]
async fn a_strangers_pace_is_its_addresss() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let refused_after = async |from: &dyn Fn(usize) -> String| {
        for n in 0..120 {
            let answer = world.ask("GET", "/api/prompts", &[("x-forwarded-for", &from(n))], "").await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                assert!(answer.header("retry-after").is_some());
                return Some(n);
            }
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        None
    };
    // Rotating what stands left of the proxy's word, or the address within a network of IPv6, buys nothing.
    assert!(refused_after(&|n| format!("6.6.6.{n}, 198.51.100.7")).await.is_some());
    assert!(refused_after(&|n| format!("2001:db8:1:2::{n:x}")).await.is_some());
    assert_eq!(refused_after(&|n| format!("203.0.113.{n}")).await, None, "these are 120 callers");
    world.end().await;
}
