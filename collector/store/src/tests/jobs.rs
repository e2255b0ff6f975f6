//! Jobs from making to closing, what is read of them, and everything beside them that evaluation keeps.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::time::Duration;

use emberd_model::UnixNanos;
use serde_json::json;
use uuid::Uuid;

use super::harness::{Db, NOW, on_postgres};
use super::on_both;
use crate::jobs::*;

on_both!(
    a_job_is_made_once_for_its_key,
    what_is_missing_is_named,
    preparing_goes_on_after_a_crash,
    an_answer_survives_the_one_who_asked,
    results_come_in_pages_and_by_filter,
    a_score_that_is_no_number_is_an_error,
    a_job_without_items_is_closed_at_once,
    a_cancelled_job_stays_cancelled,
    a_retried_job_is_not_closed_by_who_was_closing_it,
    evaluations_are_listed_changed_and_deleted,
    hostile_texts_are_kept_without_nul,
    a_full_cycle_of_many_items,
);

pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn after(seconds: u64) -> UnixNanos {
    UnixNanos(NOW.0 + seconds * 1_000_000_000)
}

/// A job of the local administrator.
pub(crate) fn new_job(prompt: Uuid) -> NewJob {
    NewJob {
        id: Uuid::new_v4(),
        prompt,
        dataset: None,
        subset: None,
        name: "nightly".to_owned(),
        description: None,
        config: json!({"evaluators": ["quality"]}),
        created_by: Uuid::nil(),
        plan: json!({"steps": 2}),
        budget: None,
        idempotency_key: None,
        now: NOW,
    }
}

pub(crate) fn targets(numbers: Range<i64>) -> Vec<NewTarget> {
    let body = |nr| json!({"question": nr}).to_string();
    numbers.map(|nr| NewTarget { nr, target: format!("example {nr}"), body: body(nr) }).collect()
}

pub(crate) fn scored(name: &str, outcome: Result<f64, &str>) -> Scored {
    Scored {
        name: name.to_owned(),
        version: "1".to_owned(),
        direction: Direction::Maximize,
        outcome: match outcome {
            Ok(score) => Ok(Score { score: Some(score), label: Some("good".to_owned()), explanation: None }),
            Err(class) => Err(Failure { class: class.to_owned(), message: "it went wrong".to_owned() }),
        },
        metadata: json!({}),
        cost: Money(3),
        latency: Duration::from_micros(1_500),
        cached: false,
    }
}

/// Makes a job, writes its targets, and opens it.
pub(crate) async fn prepared(db: &Db, new: NewJob, targets: Vec<NewTarget>, steps: &[Step]) {
    let created = db.store.create_job(new.clone()).await.unwrap();
    assert_eq!(created, Created { id: new.id, is_new: true });
    let held = db.store.hold_job(Phase::Preparing, "preparer", LEASE, NOW).await.unwrap().unwrap();
    assert_eq!(held.job.id, new.id);
    for chunk in targets.chunks(5_000) {
        let put = db.store.put_targets(new.id, held.fence, chunk.to_vec(), steps.to_vec()).await.unwrap().unwrap();
        assert_eq!((put.targets, put.items), (chunk.len() as u64, (chunk.len() * steps.len()) as u64));
    }
    assert!(db.store.open_job(new.id, held.fence, NOW).await.unwrap());
}

const ONE: [Step; 1] = [Step { step: 1, blocked: false, width: 1 }];

pub(crate) fn want(job: Uuid, step: i64, limit: u32, owner: &str, now: UnixNanos) -> Want {
    Want { job, step, limit, ranges: limit, owner: owner.to_owned(), lease: LEASE, now }
}

fn done(leased: &Leased, scores: Vec<Scored>) -> Ended {
    Ended { key: leased.key, fence: leased.fence, ends: vec![End::Done { scores, output: None }] }
}

async fn a_job_is_made_once_for_its_key(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = |key: &str| NewJob { idempotency_key: Some(key.to_owned()), ..new_job(prompt) };
    // At the same time, from several places.
    let made = futures_util::future::join_all((0..8).map(|_| db.store.create_job(new("monday")))).await;
    let made: Vec<Created> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|created| created.is_new).count(), 1);
    assert_eq!(made.iter().map(|created| created.id).collect::<BTreeSet<_>>().len(), 1);
    assert!(db.store.create_job(new("tuesday")).await.unwrap().is_new);
    assert!(db.store.create_job(new_job(prompt)).await.unwrap().is_new);
    assert!(db.store.create_job(new_job(prompt)).await.unwrap().is_new);
    let page = db.store.evaluations(&EvaluationFilter::default(), None, 500).await.unwrap();
    assert_eq!(page.data.len(), 4);
    let row = db.store.evaluation(made[0].id).await.unwrap().unwrap();
    assert_eq!((&*row.status, row.phoenix_eval_id), ("pending", format!("local:{}", row.id)));
    assert_eq!((row.config, row.created_at), (json!({"evaluators": ["quality"]}), NOW.into()));
}

async fn what_is_missing_is_named(db: Db) {
    let prompt = db.prompt("faq").await;
    let elsewhere = Uuid::from_u128(5);
    let missing = async |new: NewJob| db.store.create_job(new).await.unwrap_err();
    assert!(matches!(missing(new_job(elsewhere)).await, CreateJobError::NoSuchPrompt));
    let new = NewJob { dataset: Some(elsewhere), ..new_job(prompt) };
    assert!(matches!(missing(new).await, CreateJobError::NoSuchDataset));
    let new = NewJob { created_by: elsewhere, ..new_job(prompt) };
    assert!(matches!(missing(new).await, CreateJobError::NoSuchProfile));
    assert_eq!(db.store.evaluations(&EvaluationFilter::default(), None, 500).await.unwrap().data, []);
}

async fn preparing_goes_on_after_a_crash(mut db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    db.store.create_job(new.clone()).await.unwrap();
    let first = db.store.hold_job(Phase::Preparing, "one", LEASE, NOW).await.unwrap().unwrap();
    assert_eq!((first.job.plan.clone(), first.next_nr, first.job.phase), (new.plan, 0, Phase::Preparing));
    assert_eq!(db.store.hold_job(Phase::Preparing, "two", LEASE, NOW).await.unwrap(), None);
    let steps = vec![Step { step: 0, blocked: false, width: 1 }, Step { step: 1, blocked: true, width: 1 }];
    let put = |fence, range| db.store.put_targets(new.id, fence, targets(range), steps.clone());
    assert_eq!(put(first.fence, 0..3).await.unwrap(), Some(Put { targets: 3, items: 6 }));
    // Nothing can be taken yet.
    assert_eq!(db.store.take(want(new.id, 0, 9, "one", NOW)).await.unwrap(), []);
    // Its lease is over: another goes on, and the first one writes no more.
    let second = db.store.hold_job(Phase::Preparing, "two", LEASE, after(60)).await.unwrap().unwrap();
    assert_eq!((second.next_nr, second.fence), (3, first.fence + 1));
    assert_eq!(put(first.fence, 3..9).await.unwrap(), None);
    assert!(!db.store.extend_job(new.id, first.fence, LEASE, NOW).await.unwrap());
    assert!(db.store.extend_job(new.id, second.fence, LEASE, after(60)).await.unwrap());
    assert!(!db.store.open_job(new.id, first.fence, NOW).await.unwrap());
    assert_eq!(put(second.fence, 2..5).await.unwrap(), Some(Put { targets: 2, items: 4 }));
    // The same example under another number is left out, with its items.
    let again = vec![NewTarget { nr: 77, ..targets(0..1).remove(0) }];
    let put = db.store.put_targets(new.id, second.fence, again, steps.clone()).await.unwrap();
    assert_eq!(put, Some(Put { targets: 0, items: 0 }));
    db.restart().await;
    assert!(db.store.open_job(new.id, second.fence, after(61)).await.unwrap());
    let progress = Progress { blocked: 5, waiting: 5, ..Progress::default() };
    assert_eq!(db.store.progress(new.id).await.unwrap(), progress);
    let row = db.store.evaluation(new.id).await.unwrap().unwrap();
    assert_eq!((&*row.status, row.started_at), ("running", Some(after(61).into())));
    assert_eq!(db.store.open_jobs().await.unwrap().len(), 1);
}

/// Killed between the settling of a call and the end of its item: whoever takes the item next finds the answer, and the money is
/// counted once.
async fn an_answer_survives_the_one_who_asked(mut db: Db) {
    let prompt = db.prompt("faq").await;
    let new = NewJob { budget: Some(Money(100)), ..new_job(prompt) };
    prepared(&db, new.clone(), targets(0..1), &ONE).await;
    let leased = db.store.take(want(new.id, 1, 9, "one", NOW)).await.unwrap().remove(0);
    let reserve = async |leased: &Leased, price, at| {
        db.store.reserve_call(leased.key, leased.fence, Money(price), at).await.unwrap()
    };
    assert_eq!(reserve(&leased, 101, NOW).await, Reserved::NoBudget);
    assert_eq!(reserve(&leased, 60, NOW).await, Reserved::Call(1));
    assert_eq!(reserve(&leased, 41, NOW).await, Reserved::NoBudget);
    assert_eq!(reserve(&leased, 40, NOW).await, Reserved::Call(2));
    let call = |call| CallKey { item: leased.key, fence: leased.fence, call };
    let answer = Answer { digest: vec![0, 1, 255], body: "{\"score\": 1}".to_owned() };
    let spent = Spent { money: Money(25), tokens: 120, answer: Some(answer) };
    assert_eq!(db.store.settle_call(call(1), spent.clone(), NOW).await.unwrap(), Settled::Held);
    assert_eq!(db.store.settle_call(call(3), spent.clone(), NOW).await.unwrap(), Settled::NoCall);
    db.restart().await;
    // Another takes it over when the lease is over.
    assert_eq!(db.store.take(want(new.id, 1, 9, "two", after(59))).await.unwrap(), []);
    let taken = db.store.take(want(new.id, 1, 9, "two", after(60))).await.unwrap().remove(0);
    assert_eq!((taken.attempt, taken.fence), (2, leased.fence + 1));
    let found = db.store.answers(vec![vec![9], vec![0, 1, 255], vec![9]]).await.unwrap();
    assert_eq!(found, [None, Some(("{\"score\": 1}".to_owned(), Money(25))), None]);
    let money = async || {
        let job = db.store.job(new.id).await.unwrap().unwrap();
        (job.reserved.0, job.spent.0, job.tokens)
    };
    assert_eq!(money().await, (40, 25, 120));
    // The other call was cut off: it counts in full, until its true price comes after all.
    assert_eq!(db.store.release_stale(100, after(60)).await.unwrap(), 1);
    assert_eq!(money().await, (0, 65, 120));
    let late = Spent { money: Money(11), tokens: 30, answer: None };
    assert_eq!(db.store.settle_call(call(2), late, after(61)).await.unwrap(), Settled::Lost);
    assert_eq!(db.store.settle_call(call(1), spent, after(61)).await.unwrap(), Settled::Lost);
    assert_eq!(money().await, (0, 36, 150));
    // Who lost the lease writes nothing.
    let ends = vec![done(&leased, vec![scored("quality", Ok(0.0))]), done(&taken, vec![scored("quality", Ok(1.0))])];
    assert_eq!(db.store.end(ends, after(62)).await.unwrap(), [false, true]);
    let results = db.store.results(new.id, &ResultFilter::default(), None, 9).await.unwrap().data;
    let expected = StoredResult {
        nr: 0,
        step: 1,
        target: "example 0".to_owned(),
        scored: scored("quality", Ok(1.0)),
        at: after(62),
    };
    assert_eq!(results, [expected]);
    assert_eq!(db.store.job(new.id).await.unwrap().unwrap().phase, Phase::Closing);
}

async fn results_come_in_pages_and_by_filter(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    let steps = [Step { step: 1, blocked: false, width: 1 }, Step { step: 2, blocked: false, width: 1 }];
    prepared(&db, new.clone(), targets(0..7), &steps).await;
    for step in [1, 2] {
        let leased = db.store.take(want(new.id, step, 99, "one", NOW)).await.unwrap();
        let ended = leased.iter().map(|leased| match leased.key.nr % 3 == 0 && step == 2 {
            true => {
                let end = End::Failed { errors: vec![scored("a_b_c", Err("timeout"))], dependants: vec![] };
                Ended { key: leased.key, fence: leased.fence, ends: vec![end] }
            }
            false => done(leased, vec![scored("a_b_c", Ok(0.5)), scored("tone", Ok(1.0))]),
        });
        assert!(db.store.end(ended.collect::<Vec<_>>(), NOW).await.unwrap().iter().all(|held| *held));
    }
    let all = async |filter: ResultFilter, limit| {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = db.store.results(new.id, &filter, cursor.as_deref(), limit).await.unwrap();
            assert!(page.data.len() <= limit as usize);
            all.extend(page.data.into_iter().map(|result| (result.nr, result.step, result.scored.name)));
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return all,
            }
        }
    };
    let whole = all(ResultFilter::default(), 10_000).await;
    assert_eq!(whole.len(), 7 * 4 - 3);
    assert!(whole.is_sorted());
    assert_eq!(all(ResultFilter::default(), 2).await, whole);
    let errors = all(ResultFilter { only_errors: true, ..Default::default() }, 1).await;
    assert_eq!(errors.iter().map(|(nr, ..)| *nr).collect::<Vec<_>>(), [0, 3, 6]);
    assert_eq!(all(ResultFilter { step: Some(2), ..Default::default() }, 3).await.len(), 11);
    assert_eq!(all(ResultFilter { name: Some("tone".to_owned()), ..Default::default() }, 3).await.len(), 11);
    for bad in ["", "x", "1_2", "1_x_name"] {
        let error = db.store.results(new.id, &ResultFilter::default(), Some(bad), 9).await.unwrap_err();
        assert!(matches!(error, crate::Error::BadCursor));
    }
}

async fn a_score_that_is_no_number_is_an_error(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    prepared(&db, new.clone(), targets(0..3), &ONE).await;
    let leased = db.store.take(want(new.id, 1, 9, "one", NOW)).await.unwrap();
    let values = [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE];
    let ended = leased.iter().zip(values).map(|(leased, value)| done(leased, vec![scored("quality", Ok(value))]));
    db.store.end(ended.collect::<Vec<_>>(), NOW).await.unwrap();
    let results = db.store.results(new.id, &ResultFilter::default(), None, 9).await.unwrap().data;
    let outcomes: Vec<_> = results.into_iter().map(|result| result.scored.outcome).collect();
    assert!(outcomes[..2].iter().all(|outcome| outcome.as_ref().is_err_and(|failure| failure.class == "not_a_number")));
    assert_eq!(outcomes[2].as_ref().unwrap().score, Some(f64::MIN_POSITIVE));
}

async fn a_job_without_items_is_closed_at_once(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    prepared(&db, new.clone(), vec![], &ONE).await;
    assert_eq!(db.store.hold_job(Phase::Open, "one", LEASE, NOW).await.unwrap(), None);
    let held = db.store.hold_job(Phase::Closing, "one", LEASE, NOW).await.unwrap().unwrap();
    let closed = Closed {
        outcome: Outcome::Failed,
        results: None,
        metrics: Some(json!({"n": 0})),
        error: Some("there is nothing to judge".to_owned()),
    };
    assert!(db.store.close_job(new.id, held.fence, closed, after(1)).await.unwrap());
    let row = db.store.evaluation(new.id).await.unwrap().unwrap();
    assert_eq!((&*row.status, row.error.as_deref()), ("failed", Some("there is nothing to judge")));
    assert_eq!((row.metrics, row.completed_at), (Some(json!({"n": 0})), Some(after(1).into())));
    assert!(!db.store.cancel_job(new.id, after(2)).await.unwrap());
}

async fn a_cancelled_job_stays_cancelled(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    prepared(&db, new.clone(), targets(0..4), &ONE).await;
    let leased = db.store.take(want(new.id, 1, 2, "one", NOW)).await.unwrap();
    assert!(db.store.cancel_job(new.id, after(1)).await.unwrap());
    assert!(!db.store.cancel_job(new.id, after(1)).await.unwrap());
    assert_eq!(db.store.take(want(new.id, 1, 9, "two", after(99))).await.unwrap(), []);
    let lost = db.store.reserve_call(leased[0].key, leased[0].fence, Money(1), after(1)).await.unwrap();
    assert_eq!(lost, Reserved::Lost);
    // What is in hand may end; the rest of it is swept up.
    assert_eq!(db.store.end(vec![done(&leased[0], vec![])], after(2)).await.unwrap(), [true]);
    assert_eq!(db.store.release("one").await.unwrap(), 1);
    let progress = Progress { done: 1, cancelled: 3, ..Progress::default() };
    assert_eq!(db.store.progress(new.id).await.unwrap(), progress);
    assert_eq!(db.store.retry_failed(new.id, vec![], after(3)).await.unwrap(), 0);
    assert_eq!(db.store.evaluation(new.id).await.unwrap().unwrap().status, "cancelled");
    assert_eq!(db.store.job(new.id).await.unwrap().unwrap().items_left, 0);
}

async fn a_retried_job_is_not_closed_by_who_was_closing_it(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    prepared(&db, new.clone(), targets(0..1), &ONE).await;
    let fail = async |now| {
        let leased = db.store.take(want(new.id, 1, 9, "one", now)).await.unwrap().remove(0);
        let end = End::Failed { errors: vec![scored("quality", Err("timeout"))], dependants: vec![] };
        db.store.end(vec![Ended { key: leased.key, fence: leased.fence, ends: vec![end] }], now).await.unwrap();
    };
    fail(NOW).await;
    let held = db.store.hold_job(Phase::Closing, "one", LEASE, NOW).await.unwrap().unwrap();
    assert_eq!(db.store.retry_failed(new.id, vec!["refused".to_owned()], NOW).await.unwrap(), 0);
    assert_eq!(db.store.retry_failed(new.id, vec!["refused".to_owned(), "timeout".to_owned()], NOW).await.unwrap(), 1);
    fail(after(1)).await;
    let closed = Closed { outcome: Outcome::Completed, results: None, metrics: None, error: None };
    assert!(!db.store.close_job(new.id, held.fence, closed.clone(), after(2)).await.unwrap());
    let held = db.store.hold_job(Phase::Closing, "two", LEASE, after(2)).await.unwrap().unwrap();
    assert!(db.store.close_job(new.id, held.fence, closed, after(2)).await.unwrap());
}

pub(crate) const ADA: Uuid = Uuid::from_u128(0xada);
pub(crate) const BOB: Uuid = Uuid::from_u128(0xb0b);

pub(crate) fn viewer(user: Uuid) -> Viewer {
    Viewer { user, is_admin: false }
}

pub(crate) async fn with_users(db: &Db) {
    for (id, email) in [(ADA, "ada@example.com"), (BOB, "bob@example.com")] {
        db.sql(&format!("INSERT INTO profiles (id, email) VALUES ('{id}', '{email}')")).await.unwrap();
    }
}

async fn evaluations_are_listed_changed_and_deleted(db: Db) {
    with_users(&db).await;
    let (one, two) = (db.prompt("one").await, db.prompt("two").await);
    let mut ids = Vec::new();
    for at in 0..5 {
        let (prompt, created_by) = if at % 2 == 0 { (one, ADA) } else { (two, BOB) };
        let new = NewJob { created_by, now: after(at / 2), ..new_job(prompt) };
        ids.push(db.store.create_job(new).await.unwrap().id);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = db.store.evaluations(&EvaluationFilter::default(), cursor.as_deref(), 2).await.unwrap();
        seen.extend(page.data.iter().map(|row| row.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.iter().collect::<HashSet<_>>(), ids.iter().collect());
    assert_eq!((seen.len(), seen[0]), (5, ids[4]));
    let count = async |filter: EvaluationFilter| db.store.evaluations(&filter, None, 99).await.unwrap().data.len();
    assert_eq!(count(EvaluationFilter { prompt: Some(one), ..Default::default() }).await, 3);
    assert_eq!(count(EvaluationFilter { creator: Some(BOB), ..Default::default() }).await, 2);
    assert_eq!(count(EvaluationFilter { status: Some("running".to_owned()), ..Default::default() }).await, 0);

    let rename = |who, name: Option<&str>, description| {
        db.store.update_evaluation(who, ids[0], name.map(str::to_owned), description, after(9))
    };
    assert!(!rename(viewer(BOB), Some("mine"), None).await.unwrap());
    assert!(rename(viewer(ADA), None, Some(Some("daily".to_owned()))).await.unwrap());
    assert!(rename(Viewer { user: BOB, is_admin: true }, Some("weekly"), None).await.unwrap());
    let row = db.store.evaluation(ids[0]).await.unwrap().unwrap();
    assert_eq!((&*row.name, row.description.as_deref(), row.updated_at), ("weekly", Some("daily"), after(9).into()));
    assert!(rename(viewer(ADA), None, Some(None)).await.unwrap());
    assert_eq!(db.store.evaluation(ids[0]).await.unwrap().unwrap().description, None);

    let local = format!("local:{}", ids[0]);
    assert!(db.store.set_phoenix_eval_id(ids[0], &local, "RXhwOjE=", after(10)).await.unwrap());
    assert!(!db.store.set_phoenix_eval_id(ids[0], &local, "RXhwOjI=", after(10)).await.unwrap());

    let steps = [Step { step: 1, blocked: false, width: 1 }];
    let held = db.store.hold_job(Phase::Preparing, "one", LEASE, after(10)).await.unwrap().unwrap();
    db.store.put_targets(held.job.id, held.fence, targets(0..3), steps.into()).await.unwrap().unwrap();
    let creator = db.store.evaluation(held.job.id).await.unwrap().unwrap().created_by;
    let other = if creator == ADA { BOB } else { ADA };
    assert!(!db.store.delete_evaluation(viewer(other), held.job.id).await.unwrap());
    assert!(db.store.delete_evaluation(viewer(creator), held.job.id).await.unwrap());
    assert_eq!(db.store.job(held.job.id).await.unwrap(), None);
    assert_eq!(db.store.progress(held.job.id).await.unwrap(), Progress::default());
}

async fn hostile_texts_are_kept_without_nul(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = NewJob {
        name: "a\0b".to_owned(),
        config: json!({"k\0": "v\0"}),
        idempotency_key: Some("key\0".to_owned()),
        ..new_job(prompt)
    };
    let nul = NewTarget { nr: 0, target: "t\0'".to_owned(), body: json!("x\0").to_string() };
    prepared(&db, new.clone(), vec![nul], &ONE).await;
    let leased = db.store.take(want(new.id, 1, 9, "one\0", NOW)).await.unwrap().remove(0);
    assert_eq!((&*leased.targets[0].target, &*leased.targets[0].body), ("t'", "\"x\""));
    let score = Scored { metadata: json!({"\0": ["\0"]}), ..scored("q\0; DROP", Err("timeout\0")) };
    assert_eq!(db.store.end(vec![done(&leased, vec![score])], NOW).await.unwrap(), [true]);
    let result = db.store.results(new.id, &ResultFilter::default(), None, 9).await.unwrap().data.remove(0);
    assert_eq!((&*result.scored.name, result.scored.metadata), ("q; DROP", json!({"": [""]})));
    let long = new_job(prompt);
    prepared(&db, long.clone(), targets(0..1), &ONE).await;
    let leased = db.store.take(want(long.id, 1, 9, "one", NOW)).await.unwrap().remove(0);
    let score = scored(&"é".repeat(10_000), Ok(1.0));
    assert_eq!(db.store.end(vec![done(&leased, vec![score])], NOW).await.unwrap(), [true]);
    let result = db.store.results(long.id, &ResultFilter::default(), None, 9).await.unwrap().data.remove(0);
    assert_eq!(result.scored.name, "é".repeat(200));
    let again = db.store.create_job(NewJob { id: Uuid::new_v4(), ..new.clone() }).await.unwrap();
    assert_eq!(again, Created { id: new.id, is_new: false });
}

fn output_of(leased: &Leased) -> Option<serde_json::Value> {
    leased.targets[0].output.as_deref().map(|output| serde_json::from_str(output).unwrap())
}

/// Two thousand items of two steps go through in batches, run steps first, and the job closes itself.
async fn a_full_cycle_of_many_items(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    let steps = [Step { step: 0, blocked: false, width: 1 }, Step { step: 1, blocked: true, width: 1 }];
    prepared(&db, new.clone(), targets(0..1_000), &steps).await;
    assert_eq!(db.store.take(want(new.id, 1, 9, "one", NOW)).await.unwrap(), []);
    for step in [0, 1] {
        loop {
            let leased = db.store.take(want(new.id, step, 150, "one", NOW)).await.unwrap();
            if leased.is_empty() {
                break;
            }
            let ended = leased.iter().map(|leased| {
                let output = (step == 0).then(|| json!({"text": leased.key.nr}));
                assert_eq!(output_of(leased), (step == 1).then(|| json!({"text": leased.key.nr})));
                let scores = if step == 0 { vec![] } else { vec![scored("quality", Ok(1.0))] };
                Ended { key: leased.key, fence: leased.fence, ends: vec![End::Done { scores, output }] }
            });
            assert!(db.store.end(ended.collect::<Vec<_>>(), NOW).await.unwrap().iter().all(|held| *held));
        }
    }
    assert_eq!(db.store.job(new.id).await.unwrap().unwrap().phase, Phase::Closing);
    assert_eq!(db.store.progress(new.id).await.unwrap(), Progress { done: 2_000, ..Progress::default() });
}

/// Four that take at once share the items: each goes to one of them, and the last end closes the job.
#[test]
fn takers_at_once_share_the_items() {
    on_postgres(|db| async move {
        let prompt = db.prompt("faq").await;
        let new = new_job(prompt);
        prepared(&db, new.clone(), targets(0..2_000), &ONE).await;
        let job = new.id;
        let mut takers = tokio::task::JoinSet::new();
        for taker in 0..4 {
            let store = db.store.clone();
            takers.spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let leased = store.take(want(job, 1, 30, &format!("taker {taker}"), NOW)).await.unwrap();
                    if leased.is_empty() {
                        return mine;
                    }
                    let ended = leased.iter().map(|leased| done(leased, vec![scored("quality", Ok(1.0))]));
                    assert!(store.end(ended.collect::<Vec<_>>(), NOW).await.unwrap().iter().all(|held| *held));
                    mine.extend(leased.into_iter().map(|leased| (leased.key.nr, leased.fence)));
                }
            });
        }
        let mut taken = BTreeSet::new();
        let mut shares = Vec::new();
        while let Some(mine) = takers.join_next().await {
            let mine = mine.unwrap();
            shares.push(mine.len());
            for (nr, fence) in mine {
                assert_eq!(fence, 1);
                assert!(taken.insert(nr), "item {nr} was taken twice");
            }
        }
        assert_eq!(taken.len(), 2_000, "{shares:?}");
        assert_eq!(db.store.job(job).await.unwrap().unwrap().phase, Phase::Closing);
        let page = db.store.results(job, &ResultFilter::default(), None, 10_000).await.unwrap();
        assert_eq!(page.data.len(), 2_000);
    });
}

/// A hundred thousand items in batches of 200, without asserting how long it takes: run in release with `--nocapture` for the figures.
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_items() {
    super::harness::on_sqlite(measure);
    on_postgres(measure);
}

async fn measure(db: Db) {
    let prompt = db.prompt("faq").await;
    let new = new_job(prompt);
    let begun = std::time::Instant::now();
    prepared(&db, new.clone(), targets(0..100_000), &ONE).await;
    println!("{}: prepared in {:?}", db.store.kind(), begun.elapsed());
    let (mut take, mut end) = (Duration::ZERO, Duration::ZERO);
    loop {
        let begun = std::time::Instant::now();
        let leased = db.store.take(want(new.id, 1, 200, "one", NOW)).await.unwrap();
        take += begun.elapsed();
        if leased.is_empty() {
            break;
        }
        let ended = leased.iter().map(|leased| done(leased, vec![scored("quality", Ok(1.0))])).collect::<Vec<_>>();
        let begun = std::time::Instant::now();
        db.store.end(ended, NOW).await.unwrap();
        end += begun.elapsed();
    }
    println!("{}: an item took {:?} to take and {:?} to end", db.store.kind(), take / 100_000, end / 100_000);
    let begun = std::time::Instant::now();
    assert_eq!(db.store.progress(new.id).await.unwrap().done, 100_000);
    println!("{}: progress in {:?}", db.store.kind(), begun.elapsed());
}
