//! Whatever stands in Redis, a look-up has a value or none, in time.

use super::server::{Process, Server};

/// Where the text of "a" stands.
const A: &str = "emberd:1:texts:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_emberd_wrote_are_none() {
    let server = Server::start();
    let process = Process::start(&server.url).await;
    let mut raw = server.raw().await;
    let huge = vec![1_u8; 8 << 20];
    for bytes in [&b""[..], b"\x01", b"garbage", &[0xff; 64], &[1; 2_000], &huge] {
        let () = redis::cmd("SET").arg(A).arg(bytes).query_async(&mut raw).await.unwrap();
        assert_eq!(process.far("a").await, None, "{} bytes", bytes.len());
    }
    let () = redis::cmd("DEL").arg(A).query_async(&mut raw).await.unwrap();
    let () = redis::cmd("LPUSH").arg(A).arg("x").query_async(&mut raw).await.unwrap();
    for _ in 0..10 {
        assert_eq!(process.far("a").await, None, "it is no string");
    }
    for message in ["", " ", "x", "x y", "0000 texts", "0000 :", "0000 \u{0}:*"] {
        let () = redis::cmd("PUBLISH").arg("emberd:forget").arg(message).query_async(&mut raw).await.unwrap();
    }
    process.keep("b", "good").await;
    assert_eq!(process.far("b").await.as_deref(), Some("good"), "and it is asked as ever");
    assert_eq!(process.caches.stats()["redis"]["connections"], 1);
}

/// With a secret, nobody who can write to Redis can make a value up, or move one.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_value_is_an_emberds_own() {
    let server = Server::start();
    let [one, other] = [Process::begin(&server.url, Some(b"secret")), Process::begin(&server.url, Some(b"secret"))];
    let stranger = Process::begin(&server.url, Some(b"another"));
    for process in [&one, &other, &stranger] {
        process.until_up().await;
    }
    one.keep("a", "member").await;
    one.keep("b", "admin").await;
    assert_eq!(other.far("a").await.as_deref(), Some("member"));
    assert_eq!(stranger.far("a").await, None, "another secret's");
    stranger.keep("a", "admin").await;
    assert_eq!(other.far("a").await, None, "made up by someone without the secret");
    let mut raw = server.raw().await;
    let names: Vec<String> = redis::cmd("KEYS").arg("emberd:1:texts:*").query_async(&mut raw).await.unwrap();
    let b = names.iter().find(|name| *name != A).unwrap();
    let () = redis::cmd("COPY").arg(b).arg(A).arg("REPLACE").query_async(&mut raw).await.unwrap();
    assert_eq!((other.far("a").await, other.far("b").await.as_deref()), (None, Some("admin")), "moved");
}
