//! Redis killed, stalled and brought back while it is asked: nobody waits for it, and what was forgotten meanwhile stays forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use emberd_cache::{Loading, State};

use super::server::{Process, Server, Text, until};

/// Far above the deadline, for a machine that has other things to do, and far below what a call takes that waits for a silent Redis: the
/// connection itself gives up after a second.
const WAIT_MAX: Duration = Duration::from_millis(400);

/// What look-ups took: how many, the median and the longest.
async fn look_ups(process: &Arc<Process>, stop: &Arc<AtomicBool>) -> Vec<Duration> {
    let loading: Arc<Loading<Text, ()>> = Loading::new(Arc::clone(&process.texts));
    let mut all = tokio::task::JoinSet::new();
    for task in 0..8_u32 {
        let (loading, stop) = (Arc::clone(&loading), Arc::clone(stop));
        all.spawn(async move {
            let (mut times, mut nth) = (Vec::new(), task);
            while !stop.load(Ordering::SeqCst) {
                // Every key anew, so that each look-up is one in Redis, and each writes there.
                nth += 8;
                let began = Instant::now();
                let read = move || async move { Ok::<_, ()>(Text("x".repeat(2_000))) };
                let (text, _) = loading.get(&format!("{nth}"), read).await.unwrap();
                assert_eq!(text.0.len(), 2_000);
                times.push(began.elapsed());
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(one) = all.join_next().await {
        times.extend(one.unwrap());
    }
    times.sort();
    times
}

/// Look-ups while something happens.
async fn during<T>(what: &str, process: &Arc<Process>, happens: impl Future<Output = T>) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let happening = async {
        let done = happens.await;
        stop.store(true, Ordering::SeqCst);
        done
    };
    let (times, done) = tokio::join!(look_ups(process, &stop), happening);
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {} look-ups, median {median:?}, longest {longest:?}", times.len());
    assert!(times.len() > 50, "{what}: only {} look-ups", times.len());
    assert!(longest < WAIT_MAX, "{what}: one took {longest:?}");
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_redis_that_is_stalled_or_gone() {
    let server = Server::start();
    let process = Arc::new(Process::start(&server.url).await);
    let pause = || tokio::time::sleep(Duration::from_millis(2_500));
    during("up", &process, pause()).await;
    for round in 0..2 {
        during("stalled", &process, async {
            server.stall();
            until("it is not asked", || process.caches.state() == State::Down).await;
            pause().await;
        })
        .await;
        let skipped = process.caches.stats()["redis"]["calls"]["skipped"].as_u64();
        assert!(skipped > Some(50), "{skipped:?} went without");
        during("returning", &process, async {
            server.resume();
            process.until_up().await;
        })
        .await;
        during("killed", &process, async {
            server.kill();
            until("it is not asked", || process.caches.state() == State::Down).await;
            pause().await;
        })
        .await;
        during("started again", &process, async {
            server.up();
            process.until_up().await;
        })
        .await;
        process.keep(&format!("after {round}"), "good").await;
        assert_eq!(process.far(&format!("after {round}")).await.as_deref(), Some("good"));
    }
    let calls = process.caches.stats()["redis"]["calls"].clone();
    assert!(calls["late"].as_u64() < Some(1_000), "after a few it was not asked: {calls}");
}

/// What was forgotten while Redis slept stands in it still; it is told before it is believed again. Who was cut off from it forgets what
/// it has in memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_while_it_was_away_stays_forgotten() {
    let server = Server::start();
    let (one, other) = (Process::start(&server.url).await, Process::start(&server.url).await);
    for sleep in [Duration::from_millis(100), Duration::from_millis(2_500)] {
        for process in [&one, &other] {
            process.until_up().await;
        }
        one.keep("a", "old").await;
        one.keep("b", "old").await;
        assert_eq!(other.far("a").await.as_deref(), Some("old"));
        server.stall();
        one.texts.forget("a");
        assert_eq!((one.near("a"), one.far("a").await), (None, None), "at once here, whatever Redis does");
        tokio::time::sleep(sleep).await;
        server.resume();
        until("the other has heard", || other.near("a").is_none()).await;
        for process in [&one, &other] {
            process.until_up().await;
        }
        one.until_said().await;
        assert_eq!((one.far("a").await, other.far("a").await), (None, None));
        assert_eq!(other.far("b").await.as_deref(), Some("old"), "Redis itself forgot nothing else");
    }
    assert!(other.caches.stats()["redis"]["connections"].as_u64() > Some(1), "the long one cut them off");
}

/// What is said last before a process ends is told. On one thread, so that it is told to stop before it comes to telling.
#[tokio::test]
async fn the_last_words_are_told() {
    let server = Server::start();
    let (mut one, other) = (Process::start(&server.url).await, Process::start(&server.url).await);
    one.keep("a", "old").await;
    other.far("a").await.unwrap();
    one.texts.forget("a");
    one.stop.cancel();
    one.running.join_next().await.unwrap().unwrap();
    until("the other has heard", || other.near("a").is_none()).await;
    assert_eq!(other.far("a").await, None);
}

/// An invalidation that was sent and came to nothing is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_confirmed_is_told_again() {
    let server = Server::start();
    let (relay, mut relaying) = Relay::before(&server.url).await;
    let (one, other) = (Process::start(&relay.url).await, Process::start(&server.url).await);
    one.keep("a", "old").await;
    other.far("a").await.unwrap();
    relay.swallows.store(true, Ordering::SeqCst);
    one.texts.forget("a");
    until("it is not asked", || one.caches.state() == State::Down).await;
    assert_eq!(other.near("a").as_deref(), Some("old"), "it came to nothing");
    relay.swallows.store(false, Ordering::SeqCst);
    until("the other has heard", || other.near("a").is_none()).await;
    one.until_said().await;
    assert_eq!((one.far("a").await, other.far("a").await), (None, None));
    relaying.shutdown().await;
}

/// A way to Redis on which bytes can be lost.
struct Relay {
    url: String,
    swallows: Arc<AtomicBool>,
}

impl Relay {
    async fn before(url: &str) -> (Self, tokio::task::JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { url: format!("redis://{}", listener.local_addr().unwrap()), swallows: Arc::default() };
        let (to, swallows) = (url.strip_prefix("redis://").unwrap().to_owned(), Arc::clone(&relay.swallows));
        let mut relaying = tokio::task::JoinSet::new();
        relaying.spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                let Ok(to) = tokio::net::TcpStream::connect(&to).await else { continue };
                let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
                ways.spawn(pass(from_read, to_write, Arc::clone(&swallows)));
                ways.spawn(pass(to_read, from_write, Arc::clone(&swallows)));
            }
        });
        (relay, relaying)
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallows: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !swallows.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Without a Redis at the address, everything is as without an address.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_where_there_is_none() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("redis://{free}"), "redis://192.0.2.1:6379".to_owned()] {
        let mut process = Arc::new(Process::begin(&url, None));
        during(&url, &process, tokio::time::sleep(Duration::from_millis(1_500))).await;
        assert_eq!(
            (process.caches.state(), &process.caches.stats()["redis"]["calls"]["answered"]),
            (State::Down, &0.into())
        );
        let began = Instant::now();
        process.stop.cancel();
        Arc::get_mut(&mut process).unwrap().running.join_next().await.unwrap().unwrap();
        assert!(began.elapsed() < WAIT_MAX, "it stops as soon as it is told");
    }
}
