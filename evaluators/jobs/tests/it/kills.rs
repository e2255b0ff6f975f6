//! kill -9 at thirty random moments of a job: each item once, no call more than were in flight, and the money right.

use std::collections::BTreeSet;
use std::time::Duration;

use emberd_store::jobs::DatasetType;
use serde_json::json;
use uuid::Uuid;

use crate::child::Killable;
use crate::world::{World, examples, on_both};

on_both!(thirty_kills);

const KILLS: u64 = 30;
const LEASE: Duration = Duration::from_secs(3);

/// A number from 0 to below `below`.
fn random(below: u64) -> u64 {
    Uuid::new_v4().as_u64_pair().1 % below
}

async fn thirty_kills(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(1_000)).await;
    world.endpoint.slow(Duration::from_millis(130));
    let engine = world.start();
    let config = json!({"budget": 20, "evaluators": ["exact_match", {"name": "regex", "config": {"pattern": "right"}}, "levenshtein_ratio",
        "correctness", "conciseness"]});
    // Made by somebody who is gone before anything is prepared.
    let request = world.request(dataset, config);
    engine.stop().await;
    let maker = crate::world::engine(world.config(), world.store.clone(), world.dir.path()).handle();
    let job = maker.create(&request, None, crate::world::ADMIN).await.unwrap().id;
    // Calls that were reserved and not settled, at any kill.
    let (mut cut_off, mut kills) = (BTreeSet::new(), 0);
    while kills < KILLS {
        let mut child = Killable::start(&world, LEASE, 8);
        tokio::time::sleep(Duration::from_millis(200 + random(1_500))).await;
        child.kill();
        cut_off.extend(world.unsettled().await);
        kills += 1;
        if world.store.evaluation(job).await.unwrap().unwrap().completed_at.is_some() {
            break;
        }
    }
    let child = Killable::start(&world, LEASE, 8);
    let row = world.over(job).await;
    drop(child);
    world.settle().await;
    assert_eq!((row.status.as_str(), row.error), ("completed", None));
    let results = world.results(job).await;
    let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
    assert_eq!((results.len(), keys.len()), (5_000, 5_000), "each item exactly once");
    assert_eq!(row.metrics.as_ref().unwrap()["errors"], json!({}));
    let (calls, bill, spent) = (world.endpoint.calls(), world.endpoint.bill(), world.spent(job).await);
    let (cut_off, costliest) = (cut_off.len() as u64, 30_000_000);
    eprintln!(
        "{}: {kills} kills, {calls} calls for 2000 items, {cut_off} in flight at kills, bill {bill}, spent {spent}",
        world.store.kind()
    );
    assert!(calls <= 2_000 + cut_off, "{calls} calls, {cut_off} were in flight at kills");
    assert!(spent >= bill, "spent {spent} of a bill of {bill}");
    assert!(spent - bill <= cut_off as i64 * costliest, "spent {spent} for a bill of {bill}, {cut_off} calls cut off");
    assert!(spent <= 20_000_000_000);
    assert_eq!(kills, KILLS, "the job was over before: make it longer");
}
