//! Order and repetition do not matter: any permutation, split and repetition of the same spans, by one writer or by two at once, with
//! restarts, lost transactions, publishing, joining and settling between any two steps, gives what one recording of them all gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::harness::{Db, NOW, recording};
use super::on_both;
use super::oracle::{Seen, check};
use super::spans::{Span, call, root};
use crate::apply::Recordings;
use crate::fault::Fault;
use crate::record::Rootless;
use crate::told::Told;
use crate::tx::{Tx, Work};
use crate::{Recording, Writer};

on_both!(any_order_split_and_repetition_gives_the_same, writers_at_once_lose_nothing);

/// Titles of prompts that exist, appear later, or never.
const EARLY: &str = "early";
const LATE: &str = "late";
const NAMES: [Option<&str>; 4] = [Some(EARLY), Some(LATE), Some("never"), None];

/// What happens between the spans of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Record these spans (indexes), on this log.
    Record {
        writer: usize,
        spans: Vec<usize>,
    },
    /// The same, but the transaction is lost before it commits.
    Lose {
        writer: usize,
        spans: Vec<usize>,
    },
    Restart,
    Publish,
    Join,
    MakeLatePrompt,
}

fn spans_of_a_trace(trace: u64) -> impl Strategy<Value = Vec<Span>> {
    let ago = prop_oneof![0..3_600_000u64, 0..(40 * 86_400_000u64)];
    let calls = proptest::collection::vec((1..5_000u64, 0..500i64, any::<bool>()), 0..4);
    (ago, 1..10_000u64, any::<bool>(), prop::bool::weighted(0.8), calls, prop::sample::select(NAMES.to_vec())).prop_map(
        move |(ago, duration, failed, has_root, calls, name)| {
            let mut root = root(trace, ago, duration);
            root.failed = failed;
            if let Some(name) = name {
                root = root.of_prompt(name);
            }
            let mut spans: Vec<Span> = (2..)
                .zip(calls)
                .map(|(id, (duration_ms, tokens, failed))| {
                    let mut call = call(&root, id, (tokens, tokens / 2));
                    call.start_ms += id * 70_000;
                    Span { duration_ms, failed, ..call }
                })
                .collect();
            if has_root {
                spans.push(root);
            }
            spans
        },
    )
}

fn history() -> impl Strategy<Value = (Vec<Span>, Vec<Step>)> {
    let traces: Vec<_> = (0..6).map(spans_of_a_trace).collect();
    traces.prop_map(|traces| traces.concat()).prop_flat_map(|spans| {
        // Each span at least once, some again; in any order, cut anywhere.
        let again = proptest::collection::vec(0..spans.len().max(1), 0..spans.len().max(1));
        let count = spans.len();
        let order = again
            .prop_map(move |again| (0..count).chain(again.into_iter().filter(|at| *at < count)).collect::<Vec<_>>());
        let cuts = proptest::collection::vec((1..5usize, 0..2usize, 0..12u8), 60);
        (Just(spans), order.prop_shuffle(), cuts).prop_map(|(spans, order, cuts)| {
            let mut steps = Vec::new();
            let mut rest = &order[..];
            for (size, writer, between) in cuts {
                let (now, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                match between {
                    0 => steps.push(Step::Restart),
                    1 | 2 => steps.push(Step::Publish),
                    3 | 4 => steps.push(Step::Join),
                    5 => steps.push(Step::MakeLatePrompt),
                    6 => steps.push(Step::Lose { writer, spans: now.to_vec() }),
                    _ => {}
                }
                if !now.is_empty() {
                    steps.push(Step::Record { writer, spans: now.to_vec() });
                }
            }
            (spans, steps)
        })
    })
}

/// Does the work, and then the transaction is lost.
struct Lost(Recording);

impl Work for Lost {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> Result<(), Fault> {
        Recordings::new(vec![self.0.clone()], Told::default()).run(tx, attempt).await?;
        Err(Fault::Refused { source: "the power failed".into() })
    }
}

const WRITERS: [&str; 2] = ["log-1", "log-2"];

async fn forget(db: &mut Db) {
    let mut sql = String::new();
    for table in ["cursors", "origins", "ledger", "trace_state", "rollups", "dirty", "published", "totals"] {
        let schema = if db.is_sqlite() { "emberd_" } else { "emberd." };
        sql += &format!("DELETE FROM {schema}{table};");
    }
    sql += "DELETE FROM prompt_performance_metrics; DELETE FROM prompt_traces;";
    sql += &format!("DELETE FROM prompts WHERE title IN ('{EARLY}', '{LATE}')");
    db.sql(&sql).await.unwrap();
    db.forget_cursors();
}

async fn make(db: &Db, title: &str) {
    let id = if title == EARLY { 1 } else { 2 };
    let id = uuid::Uuid::from_u128(id);
    db.sql(&format!("INSERT INTO prompts (id, title) VALUES ('{id}', '{title}') ON CONFLICT DO NOTHING"))
        .await
        .unwrap();
}

/// What the spans give when nothing disturbs.
async fn undisturbed(db: &mut Db, spans: &[Span]) -> Seen {
    forget(db).await;
    make(db, EARLY).await;
    make(db, LATE).await;
    db.record(spans).await;
    db.rootless().await;
    db.publish().await;
    check(db).await
}

async fn take(db: &mut Db, spans: &[Span], step: &Step) {
    let these = |at: &[usize]| at.iter().map(|at| spans[*at].clone()).collect::<Vec<_>>();
    match step {
        Step::Record { writer, spans } => {
            db.record_as(WRITERS[*writer], &these(spans)).await;
        }
        Step::Lose { writer, spans } => {
            let lost = Lost(db.recording_of(WRITERS[*writer], &these(spans)));
            assert!(db.store.run(lost).await.is_err());
        }
        Step::Restart => db.restart().await,
        Step::Publish => db.publish().await,
        Step::Join => {
            db.join_prompts().await;
        }
        Step::MakeLatePrompt => make(db, LATE).await,
    }
}

/// Reproducible: the same histories in every run, and a failure prints its own.
fn histories(seed: u8, count: usize) -> Vec<(Vec<Span>, Vec<Step>)> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(|_| history().new_tree(&mut runner).unwrap().current()).collect()
}

async fn any_order_split_and_repetition_gives_the_same(mut db: Db) {
    for (spans, steps) in histories(1, 30) {
        let expected = undisturbed(&mut db, &spans).await;
        forget(&mut db).await;
        make(&db, EARLY).await;
        for step in &steps {
            take(&mut db, &spans, step).await;
        }
        make(&db, LATE).await;
        db.join_prompts().await;
        db.rootless().await;
        db.publish().await;
        assert_eq!(check(&db).await, expected, "after {steps:#?}");
    }
}

/// Two logs hold parts of the same traces; both are recorded at the same time, while a third party publishes and joins.
async fn writers_at_once_lose_nothing(mut db: Db) {
    for (spans, _) in histories(2, 12) {
        let expected = undisturbed(&mut db, &spans).await;
        forget(&mut db).await;
        make(&db, EARLY).await;
        make(&db, LATE).await;
        let store = &db.store;
        // Each span goes to both logs, in opposite order, two at a time.
        let log = async |writer: &'static str, spans: Vec<Span>| {
            let mut from = emberd_model::Offset(0);
            for batch in spans.chunks(2) {
                let recording = recording(writer, from, batch);
                from = recording.to;
                store.record(recording).await.unwrap();
            }
        };
        let reversed: Vec<Span> = spans.iter().rev().cloned().collect();
        let upkeep = async {
            for _ in 0..10 {
                store.publish(NOW).await.unwrap();
                store.join_prompts(&Writer::new("log-3")).await.unwrap();
                let pass = Rootless {
                    writer: Writer::new("log-3"),
                    now: NOW,
                    wait: Default::default(),
                    limit: 10,
                    prices: Arc::default(),
                };
                store.rootless(pass).await.unwrap();
            }
        };
        tokio::join!(log("log-1", spans.clone()), log("log-2", reversed), upkeep);
        db.rootless().await;
        db.publish().await;
        assert_eq!(check(&db).await, expected);
        let traces: BTreeSet<u64> = spans.iter().map(|span| span.trace).collect();
        assert_eq!(db.store.counts().await.unwrap().open_traces, traces.len() as i64);
        // Each span is done on one account and repeated on the other, whoever was first.
        let mut done = 0;
        for log in ["log-1", "log-2"] {
            let book = db.store.book("recorder", &Writer::new(log)).await.unwrap().unwrap_or_default();
            assert!(book.is_balanced() && book.spans() == spans.len() as i64, "{book:?}");
            done += book.total("done");
        }
        assert_eq!(done, spans.len() as u64);
    }
}
