//! Evaluation's results and the real Phoenix: datasets, experiments, annotations.
//!
//! One Phoenix serves all stories, one after the other: it takes 20 seconds to start. It is the one in EMBERD_PHOENIX, by
//! default `~/.cache/emberd/phoenix`, where `make test` puts it.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use emberd_evaluators_datasets::phoenix::{Shape, from_phoenix, to_phoenix};
use emberd_evaluators_datasets::{Type, validate};
use emberd_model::{SpanId, TraceId, UnixNanos};
use emberd_phoenix::annotations::{Annotation, Level, Sought, Target};
use emberd_phoenix::configs::{Config, Direction, Values};
use emberd_phoenix::datasets::{Action, Item};
use emberd_phoenix::experiments::{Annotator, Evaluation, Judgement, New, Run};
use emberd_phoenix::process::{Phoenix, Ports};
use emberd_phoenix::rest::Error;
use emberd_phoenix::{Client, client};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Map, Value, json};

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(150);

struct World {
    phoenix: Option<Phoenix>,
    venv: PathBuf,
    dir: tempfile::TempDir,
    ports: Ports,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = || PathBuf::from(std::env::var("HOME").expect("HOME")).join(".cache/emberd/phoenix");
        let venv = std::env::var("EMBERD_PHOENIX").map_or_else(|_| cache(), PathBuf::from);
        let installed = emberd_phoenix::process::installed(&venv);
        assert!(installed, "no phoenix in {}: set EMBERD_PHOENIX, or run make test", venv.display());
        let ports = Ports::free().unwrap();
        let client = Client::new(&format!("http://127.0.0.1:{}", ports.http), Duration::from_secs(30)).unwrap();
        let mut world = Self { phoenix: None, venv, dir: tempfile::tempdir().unwrap(), ports, client };
        world.restart().await;
        world
    }

    async fn restart(&mut self) {
        if let Some(phoenix) = self.phoenix.take() {
            phoenix.kill().await.unwrap();
        }
        let mut phoenix = Phoenix::start(&self.venv, self.dir.path(), self.ports).unwrap();
        phoenix.ready(PATIENCE).await.unwrap();
        self.phoenix = Some(phoenix);
    }

    /// Sends a span and waits until Phoenix holds it.
    async fn span(&self, trace: &str, span: &str, session: &str) {
        let text = |key: &str, value: &str| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(Any::StringValue(value.into())) }),
            ..KeyValue::default()
        };
        let span_of = Span {
            trace_id: bytes(trace),
            span_id: bytes(span),
            name: "judged".into(),
            start_time_unix_nano: 1_767_225_600_000_000_000,
            end_time_unix_nano: 1_767_225_601_000_000_000,
            attributes: vec![text("openinference.span.kind", "CHAIN"), text("session.id", session)],
            ..Span::default()
        };
        let scopes = vec![ScopeSpans { spans: vec![span_of], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans: scopes, ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let url = format!("http://127.0.0.1:{}/v1/traces", self.ports.http);
        let post = reqwest::Client::new().post(url).header("content-type", "application/x-protobuf").body(body);
        assert!(post.send().await.unwrap().status().is_success());
        let (since, id) = (Instant::now(), span.parse::<SpanId>().unwrap());
        while !self.client.whereabouts(&[id]).await.unwrap().contains_key(&id) {
            assert!(since.elapsed() < PATIENCE, "span {span} did not arrive");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_phoenix_keeps_what_evaluation_finds() {
    let mut world = World::start().await;
    a_dataset_comes_back_as_it_went(&mut world).await;
    each_type_of_dataset_comes_back(&world).await;
    versions_follow_what_changes(&world).await;
    a_cut_experiment_is_resumed_and_nothing_is_doubled(&mut world).await;
    the_latest_annotation_wins(&mut world).await;
    a_missing_target_is_named_and_the_others_are_written(&world).await;
    a_config_is_one_however_often_it_is_put(&world).await;
    who_is_not_there_is_told_from_who_refuses(world).await;
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn items(count: usize) -> Vec<Item> {
    let texts = [
        "",
        "plain",
        "ünïcode 漢字 🦀",
        "line\nend\r\n\ttab",
        "quotes \" ' \\",
        "{\"json\":\"text\"}",
        "\u{202e}\u{feff}x",
    ];
    let item = |index: usize| Item {
        id: format!("example {index}/{}", texts[index % 3]),
        input: object(
            json!({ "question": texts[index % texts.len()], "n": index, "nested": { "deep": [1, null, { "é": [[]] }] } }),
        ),
        output: if index.is_multiple_of(5) {
            Map::new()
        } else {
            object(json!({ "answer": { "score": 0.1 + index as f64, "": true } }))
        },
        metadata: object(
            json!({ "big": 9_007_199_254_740_993_i64, "small": 1e-300, "text": texts[(index + 3) % texts.len()] }),
        ),
    };
    (0..count).map(item).collect()
}

/// 300 examples of all kinds come back equal, by their own ids, also after Phoenix was killed; a NUL is taken out and counted.
async fn a_dataset_comes_back_as_it_went(world: &mut World) {
    let name = "first / of? #many";
    let sent = items(300);
    let done = world.client.upload_dataset(Action::Create, name, Some("words"), &sent).await.unwrap();
    assert_eq!((done.created, done.updated, done.deleted, done.nuls_removed), (300, 0, 0, 0));
    world.restart().await;
    let found = world.client.dataset_by_name(name).await.unwrap().unwrap();
    assert_eq!((&found.id, found.example_count, found.description.as_deref()), (&done.dataset_id, 300, Some("words")));
    assert_eq!(world.client.dataset_by_name("first").await.unwrap(), None);
    let read = world.client.dataset_examples(&found.id, None).await.unwrap();
    assert_eq!(read.version_id, done.version_id);
    let read: Vec<_> = read.examples.into_iter().map(|stored| stored.item).collect();
    assert_eq!(read, sent);

    let nuls = Item {
        id: "n\0ul".into(),
        input: object(json!({ "a\0": "x\0y" })),
        output: Map::new(),
        metadata: object(json!({ "l": ["\0"] })),
    };
    let done = world.client.upload_dataset(Action::Create, "nu\0ls", None, &[nuls]).await.unwrap();
    assert_eq!(done.nuls_removed, 5);
    let read = world.client.dataset_examples(&done.dataset_id, None).await.unwrap().examples.remove(0).item;
    let cleaned = (object(json!({ "a": "xy" })), object(json!({ "l": [""] })));
    assert_eq!((read.id.as_str(), (read.input, read.metadata)), ("nul", cleaned));
    assert!(world.client.dataset_by_name("nu\0ls").await.unwrap().is_some());
}

/// Examples of each type go up in Phoenix's shape and come back as the same examples, ids and all.
async fn each_type_of_dataset_comes_back(world: &World) {
    let rows = [
        (
            Type::QaPairs,
            json!([{ "question": "q?", "answer": "" }, { "id": "given", "question": "", "answer": "é\n" }]),
        ),
        (Type::Completions, json!([{ "prompt": "p", "completion": "{}" }, { "prompt": "p", "completion": "{}" }])),
        (Type::Classifications, json!([{ "text": "t", "label": "l", "metadata": { "n": [1.5, null] } }])),
        (
            Type::Custom,
            json!([
                { "input": [1], "context": { "docs": ["d"] } }, { "input": "", "output": 0, "reference": false },
                { "input": { "input": 1 }, "output": { "output": "o" } },
            ]),
        ),
    ];
    for (r#type, rows) in rows {
        let examples = validate(r#type, rows.as_array().unwrap(), 1).unwrap();
        let item =
            |shape: Shape| Item { id: shape.id, input: shape.input, output: shape.output, metadata: shape.metadata };
        let items: Vec<_> = examples.iter().map(|example| item(to_phoenix(r#type, example))).collect();
        let done = world.client.upload_dataset(Action::Update, r#type.name(), None, &items).await.unwrap();
        let read = world.client.dataset_examples(&done.dataset_id, Some(&done.version_id)).await.unwrap();
        let shape = |item: Item| Shape { id: item.id, input: item.input, output: item.output, metadata: item.metadata };
        let read = read.examples.into_iter().map(|stored| from_phoenix(r#type, shape(stored.item)).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), examples);
    }
}

/// A repeated upload makes no version; a changed example makes one, and the old version still holds what it held.
async fn versions_follow_what_changes(world: &World) {
    let client = &world.client;
    let mut sent = items(4);
    let first = client.upload_dataset(Action::Update, "changing", None, &sent).await.unwrap();
    let again = client.upload_dataset(Action::Append, "changing", None, &sent).await.unwrap();
    assert_eq!((again.version_id, again.created, again.updated), (first.version_id.clone(), 0, 0));
    assert!(matches!(
        client.upload_dataset(Action::Create, "changing", None, &sent).await,
        Err(Error::Conflict { .. })
    ));
    sent[1].output = object(json!({ "answer": "another" }));
    let changed = client.upload_dataset(Action::Append, "changing", None, &sent[1..2]).await.unwrap();
    assert_eq!((changed.created, changed.updated, changed.deleted), (0, 1, 0));
    let fewer = client.upload_dataset(Action::Update, "changing", None, &sent[..2]).await.unwrap();
    assert_eq!((fewer.created, fewer.updated, fewer.deleted), (0, 0, 2));
    let read = async |version: &str| {
        let read = client.dataset_examples(&first.dataset_id, Some(version)).await.unwrap();
        read.examples.into_iter().map(|stored| stored.item).collect::<Vec<_>>()
    };
    assert_eq!(read(&first.version_id).await, items(4));
    assert_eq!(read(&changed.version_id).await, sent);
    assert_eq!(read(&fewer.version_id).await, sent[..2]);
    let versions = client.dataset_versions(&first.dataset_id).await.unwrap();
    let versions: Vec<_> = versions.iter().map(|version| &version.version_id).collect();
    assert_eq!(versions, [&fewer.version_id, &changed.version_id, &first.version_id]);
    let twice = [sent[0].clone(), sent[0].clone()];
    let refused = client.upload_dataset(Action::Append, "changing", None, &twice).await;
    assert!(matches!(&refused, Err(Error::Refused { said, .. }) if said.contains("Duplicate")), "{refused:?}");
    client.delete_dataset(&first.dataset_id).await.unwrap();
    assert_eq!(client.dataset_by_name("changing").await.unwrap(), None);
}

const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
const END: UnixNanos = UnixNanos(1_767_225_601_250_000_000);

fn run(example: &str, output: Value) -> Run {
    Run { example_node_id: example.into(), repetition: 1, output, error: None, start: START, end: END, trace: None }
}

fn evaluation(run: &str, outcome: Result<Judgement, String>) -> Evaluation {
    Evaluation {
        run_id: run.into(),
        name: "exact_match".into(),
        annotator: Annotator::Code,
        outcome,
        metadata: object(json!({ "version": 1 })),
        start: START,
        end: END,
        trace: Some("0af7651916cd43dd8448eb211c80319c".parse().unwrap()),
    }
}

fn judged(score: f64) -> Judgement {
    Judgement { label: Some("right".into()), score: Some(score), explanation: None }
}

/// Half is posted, Phoenix is killed, the lists of what lacks name the other half, and posting all again doubles nothing.
async fn a_cut_experiment_is_resumed_and_nothing_is_doubled(world: &mut World) {
    let count = 60;
    let dataset = world.client.upload_dataset(Action::Create, "run", None, &items(count)).await.unwrap();
    let examples = world.client.dataset_examples(&dataset.dataset_id, None).await.unwrap().examples;
    let version_id = Some(dataset.version_id.as_str());
    let metadata = object(json!({ "emberd": "x" }));
    let new = New { name: "cut", description: None, metadata, version_id, repetitions: 1 };
    let experiment = world.client.create_experiment(&dataset.dataset_id, &new).await.unwrap();
    assert_eq!((experiment.example_count, experiment.missing_run_count), (count as u64, count as u64));
    assert_eq!(world.client.experiment_export(&experiment.id).await.unwrap(), Vec::<Value>::new());

    let mut ids = Vec::new();
    for example in &examples[..30] {
        ids.push(world.client.post_run(&experiment.id, &run(&example.node_id, json!("said"))).await.unwrap().id);
    }
    let failed = Run { error: Some("it broke".into()), ..run(&examples[30].node_id, Value::Null) };
    world.client.post_run(&experiment.id, &failed).await.unwrap();
    for id in &ids[..10] {
        world.client.post_evaluation(&evaluation(id, Ok(judged(1.0)))).await.unwrap();
    }
    world.client.post_evaluation(&evaluation(&ids[10], Err(String::new()))).await.unwrap();
    world.restart().await;

    let client = &world.client;
    let lacking = client.incomplete_runs(&experiment.id).await.unwrap();
    assert!(lacking.iter().all(|lacking| lacking.repetitions == [1]));
    let lacking: BTreeSet<_> = lacking.into_iter().map(|lacking| lacking.example_node_id).collect();
    assert_eq!(lacking, examples[30..].iter().map(|example| example.node_id.clone()).collect());
    for (index, example) in examples.iter().enumerate() {
        let posted = client.post_run(&experiment.id, &run(&example.node_id, json!({ "n": index }))).await.unwrap();
        assert_eq!(posted.was_there, index < 30, "{index}");
        assert!(index >= 30 || posted.id == ids[index]);
    }
    assert_eq!(client.incomplete_runs(&experiment.id).await.unwrap(), []);
    let runs = client.runs(&experiment.id).await.unwrap();
    let distinct: BTreeSet<_> = runs.iter().map(|run| &run.example_node_id).collect();
    assert_eq!((runs.len(), distinct.len()), (count, count));

    let names = ["exact_match"];
    let lacking = client.incomplete_evaluations(&experiment.id, &names).await.unwrap();
    assert!(lacking.iter().all(|lacking| lacking.names == names));
    let lacking: BTreeSet<_> = lacking.into_iter().map(|lacking| lacking.run.id).collect();
    let done: BTreeSet<_> = ids[..10].iter().cloned().collect();
    assert_eq!(lacking, runs.iter().map(|run| run.id.clone()).filter(|id| !done.contains(id)).collect());
    assert_eq!(client.incomplete_evaluations(&experiment.id, &[]).await.unwrap(), []);
    for run in &runs {
        client.post_evaluation(&evaluation(&run.id, Ok(judged(0.5)))).await.unwrap();
    }
    assert_eq!(client.incomplete_evaluations(&experiment.id, &names).await.unwrap(), []);

    let export = client.experiment_export(&experiment.id).await.unwrap();
    assert_eq!(export.len(), count);
    for row in &export {
        let annotations = row["annotations"].as_array().unwrap();
        assert_eq!(annotations.len(), 1, "{row}");
        assert_eq!((&annotations[0]["score"], &annotations[0]["error"]), (&json!(0.5), &Value::Null), "{row}");
    }
    let after = client.experiment(&experiment.id).await.unwrap();
    assert_eq!((after.successful_run_count, after.failed_run_count, after.missing_run_count), (count as u64, 0, 0));
    assert_eq!(client.experiments(&dataset.dataset_id).await.unwrap(), [after]);
    let nan = client.post_evaluation(&evaluation(&ids[0], Ok(judged(f64::NAN)))).await;
    assert!(matches!(nan, Err(Error::Unfit { .. })));
    client.delete_experiment(&experiment.id).await.unwrap();
    assert!(matches!(client.experiment(&experiment.id).await, Err(Error::NotFound { .. })));
}

const TRACE: &str = "abcdef0123456789abcdef0123456789";
const SPAN: &str = "abcdef0123456789";
const SESSION: &str = "a session, of words";

fn annotation(target: Target, score: f64) -> Annotation {
    Annotation {
        target,
        name: "coherence".into(),
        annotator: Annotator::Llm,
        judgement: judged(score),
        metadata: object(json!({ "rule": "r" })),
        identifier: "emberd:coherence:1".into(),
    }
}

fn targets() -> [(Level, Target, &'static str); 3] {
    let (span, trace): (SpanId, TraceId) = (SPAN.parse().unwrap(), TRACE.parse().unwrap());
    [
        (Level::Span, Target::Span(span), SPAN),
        (Level::Trace, Target::Trace(trace), TRACE),
        (Level::Session, Target::Session(SESSION.into()), SESSION),
    ]
}

/// Of a span, a trace and a session: repeated it is one, changed the latest wins whole, over a restart; and it can be deleted.
async fn the_latest_annotation_wins(world: &mut World) {
    world.span(TRACE, SPAN, SESSION).await;
    let all = |score| targets().map(|(_, target, _)| annotation(target, score));
    for score in [0.25, 0.25] {
        let done = world.client.annotate(&all(score)).await.unwrap();
        assert_eq!((done.written, done.missing.len(), done.nuls_removed), (3, 0, 0));
    }
    let read = async |world: &World, level, target: &str| {
        let targets = [target.to_owned(), "absent".to_owned()];
        let targets = if level == Level::Session { &targets[..] } else { &targets[..1] };
        let sought = Sought { targets, identifier: Some("emberd:coherence:1"), names: &["coherence"] };
        world.client.annotations(level, "default", &sought).await.unwrap()
    };
    let mut ids = Vec::new();
    for (level, _, target) in targets() {
        let found = read(world, level, target).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].judgement.clone(), found[0].target.as_str()), (judged(0.25), target));
        ids.push(found[0].id.clone());
    }
    world.restart().await;
    let mut later = all(0.75);
    for annotation in &mut later {
        annotation.judgement.label = None;
        annotation.judgement.explanation = Some("be\0cause".into());
        annotation.metadata = Map::new();
    }
    // Two of one key in one call: the later counts.
    let both: Vec<_> = all(0.5).into_iter().chain(later).collect();
    let done = world.client.annotate(&both).await.unwrap();
    assert_eq!((done.written, done.nuls_removed), (6, 3));
    for ((level, _, target), id) in targets().into_iter().zip(ids) {
        let found = read(world, level, target).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let judgement = Judgement { label: None, score: Some(0.75), explanation: Some("because".into()) };
        assert_eq!((&found[0].id, &found[0].judgement, &found[0].metadata), (&id, &judgement, &Map::new()));
        world.client.delete_annotations(level, "default", "emberd:coherence:1", Some("other")).await.unwrap();
        assert_eq!(read(world, level, target).await.len(), 1);
        world.client.delete_annotations(level, "default", "emberd:coherence:1", None).await.unwrap();
        assert_eq!(read(world, level, target).await, []);
        let nameless = world.client.delete_annotations(level, "default", "", None).await;
        assert!(matches!(nameless, Err(Error::Unfit { .. })));
    }
    let sought = Sought { targets: &["ffffffffffffffff".into()], ..Sought::default() };
    assert_eq!(world.client.annotations(Level::Span, "default", &sought).await.unwrap(), []);
    let nowhere = world.client.annotations(Level::Span, "no project", &sought).await;
    assert!(matches!(nowhere, Err(Error::NotFound { .. })), "{nowhere:?}");
    assert!(world.client.project_id("default").await.unwrap().is_some());
    assert_eq!(world.client.project_id("no / project").await.unwrap(), None);
}

/// Of 250 annotations three have spans that Phoenix has not: those are named, all others are written.
async fn a_missing_target_is_named_and_the_others_are_written(world: &World) {
    let span: SpanId = SPAN.parse().unwrap();
    let gone: Vec<SpanId> =
        ["00000000000000a1", "00000000000000a2", "00000000000000a3"].map(|id| id.parse().unwrap()).to_vec();
    let mut all: Vec<_> = (0..250)
        .map(|index| Annotation { name: format!("name {index}"), ..annotation(Target::Span(span), 1.0) })
        .collect();
    for (at, gone) in [0, 137, 249].into_iter().zip(&gone) {
        all[at].target = Target::Span(*gone);
    }
    let done = world.client.annotate(&all).await.unwrap();
    assert_eq!(done.missing, gone.iter().map(|gone| Target::Span(*gone)).collect::<Vec<_>>());
    assert_eq!(done.written, 247);
    let sought = Sought { targets: &[SPAN.into()], identifier: Some("emberd:coherence:1"), names: &[] };
    let names: BTreeSet<_> = world
        .client
        .annotations(Level::Span, "default", &sought)
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    let expected: BTreeSet<_> =
        (0..250).filter(|index| ![0, 137, 249].contains(index)).map(|index| format!("name {index}")).collect();
    assert_eq!(names, expected);
    let reserved = Annotation { name: "note".into(), ..annotation(Target::Span(span), 1.0) };
    assert!(matches!(world.client.annotate(&[reserved]).await, Err(Error::Refused { .. })));
    let nan = annotation(Target::Span(span), f64::INFINITY);
    assert!(matches!(world.client.annotate(&[nan]).await, Err(Error::Unfit { .. })));
    assert_eq!(world.client.annotate(&[]).await.unwrap().written, 0);
}

async fn a_config_is_one_however_often_it_is_put(world: &World) {
    let values = [
        Values::Continuous { low: Some(0.0), high: Some(1.0) },
        Values::Categorical(vec![("yes".into(), Some(1.0)), ("no".into(), None)]),
        Values::Freeform,
    ];
    for (index, values) in values.into_iter().enumerate() {
        let name = format!("metric / {index}");
        let mut config = Config { name: name.clone(), direction: Direction::Maximize, values };
        let id = world.client.put_annotation_config(&config).await.unwrap();
        config.direction = Direction::Minimize;
        assert_eq!(world.client.put_annotation_config(&config).await.unwrap(), id);
        assert!(!world.client.make_annotation_config(&config).await.unwrap(), "there is one");
        assert_eq!(world.client.annotation_config(&name).await.unwrap(), Some(id.clone()));
        world.client.attach_annotation_config("default", &id).await.unwrap();
        world.client.attach_annotation_config("default", &id).await.unwrap();
    }
    assert_eq!(world.client.annotation_config("no metric").await.unwrap(), None);
}

/// What is not there, what will always be refused, and a Phoenix that is away are three things.
async fn who_is_not_there_is_told_from_who_refuses(mut world: World) {
    let client = &world.client;
    // Phoenix's ids say what they are of: these are `Dataset:999` and `DatasetVersion:999`.
    assert!(matches!(client.dataset_examples("RGF0YXNldDo5OTk=", None).await, Err(Error::NotFound { .. })));
    assert!(matches!(
        client.dataset_examples("rubbish", None).await,
        Err(Error::Refused { .. } | Error::NotFound { .. })
    ));
    let new = New { name: "n", description: None, metadata: Map::new(), version_id: None, repetitions: 1 };
    assert!(matches!(client.create_experiment("RGF0YXNldDo5OTk=", &new).await, Err(Error::NotFound { .. })));
    assert!(matches!(client.incomplete_runs("RXhwZXJpbWVudDo5OTk=").await, Err(Error::NotFound { .. })));
    world.phoenix.take().unwrap().kill().await.unwrap();
    let away = world.client.dataset_by_name("run").await;
    assert!(matches!(away, Err(Error::Phoenix(client::Error::Unreachable(_)))), "{away:?}");
}
