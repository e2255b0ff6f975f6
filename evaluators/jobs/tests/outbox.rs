//! What evaluation finds, told to the real Phoenix, which is killed meanwhile.
//!
//! One Phoenix serves many stories, one after the other: it takes 20 seconds to start. It is the one in EMBERD_PHOENIX, by default
//! `~/.cache/emberd/phoenix`, where `make test` puts it.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]
#![allow(dead_code, reason = "the world is shared with other tests")]
#![allow(unused_imports, unused_macros, reason = "the world is shared with other tests")]

#[path = "it/endpoint.rs"]
mod endpoint;
#[path = "common/traffic.rs"]
mod traffic;
#[path = "it/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use emberd_evaluators_jobs::live::{self, Parts, sample};
use emberd_evaluators_jobs::outbox::{Config, Outbox};
use emberd_log::CursorFile;
use emberd_model::{Clock as _, Offset, SpanId};
use emberd_phoenix::Client;
use emberd_phoenix::annotations::{Level, Sought};
use emberd_phoenix::datasets::Action;
use emberd_phoenix::process::{Phoenix, Ports};
use emberd_store::jobs::DatasetType;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use traffic::{Log, span, span_id, trace};
use world::{ADMIN, Wall, World, examples, on_both};

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(150);

struct There {
    phoenix: Option<Phoenix>,
    venv: PathBuf,
    dir: tempfile::TempDir,
    ports: Ports,
    client: Arc<Client>,
}

impl There {
    async fn start() -> Self {
        let cache = || PathBuf::from(std::env::var("HOME").expect("HOME")).join(".cache/emberd/phoenix");
        let venv = std::env::var("EMBERD_PHOENIX").map_or_else(|_| cache(), PathBuf::from);
        let installed = emberd_phoenix::process::installed(&venv);
        assert!(installed, "no phoenix in {}: set EMBERD_PHOENIX, or run make test", venv.display());
        let ports = Ports::free().unwrap();
        let client = Client::new(&format!("http://127.0.0.1:{}", ports.http), Duration::from_secs(30)).unwrap();
        let (dir, client) = (tempfile::tempdir().unwrap(), Arc::new(client));
        let mut there = Self { phoenix: None, venv, dir, ports, client };
        there.up().await;
        there
    }

    async fn kill(&mut self) {
        self.phoenix.take().unwrap().kill().await.unwrap();
    }

    async fn up(&mut self) {
        let mut phoenix = Phoenix::start(&self.venv, self.dir.path(), self.ports).unwrap();
        phoenix.ready(PATIENCE).await.unwrap();
        self.phoenix = Some(phoenix);
    }

    /// Sends a request as the forwarder would, and waits until Phoenix holds these spans.
    async fn take(&self, body: Vec<u8>, spans: &[SpanId]) {
        let url = format!("http://127.0.0.1:{}/v1/traces", self.ports.http);
        let post = reqwest::Client::new().post(url).header("content-type", "application/x-protobuf").body(body);
        assert!(post.send().await.unwrap().status().is_success());
        let since = Instant::now();
        while self.client.whereabouts(spans).await.unwrap().len() < spans.len() {
            assert!(since.elapsed() < PATIENCE, "spans did not arrive");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How far the forwarder has seen spans in Phoenix.
type Verified = Arc<AtomicU64>;

/// Tells until it is dropped, which is as if it were killed.
fn tell(world: &World, there: &There, verified: &Verified, concurrency: usize) -> (Outbox, tokio::task::JoinSet<()>) {
    let quick = Duration::from_millis(100);
    let config = Config {
        poll: quick,
        lease: Duration::from_secs(3),
        backoff: quick,
        backoff_max: Duration::from_secs(2),
        concurrency,
    };
    let verified = Arc::clone(verified);
    let is_past = move |offset: Offset| verified.load(Ordering::Relaxed) >= offset.0;
    let outbox = Outbox::new(world.store.clone(), Arc::new(Wall), Arc::clone(&there.client), Arc::new(is_past), config);
    let (running, mut tasks) = (outbox.clone(), tokio::task::JoinSet::new());
    tasks.spawn(async move { running.run(CancellationToken::new()).await });
    (outbox, tasks)
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_real_phoenix_is_told_everything_once() {
    world::on_sqlite(async |world: World| {
        let mut there = There::start().await;
        let own = a_config_of_a_users(&there).await;
        a_job_is_there_once_whoever_is_killed(&world, &mut there).await;
        names_are_described_and_a_users_config_stays(&there, &own).await;
        a_retried_job_is_told_again_in_its_place(&world, &there).await;
        annotations_are_on_the_right_spans(&world, &mut there).await;
        what_phoenix_never_has_is_refused(&world, &there).await;
        what_phoenix_refuses_is_said_in_the_row(&world, &there).await;
        a_job_after_a_push_is_told_in_the_same_dataset(&world, &there).await;
    });
}

#[test]
fn what_is_deleted_in_the_real_phoenix_meanwhile_is_made_anew_or_refused() {
    world::on_sqlite(async |world: World| {
        let there = There::start().await;
        // Somebody else's dataset has the name.
        let item = emberd_phoenix::datasets::Item { id: "x".into(), ..Default::default() };
        there.client.upload_dataset(Action::Create, "examples", None, &[item]).await.unwrap();
        an_experiment_that_is_deleted_is_made_anew(&world, &there).await;
        one_that_is_deleted_each_time_is_refused(&world, &there).await;
    });
}

const EVALUATORS: [&str; 2] = ["exact_match", "json_valid"];

/// A job of 50 examples with two built-ins; Phoenix and emberd's outbox are killed in the midst.
async fn a_job_is_there_once_whoever_is_killed(world: &World, there: &mut There) {
    let dataset = world.dataset(DatasetType::Custom, &examples(50)).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    assert_eq!(world.store.evaluation(job).await.unwrap().unwrap().phoenix_eval_id, format!("local:{job}"));
    let verified = Verified::default();
    let (_, tasks) = tell(world, there, &verified, 1);
    let runs = async |client: &Client| {
        let Ok(Some(known)) = client.dataset_by_name("examples").await else { return 0 };
        let Ok(experiments) = client.experiments(&known.id).await else { return 0 };
        experiments.first().map_or(0, |experiment| experiment.successful_run_count)
    };
    until("runs", async || runs(&there.client).await >= 5).await;
    drop(tasks);
    let (outbox, tasks) = tell(world, there, &verified, 1);
    until("more runs", async || runs(&there.client).await >= 15).await;
    there.kill().await;
    let at_kill = outbox.counters();
    assert_eq!(at_kill.experiments, 0, "it was over before the kill");
    until("phoenix is found away", async || outbox.counters().away > 0).await;
    there.up().await;
    let is_told = async || !world.store.evaluation(job).await.unwrap().unwrap().phoenix_eval_id.starts_with("local:");
    until("the experiment's id", is_told).await;
    drop(tasks);
    is_whole(world, there, job, 50).await;
    assert_eq!(world.store.outgoing().await.unwrap().pending, 0);
    engine.stop().await;
}

/// The newest of the dataset's experiments is the job's, whole and once.
async fn is_whole(world: &World, there: &There, job: uuid::Uuid, count: usize) {
    let client = &there.client;
    let known = client.dataset_by_name("examples").await.unwrap().unwrap();
    let experiments = client.experiments(&known.id).await.unwrap();
    let id = job.to_string();
    let ours: Vec<_> = experiments.iter().filter(|one| one.metadata["emberd_job"] == json!(id)).collect();
    assert_eq!(ours.len(), 1, "one experiment of the job");
    let experiment = ours[0];
    let row = world.store.evaluation(job).await.unwrap().unwrap();
    assert_eq!((&row.phoenix_eval_id, row.error), (&experiment.id, None));
    assert_eq!((experiment.example_count, experiment.successful_run_count), (count as u64, count as u64));
    let version = Some(experiment.dataset_version_id.as_str());
    let stored = client.dataset_examples(&known.id, version).await.unwrap().examples;
    let nodes: BTreeMap<_, _> = stored.iter().map(|one| (one.node_id.clone(), one.item.id.clone())).collect();
    let ids: BTreeSet<_> = nodes.values().cloned().collect();
    assert_eq!(ids, (0..count).map(|nr| format!("e{nr}")).collect(), "stable ids");
    let runs = client.runs(&experiment.id).await.unwrap();
    let outputs: BTreeMap<_, _> =
        runs.iter().map(|run| (nodes[&run.example_node_id].clone(), run.output.clone())).collect();
    assert_eq!((runs.len(), outputs.len()), (count, count));
    for nr in 0..count {
        let word = if nr.is_multiple_of(3) { "right" } else { "wrong" };
        assert_eq!(outputs[&format!("e{nr}")], json!(format!("{word} {nr}")));
    }
    let export = client.experiment_export(&experiment.id).await.unwrap();
    let mut scores = BTreeMap::<String, Vec<f64>>::new();
    for run in &export {
        for one in run["annotations"].as_array().unwrap() {
            assert_eq!(one["annotator_kind"], json!("CODE"), "{one}");
            scores.entry(one["name"].as_str().unwrap().to_owned()).or_default().push(one["score"].as_f64().unwrap());
        }
    }
    let sums: BTreeMap<_, _> =
        scores.iter().map(|(name, all)| (name.as_str(), (all.len(), all.iter().sum::<f64>()))).collect();
    let right = count.div_ceil(3) as f64;
    assert_eq!(sums, BTreeMap::from([("exact_match", (count, right)), ("json_valid", (count, 0.0))]));
    assert!(client.incomplete_runs(&experiment.id).await.unwrap().is_empty());
    assert!(client.incomplete_evaluations(&experiment.id, &EVALUATORS).await.unwrap().is_empty());
}

/// Told anew, whole, nothing is doubled; and errors come as errors.
async fn a_retried_job_is_told_again_in_its_place(world: &World, there: &There) {
    let mut body = examples(20);
    body[3].as_object_mut().unwrap().remove("output");
    let dataset = world.dataset(DatasetType::Custom, &body).await;
    let engine = world.start();
    let verified = Verified::default();
    let (outbox, tasks) = tell(world, there, &verified, 4);
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    until("told", async || outbox.counters().experiments == 1).await;
    // What failed is tried again, fails again, and is told again.
    assert!(engine.handle.retry(job, &[]).await.unwrap() > 0);
    until("told again", async || outbox.counters().experiments == 2).await;
    let id = world.store.evaluation(job).await.unwrap().unwrap().phoenix_eval_id;
    let export = there.client.experiment_export(&id).await.unwrap();
    let of = |what: &str| -> usize {
        export.iter().flat_map(|run| run["annotations"].as_array().unwrap()).filter(|one| !one[what].is_null()).count()
    };
    assert_eq!((export.len(), of("score"), of("error")), (20, 38, 2), "{export:?}");
    // Another dataset had that name before: this one stands beside it.
    let beside = format!("examples ({})", &dataset.simple().to_string()[..8]);
    assert_eq!(there.client.dataset_by_name(&beside).await.unwrap().unwrap().example_count, 20);
    assert_eq!(there.client.dataset_by_name("examples").await.unwrap().unwrap().example_count, 50);
    drop(tasks);
    engine.stop().await;
}

/// A rule at 20 %: its annotations come when the spans are verified, after a restart of Phoenix too, and the latest stands.
async fn annotations_are_on_the_right_spans(world: &World, there: &mut There) {
    let log = Log::default();
    CursorFile::open(world.dir.path(), live::CONSUMER).unwrap().store(Offset(0)).unwrap();
    let engine = world::engine(world.config(), world.store.clone(), world.dir.path());
    let evaluator = json!({"name": "regex", "as": "good", "config": {"pattern": "good"}, "mapping": {"output": "last(LLM).output"}});
    let rule = json!({"name": "quality", "config": {"share": 0.2, "evaluators": [evaluator]}});
    engine.handle().put_rule(&rule, ADMIN).await.unwrap();
    let head = log.clone();
    let live = engine.live(Parts {
        reader: log.reader(),
        head: Box::new(move || head.head()),
        cursor: CursorFile::open(world.dir.path(), live::CONSUMER).unwrap(),
        passed: Box::new(|_| {}),
        config: live::Config { quiet_min: Duration::from_millis(200), ..live::Config::default() },
    });
    let mut consumer = tokio::task::JoinSet::new();
    consumer.spawn(async move { live.run(CancellationToken::new()).await.unwrap() });
    let verified = Verified::default();
    let (outbox, tasks) = tell(world, there, &verified, 1);
    let llm =
        |number, nr, output| span(trace(number), nr, &[("openinference.span.kind", "LLM"), ("output.value", output)]);
    let (mut spans, mut ids) = (Vec::new(), Vec::new());
    for number in 0..60 {
        spans.extend([span(trace(number), 0, &[]), llm(number, 1, "bad")]);
        ids.extend([span_id(trace(number), 0), span_id(trace(number), 1)]);
    }
    let sampled: BTreeSet<String> = (0..60)
        .filter(|number| sample::is_in("quality", trace(*number), 0.2))
        .map(|number| span_id(trace(number), 0).to_string())
        .collect();
    assert!((5..25).contains(&sampled.len()));
    let body = log.append("shop", spans);
    until("decisions", async || world.store.outgoing().await.unwrap().pending == sampled.len() as i64).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(outbox.counters().annotations, 0, "nothing before the spans are there");
    there.take(body, &ids).await;
    there.kill().await;
    verified.store(log.head().0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    there.up().await;
    let nothing_left = async || world.store.outgoing().await.unwrap().pending == 0;
    until("annotations", nothing_left).await;
    let read = async || {
        let sought = Sought { identifier: Some("emberd:quality"), ..Sought::default() };
        there.client.annotations(Level::Span, "shop", &sought).await.unwrap()
    };
    let found = read().await;
    assert_eq!(found.len(), sampled.len(), "each once");
    assert_eq!(found.iter().map(|one| one.target.clone()).collect::<BTreeSet<_>>(), sampled);
    assert!(found.iter().all(|one| one.name == "good" && one.judgement.score == Some(0.0)));
    // A late span: the new score takes the old one's place.
    let late = (0..60).find(|number| sample::is_in("quality", trace(*number), 0.2)).unwrap();
    let body = log.append("shop", vec![llm(late, 2, "good")]);
    there.take(body, &[span_id(trace(late), 2)]).await;
    verified.store(log.head().0, Ordering::Relaxed);
    let told = outbox.counters().annotations;
    until("the new score", async || outbox.counters().annotations > told).await;
    let found = read().await;
    assert_eq!(found.len(), sampled.len(), "in place of the old one");
    let changed: Vec<_> =
        found.iter().filter(|one| one.judgement.score == Some(1.0)).map(|one| one.target.clone()).collect();
    assert_eq!(changed, [span_id(trace(late), 0).to_string()]);
    // A late span with which the trace cannot be judged: the old score is none of the whole trace, and does not stay.
    let body = log.append("shop", vec![span(trace(late), 3, &[("openinference.span.kind", "LLM")])]);
    there.take(body, &[span_id(trace(late), 3)]).await;
    verified.store(log.head().0, Ordering::Relaxed);
    let told = outbox.counters().annotations;
    until("the failure", async || outbox.counters().annotations > told).await;
    let found = read().await;
    assert_eq!(found.len(), sampled.len(), "in place of the old one");
    let failed: Vec<_> = found.iter().filter(|one| one.judgement.score.is_none()).collect();
    assert_eq!(failed.len(), 1, "{found:?}");
    assert_eq!((&failed[0].target, &failed[0].judgement.label), (&span_id(trace(late), 0).to_string(), &None));
    assert!(failed[0].judgement.explanation.as_ref().is_some_and(|why| why.contains("missing_field")), "{failed:?}");
    assert_eq!(failed[0].metadata["emberd"]["error"], json!("missing_field"));
    let config = config_of(there, "good").await;
    assert_eq!((&config["type"], &config["optimization_direction"]), (&json!("CONTINUOUS"), &json!("MAXIMIZE")));
    drop((tasks, consumer));
}

/// An annotation of a span that Phoenix does not have, though it was verified, is refused with the reason after a few tries.
async fn what_phoenix_never_has_is_refused(world: &World, there: &There) {
    let body = json!({
        "level": "span", "id": "00000000000000aa", "name": "good", "identifier": "emberd:quality", "is_llm": false,
        "judgement": {"label": null, "score": 1.0, "explanation": null}, "metadata": {}, "after": 0,
    });
    let mut good = body.clone();
    good["id"] = json!(span_id(trace(1), 0).to_string());
    let rows = vec![
        ("annotation".to_owned(), "missing".to_owned(), body.clone()),
        ("annotation".to_owned(), "there".to_owned(), good),
        ("annotation".to_owned(), "unreadable".to_owned(), json!({"level": 1})),
    ];
    world.store.put_all_outgoing(rows, Wall.now()).await.unwrap();
    let (outbox, tasks) = tell(world, there, &Verified::default(), 1);
    let settled = async || {
        let waiting = world.store.outgoing().await.unwrap();
        (waiting.pending, waiting.refused) == (0, 2)
    };
    until("refused", settled).await;
    assert_eq!((outbox.counters().annotations, outbox.counters().refused), (1, 2));
    drop(tasks);
}

/// What Phoenix refuses for good is said in the evaluation's row, whose id stays local; nothing half-made is left.
async fn what_phoenix_refuses_is_said_in_the_row(world: &World, there: &There) {
    let dataset = world.dataset(DatasetType::Custom, &examples(3)).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    // As if a later emberd had written what this one cannot read.
    world.store.put_outgoing("experiment", &job.to_string(), json!({"job": 1}), Wall.now()).await.unwrap();
    let (outbox, tasks) = tell(world, there, &Verified::default(), 1);
    until("refused", async || outbox.counters().refused == 1).await;
    let row = world.store.evaluation(job).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.phoenix_eval_id), ("completed", format!("local:{job}")));
    assert!(row.error.as_deref().is_some_and(|error| error.contains("phoenix refuses")), "{:?}", row.error);
    drop(tasks);
    engine.stop().await;
}

/// What Phoenix's charts know of a name; null if nothing.
async fn config_of(there: &There, name: &str) -> Value {
    let url = format!("http://127.0.0.1:{}/v1/annotation_configs?limit=1000", there.ports.http);
    let all: Value = serde_json::from_slice(&reqwest::get(url).await.unwrap().bytes().await.unwrap()).unwrap();
    let found = all["data"].as_array().unwrap().iter().find(|config| config["name"] == name);
    found.cloned().unwrap_or_default()
}

/// Somebody has said already what `json_valid` is.
async fn a_config_of_a_users(there: &There) -> Value {
    use emberd_phoenix::configs;
    let values = configs::Values::Categorical(vec![("yes".into(), Some(2.0)), ("no".into(), None)]);
    let config = configs::Config { name: "json_valid".into(), direction: configs::Direction::Minimize, values };
    assert!(there.client.make_annotation_config(&config).await.unwrap());
    config_of(there, "json_valid").await
}

/// A name that Phoenix knew nothing of has its bounds and its direction; one that somebody described is as it was.
async fn names_are_described_and_a_users_config_stays(there: &There, own: &Value) {
    assert_eq!(own["type"], json!("CATEGORICAL"));
    assert_eq!(config_of(there, "json_valid").await, *own);
    let made = config_of(there, "exact_match").await;
    assert_eq!((&made["type"], &made["optimization_direction"]), (&json!("CONTINUOUS"), &json!("MAXIMIZE")), "{made}");
    assert_eq!((&made["lower_bound"], &made["upper_bound"]), (&json!(0.0), &json!(1.0)));
}

/// Its dataset in Phoenix: others of that name came before.
async fn dataset_in(there: &There, dataset: uuid::Uuid) -> Option<emberd_phoenix::datasets::Dataset> {
    let name = format!("examples ({})", &dataset.simple().to_string()[..8]);
    there.client.dataset_by_name(&name).await.unwrap()
}

/// What was pushed by hand, and what a job writes, is one dataset.
async fn a_job_after_a_push_is_told_in_the_same_dataset(world: &World, there: &There) {
    let dataset = world.dataset(DatasetType::Custom, &examples(4)).await;
    let item = emberd_phoenix::datasets::Item { id: "e0".into(), ..Default::default() };
    let (name, pushed) = there.client.upload_own_dataset(&dataset, "examples", &[item]).await.unwrap();
    let found = dataset_in(there, dataset).await.unwrap();
    assert_eq!((&found.name, &found.id, found.example_count), (&name, &pushed.dataset_id, 1));
    let engine = world.start();
    let (outbox, tasks) = tell(world, there, &Verified::default(), 4);
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    until("told", async || outbox.counters().experiments == 1).await;
    let found = dataset_in(there, dataset).await.unwrap();
    assert_eq!((&found.id, found.example_count), (&pushed.dataset_id, 4));
    assert_eq!(there.client.experiments(&found.id).await.unwrap().len(), 1);
    drop(tasks);
    engine.stop().await;
}

/// Somebody deletes the experiment, then its dataset, while it is being told: it is there whole in the end, once, under its new id.
async fn an_experiment_that_is_deleted_is_made_anew(world: &World, there: &There) {
    let dataset = world.dataset(DatasetType::Custom, &examples(400)).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    let (outbox, tasks) = tell(world, there, &Verified::default(), 1);
    let (runs, known) = (std::cell::Cell::new(0), std::cell::RefCell::new(None));
    let begun = async || {
        let Some(in_phoenix) = dataset_in(there, dataset).await else { return false };
        let all = there.client.experiments(&in_phoenix.id).await.unwrap_or_default();
        let Some(one) = all.into_iter().next() else { return false };
        runs.set(one.successful_run_count);
        known.replace(Some((in_phoenix.id, one.id)));
        (3..390).contains(&runs.get())
    };
    until("some runs", begun).await;
    let first = known.borrow().clone().unwrap();
    there.client.delete_experiment(&first.1).await.unwrap();
    // Phoenix on SQLite may give the new one the old one's id; the old one is gone by now, so this is the new one.
    until("some runs of another", begun).await;
    there.client.delete_dataset(&first.0).await.unwrap();
    until("it is told", async || outbox.counters().experiments == 1).await;
    let in_phoenix = dataset_in(there, dataset).await.unwrap();
    let all = there.client.experiments(&in_phoenix.id).await.unwrap();
    let row = world.store.evaluation(job).await.unwrap().unwrap();
    assert_eq!((all.len(), &all[0].id, all[0].successful_run_count), (1, &row.phoenix_eval_id, 400));
    assert_eq!((row.error, world.store.outgoing().await.unwrap().pending), (None, 0));
    drop(tasks);
    engine.stop().await;
}

/// An experiment that was told, is told again, and is deleted each time: it ends refused, with the reason, and the row's id is local again.
async fn one_that_is_deleted_each_time_is_refused(world: &World, there: &There) {
    let mut body = examples(200);
    body[3].as_object_mut().unwrap().remove("output");
    let dataset = world.dataset(DatasetType::Custom, &body).await;
    let engine = world.start();
    let (outbox, tasks) = tell(world, there, &Verified::default(), 1);
    let job = world.create(&engine.handle, dataset, json!({"evaluators": EVALUATORS})).await;
    world.over(job).await;
    until("told", async || outbox.counters().experiments == 1).await;
    let in_phoenix = dataset_in(there, dataset).await.unwrap();
    let delete_all = async || {
        for one in there.client.experiments(&in_phoenix.id).await.unwrap_or_default() {
            let _ = there.client.delete_experiment(&one.id).await;
        }
    };
    delete_all().await;
    assert!(engine.handle.retry(job, &[]).await.unwrap() > 0);
    let before = world.store.outgoing().await.unwrap().refused;
    until("refused", async || {
        delete_all().await;
        world.store.outgoing().await.unwrap().refused > before
    })
    .await;
    let row = world.store.evaluation(job).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.phoenix_eval_id), ("completed", format!("local:{job}")));
    assert!(row.error.as_deref().is_some_and(|error| error.contains("phoenix refuses")), "{:?}", row.error);
    assert_eq!(outbox.counters().experiments, 1, "it was told once, and not again");
    drop(tasks);
    engine.stop().await;
}

/// A dataset job waits in the outbox from before it is closed, with all that telling it needs; a reason is noted once.
async fn a_closed_job_waits_with_what_is_to_be_told(world: World) {
    let mut body = examples(30);
    body[4].as_object_mut().unwrap().remove("output");
    let dataset = world.dataset(DatasetType::Custom, &body).await;
    let engine = world.start();
    let job = world.create(&engine.handle, dataset, json!({"model": "runner", "evaluators": ["exact_match"]})).await;
    world.over(job).await;
    let waiting = world.store.outgoing().await.unwrap();
    assert_eq!((waiting.pending, waiting.refused), (1, 0));
    let (first, rest) =
        (world.store.targets(job, 0, 20).await.unwrap(), world.store.targets(job, 20, 20).await.unwrap());
    assert_eq!((first.len(), rest.len()), (20, 10));
    for (one, nr) in first.iter().chain(&rest).zip(0..) {
        assert_eq!((one.target.nr, &*one.target.target), (nr, &*format!("e{nr}")));
        assert!(one.output.as_ref().is_some_and(|run| run["output"].is_string()), "what the run gave");
    }
    let note = async |text: &str| world.store.note_evaluation(job, text, Wall.now()).await.unwrap();
    assert!(note("phoenix refuses it").await && !note("phoenix refuses it").await && note("twice").await);
    let row = world.store.evaluation(job).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.error.as_deref()), ("completed", Some("phoenix refuses it; twice")));
    assert!(!world.store.note_evaluation(uuid::Uuid::new_v4(), "nobody", Wall.now()).await.unwrap());
    engine.stop().await;
}

on_both!(a_closed_job_waits_with_what_is_to_be_told);
