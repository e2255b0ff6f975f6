//! Functions, which take many examples at a time: killed in their midst, failing for one of them, cancelled half way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use emberd_store::jobs::DatasetType;
use serde_json::json;

use crate::child::Killable;
use crate::world::{World, class, examples, on_both};

on_both!(
    a_range_that_was_killed_in_its_midst_is_done_once,
    one_example_of_many_fails_and_is_tried_again_alone,
    a_cancelled_job_keeps_what_its_functions_found,
);

const LEASE: Duration = Duration::from_secs(1);
const KILLS: usize = 6;

/// Killed while it holds ranges, again and again: each example has each score once, and nothing failed for it.
async fn a_range_that_was_killed_in_its_midst_is_done_once(world: World) {
    const COUNT: usize = 8_000;
    // Long enough for a range to take a while.
    let text = "the quick brown fox jumps over the lazy dog ".repeat(20);
    let example =
        |nr: usize| json!({"input": nr, "output": format!("{text}{nr}"), "reference": format!("{nr} {text}")});
    let dataset = world.dataset(DatasetType::Custom, &(0..COUNT).map(example).collect::<Vec<_>>()).await;
    let maker = crate::world::engine(world.config(), world.store.clone(), world.dir.path()).handle();
    let request = world.request(dataset, json!({"evaluators": ["levenshtein_ratio", "rouge_l", "exact_match"]}));
    let job = maker.create(&request, None, crate::world::ADMIN).await.unwrap().id;
    let (mut kills, mut in_hand) = (0, BTreeSet::new());
    while kills < KILLS {
        // What the last one held is free again when its lease is over, and each is killed in the midst of its own work.
        if kills > 0 {
            tokio::time::sleep(LEASE).await;
        }
        let done_before = world.store.progress(job).await.unwrap().done;
        let mut child = Killable::start(&world, LEASE, 8);
        let begun = Instant::now();
        loop {
            let progress = world.store.progress(job).await.unwrap();
            let is_open = world.store.job(job).await.unwrap().is_some_and(|job| job.items_left > 0);
            if progress.leased > 0 && progress.done > done_before {
                in_hand.insert(progress.done);
                break;
            }
            if (!is_open && progress.done > 0) || begun.elapsed() > Duration::from_secs(30) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        child.kill();
        kills += 1;
    }
    let child = Killable::start(&world, LEASE, 8);
    let row = world.over(job).await;
    drop(child);
    eprintln!("{}: killed with ranges in hand {} times of {KILLS}", world.store.kind(), in_hand.len());
    assert!(!in_hand.is_empty(), "no kill met a range: make the job longer");
    assert_eq!((row.status.as_str(), row.error), ("completed", None));
    let results = world.results(job).await;
    let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
    let items = 3 * COUNT;
    assert_eq!((results.len(), keys.len()), (items, items), "each item exactly once");
    assert!(results.iter().all(|result| result.scored.outcome.is_ok()));
    let progress = world.store.progress(job).await.unwrap();
    assert_eq!((progress.done, progress.leased + progress.waiting), (items as i64, 0));
}

async fn one_example_of_many_fails_and_is_tried_again_alone(world: World) {
    let mut all = examples(500);
    all[123].as_object_mut().unwrap().remove("reference");
    let dataset = world.dataset(DatasetType::Custom, &all).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": ["exact_match", "levenshtein_ratio"]})).await;
    for _ in 0..2 {
        let row = world.over(job).await;
        let metrics = row.metrics.unwrap();
        assert_eq!((row.status.as_str(), &metrics["errors"]), ("completed", &json!({"missing_field": 2})));
        assert_eq!(metrics["evaluators"]["exact_match"]["scored"], json!(499));
        let share = engine.handle.progress(job).await.unwrap().unwrap();
        assert_eq!((share.done, share.failed, share.total, share.running), (998, 2, 1_000, 0));
        let results = world.results(job).await;
        let failed: Vec<(i64, i64)> = results
            .iter()
            .filter(|result| class(result) == Some("missing_field"))
            .map(|result| (result.nr, result.step))
            .collect();
        assert_eq!((results.len(), failed), (1_000, vec![(123, 1), (123, 2)]));
        assert_eq!(engine.handle.retry(job, &["timeout".to_owned()]).await.unwrap(), 0);
        assert_eq!(engine.handle.retry(job, &["missing_field".to_owned()]).await.unwrap(), 2);
    }
    world.over(job).await;
    engine.stop().await;
}

async fn a_cancelled_job_keeps_what_its_functions_found(world: World) {
    const COUNT: usize = 20_000;
    let dataset = world.dataset(DatasetType::Custom, &examples(COUNT)).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": ["rouge_l", "levenshtein_ratio"]})).await;
    while world.store.progress(job).await.unwrap().done == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let was_open = engine.handle.cancel(job).await.unwrap();
    engine.stop().await;
    let progress = world.store.progress(job).await.unwrap();
    let results = world.results(job).await;
    assert_eq!(results.len() as i64, progress.done, "{progress:?}");
    assert_eq!(progress.done + progress.cancelled, 2 * COUNT as i64, "{progress:?}");
    assert_eq!(world.store.job(job).await.unwrap().unwrap().items_left, 0);
    if was_open {
        assert_eq!(world.store.evaluation(job).await.unwrap().unwrap().status, "cancelled");
        assert!(progress.cancelled > 0, "{progress:?}");
    }
}
