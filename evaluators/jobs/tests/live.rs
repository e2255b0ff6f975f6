//! Rules on live traffic, over a log in memory and a real database.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]
#![allow(dead_code, reason = "the world is shared with other tests")]

#[path = "it/endpoint.rs"]
mod endpoint;
#[path = "common/traffic.rs"]
mod traffic;
#[path = "it/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use emberd_evaluators_jobs::live::{self, Live, Parts, RuleError, sample};
use emberd_evaluators_jobs::{Engine, Handle};
use emberd_log::CursorFile;
use emberd_model::{Offset, TraceId};
use emberd_store::jobs::Decision;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use traffic::{Log, span, trace};
use world::{ADMIN, World, on_both};

fn fast() -> live::Config {
    live::Config {
        rules_every: Duration::from_millis(200),
        quiet_min: Duration::from_millis(150),
        quiet_max: Duration::from_secs(5),
        late: Duration::from_secs(60),
        tick: Duration::from_millis(20),
        ..live::Config::default()
    }
}

/// A consumer that runs, and is as if killed when it is dropped.
struct Consumer {
    _engine: Engine,
    handle: Handle,
    live: std::sync::Arc<Live>,
    tasks: tokio::task::JoinSet<()>,
}

fn consume(world: &World, log: &Log, config: live::Config) -> Consumer {
    let engine = world::engine(world.config(), world.store.clone(), world.dir.path());
    let head = log.clone();
    let live = engine.live(Parts {
        reader: log.reader(),
        head: Box::new(move || head.head()),
        cursor: CursorFile::open(world.dir.path(), live::CONSUMER).unwrap(),
        passed: Box::new(|_| {}),
        config,
    });
    let live = std::sync::Arc::new(live);
    let running = std::sync::Arc::clone(&live);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { running.run(CancellationToken::new()).await.unwrap() });
    Consumer { handle: engine.handle(), _engine: engine, live, tasks }
}

/// A new consumer begins at the head; this one at the beginning.
fn from_the_beginning(world: &World) {
    CursorFile::open(world.dir.path(), live::CONSUMER).unwrap().store(Offset(0)).unwrap();
}

async fn rule(world: &World, rule: Value) {
    let engine = world::engine(world.config(), world.store.clone(), world.dir.path());
    engine.handle().put_rule(&rule, ADMIN).await.unwrap_or_else(|error| panic!("{error:?}"));
}

fn good(share: f64) -> Value {
    let evaluator = json!({"name": "regex", "as": "good", "config": {"pattern": "good"}});
    json!({"name": "quality", "config": {"share": share, "tracesPerSecond": 10_000, "evaluators": [evaluator]}})
}

async fn decision(world: &World, trace: TraceId) -> Option<Decision> {
    let mut found = world.store.decisions_of(trace).await.unwrap();
    assert!(found.len() <= 1, "{found:?}");
    found.pop()
}

/// Waits until the trace's decision is as wanted.
async fn until(world: &World, trace: TraceId, wanted: impl Fn(&Decision) -> bool) -> Decision {
    let begun = Instant::now();
    loop {
        let found = decision(world, trace).await;
        if let Some(found) = found.as_ref().filter(|found| wanted(found)) {
            return found.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{trace}: {found:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn score(world: &World, trace: TraceId) -> Vec<(String, Option<f64>, i64)> {
    let found = world.store.trace_scores(trace).await.unwrap();
    found.into_iter().map(|one| (one.scored.name, one.scored.outcome.unwrap().score, one.epoch)).collect()
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

const TRACES: u64 = 2_000;

fn spans_of(number: u64) -> u8 {
    1 + (number % 4) as u8
}

/// All spans in pieces, neighbours shuffled, every tenth twice.
fn pieces(dice: &mut Dice) -> Vec<Vec<Span>> {
    let mut all = Vec::new();
    for number in 0..TRACES {
        let answer = if number.is_multiple_of(3) { "a good answer" } else { "a bad answer" };
        for nr in 0..spans_of(number) {
            let one = span(trace(number), nr, &[("output.value", answer)]);
            if dice.roll(10) == 0 {
                all.push(one.clone());
            }
            all.push(one);
        }
    }
    for at in 0..all.len() {
        let to = (at + dice.roll(80) as usize).min(all.len() - 1);
        all.swap(at, to);
    }
    let mut pieces = Vec::new();
    while !all.is_empty() {
        let count = (1 + dice.roll(60) as usize).min(all.len());
        pieces.push(all.drain(..count).collect());
    }
    pieces
}

/// Whatever the order, the pieces, the repetitions and the restarts: of 2,000 traces exactly those whose hash says so, each once.
async fn exactly_the_traces_whose_hash_says_so(world: World) {
    let (log, mut dice) = (Log::default(), Dice(7));
    from_the_beginning(&world);
    rule(&world, good(0.2)).await;
    let pieces = pieces(&mut dice);
    let mut consumer = consume(&world, &log, fast());
    let mut restarts = 0;
    for piece in pieces {
        log.append("shop", piece);
        if dice.roll(12) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.roll(120))).await;
            drop(consumer);
            consumer = consume(&world, &log, fast());
            restarts += 1;
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(10))).await;
    }
    assert!(restarts > 5, "{restarts}");
    let mut sampled = 0;
    for number in 0..TRACES {
        let trace = trace(number);
        let spans = i64::from(spans_of(number));
        if !sample::is_in("quality", trace, 0.2) {
            let found = until(&world, trace, |_| true).await;
            assert_eq!((&*found.decision, found.epoch), ("sampled_out", 0));
            assert!(score(&world, trace).await.is_empty());
            continue;
        }
        sampled += 1;
        let found = until(&world, trace, |found| found.spans == spans).await;
        assert_eq!(found.decision, "run", "{found:?}");
        let scores = score(&world, trace).await;
        let expected = if number.is_multiple_of(3) { 1.0 } else { 0.0 };
        assert_eq!(
            scores.iter().map(|(name, score, _)| (&**name, *score)).collect::<Vec<_>>(),
            [("good", Some(expected))]
        );
    }
    assert!((300..500).contains(&sampled), "{sampled}");
    // One annotation of each, however often it was judged.
    assert_eq!(world.store.outgoing().await.unwrap().pending, sampled);
    drop(consumer);
}

/// A span that comes after the decision: judged again, and the new score stands in place of the old one.
async fn late_spans_replace_the_score(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    let evaluator = json!({"name": "regex", "as": "good", "config": {"pattern": "good"}, "mapping": {"output": "last(LLM).output"}});
    let first = json!({"name": "quality", "config": {"evaluators": [evaluator]}});
    rule(&world, first).await;
    let consumer = consume(&world, &log, fast());
    let trace = trace(1);
    let llm = |nr, output| span(trace, nr, &[("openinference.span.kind", "LLM"), ("output.value", output)]);
    log.append("shop", vec![span(trace, 0, &[]), llm(1, "bad")]);
    let found = until(&world, trace, |_| true).await;
    assert_eq!((&*found.decision, found.epoch, found.spans), ("run", 0, 2));
    assert_eq!(score(&world, trace).await, [("good".to_owned(), Some(0.0), 0)]);
    // The same again changes nothing.
    log.append("shop", vec![llm(1, "bad")]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    log.append("shop", vec![llm(2, "good")]);
    let found = until(&world, trace, |found| found.epoch > 0).await;
    assert_eq!((&*found.decision, found.epoch, found.spans), ("run", 1, 3));
    assert_eq!(score(&world, trace).await, [("good".to_owned(), Some(1.0), 1)]);
    assert_eq!(world.store.outgoing().await.unwrap().pending, 1, "in place of the older one");
    let why = consumer.handle.why(trace).await.unwrap();
    assert_eq!((why.len(), &*why[0].rule, why[0].scores.len()), (1, "quality", 1));
    // A restart reads the trace again, and leaves it.
    drop(consumer);
    let consumer = consume(&world, &log, fast());
    let begun = Instant::now();
    while consumer.live.counters().duplicate == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", consumer.live.counters());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(decision(&world, trace).await.unwrap().epoch, 1);
}

/// Each trace is told what was done with it: filtered, without its root, run, for want of a field.
async fn each_trace_has_a_decision(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    let config = json!({"filter": {"project": ["shop"], "status": ["success"]}, "evaluators": ["json_valid"]});
    rule(&world, json!({"name": "quality", "config": config})).await;
    let quick = live::Config { quiet_max: Duration::from_millis(500), ..fast() };
    let _consumer = consume(&world, &log, quick);
    let output = [("output.value", "{}")];
    log.append("other", vec![span(trace(1), 0, &output)]);
    log.append("shop", vec![span(trace(2), 0, &output)]);
    log.append("shop", vec![span(trace(3), 1, &output)]);
    log.append("shop", vec![span(trace(4), 0, &[])]);
    let mut decisions = BTreeMap::new();
    for number in 1..=4 {
        let found = until(&world, trace(number), |_| true).await;
        decisions.insert(number, (found.decision, found.detail.unwrap_or_default()));
    }
    assert_eq!(decisions[&1], ("filtered".into(), "project".into()));
    assert_eq!(decisions[&2].0, "run");
    assert_eq!(decisions[&3].0, "not_ready");
    assert_eq!(decisions[&4].0, "missing_field", "{decisions:?}");
    // Its root comes after all.
    log.append("shop", vec![span(trace(3), 0, &output)]);
    let found = until(&world, trace(3), |found| found.epoch > 0).await;
    assert_eq!((&*found.decision, found.spans), ("run", 2));
}

/// What the endpoint bills stays within the rule's budget, and who got no money is told so.
async fn the_budget_holds(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    let budget = 0.025;
    rule(&world, json!({"name": "judged", "budget": budget, "config": {"evaluators": ["relevance"]}})).await;
    let consumer = consume(&world, &log, fast());
    let count = 30;
    for number in 0..count {
        let question = format!("question {number}");
        let attributes = [("input.value", &*question), ("output.value", "an answer")];
        log.append("shop", vec![span(trace(number), 0, &attributes)]);
    }
    let mut told = BTreeMap::<String, u64>::new();
    for number in 0..count {
        let found = until(&world, trace(number), |_| true).await;
        *told.entry(found.decision).or_default() += 1;
    }
    assert_eq!(told.keys().map(String::as_str).collect::<Vec<_>>(), ["budget", "run"], "{told:?}");
    let bill = world.endpoint.bill();
    assert!(bill > 0 && bill as f64 <= budget * 1e9, "{bill}");
    let rule = consumer.handle.rules().await.unwrap().pop().unwrap();
    assert_eq!((rule.spent.0, rule.reserved.0), (bill, 0));
    assert_eq!(world.endpoint.calls(), told["run"], "one call each");
}

/// A judging that was cut off after its answer was paid is not paid again.
async fn a_restart_does_not_pay_again(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    rule(&world, json!({"name": "judged", "config": {"evaluators": ["relevance", "correctness"]}})).await;
    for number in 0..20 {
        let question = format!("question {number}");
        let attributes = [("input.value", &*question), ("output.value", "an answer")];
        log.append("shop", vec![span(trace(number), 0, &attributes)]);
    }
    world.endpoint.slow(Duration::from_millis(40));
    for _ in 0..8 {
        let consumer = consume(&world, &log, live::Config { quiet_min: Duration::from_millis(1), ..fast() });
        tokio::time::sleep(Duration::from_millis(130)).await;
        drop(consumer);
    }
    let _consumer = consume(&world, &log, fast());
    for number in 0..20 {
        let found = until(&world, trace(number), |_| true).await;
        assert_eq!((&*found.decision, score(&world, trace(number)).await.len()), ("run", 2), "{found:?}");
    }
    let (settled, cut_off) = rule_calls(&world).await;
    let calls = world.endpoint.calls();
    assert_eq!(settled, 40, "each question once");
    assert!(cut_off > 0 && calls <= settled + cut_off, "{calls} calls, {cut_off} cut off");
}

/// Calls that were settled, and those that were reserved and are not.
async fn rule_calls(world: &World) -> (u64, u64) {
    use sqlx::{Connection as _, Row as _};
    let sql = |table: &str| sqlx::AssertSqlSafe(format!("SELECT count(spent), count(*) - count(spent) FROM {table}"));
    let (settled, cut_off): (i64, i64) = if world.store.kind() == "sqlite" {
        let path = format!("sqlite:{}", world.dir.path().join("emberd.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
        let row = sqlx::query(sql("emberd_rule_calls")).fetch_one(&mut connection).await.unwrap();
        (row.get(0), row.get(1))
    } else {
        let mut connection = sqlx::PgConnection::connect(&world.url).await.unwrap();
        let row = sqlx::query(sql("emberd.rule_calls")).fetch_one(&mut connection).await.unwrap();
        (row.get(0), row.get(1))
    };
    (settled as u64, cut_off as u64)
}

/// Memory is bounded: what does not fit is decided as shed.
async fn what_does_not_fit_is_shed(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    rule(&world, good(1.0)).await;
    let small = live::Config { bytes_max: 200_000, quiet_min: Duration::from_secs(3), ..fast() };
    let consumer = consume(&world, &log, small);
    let large = "good ".repeat(4_000);
    for number in 0..40 {
        log.append("shop", vec![span(trace(number), 0, &[("output.value", &*large)])]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut told = BTreeMap::<String, u64>::new();
    for number in 0..40 {
        let found = until(&world, trace(number), |_| true).await;
        *told.entry(found.decision).or_default() += 1;
    }
    assert_eq!(told.keys().map(String::as_str).collect::<Vec<_>>(), ["run", "shed"], "{told:?}");
    let counters = consumer.live.counters();
    assert!(counters.bytes <= 220_000, "{counters:?}");
    assert_eq!(told["shed"], counters.shed);
}

/// More traces a second than the rule allows.
async fn a_flood_is_shed(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    let mut slow = good(1.0);
    slow["config"]["tracesPerSecond"] = json!(5);
    rule(&world, slow).await;
    let _consumer = consume(&world, &log, fast());
    log.append("shop", (0..60).map(|number| span(trace(number), 0, &[("output.value", "good")])).collect());
    let mut told = BTreeMap::<String, u64>::new();
    for number in 0..60 {
        *told.entry(until(&world, trace(number), |_| true).await.decision).or_default() += 1;
    }
    assert!(told["run"] >= 5 && told["run"] <= 20 && told["run"] + told["shed"] == 60, "{told:?}");
}

/// Without a rule nothing is read, and the log is not held up; a rule counts from when it is there.
async fn without_a_rule_nothing_is_read(world: World) {
    let log = Log::default();
    from_the_beginning(&world);
    let consumer = consume(&world, &log, fast());
    log.append("shop", vec![span(trace(1), 0, &[("output.value", "good")])]);
    let begun = Instant::now();
    while consumer.live.counters().cursor < 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", consumer.live.counters());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(consumer.live.counters().position, 0, "nothing was read");
    let made = consumer.handle.put_rule(&good(1.0), ADMIN).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    log.append("shop", vec![span(trace(2), 0, &[("output.value", "good")])]);
    assert_eq!(until(&world, trace(2), |_| true).await.decision, "run");
    assert_eq!(decision(&world, trace(1)).await, None);
    // Switched off while a trace is gathered.
    log.append("shop", vec![span(trace(3), 1, &[])]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(consumer.handle.enable_rule(made.id, false).await.unwrap());
    assert_eq!(until(&world, trace(3), |_| true).await.decision, "disabled");
    assert!(consumer.handle.delete_rule(made.id).await.unwrap());
}

/// All that is wrong with a rule is said at once, each with its place.
async fn a_rule_with_faults_names_them_all(world: World) {
    let engine = world::engine(world.config(), world.store.clone(), world.dir.path());
    let wrong = json!({
        "name": "", "enabled": 1, "budget": -1, "more": 1,
        "config": {
            "share": 1.5, "salt": "", "tracesPerSecond": 0, "annotate": "moon", "colour": 1,
            "filter": {"status": ["fine"], "minTokens": 2, "maxTokens": 1}, "evaluators": [],
        },
    });
    let Err(RuleError::Invalid(faults)) = engine.handle().put_rule(&wrong, ADMIN).await else { panic!("taken") };
    let mut paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "budget",
        "config.annotate",
        "config.colour",
        "config.evaluators",
        "config.filter.maxTokens",
        "config.filter.status",
        "config.salt",
        "config.share",
        "config.tracesPerSecond",
        "enabled",
        "more",
        "name",
    ];
    assert_eq!(paths, expected);
    let unknown =
        json!({"name": "r", "config": {"evaluators": ["no_such", {"name": "regex", "config": {"pattern": "("}}]}});
    let Err(RuleError::Invalid(faults)) = engine.handle().put_rule(&unknown, ADMIN).await else { panic!("taken") };
    assert_eq!(faults.len(), 2, "{faults:?}");
    let unpriced = json!({"name": "r", "budget": 1, "config": {"judgeModel": "free", "evaluators": ["relevance"]}});
    let Err(RuleError::Invalid(faults)) = engine.handle().put_rule(&unpriced, ADMIN).await else { panic!("taken") };
    assert!(faults[0].message.contains("price"), "{faults:?}");
}

on_both!(
    exactly_the_traces_whose_hash_says_so,
    late_spans_replace_the_score,
    each_trace_has_a_decision,
    the_budget_holds,
    a_restart_does_not_pay_again,
    what_does_not_fit_is_shed,
    a_flood_is_shed,
    without_a_rule_nothing_is_read,
    a_rule_with_faults_names_them_all,
);
