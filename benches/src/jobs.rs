//! Evaluation jobs of built-in functions from request to summary, on both databases, beside what they cannot do without.
//!
//! `bare` is the functions alone, over the same examples parsed beforehand. `plain` inserts as many result rows of the same columns, with a
//! key and nothing else, by one prepared INSERT each, in transactions of two thousand. What a job does above both: read the dataset, keep
//! each target as it was when the job began, hand out the work so that a crash loses and repeats nothing, and sum the results up.
//! A job is run twice, and the second one counts: the first brings the caches to where they are in use.

mod plain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use emberd_evaluators_hosts::Hosts;
use emberd_evaluators_jobs::{Config, Engine, Handle};
use emberd_evaluators_kit::{Coded, Example, Spec, build};
use emberd_model::{Clock, UnixNanos};
use emberd_store::jobs::{DatasetType, NewDataset, Viewer};
use emberd_store::library::NewPrompt;
use emberd_store::{Config as StoreConfig, Store};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::meter::{Meter, Spent};
use crate::recorder::plain::Database;
use crate::table;

/// What is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Examples in the dataset
    #[arg(long, default_value_t = 100_000)]
    examples: usize,
    /// Only one built-in on SQLite, once
    #[arg(long)]
    short: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { examples: 100_000, short: false }
    }
}

const ADMIN: Viewer = Viewer { user: Uuid::nil(), is_admin: true };
/// Longer than anything here takes.
const OVER_WITHIN: Duration = Duration::from_secs(1_800);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let examples = examples(options.examples);
    let server = std::env::var("EMBERD_TEST_POSTGRES").ok().filter(|_| !options.short);
    if server.is_none() && !options.short {
        eprintln!("EMBERD_TEST_POSTGRES is not set: PostgreSQL is left out");
    }
    let head =
        ["", "items/s", "wall µs", "CPU here µs", "CPU server µs", "all CPU x bare", "all CPU x plain", "kB written"];
    for evaluators in [vec![json!("exact_match")], three()].into_iter().take(if options.short { 1 } else { 2 }) {
        let bare = bare(&examples, &evaluators)?;
        let items = bare.items;
        let mut lines = vec![line("the functions alone, in memory", &bare, &bare, None)];
        let plain = plain::sqlite(items)?;
        lines.push(line("plain INSERTs into SQLite, in transactions of 2,000", &plain, &bare, None));
        let job = runtime.block_on(sqlite(options, &examples, &evaluators))?;
        lines.push(line("job on SQLite", &job, &bare, Some(&plain)));
        if let Some(server) = &server {
            let plain = runtime.block_on(plain::postgres(server, items))?;
            lines.push(line("plain INSERTs into PostgreSQL, in transactions of 2,000", &plain, &bare, None));
            let job = runtime.block_on(postgres(server, options, &examples, &evaluators))?;
            lines.push(line("job on PostgreSQL", &job, &bare, Some(&plain)));
        }
        let title = format!("Jobs: {} examples, {} built-in(s)", examples.len(), evaluators.len());
        table::print(&title, &head, &lines);
    }
    println!("All but the first column per item: an example through one built-in.\n");
    Ok(())
}

fn three() -> Vec<Value> {
    vec![json!("exact_match"), json!("levenshtein_ratio"), json!({"name": "regex", "config": {"pattern": "right"}})]
}

/// Examples of which every third is right.
fn examples(count: usize) -> Vec<Value> {
    let example = |nr: usize| {
        let output = if nr.is_multiple_of(3) { format!("right {nr}") } else { format!("wrong {nr}") };
        json!({"id": format!("e{nr}"), "input": format!("question {nr}"), "output": output, "reference": format!("right {nr}")})
    };
    (0..count).map(example).collect()
}

fn line(name: &str, spent: &Spent, bare: &Spent, plain: Option<&Spent>) -> Vec<String> {
    let items = spent.items as f64;
    let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / items);
    let all = |spent: &Spent| (spent.cpu + spent.server.unwrap_or_default()).as_secs_f64() / spent.items as f64;
    vec![
        name.into(),
        format!("{:.0}", items / spent.wall.as_secs_f64()),
        micros(spent.wall),
        micros(spent.cpu),
        spent.server.map_or("–".into(), micros),
        format!("{:.1}", all(spent) / all(bare)),
        plain.map_or("–".into(), |plain| format!("{:.1}", all(spent) / all(plain))),
        format!("{:.2}", spent.written as f64 / 1e3 / items),
    ]
}

/// The functions over examples that are parsed already.
fn bare(examples: &[Value], evaluators: &[Value]) -> anyhow::Result<Spent> {
    let parse = |example: &Value| {
        let mut example = example.clone();
        example.as_object_mut().map(|object| object.remove("id"));
        serde_json::from_value(example)
    };
    let examples: Vec<Example> = examples.iter().map(parse).collect::<Result<_, _>>()?;
    let spec = |spec: &Value| match spec {
        Value::String(name) => serde_json::from_value::<Spec>(json!({"name": name})),
        spec => serde_json::from_value(spec.clone()),
    };
    let mut functions: Vec<Coded> = Vec::new();
    for evaluator in evaluators {
        functions.push(build(&spec(evaluator)?).map_err(|error| anyhow::anyhow!("{error:?}"))?);
    }
    let meter = Meter::begin(None);
    let mut items = 0;
    for function in &functions {
        for example in &examples {
            std::hint::black_box(function.run(example));
            items += 1;
        }
    }
    Ok(meter.end(items))
}

async fn sqlite(options: &Options, examples: &[Value], evaluators: &[Value]) -> anyhow::Result<Spent> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let config = StoreConfig { url: "sqlite".into(), max_connections: 4, data_dir: dir.path().into() };
    job(options, Store::connect(config).await?, None, examples, evaluators).await
}

async fn postgres(server: &str, options: &Options, examples: &[Value], evaluators: &[Value]) -> anyhow::Result<Spent> {
    let database = Database::create(server).await?;
    let config = StoreConfig { url: database.url.clone(), max_connections: 8, data_dir: std::env::temp_dir() };
    let store = Store::connect(config).await?;
    let spent = job(options, store, Some(database.postmaster), examples, evaluators).await;
    database.drop().await?;
    spent
}

struct Wall;

impl Clock for Wall {
    fn now(&self) -> UnixNanos {
        #[allow(clippy::disallowed_methods, reason = "the bench's wiring: jobs are measured in real time")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixNanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Makes the dataset, starts an engine, and has it run the job.
async fn job(
    options: &Options,
    store: Store,
    postmaster: Option<u32>,
    examples: &[Value],
    evaluators: &[Value],
) -> anyhow::Result<Spent> {
    store.migrate_up().await?;
    let new = NewPrompt { title: "bench".to_owned(), content: "Answer: {{input}}".to_owned(), created_by: None };
    let prompt = store.create_prompt(new, Wall.now()).await?.id;
    let dataset = NewDataset {
        name: "bench".to_owned(),
        description: None,
        kind: DatasetType::Custom,
        data: serde_json::value::to_raw_value(examples)?,
        metadata: json!({}),
        is_public: false,
        created_by: ADMIN.user,
    };
    let dataset = store.create_dataset(dataset, Wall.now()).await?;
    let dir = tempfile::tempdir()?;
    let hosts = Arc::new(Hosts::new(BTreeMap::new(), dir.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?);
    let engine = Engine::new(Config::default(), store.clone(), Arc::new(Wall), hosts)
        .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let handle = engine.handle();
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let stopped = stop.clone();
    tasks.spawn(async move { engine.run(stopped).await });
    let request =
        json!({"promptId": prompt, "datasetId": dataset, "name": "bench", "config": {"evaluators": evaluators}});
    let items = (examples.len() * evaluators.len()) as u64;
    if !options.short {
        once(&store, &handle, &request).await?;
    }
    let meter = Meter::begin(postmaster);
    once(&store, &handle, &request).await?;
    let spent = meter.end(items);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    store.close().await;
    Ok(spent)
}

/// A job from request to summary.
async fn once(store: &Store, handle: &Handle, request: &Value) -> anyhow::Result<()> {
    let created = handle.create(request, None, ADMIN).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let begun = tokio::time::Instant::now();
    loop {
        let row = store.evaluation(created.id).await?;
        if let Some(row) = row.filter(|row| row.completed_at.is_some()) {
            anyhow::ensure!(row.status == "completed" && row.error.is_none(), "{row:?}");
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < OVER_WITHIN, "not over: {:?}", store.progress(created.id).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
