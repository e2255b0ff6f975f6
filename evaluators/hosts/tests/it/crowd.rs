//! How many batches an evaluator is asked at once: as many as it says that it bears, and its plugin as many as the configuration says.

use std::collections::BTreeMap;

use emberd_evaluators_hosts::Metric;
use emberd_evaluators_kit::collect;
use futures_util::future::{join, join_all};

use crate::support::{Running, examples, python_plugin, root};

/// The most that it was asked at once, as it tells itself, after so many batches of everybody's.
async fn most(metric: &Metric, batches: usize) -> f64 {
    let batch = examples(&["one"]);
    let asked = join_all((0..batches).map(|_| collect(metric, &batch))).await;
    let told =
        asked.iter().flatten().map(|outcome| outcome.result.as_ref().expect("a score")[0].value.expect("a number"));
    told.fold(0.0, f64::max)
}

/// Twelve batches at once of an evaluator that bears two: it never has more than two, and nobody gets an error for having waited; the other one
/// of the plugin has more meanwhile, up to what the plugin may be asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_evaluator_is_asked_as_many_batches_as_it_bears() {
    let dir = tempfile::tempdir().unwrap();
    let program = root().join("evaluators/hosts/tests/it/crowd.py");
    let mut config = python_plugin(&[program.to_str().unwrap()]);
    config.bounds.batches_in_flight = 6;
    let running = Running::start(BTreeMap::from([("crowd".to_owned(), config)]), dir.path());
    let (narrow, wide) = (running.metric("crowd/narrow").await, running.metric("crowd/wide").await);
    let (narrow, wide) = join(most(&narrow, 12), most(&wide, 12)).await;
    assert_eq!(narrow, 2.0);
    assert!((3.0..=6.0).contains(&wide), "{wide}");
    running.stop().await;
}
