//! What one process keeps, another finds; what one forgets, nobody finds.

use std::time::Duration;

use emberd_cache::{Caches, Config, Pattern, State};

use super::server::{Process, Server, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_keeps_another_finds_and_forgets_when_told() {
    let server = Server::start();
    let (one, other) = (Process::start(&server.url).await, Process::start(&server.url).await);
    for key in ["a", "b"] {
        one.keep(key, "first").await;
        assert_eq!((other.near(key), other.far(key).await), (None, Some("first".to_owned())));
        assert_eq!(other.near(key).as_deref(), Some("first"), "what came from Redis is in memory");
    }

    one.texts.forget("a");
    assert_eq!(one.near("a"), None, "at once where it was said");
    until("the other has heard", || other.near("a").is_none()).await;
    assert_eq!((one.far("a").await, other.far("a").await), (None, None));
    assert_eq!(other.near("b").as_deref(), Some("first"), "a key is one key");
    assert_eq!(other.far("b").await.as_deref(), Some("first"));

    one.texts.forget_all("");
    until("the other has heard", || other.near("b").is_none()).await;
    one.until_said().await;
    assert_eq!((one.far("b").await, other.far("b").await), (None, None));

    other.keep("a", "second").await;
    assert_eq!(one.far("a").await.as_deref(), Some("second"), "what was read after it counts");
    let stats = one.caches.stats();
    assert_eq!(stats["texts"]["invalidations"]["here"], 2);
    assert!(stats["redis"]["p50_ms"].as_f64().unwrap() > 0.0, "{stats}");
    let mut text = String::new();
    one.caches.write_prometheus(&mut text);
    assert!(
        text.contains("emberd_cache_redis_up 1\n")
            && text.contains("emberd_cache_invalidations_total{cache=\"texts\",from=\"here\"} 2"),
        "{text}"
    );
}

/// A process that read a value before another forgot it, and has not heard of that yet, keeps it under versions that count no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_an_invalidation_counts_for_nobody_after_it() {
    let server = Server::start();
    let (one, other) = (Process::start(&server.url).await, Process::start(&server.url).await);
    for all in [false, true] {
        let (_, early) = one.texts.find_far("a", Duration::MAX).await;
        let name = if all { "emberd:v:texts".to_owned() } else { version_of_a() };
        let mut raw = server.raw().await;
        let mut version = async || redis::cmd("GET").arg(&name).query_async::<Option<String>>(&mut raw).await.unwrap();
        let before = version().await;
        // The versions that `early` knows, in a process that has heard of nothing since.
        let deaf = Process::start(&server.url).await;
        if all {
            other.texts.forget_all("")
        } else {
            other.texts.forget("a")
        }
        other.until_said().await;
        let after = version().await;
        assert!(after.is_some() && after != before, "{before:?} {after:?}");
        until("it was heard", || one.texts.is_past(&early)).await;
        one.texts.keep("a", super::server::Text("old".to_owned()), &early);
        assert_eq!(one.near("a"), None);

        let (_, ticket) = deaf.texts.find_far("a", Duration::MAX).await;
        assert!(!deaf.texts.is_past(&ticket));
        let written = deaf.caches.stats()["redis"]["written"].as_u64();
        // Redis changes the versions as another's invalidation would, and nobody tells.
        let name = if all { "emberd:v:texts".to_owned() } else { version_of_a() };
        let () =
            redis::cmd("SET").arg(name).arg("0123456789abcdef").query_async(&mut server.raw().await).await.unwrap();
        deaf.texts.keep("a", super::server::Text("old".to_owned()), &ticket);
        until("it is written", || deaf.caches.stats()["redis"]["written"].as_u64() > written).await;
        assert_eq!(other.far("a").await, None, "it stands there, and does not count");
        other.keep("a", "new").await;
        assert_eq!(one.far("a").await.as_deref(), Some("new"));
    }
}

fn version_of_a() -> String {
    // SHA-256 of "a".
    "emberd:v:texts:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb".to_owned()
}

/// Without Redis, whoever else can tell other processes does: what is said here is heard there.
#[tokio::test]
async fn another_way_of_telling_is_as_good() {
    let server = Server::start();
    let process = Process::start(&server.url).await;
    let mut said = process.caches.said();
    process.keep("a", "x").await;
    process.texts.forget("a");
    assert_eq!(said.recv().await.unwrap().to_string(), "texts:a");
    process.keep("b", "x").await;
    process.caches.hear(&Pattern::parse("texts:b*").unwrap());
    process.caches.hear(&Pattern::parse("others:*").unwrap());
    assert_eq!(process.near("b"), None);
}

/// A command that keeps nothing itself tells the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_tell() {
    let server = Server::start();
    let process = Process::start(&server.url).await;
    process.keep("a", "x").await;
    let clock = std::sync::Arc::new(emberd_model::clock::Still::at(emberd_model::UnixNanos(1)));
    let config = Config { url: server.url.clone(), prefix: "emberd".to_owned() };
    let command = Caches::new(Some(config), None, clock).unwrap();
    assert!(command.tell(Pattern::beginning("texts", ""), Duration::from_secs(10)).await);
    until("it was heard", || process.near("a").is_none()).await;
    assert_eq!(process.far("a").await, None);
    server.kill();
    assert!(!command.tell(Pattern::beginning("texts", ""), Duration::from_millis(200)).await);
}

/// A password is in no error and in nothing that is shown.
#[tokio::test]
async fn a_password_is_shown_nowhere() {
    let clock = || std::sync::Arc::new(emberd_model::clock::Still::at(emberd_model::UnixNanos(1)));
    let caches = |url: &str| Caches::new(Some(Config { url: url.to_owned(), prefix: "e".to_owned() }), None, clock());
    for bad in ["http://u:hush@h", "redis://u:hush@", "hush", "redis://u:hush@h:70000", "redis://h/hush"] {
        let error = caches(bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
    let good = caches("redis://user:hush@127.0.0.1:1/2").unwrap();
    assert_eq!((good.state(), &good.stats()["redis"]["at"]), (State::Down, &"127.0.0.1:1".into()));
    assert!(!format!("{good:?} {} {}", good.stats(), good.metrics()).contains("hush"));
}
