//! Several engines on one PostgreSQL.

use std::collections::BTreeSet;
use std::time::Duration;

use emberd_store::jobs::DatasetType;
use serde_json::json;
use uuid::Uuid;

use crate::child::Killable;
use crate::world::{World, examples, on_postgres, open, start};

async fn check(world: &World, job: Uuid, items: usize) {
    let results = world.results(job).await;
    let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
    assert_eq!((results.len(), keys.len()), (items, items), "each item exactly once");
}

/// A slow endpoint, four calls at once each: all four engines are at it at the same time.
#[test]
fn four_engines_share_a_job() {
    on_postgres(async |world: World| {
        world.endpoint.slow(Duration::from_millis(250));
        let mut at_once = Vec::new();
        for engines in [1, 4] {
            // Other texts each time, so that no answer is known.
            let examples: Vec<_> =
                (0..400).map(|nr| json!({"input": format!("{engines} {nr}"), "output": "right"})).collect();
            let dataset = world.dataset(DatasetType::Custom, &examples).await;
            let mut running = Vec::new();
            for _ in 0..engines {
                let mut config = world.config();
                config.endpoints[0].concurrency_max = 4;
                let store = open(&world.url, world.dir.path().to_owned()).await;
                running.push(start(config, store, world.dir.path()));
            }
            let before = world.endpoint.calls();
            let job = world.create(&running[0].handle, dataset, json!({"evaluators": ["correctness"]})).await;
            world.endpoint.forget_peak();
            assert_eq!(world.over(job).await.status, "completed");
            at_once.push(world.endpoint.peak());
            assert_eq!(world.endpoint.calls() - before, 400);
            check(&world, job, 400).await;
            for engine in running {
                engine.stop().await;
            }
        }
        eprintln!("calls at once: one engine {}, four {}", at_once[0], at_once[1]);
        assert_eq!(at_once[0], 4);
        assert!((13..=16).contains(&at_once[1]), "three engines have twelve calls at once: {at_once:?}");
    });
}

/// Who dies in the middle leaves its items to the others, after its lease.
#[test]
fn a_dead_engines_items_are_taken_over() {
    on_postgres(async |world: World| {
        let lease = Duration::from_secs(3);
        let dataset = world.dataset(DatasetType::Custom, &examples(300)).await;
        world.endpoint.slow(Duration::from_millis(300));
        let mut children: Vec<Killable> = (0..4).map(|_| Killable::start(&world, lease, 4)).collect();
        let maker = crate::world::engine(world.config(), world.store.clone(), world.dir.path()).handle();
        let config = json!({"budget": 20, "evaluators": ["exact_match", "correctness"]});
        let job = world.create(&maker, dataset, config).await;
        while world.endpoint.calls() < 80 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        children[0].kill();
        // Of all four, those of the dead one among them.
        let in_flight = world.unsettled().await.len() as u64;
        let row = world.over(job).await;
        drop(children);
        world.settle().await;
        assert_eq!((row.status.as_str(), &row.metrics.unwrap()["errors"]), ("completed", &json!({})));
        check(&world, job, 600).await;
        let (calls, bill, spent) = (world.endpoint.calls(), world.endpoint.bill(), world.spent(job).await);
        eprintln!(
            "one of four killed: {calls} calls for 300 items, {in_flight} in flight then, bill {bill}, spent {spent}"
        );
        assert!(calls <= 300 + in_flight, "{calls}");
        assert!(spent >= bill && spent <= 20_000_000_000);
    });
}
