//! Jobs that go well.

use std::collections::BTreeSet;
use std::time::Duration;

use emberd_store::jobs::DatasetType;
use serde_json::json;

use crate::world::{ADMIN, World, class, examples, on_both};

on_both!(
    a_thousand_examples_by_three_functions_and_two_judges,
    the_prompt_is_run_and_its_output_judged,
    a_job_asked_for_twice_is_one,
    a_cancelled_job_makes_no_more_calls,
    templates_of_the_library_judge_too,
    an_empty_dataset_fails_with_the_reason,
    past_traces_are_judged_by_filter,
    who_stops_gives_back_what_is_in_hand,
    a_small_job_does_not_wait_for_a_large_one,
);

async fn a_thousand_examples_by_three_functions_and_two_judges(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(1_000)).await;
    let engine = world.start();
    let mut events = engine.handle.events();
    let config = json!({"budget": 50, "evaluators": ["exact_match", {"name": "regex", "config": {"pattern": "right [0-9]+"}},
        "levenshtein_ratio", "correctness", "conciseness"]});
    let quote = engine.handle.quote(&world.request(dataset, config.clone()), ADMIN).await.unwrap();
    assert_eq!((quote.examples, quote.items, quote.calls), (1_000, 5_000, 2_000));
    let job = world.create(&engine.handle, dataset, config.clone()).await;
    let row = world.over(job).await;
    assert_eq!((row.status.as_str(), &row.error), ("completed", &None), "{:?}", row.metrics);
    let results = world.results(job).await;
    let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
    assert_eq!((results.len(), keys.len()), (5_000, 5_000));
    let metrics = row.metrics.unwrap();
    let of = |name: &str, key: &str| metrics["evaluators"][name][key].as_f64().unwrap();
    for name in ["exact_match", "regex", "correctness", "conciseness"] {
        assert_eq!(of(name, "mean"), 0.334, "{name}");
        assert!(of(name, "ci_low") < 0.334 && of(name, "ci_high") > 0.334);
        assert_eq!((of(name, "scored"), of(name, "errors"), of(name, "of")), (1_000.0, 0.0, 1_000.0));
    }
    assert!(of("levenshtein_ratio", "mean") > 0.334);
    assert_eq!(metrics["errors"], json!({}));
    assert!(metrics["latency_ms"]["p99"].as_f64().unwrap() > 0.0 && metrics["tokens"].as_i64().unwrap() > 2_000 * 20);
    let (calls, bill) = (world.endpoint.calls(), world.endpoint.bill());
    assert_eq!((calls, world.spent(job).await), (2_000, bill), "every call once, and the bill to the nano-dollar");
    let cost = metrics["cost"].as_f64().unwrap();
    assert!(
        (cost - bill as f64 / 1e9).abs() < 1e-12 && quote.cost_low.unwrap() <= cost && cost <= quote.cost_high.unwrap()
    );
    assert_eq!(results.iter().map(|result| result.scored.cost.0).sum::<i64>(), bill);
    assert_eq!(world.endpoint.book.lock().unwrap().keys.iter().collect::<Vec<_>>(), ["Bearer sk-test"]);
    // What was answered once is known.
    let again = world.create(&engine.handle, dataset, config).await;
    let row = world.over(again).await;
    assert_eq!((row.status.as_str(), world.endpoint.calls(), world.spent(again).await), ("completed", 2_000, 0));
    assert_eq!(row.metrics.unwrap()["cached"], json!(2_000));
    let mut last = None;
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(2), events.recv()).await {
        if let Ok(event) = event
            && event.evaluation_id == job
        {
            assert!(event.progress.done <= event.progress.total);
            last = Some(event);
        }
    }
    let last = last.expect("the job was told of");
    assert_eq!((last.status.as_str(), last.progress.done, last.progress.total), ("completed", 5_000, 5_000));
    assert!(last.metrics.is_some());
    let counters = engine.handle.counters();
    assert_eq!((counters.created, counters.completed, counters.failed, counters.duration.count()), (2, 2, 0, 2));
    engine.stop().await;
}

async fn the_prompt_is_run_and_its_output_judged(world: World) {
    let examples: Vec<_> = (0..40).map(|nr| json!({"question": format!("is {nr} right?"), "answer": "yes"})).collect();
    let dataset = world.dataset(DatasetType::QaPairs, &examples).await;
    let engine = world.start();
    let config = json!({"model": "runner", "temperature": 0.5, "maxTokens": 64, "budget": 5,
        "evaluators": [{"name": "regex", "config": {"pattern": "^echo Answer: is [0-9]+ right\\?$"}}, "correctness",
            {"name": "token_budget", "config": {"max": 1000}}, "latency_budget_x"]});
    let faults = engine.handle.check(&world.request(dataset, config), ADMIN).await.unwrap_err();
    assert!(format!("{faults:?}").contains("latency_budget_x"));
    let config = json!({"model": "runner", "temperature": 0.5, "maxTokens": 64, "budget": 5,
        "evaluators": [{"name": "regex", "config": {"pattern": "^echo Answer: is [0-9]+ right\\?$"}}, "correctness"]});
    let job = world.create(&engine.handle, dataset, config.clone()).await;
    let row = world.over(job).await;
    let metrics = row.metrics.unwrap();
    assert_eq!(row.status, "completed", "{metrics}");
    assert_eq!(metrics["evaluators"]["regex"]["mean"], json!(1.0), "{metrics}");
    assert_eq!(metrics["evaluators"]["correctness"]["mean"], json!(1.0));
    assert_eq!((world.endpoint.calls(), world.endpoint.bill()), (80, world.spent(job).await));
    let results = world.results(job).await;
    assert_eq!(results.iter().filter(|result| result.step == 0 && result.scored.name == "run").count(), 40);
    // Another job runs the prompt again; what it says is the same, and its judging is known.
    let again = world.create(&engine.handle, dataset, config).await;
    world.over(again).await;
    assert_eq!(world.endpoint.calls(), 120);
    engine.stop().await;
}

async fn a_job_asked_for_twice_is_one(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(3)).await;
    let engine = world.start();
    let request = world.request(dataset, json!({"evaluators": ["exact_match"]}));
    let one = engine.handle.create(&request, Some("monday".into()), ADMIN).await.unwrap();
    let other = engine.handle.create(&request, Some("monday".into()), ADMIN).await.unwrap();
    assert_eq!((one.id, one.is_new, other.is_new), (other.id, true, false));
    world.over(one.id).await;
    let share = engine.handle.progress(one.id).await.unwrap().unwrap();
    assert_eq!((share.done, share.total), (3, 3));
    engine.stop().await;
}

async fn a_cancelled_job_makes_no_more_calls(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(500)).await;
    world.endpoint.slow(Duration::from_millis(100));
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": ["correctness"]})).await;
    while world.endpoint.calls() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(engine.handle.cancel(job).await.unwrap());
    assert!(!engine.handle.cancel(job).await.unwrap(), "it is over");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let calls = world.endpoint.calls();
    assert!(calls < 500);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.endpoint.calls(), calls, "calls after the cancelling");
    assert_eq!(world.store.evaluation(job).await.unwrap().unwrap().status, "cancelled");
    assert_eq!(engine.handle.retry(job, &[]).await.unwrap(), 0);
    engine.stop().await;
    world.settle().await;
    assert_eq!(world.spent(job).await, world.endpoint.bill(), "calls in flight were settled");
}

async fn templates_of_the_library_judge_too(world: World) {
    let template = emberd_store::jobs::NewTemplate {
        name: "tone".to_owned(),
        description: None,
        config: json!({"direction": "maximize", "choices": [{"label": "polite", "score": 1.0}, {"label": "rude", "score": 0.0}],
            "messages": [{"role": "user", "content": "Polite or rude?\n{{output}}"}]}),
        is_public: true,
    };
    world
        .store
        .create_template(ADMIN.user, template, emberd_model::Clock::now(&crate::world::Wall))
        .await
        .unwrap()
        .unwrap();
    let dataset = world.dataset(DatasetType::Custom, &examples(6)).await;
    let engine = world.start();
    let job = world
        .create(&engine.handle, dataset, json!({"evaluators": ["tone", {"name": "tone", "as": "tone_again"}]}))
        .await;
    let row = world.over(job).await;
    let metrics = row.metrics.unwrap();
    assert_eq!(metrics["evaluators"]["tone"]["labels"], json!({"polite": 2, "rude": 4}), "{metrics}");
    assert_eq!(metrics["evaluators"]["tone_again"]["mean"], metrics["evaluators"]["tone"]["mean"]);
    engine.stop().await;
}

async fn an_empty_dataset_fails_with_the_reason(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &[]).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": ["exact_match"]})).await;
    let row = world.over(job).await;
    assert_eq!(row.status, "failed");
    assert!(row.error.unwrap().contains("no example"));
    assert!(world.results(job).await.iter().all(|result| class(result).is_none()));
    engine.stop().await;
}

async fn past_traces_are_judged_by_filter(world: World) {
    let mut rows = Vec::new();
    for nr in 0..1_200 {
        let id = uuid::Uuid::new_v4();
        let status = if nr % 4 == 0 { "error" } else { "success" };
        let metadata =
            json!({"input": format!("q {nr}"), "output": "right", "cost": {"total": 0.002}, "finish_reason": "stop"});
        rows.push(format!(
            "INSERT INTO prompt_traces (id, prompt_id, phoenix_trace_id, execution_time_ms, tokens_used, model, status, metadata, created_at)
             VALUES ('{id}', '{}', '{nr:032x}', {nr}, '{{\"prompt\": 5, \"completion\": 2, \"total\": 7}}', 'm', '{status}', '{metadata}',
             '2026-11-21T02:{:02}:{:02}.000000Z')",
            world.prompt, nr / 60, nr % 60,
        ));
    }
    world.sql(&rows.join(";")).await;
    let engine = world.start();
    let request = json!({"promptId": world.prompt, "name": "past", "traces": {"limit": 700, "status": "success", "to": "2026-11-21T02:18:20Z"},
        "config": {"evaluators": [{"name": "latency_budget", "config": {"max_ms": 599}}, {"name": "cost_budget", "config": {"max_usd": 0.01}},
            {"name": "token_budget", "config": {"max_tokens": 7}}, "finish_reason_ok"]}});
    let quote = engine.handle.quote(&request, ADMIN).await.unwrap();
    assert_eq!((quote.examples, quote.calls, quote.cost_high), (700, 0, Some(0.0)));
    let job = engine.handle.create(&request, None, ADMIN).await.unwrap().id;
    let row = world.over(job).await;
    let metrics = row.metrics.unwrap();
    let of = |name: &str, key: &str| metrics["evaluators"][name][key].as_f64().unwrap();
    assert_eq!((row.status.as_str(), &metrics["errors"]), ("completed", &json!({})));
    for name in ["cost_budget", "token_budget", "finish_reason_ok"] {
        assert_eq!((of(name, "mean"), of(name, "of")), (1.0, 700.0), "{name}: {metrics}");
    }
    // The newest 700 successes before number 1100 begin at number 167.
    let results = world.results(job).await;
    let targets: BTreeSet<&str> = results.iter().map(|result| result.target.as_str()).collect();
    let first = format!("{:032x}", 1_099 - 700 * 4 / 3 + 1);
    assert_eq!(
        (targets.len(), *targets.first().unwrap() >= first.as_str()),
        (700, true),
        "{:?} {first}",
        targets.first()
    );
    assert!(targets.iter().all(|trace| i64::from_str_radix(trace, 16).unwrap() % 4 != 0));
    let within = targets.iter().filter(|trace| i64::from_str_radix(trace, 16).unwrap() <= 599).count();
    assert!((of("latency_budget", "mean") - within as f64 / 700.0).abs() < 1e-9);
    engine.stop().await;
}

async fn who_stops_gives_back_what_is_in_hand(world: World) {
    let dataset = world.dataset(DatasetType::Custom, &examples(200)).await;
    world.endpoint.slow(Duration::from_millis(100));
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": ["correctness"]})).await;
    while world.endpoint.calls() < 60 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    engine.stop().await;
    let (calls, progress) = (world.endpoint.calls(), world.store.progress(job).await.unwrap());
    assert_eq!((progress.leased, progress.done as u64), (0, calls), "calls in flight were ended");
    let engine = world.start();
    // Well within the lease of the one that stopped.
    let row = world.over_within(job, Duration::from_secs(15)).await;
    assert_eq!((row.status.as_str(), world.endpoint.calls()), ("completed", 200));
    engine.stop().await;
}

async fn a_small_job_does_not_wait_for_a_large_one(world: World) {
    let (large, small) = (examples(600), vec![json!({"input": "another", "output": "right"}); 1]);
    let large = world.dataset(DatasetType::Custom, &large).await;
    let small = world.dataset(DatasetType::Custom, &small).await;
    world.endpoint.slow(Duration::from_millis(100));
    let engine = world.start();
    let evaluators = json!({"evaluators": ["correctness"]});
    let large = world.create(&engine.handle, large, evaluators.clone()).await;
    while world.endpoint.calls() < 30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let small = world.create(&engine.handle, small, evaluators).await;
    assert_eq!(world.over(small).await.status, "completed");
    let share = engine.handle.progress(large).await.unwrap().unwrap();
    assert!(share.done < 400, "{share:?}");
    assert!(engine.handle.cancel(large).await.unwrap());
    engine.stop().await;
}
