//! Several processes read and change the same things at once, over a Redis that is killed, stalled and brought back meanwhile.
//!
//! Guarantees: who changed something and forgot it never reads what was there before, in the same process; when all is quiet and Redis has
//! been told, nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use emberd_cache::Loading;

use super::server::{Process, Server, Text};

const KEYS: usize = 12;

/// What the caches stand before: a number under each key that only grows.
struct Source([AtomicU32; KEYS]);

struct Emberd {
    process: Process,
    loading: Arc<Loading<Text, ()>>,
    source: Arc<Source>,
}

impl Emberd {
    async fn read(&self, key: usize) -> u32 {
        let source = Arc::clone(&self.source);
        let read = move || async move {
            let value = source.0[key].load(Ordering::SeqCst);
            // On its way back it may be overtaken by an invalidation.
            tokio::time::sleep(Duration::from_micros(rand::random_range(0..3_000))).await;
            Ok(Text(value.to_string()))
        };
        self.loading.get(&key.to_string(), read).await.unwrap().0.0.parse().unwrap()
    }

    fn change(&self, key: usize) -> u32 {
        let value = self.source.0[key].fetch_add(1, Ordering::SeqCst) + 1;
        self.process.texts.forget(&key.to_string());
        value
    }
}

async fn act(emberd: Arc<Emberd>, until: Instant) -> u64 {
    let mut reads = 0;
    while Instant::now() < until {
        let key = rand::random_range(0..KEYS);
        match rand::random_range(0..40) {
            0 => {
                let value = emberd.change(key);
                let read = emberd.read(key).await;
                assert!(read >= value, "{key}: {read} after {value} was written here");
            }
            1 => {
                let all: Vec<u32> =
                    emberd.source.0.iter().map(|value| value.fetch_add(1, Ordering::SeqCst) + 1).collect();
                emberd.process.texts.forget_all("");
                let read = emberd.read(key).await;
                assert!(read >= all[key], "{key}: {read} after {} was written here", all[key]);
            }
            _ => drop(emberd.read(key).await),
        }
        reads += 1;
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..2_000))).await;
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_what_was_there_before() {
    let server = Server::start();
    let source = Arc::new(Source(Default::default()));
    let mut all = Vec::new();
    for _ in 0..3 {
        let process = Process::start(&server.url).await;
        let loading = Loading::new(Arc::clone(&process.texts));
        all.push(Arc::new(Emberd { process, loading, source: Arc::clone(&source) }));
    }
    for round in 0..6 {
        let until = Instant::now() + Duration::from_millis(1_500);
        let mut acting = tokio::task::JoinSet::new();
        for emberd in all.iter().flat_map(|emberd| [Arc::clone(emberd), Arc::clone(emberd)]) {
            acting.spawn(act(emberd, until));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        match round % 3 {
            1 => {
                server.stall();
                // Short, within what a connection lives through; and long.
                tokio::time::sleep(Duration::from_millis(if round == 1 { 200 } else { 1_600 })).await;
                server.resume();
            }
            2 => {
                server.kill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                server.up();
            }
            _ => (),
        }
        let mut reads = 0;
        while let Some(done) = acting.join_next().await {
            reads += done.unwrap();
        }
        for emberd in &all {
            emberd.process.until_up().await;
            emberd.process.until_said().await;
        }
        // What was published is heard.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let [mut near, mut far] = [0, 0];
        for emberd in &all {
            for key in 0..KEYS {
                let now = source.0[key].load(Ordering::SeqCst);
                assert_eq!(emberd.read(key).await, now, "round {round}, {key} read through the cache");
                if let Some(found) = emberd.process.far(&key.to_string()).await {
                    assert_eq!(found, now.to_string(), "round {round}, {key} in Redis");
                    far += 1;
                }
                if let Some(found) = emberd.process.near(&key.to_string()) {
                    assert_eq!(found, now.to_string(), "round {round}, {key} in memory");
                    near += 1;
                }
            }
        }
        println!("round {round}: {reads} reads, then {near} found in memory and {far} in Redis, all as they are");
        assert!(reads > 200 && near > KEYS && far > KEYS, "the caches were hardly used");
    }
    assert!(all.iter().any(|emberd| emberd.process.caches.stats()["redis"]["connections"].as_u64() > Some(1)));
}
