//! What evaluation keeps beside jobs: datasets, templates, the outbox, live rules with their decisions, scores and money, and the purge.

use std::time::Duration;

use emberd_model::{TraceId, UnixNanos};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::jobs::{ADA, BOB, after, new_job, scored, viewer, with_users};
use super::on_both;
use crate::jobs::*;

on_both!(
    datasets_are_seen_when_public_or_own,
    examples_come_in_stretches,
    templates_are_seen_when_public_or_own,
    the_outbox_tells_the_newest,
    the_outbox_is_shared_without_overlap,
    rules_are_put_switched_and_deleted,
    a_decision_is_replaced_by_a_higher_one,
    scores_of_a_trace_are_replaced_by_a_higher_epoch,
    a_rules_money_keeps_to_its_budget,
    old_answers_and_decisions_are_purged_in_batches,
);

const LEASE: Duration = Duration::from_secs(60);
const ADMIN: Viewer = Viewer { user: Uuid::nil(), is_admin: true };

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn dataset(data: &Value, is_public: bool) -> NewDataset {
    NewDataset {
        name: "questions".to_owned(),
        description: None,
        kind: DatasetType::QaPairs,
        data: raw(data),
        metadata: json!({}),
        is_public,
        created_by: ADA,
    }
}

async fn datasets_are_seen_when_public_or_own(db: Db) {
    with_users(&db).await;
    let stranger = NewDataset { created_by: Uuid::from_u128(9), ..dataset(&json!([]), true) };
    assert_eq!(db.store.create_dataset(stranger, NOW).await.unwrap(), None);
    let own = db.store.create_dataset(dataset(&json!([{"q": 1}]), false), NOW).await.unwrap().unwrap();
    let public = db.store.create_dataset(dataset(&json!([{"q": 2}]), true), after(1)).await.unwrap().unwrap();
    let seen = async |viewer| {
        let page = db.store.datasets(viewer, None, 99).await.unwrap();
        page.data.iter().map(|dataset| dataset.id).collect::<Vec<_>>()
    };
    assert_eq!(seen(viewer(ADA)).await, [public, own]);
    assert_eq!(seen(viewer(BOB)).await, [public]);
    assert_eq!(seen(ADMIN).await, [public, own]);
    let first = db.store.datasets(viewer(ADA), None, 1).await.unwrap();
    let second = db.store.datasets(viewer(ADA), first.next_cursor.as_deref(), 1).await.unwrap();
    assert_eq!((second.data[0].id, second.next_cursor), (own, None));
    assert_eq!(db.store.dataset(viewer(BOB), own).await.unwrap(), None);
    assert_eq!(db.store.examples(viewer(BOB), own, 0, 9).await.unwrap(), []);
    assert_eq!(db.store.example_count(viewer(BOB), own).await.unwrap(), None);
    assert_eq!(db.store.dataset(viewer(BOB), public).await.unwrap().unwrap().kind, DatasetType::QaPairs);

    // Seen is not owned.
    let change = DatasetChange { name: Some("mine".to_owned()), ..Default::default() };
    assert!(!db.store.update_dataset(viewer(BOB), public, change.clone(), after(2)).await.unwrap());
    assert_eq!(db.store.delete_dataset(viewer(BOB), public).await.unwrap(), DatasetDeleted::NotFound);
    let change = DatasetChange { data: Some(raw(&json!([3, 4]))), is_public: Some(true), ..change };
    assert!(db.store.update_dataset(viewer(ADA), own, change, after(2)).await.unwrap());
    let changed = db.store.dataset(viewer(BOB), own).await.unwrap().unwrap();
    assert_eq!((&*changed.name, changed.updated_at, changed.created_at), ("mine", after(2).into(), NOW.into()));
    assert_eq!(db.store.example_count(viewer(BOB), own).await.unwrap(), Some(2));

    // One that was used stays while its evaluation does.
    let prompt = db.prompt("faq").await;
    let subset = Some(json!({"first": 10}));
    let job = NewJob { dataset: Some(own), subset, ..new_job(prompt) };
    db.store.create_job(job.clone()).await.unwrap();
    assert_eq!(db.store.delete_dataset(viewer(ADA), own).await.unwrap(), DatasetDeleted::InUse);
    assert!(db.store.delete_evaluation(ADMIN, job.id).await.unwrap());
    assert_eq!(db.store.delete_dataset(viewer(ADA), own).await.unwrap(), DatasetDeleted::Gone);
    assert_eq!(seen(viewer(ADA)).await, [public]);
}

async fn examples_come_in_stretches(db: Db) {
    with_users(&db).await;
    let odd = json!([{"q": [1, {"a": null}]}, "text", "\u{0}\"", 1, 1.5, true, false, null, [], "null"]);
    let id = db.store.create_dataset(dataset(&odd, false), NOW).await.unwrap().unwrap();
    let all = db.store.examples(viewer(ADA), id, 0, 99).await.unwrap();
    let mut expected = odd.as_array().unwrap().clone();
    expected[2] = json!("\"");
    assert_eq!(all.iter().map(|example| example.body.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(all.iter().map(|example| example.nr).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(db.store.examples(viewer(ADA), id, 4, 3).await.unwrap(), all[4..7]);
    assert_eq!(db.store.examples(viewer(ADA), id, 9, 3).await.unwrap(), all[9..]);
    assert_eq!(db.store.examples(viewer(ADA), id, 10, 3).await.unwrap(), []);

    let nested = json!({"examples": [{"q": 1}, {"q": 2}], "source": "support"});
    let id = db.store.create_dataset(dataset(&nested, false), NOW).await.unwrap().unwrap();
    assert_eq!(db.store.example_count(viewer(ADA), id).await.unwrap(), Some(2));
    let second = Example { nr: 1, body: json!({"q": 2}) };
    assert_eq!(db.store.examples(viewer(ADA), id, 1, 9).await.unwrap(), [second]);
    for none in [json!({}), json!({"examples": {"a": 1}}), json!(7), json!("text"), Value::Null] {
        let id = db.store.create_dataset(dataset(&none, false), NOW).await.unwrap().unwrap();
        assert_eq!(db.store.examples(viewer(ADA), id, 0, 9).await.unwrap(), [], "{none}");
        assert_eq!(db.store.example_count(viewer(ADA), id).await.unwrap(), Some(0), "{none}");
    }
}

async fn templates_are_seen_when_public_or_own(db: Db) {
    with_users(&db).await;
    let new = |name: &str, is_public| NewTemplate {
        name: name.to_owned(),
        description: None,
        config: json!({"choices": {"yes": 1}}),
        is_public,
    };
    assert_eq!(db.store.create_template(Uuid::from_u128(9), new("x", true), NOW).await.unwrap(), None);
    let own = db.store.create_template(ADA, new("own", false), NOW).await.unwrap().unwrap();
    let public = db.store.create_template(ADA, new("public", true), after(1)).await.unwrap().unwrap();
    let names = async |viewer| {
        let page = db.store.templates(viewer, None, 99).await.unwrap();
        page.data.into_iter().map(|template| template.name).collect::<Vec<_>>()
    };
    assert_eq!(names(viewer(ADA)).await, ["public", "own"]);
    assert_eq!(names(viewer(BOB)).await, ["public"]);
    assert_eq!(db.store.template(viewer(BOB), own).await.unwrap(), None);
    assert!(!db.store.update_template(viewer(BOB), public, new("mine", true)).await.unwrap());
    assert!(!db.store.delete_template(viewer(BOB), public).await.unwrap());
    assert!(db.store.update_template(viewer(ADA), own, new("shared", true)).await.unwrap());
    assert_eq!(db.store.template(viewer(BOB), own).await.unwrap().unwrap().name, "shared");
    assert!(db.store.delete_template(viewer(ADA), own).await.unwrap());
    assert_eq!(names(ADMIN).await, ["public"]);
}

async fn the_outbox_tells_the_newest(db: Db) {
    let put = |key: &'static str, body: Value, due| db.store.put_outgoing("experiment", key, body, due);
    put("one", json!({"v": 1}), NOW).await.unwrap();
    put("two", json!({"v": 1}), after(5)).await.unwrap();
    let first = db.store.take_outgoing(LEASE, 9, NOW).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!((&*first[0].key, first[0].version, first[0].attempts), ("one", 1, 1));
    // While it is told, a newer one comes: what was told was the older.
    put("one", json!({"v": 2}), after(1)).await.unwrap();
    assert_eq!(db.store.told(first.clone()).await.unwrap(), 0);
    assert!(!db.store.postpone(&first[0], after(99)).await.unwrap());
    assert!(!db.store.refuse(&first[0], "no such project").await.unwrap());
    let second = db.store.take_outgoing(LEASE, 9, after(5)).await.unwrap();
    assert_eq!(second.iter().map(|row| (&*row.key, row.version)).collect::<Vec<_>>(), [("one", 2), ("two", 1)]);
    assert_eq!(second[0].body, json!({"v": 2}));
    // Whoever took it is gone: it is due again.
    assert_eq!(db.store.take_outgoing(LEASE, 9, after(64)).await.unwrap(), []);
    let third = db.store.take_outgoing(LEASE, 9, after(65)).await.unwrap();
    assert_eq!(third[0].attempts, 2);
    assert!(db.store.postpone(&third[0], after(300)).await.unwrap());
    assert!(db.store.refuse(&third[1], "no such project").await.unwrap());
    assert_eq!(db.store.outgoing().await.unwrap(), Waiting { pending: 1, refused: 1 });
    assert_eq!(db.store.take_outgoing(LEASE, 9, after(299)).await.unwrap(), []);
    let last = db.store.take_outgoing(LEASE, 9, after(300)).await.unwrap();
    assert_eq!(db.store.told(last).await.unwrap(), 1);
    // What was refused is told when it is put again.
    put("two", json!({"v": 2}), after(300)).await.unwrap();
    assert_eq!(db.store.outgoing().await.unwrap(), Waiting { pending: 1, refused: 0 });
}

async fn the_outbox_is_shared_without_overlap(db: Db) {
    let put = |(at, end)| ("span".to_owned(), format!("{at:03}{end}"), json!({"at": at}));
    let all = (0..300).flat_map(|at| [(at, ""), (at, "\0")]).map(put).collect();
    db.store.put_all_outgoing(all, NOW).await.unwrap();
    let mut keys = Vec::new();
    loop {
        let take = || db.store.take_outgoing(LEASE, 40, NOW);
        let (one, other) = tokio::join!(take(), take());
        let taken = [one.unwrap(), other.unwrap()].concat();
        if taken.is_empty() {
            break;
        }
        keys.extend(taken.into_iter().map(|row| row.key));
    }
    keys.sort();
    assert_eq!(keys, (0..300).map(|at| format!("{at:03}")).collect::<Vec<_>>());
}

fn rule(name: &str, config: Value) -> NewRule {
    NewRule { name: name.to_owned(), config, is_enabled: true, budget: Some(Money(100)), created_by: ADA }
}

async fn rules_are_put_switched_and_deleted(db: Db) {
    with_users(&db).await;
    let stranger = NewRule { created_by: Uuid::from_u128(9), ..rule("x", json!({})) };
    assert!(matches!(db.store.put_rule(stranger, NOW).await, Err(PutRuleError::NoSuchProfile)));
    let first = db.store.put_rule(rule("errors", json!({"share": 0.5})), NOW).await.unwrap();
    assert_eq!((first.version, first.created_at), (1, NOW));
    let same =
        db.store.put_rule(NewRule { budget: None, ..rule("errors", json!({"share": 0.5})) }, after(1)).await.unwrap();
    assert_eq!((same.id, same.version, same.budget), (first.id, 1, None));
    let other = db.store.put_rule(rule("errors", json!({"share": 0.75})), after(1)).await.unwrap();
    assert_eq!((other.id, other.version), (first.id, 2));
    assert!(db.store.enable_rule(first.id, false).await.unwrap());
    assert!(!db.store.enable_rule(Uuid::from_u128(9), false).await.unwrap());
    assert!(!db.store.rule(first.id).await.unwrap().unwrap().is_enabled);
    db.store.put_rule(rule("all", json!({})), NOW).await.unwrap();
    let names: Vec<String> = db.store.rules().await.unwrap().into_iter().map(|rule| rule.name).collect();
    assert_eq!(names, ["all", "errors"]);
    assert!(db.store.delete_rule(first.id).await.unwrap());
    assert!(!db.store.delete_rule(first.id).await.unwrap());
}

fn decided(rule: Uuid, trace: u8, epoch: i64, version: i64, decision: &str) -> Decision {
    let trace = TraceId([trace; 16]);
    Decision { rule, trace, version, epoch, decision: decision.to_owned(), detail: None, spans: 3, at: NOW }
}

async fn a_decision_is_replaced_by_a_higher_one(db: Db) {
    with_users(&db).await;
    let one = db.store.put_rule(rule("one", json!({})), NOW).await.unwrap().id;
    let two = db.store.put_rule(rule("two", json!({})), NOW).await.unwrap().id;
    let decide = async |all: Vec<Decision>| db.store.decide(all).await.unwrap();
    let gone = Uuid::from_u128(9);
    let all = vec![decided(one, 1, 0, 1, "run"), decided(two, 1, 0, 1, "filtered"), decided(gone, 1, 0, 1, "run")];
    assert_eq!(decide(all.clone()).await, [true, true, false]);
    assert_eq!(decide(all).await, [false, false, false]);
    assert_eq!(decide(vec![decided(one, 1, 1, 1, "superseded")]).await, [true]);
    assert_eq!(decide(vec![decided(one, 1, 0, 7, "late")]).await, [false]);
    // Twice in one call: the higher stands.
    let twice = vec![decided(one, 1, 1, 2, "budget"), decided(one, 1, 1, 3, "run"), decided(one, 1, 1, 2, "shed")];
    assert_eq!(decide(twice).await, [false, true, false]);
    let mut stand = db.store.decisions_of(TraceId([1; 16])).await.unwrap();
    stand.sort_by_key(|decision| decision.epoch);
    assert_eq!(stand, [decided(two, 1, 0, 1, "filtered"), decided(one, 1, 1, 3, "run")]);
    db.store.delete_rule(one).await.unwrap();
    assert_eq!(db.store.decisions_of(TraceId([1; 16])).await.unwrap().len(), 1);
    assert_eq!(db.store.decisions_of(TraceId([2; 16])).await.unwrap(), []);
}

async fn scores_of_a_trace_are_replaced_by_a_higher_epoch(db: Db) {
    with_users(&db).await;
    let rule = db.store.put_rule(rule("one", json!({})), NOW).await.unwrap().id;
    let score = |name: &str, epoch, outcome, subject| TraceScore {
        trace: TraceId([1; 16]),
        rule,
        epoch,
        subject,
        scored: Scored { latency: Duration::ZERO, ..scored(name, outcome) },
        at: NOW,
    };
    let span = Subject::Span("00000000000000ab".to_owned());
    let first = vec![score("quality", 0, Ok(0.5), Subject::Trace), score("tone", 0, Err("timeout"), span)];
    assert_eq!(db.store.put_trace_scores(first.clone()).await.unwrap(), 2);
    assert_eq!(db.store.put_trace_scores(first.clone()).await.unwrap(), 0);
    let newer = score("quality", 1, Ok(0.9), Subject::Session);
    let stranger = TraceScore { rule: Uuid::from_u128(9), ..newer.clone() };
    let all = vec![score("quality", 0, Ok(0.1), Subject::Trace), newer.clone(), stranger];
    assert_eq!(db.store.put_trace_scores(all).await.unwrap(), 1);
    assert_eq!(db.store.trace_scores(TraceId([1; 16])).await.unwrap(), [newer, first[1].clone()]);
    // Traces with scores of a time, page by page.
    let other = TraceScore { trace: TraceId([2; 16]), ..first[0].clone() };
    assert_eq!(db.store.put_trace_scores(vec![other]).await.unwrap(), 1);
    let of = async |since, until, after| db.store.scored_traces(since, until, after, 1).await.unwrap();
    let later = UnixNanos(NOW.0 + 1_000);
    assert_eq!(of(NOW, later, None).await, [TraceId([1; 16])]);
    assert_eq!(of(NOW, later, Some(TraceId([1; 16]))).await, [TraceId([2; 16])]);
    assert_eq!(of(NOW, later, Some(TraceId([2; 16]))).await, []);
    assert_eq!((of(later, UnixNanos(u64::MAX / 2), None).await, of(UnixNanos(0), NOW, None).await), (vec![], vec![]));
    // Names that are the same once they are kept.
    let alike = vec![score("x\0", 0, Ok(0.1), Subject::Trace), score("x", 0, Ok(0.2), Subject::Trace)];
    assert_eq!(db.store.put_trace_scores(alike).await.unwrap(), 1);
}

async fn a_rules_money_keeps_to_its_budget(db: Db) {
    with_users(&db).await;
    let rule = db.store.put_rule(rule("one", json!({})), NOW).await.unwrap().id;
    let reserve = async |price, now| db.store.reserve_rule(rule, Money(price), LEASE, now).await.unwrap();
    let money = async || {
        let rule = db.store.rule(rule).await.unwrap().unwrap();
        (rule.reserved.0, rule.spent.0, rule.tokens)
    };
    assert_eq!(reserve(60, NOW).await, RuleReserved::Call(1));
    assert_eq!(reserve(41, NOW).await, RuleReserved::NoBudget);
    assert_eq!(reserve(40, NOW).await, RuleReserved::Call(2));
    let spent = |money| Spent { money: Money(money), tokens: 5, answer: None };
    assert!(db.store.settle_rule(rule, 1, spent(10), NOW).await.unwrap());
    assert!(!db.store.settle_rule(rule, 3, spent(10), NOW).await.unwrap());
    assert_eq!(money().await, (40, 10, 5));
    assert_eq!(db.store.release_stale(9, after(59)).await.unwrap(), 0);
    assert_eq!(db.store.release_stale(9, after(60)).await.unwrap(), 1);
    assert_eq!(money().await, (0, 50, 5));
    assert!(db.store.settle_rule(rule, 2, spent(20), after(61)).await.unwrap());
    assert!(db.store.settle_rule(rule, 2, spent(20), after(61)).await.unwrap());
    assert_eq!(money().await, (0, 30, 10));
    // Many at once do not pass it together.
    let got = futures_util::future::join_all((0..20).map(|_| reserve(9, after(61)))).await;
    assert_eq!(got.iter().filter(|reserved| matches!(reserved, RuleReserved::Call(_))).count(), 7);
    assert_eq!(money().await, (63, 30, 10));
    db.store.enable_rule(rule, false).await.unwrap();
    assert_eq!(reserve(0, after(61)).await, RuleReserved::Disabled);
}

async fn old_answers_and_decisions_are_purged_in_batches(db: Db) {
    with_users(&db).await;
    let rule = db.store.put_rule(rule("one", json!({})), NOW).await.unwrap().id;
    for at in 0..7u8 {
        let answer = |body: &str| Answer { digest: vec![at], body: body.to_owned() };
        db.store.put_answer(answer("first"), after(u64::from(at))).await.unwrap();
        db.store.put_answer(answer("second"), after(u64::from(at))).await.unwrap();
        assert_eq!(db.store.answer(&[at]).await.unwrap(), Some(("first".to_owned(), Money(0))));
        let decision = Decision { at: after(u64::from(at)), ..decided(rule, at + 1, 0, 1, "run") };
        assert_eq!(db.store.decide(vec![decision]).await.unwrap(), [true]);
    }
    let purge = Purge { answers_before: Some(after(5)), decisions_before: Some(after(2)) };
    let purged = |answers, decisions, more| Purged { answers, decisions, calls: 0, more };
    assert_eq!(db.store.purge(purge, 3).await.unwrap(), purged(3, 2, true));
    assert_eq!(db.store.purge(purge, 3).await.unwrap(), purged(2, 0, false));
    assert_eq!(db.store.purge(Purge::default(), 3).await.unwrap(), purged(0, 0, false));
    let left = db.store.answers((0..7).map(|at| vec![at]).collect()).await.unwrap();
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, false, false, true, true]);
    let call = db.store.reserve_rule(rule, Money(1), LEASE, UnixNanos(NOW.0)).await.unwrap();
    assert_eq!(call, RuleReserved::Call(1));
    let everything = Purge { answers_before: Some(after(99)), decisions_before: Some(after(99)) };
    // A call on its way stays.
    assert_eq!(db.store.purge(everything, 99).await.unwrap(), purged(2, 5, false));
    db.store.settle_rule(rule, 1, Spent::default(), NOW).await.unwrap();
    assert_eq!(db.store.purge(everything, 99).await.unwrap().calls, 1);
}
