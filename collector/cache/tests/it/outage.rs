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

/// What is said last before a process ends is told.
#[tokio::test(flavor = "multi_thread")]
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
