//! What a built-in costs from end to end: `cargo test --release -p emberd-evaluators-jobs --test it measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use emberd_store::jobs::DatasetType;
use serde_json::json;

use crate::world::{World, examples, on_postgres, on_sqlite};

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn measure(world: World) {
    const COUNT: usize = 100_000;
    let dataset = world.dataset(DatasetType::Custom, &examples(COUNT)).await;
    let engine = world.start();
    for evaluators in [
        json!(["exact_match"]),
        json!(["exact_match", "levenshtein_ratio", {"name": "regex", "config": {"pattern": "right"}}]),
    ] {
        let count = evaluators.as_array().unwrap().len();
        let (begun, before) = (Instant::now(), cpu());
        let job = world.create(&engine.handle, dataset, json!({"evaluators": evaluators})).await;
        let row = world.over(job).await;
        let (wall, cpu) = (begun.elapsed(), cpu() - before);
        assert_eq!(row.status, "completed");
        let each = |time: Duration| time.as_secs_f64() * 1e6 / (COUNT * count) as f64;
        let micros = |moment: Option<emberd_store::Moment>| moment.unwrap().micros();
        let (prepared, worked) = (
            Duration::from_micros((micros(row.started_at) - micros(Some(row.created_at))) as u64),
            Duration::from_micros((micros(row.completed_at) - micros(row.started_at)) as u64),
        );
        eprintln!("prepared in {prepared:?}, worked and closed in {worked:?}");
        eprintln!(
            "{}: {COUNT} examples, {count} built-ins: {wall:?} of time, {cpu:?} of CPU; an item {:.1} us, CPU {:.1} us",
            world.store.kind(),
            each(wall),
            each(cpu)
        );
    }
    engine.stop().await;
}

#[test]
#[ignore = "a measure, for release builds"]
fn a_built_in_on_sqlite() {
    on_sqlite(measure);
}

#[test]
#[ignore = "a measure, for release builds"]
fn a_built_in_on_postgres() {
    on_postgres(measure);
}
