use tokio::task::JoinSet;

use super::*;

const KIB: usize = 1024;
const WAIT: Duration = Duration::from_secs(1);

/// One that has come to its end, and one of which only a part has come.
async fn part(of: &InFlight, bytes: usize) -> Result<Held, Refusal> {
    let mut held = of.hold(bytes).await?;
    of.is_coming(&mut held).await?;
    Ok(held)
}

/// A crowd that has filled everything with halves does not wait for each other until all are refused: some are refused at once,
/// and with what they give back the others come to their end, without a moment's wait.
#[tokio::test(start_paused = true)]
async fn halves_do_not_wait_for_each_other() {
    let bytes = Arc::new(InFlight::new(1024 * KIB, WAIT));
    let since = Instant::now();
    let mut crowd = JoinSet::new();
    for _ in 0..12 {
        let mut held = part(&bytes, 64 * KIB).await.unwrap();
        let bytes = Arc::clone(&bytes);
        crowd.spawn(async move {
            tokio::task::yield_now().await;
            bytes.grow(&mut held, 128 * KIB).await?;
            held.has_come();
            Ok::<_, Refusal>(())
        });
    }
    let ended = crowd.join_all().await;
    let whole = ended.iter().filter(|ended| ended.is_ok()).count();
    assert!((4..12).contains(&whole), "{whole} of 12 came to their end");
    assert!(since.elapsed() < WAIT, "they waited for each other");
    assert_eq!((bytes.used(), bytes.waiting.load(Ordering::Relaxed)), (0, 0));
}

/// However many bodies are on their way, and whatever has come of them, who has sent all of his is let in.
#[tokio::test(start_paused = true)]
async fn whole_bodies_pass_those_that_are_coming() {
    let bytes = InFlight::new(1024 * KIB, WAIT);
    let mut parts = Vec::new();
    while let Ok(held) = part(&bytes, 64 * KIB).await {
        parts.push(held);
    }
    assert_eq!(parts.len(), 12, "three quarters of what there is");
    assert!(bytes.grow(&mut parts[0], 65 * KIB).await.is_err());
    let whole = bytes.hold(256 * KIB).await.expect("a whole body is let in");
    assert_eq!(bytes.used(), 1024 * KIB);
    drop(whole);
    // Once it has come to its end, a body is no longer one of them, and another one may come.
    parts[0].has_come();
    parts.push(part(&bytes, 64 * KIB).await.unwrap());
    drop(parts);
    assert_eq!(bytes.used(), 0);
}

/// Who waits is let in as soon as there is room, and told so after the wait if there is none.
#[tokio::test(start_paused = true)]
async fn waiting_is_brief() {
    let bytes = Arc::new(InFlight::new(100 * KIB, WAIT));
    let mut all = bytes.hold(100 * KIB).await.unwrap();
    let since = Instant::now();
    let refused = bytes.hold(KIB).await.unwrap_err();
    assert!(matches!(refused, Refusal::Crowded { .. }) && since.elapsed() >= WAIT, "{refused:?}");
    let mut waits = JoinSet::new();
    let door = Arc::clone(&bytes);
    waits.spawn(async move { door.hold(40 * KIB).await.map(|held| held.bytes()) });
    tokio::task::yield_now().await;
    all.shrink_to(50 * KIB);
    assert_eq!(waits.join_all().await.pop().unwrap().unwrap(), 40 * KIB);
}

/// A request that is larger than all there is goes alone, coming and whole.
#[tokio::test(start_paused = true)]
async fn the_largest_goes_alone() {
    let bytes = InFlight::new(100 * KIB, WAIT);
    let mut large = part(&bytes, 10 * KIB).await.unwrap();
    bytes.grow(&mut large, 400 * KIB).await.unwrap();
    assert_eq!(large.bytes(), 100 * KIB);
    large.has_come();
    drop(large);
    assert_eq!((bytes.used(), bytes.coming.available_permits()), (0, 75 * KIB));
}
