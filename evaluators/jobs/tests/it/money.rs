//! Budgets, by the endpoint's own bill.

use std::time::Duration;

use emberd_store::jobs::DatasetType;
use serde_json::json;

use crate::world::{ADMIN, World, class, examples, on_both};

on_both!(
    a_budget_holds_to_the_cent,
    calls_without_a_price_are_refused_where_there_is_a_budget,
    two_jobs_have_two_budgets
);

async fn a_budget_holds_to_the_cent(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(400)).await;
    world.endpoint.slow(Duration::from_millis(5));
    let engine = world.start();
    let budget = 0.25;
    let job = world
        .create(&engine.handle, dataset, json!({"budget": budget, "evaluators": ["exact_match", "correctness"]}))
        .await;
    let row = world.over(job).await;
    let (bill, spent) = (world.endpoint.bill(), world.spent(job).await);
    assert_eq!(bill, spent);
    assert!(bill <= (budget * 1e9) as i64, "{bill} of {budget}");
    let results = world.results(job).await;
    let failed = results.iter().filter(|result| class(result) == Some("budget")).count() as u64;
    assert!(
        failed > 0 && failed + world.endpoint.calls() == 400,
        "{failed} for want of money, {} calls",
        world.endpoint.calls()
    );
    // The budget is used, but for less than one more call may cost.
    assert!(bill > (budget * 1e9) as i64 - 30_000_000, "only {bill} were spent");
    let metrics = row.metrics.unwrap();
    assert_eq!((row.status.as_str(), &metrics["errors"]["budget"]), ("completed", &json!(failed)));
    assert_eq!(metrics["evaluators"]["exact_match"]["scored"], json!(400));
    engine.stop().await;
}

async fn calls_without_a_price_are_refused_where_there_is_a_budget(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(5)).await;
    let engine = world.start();
    let config = json!({"budget": 1, "judgeModel": "mystery", "evaluators": ["correctness"]});
    let refused = engine.handle.create(&world.request(dataset, config), None, ADMIN).await.unwrap_err();
    assert!(format!("{refused:?}").contains("mystery"), "{refused:?}");
    let config = json!({"judgeModel": "mystery", "evaluators": ["correctness"]});
    let quote = engine.handle.quote(&world.request(dataset, config.clone()), ADMIN).await.unwrap();
    assert_eq!((quote.unpriced.as_slice(), quote.cost_high), (&["mystery".to_owned()][..], None));
    let job = world.create(&engine.handle, dataset, config).await;
    assert_eq!(world.over(job).await.status, "completed");
    assert_eq!((world.endpoint.calls(), world.spent(job).await), (5, 0));
    engine.stop().await;
}

async fn two_jobs_have_two_budgets(world: World) {
    let (one, other) = (
        world.dataset(DatasetType::Custom, &examples(60)).await,
        world.dataset(DatasetType::Custom, &examples(60)).await,
    );
    let engine = world.start();
    let poor = world.create(&engine.handle, one, json!({"budget": 0, "evaluators": ["conciseness"]})).await;
    let rich = world.create(&engine.handle, other, json!({"budget": 100, "evaluators": ["correctness"]})).await;
    let row = world.over(poor).await;
    assert_eq!(row.status, "failed");
    assert!(row.error.unwrap().contains("budget"));
    assert_eq!(world.over(rich).await.status, "completed");
    assert_eq!((world.spent(poor).await, world.spent(rich).await), (0, world.endpoint.bill()));
    engine.stop().await;
}
