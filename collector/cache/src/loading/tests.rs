use std::sync::atomic::{AtomicU32, Ordering};

use emberd_model::UnixNanos;
use emberd_model::clock::Still;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::{Caches, Limits};

const S: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Number(u32);

impl Value for Number {
    fn bytes(&self) -> usize {
        4
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(u32::from_le_bytes(bytes.try_into().ok()?)))
    }
}

/// A source that takes a second, and counts how often it was read.
struct World {
    loading: Arc<Loading<Number, &'static str>>,
    reads: Arc<AtomicU32>,
    now: Arc<AtomicU32>,
    fails: bool,
}

impl World {
    fn new() -> Self {
        let caches = Caches::in_memory(Arc::new(Still::at(UnixNanos(1))));
        let limits = Limits { refresh: 60 * S, age_max: 200 * S, ..Limits::default() };
        let loading = Loading::new(caches.add("numbers", limits));
        Self { loading, reads: Arc::default(), now: Arc::default(), fails: false }
    }

    fn get(&self, key: &str) -> impl Future<Output = Result<(u32, Source), &'static str>> + use<> {
        let (loading, key, fails) = (Arc::clone(&self.loading), key.to_owned(), self.fails);
        let (reads, now) = (Arc::clone(&self.reads), Arc::clone(&self.now));
        async move {
            let read = move || async move {
                reads.fetch_add(1, Ordering::SeqCst);
                let value = now.load(Ordering::SeqCst);
                sleep(S).await;
                if fails { Err("it fails") } else { Ok(Number(value)) }
            };
            let got = loading.get(&key, read).await;
            got.map(|(Number(value), source)| (value, source)).map_err(|error| *error)
        }
    }

    fn reads(&self) -> u32 {
        self.reads.load(Ordering::SeqCst)
    }
}

/// A hundred that ask at once are one reading, whether it succeeds or fails; what failed is read anew.
#[tokio::test(start_paused = true)]
async fn equal_look_ups_in_flight_are_one() {
    let mut world = World::new();
    for (fails, outcome, reads) in [(true, Err("it fails"), 1), (false, Ok((0, Source::Read)), 2)] {
        world.fails = fails;
        let began = Instant::now();
        let all = futures_util::future::join_all((0..100).map(|_| world.get("a"))).await;
        assert!(all.iter().all(|one| *one == outcome), "{all:?}");
        assert_eq!((world.reads(), began.elapsed()), (reads, S));
    }
    assert_eq!(world.get("a").await, Ok((0, Source::Near)));
    assert_eq!(world.reads(), 2);
    assert_eq!(world.loading.flights().len(), 0);
}

/// Who asks first and goes away does not take the reading along.
#[tokio::test(start_paused = true)]
async fn a_reading_goes_on_without_who_began_it() {
    let world = World::new();
    let _ = tokio::time::timeout(S / 2, world.get("a")).await.unwrap_err();
    assert_eq!(world.get("a").await, Ok((0, Source::Read)));
    assert_eq!(world.reads(), 1);
}

/// Who asks after an invalidation does not get what was read before it, neither from the reading in flight nor from what it left.
#[tokio::test(start_paused = true)]
async fn a_reading_from_before_an_invalidation_is_for_those_who_asked_before_it() {
    let world = World::new();
    let before = async { assert_eq!(world.get("a").await, Ok((0, Source::Read))) };
    let after = async {
        sleep(S / 2).await;
        world.now.store(7, Ordering::SeqCst);
        world.loading.cache().forget("a");
        assert_eq!(world.get("a").await, Ok((7, Source::Read)));
    };
    tokio::join!(before, after);
    assert_eq!(world.get("a").await, Ok((7, Source::Near)));
    assert_eq!(world.reads(), 2);
}

/// A value that gets old is read anew while it still counts; nobody waits for that. One that is too old is waited for.
#[tokio::test(start_paused = true)]
async fn what_gets_old_is_read_anew_in_the_background() {
    let world = World::new();
    assert_eq!(world.get("a").await, Ok((0, Source::Read)));
    world.now.store(1, Ordering::SeqCst);
    advance(59 * S).await;
    assert_eq!(world.get("a").await, Ok((0, Source::Near)));
    assert_eq!(world.reads(), 1, "not old yet");
    advance(S).await;
    for _ in 0..3 {
        assert_eq!(world.get("a").await, Ok((0, Source::Near)), "nobody waits");
    }
    sleep(2 * S).await;
    assert_eq!((world.get("a").await, world.reads()), (Ok((1, Source::Near)), 2));
    world.now.store(2, Ordering::SeqCst);
    advance(200 * S).await;
    assert_eq!(world.get("a").await, Ok((2, Source::Read)), "too old");
    assert_eq!(world.loading.cache().counts(), [5, 0, 2], "a refresh is a hit");
}

/// A reading that dies is done again by those who waited for it.
#[tokio::test(start_paused = true)]
async fn a_reading_that_dies_leaves_nobody_waiting() {
    let world = World::new();
    let tries = Arc::new(AtomicU32::new(0));
    let read = {
        let tries = Arc::clone(&tries);
        move || async move {
            assert!(tries.fetch_add(1, Ordering::SeqCst) > 0, "the first one dies");
            Ok(Number(3))
        }
    };
    assert_eq!(world.loading.get("a", read).await, Ok((Number(3), Source::Read)));
    assert_eq!(world.loading.flights().len(), 0);
}

/// A cache that is off keeps nothing, joins nothing and counts nothing.
#[tokio::test(start_paused = true)]
async fn one_that_is_off_reads_each_time() {
    let mut world = World::new();
    let caches = Caches::in_memory(Arc::new(Still::at(UnixNanos(1))));
    world.loading = Loading::new(caches.add("numbers", Limits { idle: Duration::ZERO, ..Limits::default() }));
    let all = futures_util::future::join_all((0..5).map(|_| world.get("a"))).await;
    assert!(all.iter().all(|one| *one == Ok((0, Source::Read))), "{all:?}");
    assert_eq!((world.reads(), world.loading.cache().counts(), world.loading.cache().size()), (5, [0, 0, 0], (0, 0)));
}
