//! Several engines on one PostgreSQL.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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

/// A slow endpoint, four calls at once each: four engines are about four times as fast as one.
#[test]
fn four_engines_share_a_job() {
    on_postgres(async |world: World| {
        world.endpoint.slow(Duration::from_millis(250));
        let mut times = Vec::new();
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
            let begun = Instant::now();
            assert_eq!(world.over(job).await.status, "completed");
            times.push(begun.elapsed());
            assert_eq!(world.endpoint.calls() - before, 400);
            check(&world, job, 400).await;
            for engine in running {
                engine.stop().await;
            }
        }
        let speedup = times[0].as_secs_f64() / times[1].as_secs_f64();
        eprintln!("one engine {:?}, four {:?}: {speedup:.2} times as fast", times[0], times[1]);
        assert!(speedup > 3.0, "{speedup}");
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
