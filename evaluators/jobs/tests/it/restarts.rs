//! PostgreSQL restarted as a crash would, in the middle of a job.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use emberd_store::jobs::DatasetType;
use serde_json::json;

use crate::world::{World, examples, runtime, server};

fn services(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/services");
    let done = Command::new(script).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A server of its own, stopped when dropped.
struct Server(tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        services(&["stop", self.0.path().join("pg").to_str().unwrap()]);
    }
}

#[test]
fn a_job_goes_on_after_each_restart_of_the_database() {
    if server().is_none() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("emberd-restarts.").tempdir_in("/tmp").unwrap();
    let place = dir.path().join("pg").to_str().unwrap().to_owned();
    let url = services(&["postgres", &place]);
    let _server = Server(dir);
    runtime().block_on(async {
        let world = World::new(url).await;
        let dataset = world.dataset(DatasetType::Custom, &examples(600)).await;
        world.endpoint.slow(Duration::from_millis(50));
        let engine = world.start();
        let job = world
            .create(
                &engine.handle,
                dataset,
                json!({"budget": 20, "evaluators": ["exact_match", "correctness", "conciseness"]}),
            )
            .await;
        let mut cut_off = 0;
        for restart in 1..=4 {
            while world.endpoint.calls() < restart * 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let place = place.clone();
            tokio::task::spawn_blocking(move || services(&["restart", &place])).await.unwrap();
            cut_off += 16;
        }
        let row = world.over(job).await;
        engine.stop().await;
        world.settle().await;
        assert_eq!((row.status.as_str(), &row.metrics.unwrap()["errors"]), ("completed", &json!({})));
        let results = world.results(job).await;
        let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
        assert_eq!((results.len(), keys.len()), (1_800, 1_800));
        let (calls, bill, spent) = (world.endpoint.calls(), world.endpoint.bill(), world.spent(job).await);
        eprintln!("4 restarts, {calls} calls for 1200 items, bill {bill}, spent {spent}");
        assert!(calls <= 1_200 + cut_off, "{calls} calls");
        // A reservation of which nobody heard counts as a call that was cut off.
        assert!(spent >= bill && spent - bill <= cut_off as i64 * 30_000_000, "spent {spent}, bill {bill}");
    });
}
