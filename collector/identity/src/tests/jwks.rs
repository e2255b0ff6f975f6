//! Public keys over a real connection: fetched once for many, kept while their server is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::signing::{NOW, Pairs, at, claims, verifier};
use crate::Refused;
use crate::jwks::Jwks;

/// A server that answers with what the test says, and counts.
struct Server {
    url: reqwest::Url,
    asked: Arc<AtomicUsize>,
    answer: Arc<std::sync::Mutex<String>>,
    _running: JoinSet<()>,
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

async fn serve(answer: String) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
    let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(answer)));
    let mut running = JoinSet::new();
    let (counted, told) = (Arc::clone(&asked), Arc::clone(&answer));
    running.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = told.lock().unwrap().clone();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Server { url, asked, answer, _running: running }
}

fn jwks(url: reqwest::Url) -> Arc<Jwks> {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::new(Jwks::new(url).unwrap())
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_fetch_a_minute() {
    let pairs = Pairs::new();
    let server = serve(ok(&pairs.jwks().to_string())).await;
    let mut verifier = verifier(None);
    verifier.jwks = Some(jwks(server.url.clone()));
    let verifier = Arc::new(verifier);
    let token = pairs.rs256(r#"{"alg":"RS256","kid":"rsa-1"}"#, &claims());
    let mut all = JoinSet::new();
    for _ in 0..50 {
        let (verifier, token) = (Arc::clone(&verifier), token.clone());
        all.spawn(async move { verifier.verify(&token, at(NOW)).await });
    }
    while let Some(answer) = all.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    let unknown = |n: u32| pairs.rs256(&format!(r#"{{"alg":"RS256","kid":"other-{n}"}}"#), &claims());
    for n in 0..50 {
        assert_eq!(verifier.verify(&unknown(n), at(NOW + 59)).await, Err(Refused::UnknownKey));
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    assert_eq!(verifier.verify(&unknown(0), at(NOW + 60)).await, Err(Refused::UnknownKey));
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn keys_stay_while_their_server_fails() {
    let pairs = Pairs::new();
    let server = serve(ok(&pairs.jwks().to_string())).await;
    let jwks = jwks(server.url.clone());
    assert!(jwks.refetch(at(NOW)).await);
    let (small, large) =
        (serde_json::json!({ "keys": [{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }] }), " ".repeat(300 << 10));
    let answers = [
        ok("not JSON"),
        ok("{}"),
        ok(r#"{"keys":[]}"#),
        ok(&small.to_string()),
        ok(&large),
        "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        String::new(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        *server.answer.lock().unwrap() = answer;
        assert!(!jwks.refetch(at(NOW + 60 * (n as i64 + 1))).await, "{n}");
        assert_eq!(jwks.keys().len(), 2, "{n}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 9, "no redirect is followed");
}
