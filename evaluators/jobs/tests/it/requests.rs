//! What is wrong with a request is told all at once, with its place.

use emberd_evaluators_jobs::CheckError;
use emberd_store::jobs::{DatasetType, Viewer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{ADMIN, World, examples, on_both};

on_both!(every_fault_is_told_with_its_path, names_are_looked_up_as_the_caller_sees_them);

async fn paths(world: &World, request: &Value) -> Vec<String> {
    let engine = world.start();
    let checked = engine.handle.check(request, ADMIN).await;
    engine.stop().await;
    match checked.unwrap_err() {
        CheckError::Invalid(faults) => faults.into_iter().map(|fault| fault.path).collect(),
        other => panic!("{other:?}"),
    }
}

async fn every_fault_is_told_with_its_path(world: World) {
    let request = json!({"promptId": "x", "name": "", "extra": 1, "traces": {"limit": 0, "status": "odd", "from": "yesterday"},
        "config": {"temperature": 3, "maxTokens": 0, "budget": -1, "concurrency": 0, "judge": "j", "evaluators": [{"nam": 1}, 7]}});
    let mut found = paths(&world, &request).await;
    found.sort();
    let wanted = [
        "config.budget",
        "config.concurrency",
        "config.evaluators[0]",
        "config.evaluators[1]",
        "config.judge",
        "config.maxTokens",
        "config.temperature",
        "extra",
        "name",
        "promptId",
        "traces.from",
        "traces.limit",
        "traces.status",
    ];
    assert_eq!(found, wanted);
    let dataset = world.dataset(DatasetType::Custom, &examples(1)).await;
    let request = world.request(
        dataset,
        json!({"evaluators": [
            "exact_match",
            {"name": "regex", "config": {"pattern": "("}},
            {"name": "contains", "config": {"wrds": ["a"]}},
            {"name": "correctness", "config": {"temperature": 9}},
            {"name": "exact_match", "mapping": {"nothing": "/input"}},
            "no_such_thing",
            "plugin/metric",
        ]}),
    );
    let found = paths(&world, &request).await;
    let begins = |path: &str| found.iter().any(|found| found.starts_with(path));
    assert!(found.contains(&"config.evaluators[1].config.pattern".to_owned()), "{found:?}");
    assert!(begins("config.evaluators[2].config"), "{found:?}");
    assert!(found.contains(&"config.evaluators[3].config.temperature".to_owned()), "{found:?}");
    assert!(found.contains(&"config.evaluators[4].mapping.nothing".to_owned()), "{found:?}");
    assert!(begins("config.evaluators[5]") && begins("config.evaluators[6]"), "{found:?}");
    assert!(!begins("config.evaluators[0]"), "{found:?}");
    let request = world.request(dataset, json!({"evaluators": ["exact_match", "exact_match"]}));
    assert_eq!(paths(&world, &request).await, ["config.evaluators[1]"]);
    let request = json!({"promptId": Uuid::new_v4(), "datasetId": Uuid::new_v4(), "name": "n", "config": {"evaluators": ["exact_match"]}});
    assert_eq!(paths(&world, &request).await, ["promptId", "datasetId"]);
}

async fn names_are_looked_up_as_the_caller_sees_them(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(1)).await;
    let stranger = Viewer { user: Uuid::new_v4(), is_admin: false };
    let engine = world.start();
    let request = world.request(dataset, json!({"evaluators": ["exact_match"]}));
    assert!(engine.handle.check(&request, stranger).await.is_err(), "the dataset is private");
    let plan = engine.handle.check(&request, ADMIN).await.unwrap();
    assert_eq!((plan.evaluators.len(), plan.steps().collect::<Vec<_>>()), (1, vec![1]));
    let names: Vec<String> = engine.handle.evaluators().into_iter().map(|evaluator| evaluator.name).collect();
    assert!(names.contains(&"exact_match".to_owned()) && names.contains(&"faithfulness".to_owned()));
    engine.stop().await;
}
