//! Items of several targets: made, taken, parted by how their targets end, halved where they never end, tried again one by one.

use emberd_model::UnixNanos;
use serde_json::json;
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::jobs::{LEASE, after, new_job, prepared, scored, targets, want};
use super::on_both;
use crate::jobs::*;
use crate::sql::binds;

on_both!(
    ranges_are_made_of_what_is_new,
    a_taking_keeps_to_its_bounds,
    a_range_is_parted_by_how_its_targets_end,
    one_failed_target_of_a_range_is_tried_again,
    a_range_goes_over_to_who_takes_it_when_its_lease_ends,
    a_range_that_never_ends_is_halved_until_its_targets_stand_alone,
    a_job_is_cancelled_with_its_ranges_half_done,
    what_is_given_back_counts_by_its_targets,
    a_target_has_no_second_result,
);

const FOUR: [Step; 1] = [Step { step: 1, blocked: false, width: 4 }];

/// The ranges of step 1 as they stand: first, last, state.
async fn ranges(db: &Db, job: Uuid) -> Vec<(i64, i64, String)> {
    let sql = "SELECT nr, upto, state FROM emberd.job_items WHERE job = $1 AND step = 1 ORDER BY nr";
    let lines = db.store.lines(sql, &binds![job]).await.unwrap();
    lines.iter().map(|line| (line.int(0).unwrap(), line.int(1).unwrap(), line.text(2).unwrap())).collect()
}

fn places(ranges: &[(i64, i64, String)]) -> Vec<(i64, i64)> {
    ranges.iter().map(|(nr, upto, _)| (*nr, *upto)).collect()
}

async fn of_ten(db: &Db) -> Uuid {
    let new = new_job(db.prompt("faq").await);
    prepared(db, new.clone(), targets(0..10), &FOUR).await;
    new.id
}

async fn take(db: &Db, job: Uuid, limit: u32, now: UnixNanos) -> Vec<Leased> {
    db.store.take(want(job, 1, limit, "one", now)).await.unwrap()
}

fn done() -> End {
    End::Done { scores: vec![scored("quality", Ok(1.0))], output: None }
}

fn failed(class: &str) -> End {
    End::Failed { errors: vec![scored("quality", Err(class))], dependants: vec![] }
}

fn ended(leased: &Leased, ends: Vec<End>) -> Ended {
    Ended { key: leased.key, fence: leased.fence, ends }
}

fn all_done(leased: &Leased) -> Ended {
    ended(leased, leased.targets.iter().map(|_| done()).collect())
}

async fn left(db: &Db, job: Uuid) -> i64 {
    db.store.job(job).await.unwrap().unwrap().items_left
}

async fn ranges_are_made_of_what_is_new(db: Db) {
    let new = new_job(db.prompt("faq").await);
    db.store.create_job(new.clone()).await.unwrap();
    let held = db.store.hold_job(Phase::Preparing, "preparer", LEASE, NOW).await.unwrap().unwrap();
    // Blocked items are of one target each, whatever is asked for.
    let steps = vec![FOUR[0], Step { step: 2, blocked: true, width: 4 }];
    let put = async |targets| db.store.put_targets(new.id, held.fence, targets, steps.clone()).await.unwrap().unwrap();
    assert_eq!(put(targets(0..3)).await, Put { targets: 3, items: 6 });
    // Some of them once more, as after a crash; one in their midst is known under another number, one comes twice.
    let mut more = targets(1..9);
    more[4].target = "example 0".to_owned();
    more.push(more[7].clone());
    assert_eq!(put(more).await, Put { targets: 5, items: 10 });
    assert_eq!(places(&ranges(&db, new.id).await), [(0, 2), (3, 4), (6, 8)]);
    let progress = Progress { waiting: 8, blocked: 8, ..Progress::default() };
    assert_eq!(db.store.progress(new.id).await.unwrap(), progress);
    assert_eq!(left(&db, new.id).await, 16);
    // Bodies that are large make ranges short.
    let body = json!("x".repeat(900_000)).to_string();
    let large = (10..15).map(|nr| NewTarget { nr, target: format!("large {nr}"), body: body.clone() }).collect();
    assert_eq!(put(large).await, Put { targets: 5, items: 10 });
    assert_eq!(places(&ranges(&db, new.id).await)[3..], [(10, 11), (12, 13), (14, 14)]);
}

async fn a_taking_keeps_to_its_bounds(db: Db) {
    let job = of_ten(&db).await;
    let sizes = |leased: &[Leased]| leased.iter().map(|leased| leased.targets.len()).collect::<Vec<_>>();
    let one = take(&db, job, 1, NOW).await;
    assert_eq!((sizes(&one), one[0].key.nr), (vec![4], 0), "the first, though it has more than were asked for");
    assert_eq!(
        one[0].targets[3],
        Given { target: "example 3".to_owned(), body: one[0].targets[3].body.clone(), output: None }
    );
    let body: serde_json::Value = serde_json::from_str(&one[0].targets[3].body).unwrap();
    assert_eq!(body, json!({"question": 3}));
    assert_eq!(sizes(&take(&db, job, 5, NOW).await), [4], "two more would be one too many");
    assert_eq!(sizes(&take(&db, job, 6, NOW).await), [2]);
    // By ranges too, and what expired comes before what waits.
    assert_eq!(db.store.release("one").await.unwrap(), 10);
    let taken = db.store.take(Want { ranges: 2, ..want(job, 1, 99, "one", NOW) }).await.unwrap();
    assert_eq!(sizes(&taken), [4, 4]);
    let taken = db.store.take(Want { ranges: 2, ..want(job, 1, 99, "two", after(60)) }).await.unwrap();
    assert_eq!(taken.iter().map(|leased| leased.key.nr).collect::<Vec<_>>(), [0, 4]);
}

async fn a_range_is_parted_by_how_its_targets_end(db: Db) {
    let new = new_job(db.prompt("faq").await);
    prepared(&db, new.clone(), targets(0..9), &[Step { width: 9, ..FOUR[0] }]).await;
    let leased = take(&db, new.id, 9, NOW).await.remove(0);
    let again = || End::Again { due: after(5) };
    let ends = vec![done(), done(), failed("timeout"), failed("timeout"), done(), again(), again(), done(), done()];
    // Ends of fewer targets, or of more, are no ends of this range.
    let fewer = ended(&leased, ends[..8].to_vec());
    let more = ended(&leased, [ends.clone(), vec![done()]].concat());
    assert_eq!(db.store.end(vec![fewer], NOW).await.unwrap(), [false]);
    assert_eq!(db.store.end(vec![more, ended(&leased, vec![])], NOW).await.unwrap(), [false, false]);
    assert_eq!(ranges(&db, new.id).await, [(0, 8, "leased".to_owned())]);
    assert_eq!(db.store.end(vec![ended(&leased, ends.clone())], NOW).await.unwrap(), [true]);
    assert_eq!(db.store.end(vec![ended(&leased, ends)], NOW).await.unwrap(), [false]);
    let expected = [
        (0, 1, "done"),
        (2, 2, "failed"),
        (3, 3, "failed"),
        (4, 4, "done"),
        (5, 5, "waiting"),
        (6, 6, "waiting"),
        (7, 8, "done"),
    ];
    assert_eq!(ranges(&db, new.id).await, expected.map(|(nr, upto, state)| (nr, upto, state.to_owned())));
    let progress = Progress { done: 5, failed: 2, waiting: 2, ..Progress::default() };
    assert_eq!(db.store.progress(new.id).await.unwrap(), progress);
    assert_eq!(left(&db, new.id).await, 2);
    assert_eq!(take(&db, new.id, 9, after(4)).await, []);
    let rest = take(&db, new.id, 9, after(5)).await;
    let held: Vec<(i64, i64, i64)> = rest.iter().map(|leased| (leased.key.nr, leased.fence, leased.attempt)).collect();
    assert_eq!(held, [(5, 2, 2), (6, 2, 2)], "fences and attempts go on from the range's");
    assert_eq!(db.store.end(rest.iter().map(all_done).collect::<Vec<_>>(), after(5)).await.unwrap(), [true, true]);
    assert_eq!(db.store.job(new.id).await.unwrap().unwrap().phase, Phase::Closing);
    assert_eq!(db.store.results(new.id, &ResultFilter::default(), None, 99).await.unwrap().data.len(), 9);
}

async fn one_failed_target_of_a_range_is_tried_again(db: Db) {
    let job = of_ten(&db).await;
    let leased = take(&db, job, 99, NOW).await;
    let mut ends: Vec<Ended> = leased.iter().map(all_done).collect();
    (ends[1].ends[2], ends[2].ends[0]) = (failed("timeout"), failed("refused"));
    assert_eq!(db.store.end(ends, NOW).await.unwrap(), [true; 3]);
    assert_eq!(db.store.job(job).await.unwrap().unwrap().phase, Phase::Closing);
    assert_eq!(db.store.retry_failed(job, vec!["timeout".to_owned()], after(1)).await.unwrap(), 1);
    let progress = Progress { done: 8, failed: 1, waiting: 1, ..Progress::default() };
    assert_eq!(db.store.progress(job).await.unwrap(), progress);
    assert_eq!(left(&db, job).await, 1);
    assert_eq!(db.store.results(job, &ResultFilter::default(), None, 99).await.unwrap().data.len(), 9);
    let again = take(&db, job, 99, after(1)).await;
    assert_eq!(again.iter().map(|leased| (leased.key.nr, leased.attempt)).collect::<Vec<_>>(), [(6, 1)]);
    assert_eq!(db.store.end(vec![all_done(&again[0])], after(1)).await.unwrap(), [true]);
    let results = db.store.results(job, &ResultFilter::default(), None, 99).await.unwrap().data;
    let errors: Vec<i64> =
        results.iter().filter(|result| result.scored.outcome.is_err()).map(|result| result.nr).collect();
    assert_eq!((results.len(), errors), (10, vec![8]));
}

async fn a_range_goes_over_to_who_takes_it_when_its_lease_ends(db: Db) {
    let job = of_ten(&db).await;
    let first = take(&db, job, 4, NOW).await.remove(0);
    let holding = Holding { key: first.key, fence: first.fence };
    assert_eq!(db.store.extend(vec![holding], LEASE, after(30)).await.unwrap(), [true]);
    assert_eq!(take(&db, job, 4, after(89)).await[0].key.nr, 4, "held for longer");
    let second = take(&db, job, 4, after(90)).await.remove(0);
    assert_eq!((second.key, second.fence, second.targets.len()), (first.key, first.fence + 1, 4));
    assert_eq!(db.store.extend(vec![holding], LEASE, after(90)).await.unwrap(), [false]);
    // Who lost it writes nothing of any of its targets, not even beside who has it.
    let late = ended(&first, vec![done(), failed("timeout"), done(), done()]);
    assert_eq!(
        db.store.end(vec![late.clone(), all_done(&second), late], after(91)).await.unwrap(),
        [false, true, false]
    );
    assert_eq!(ranges(&db, job).await[0], (0, 3, "done".to_owned()));
    let results = db.store.results(job, &ResultFilter::default(), None, 99).await.unwrap().data;
    assert!(results.len() == 4 && results.iter().all(|result| result.scored.outcome.is_ok()));
}

async fn a_range_that_never_ends_is_halved_until_its_targets_stand_alone(db: Db) {
    let job = of_ten(&db).await;
    let mut now = NOW;
    // Whoever has example 1 in hand dies of it; everything else ends.
    let mut alone = 0;
    for _ in 0..12 {
        let taken = take(&db, job, 1, now).await;
        let Some(leased) = taken.first() else { break };
        match leased.targets.iter().any(|given| given.target == "example 1") {
            true if leased.targets.len() == 1 => alone += 1,
            true => {}
            false => assert_eq!(db.store.end(vec![all_done(leased)], now).await.unwrap(), [true]),
        }
        now = UnixNanos(now.0 + 61_000_000_000);
        let stand = ranges(&db, job).await;
        assert_eq!(stand.iter().map(|(nr, upto, _)| upto - nr + 1).sum::<i64>(), 10, "{stand:?}");
    }
    assert!(alone > 0, "{:?}", ranges(&db, job).await);
    // Nobody else was taken along.
    let others = take(&db, job, 10, now).await.into_iter().filter(|leased| leased.key.nr != 1);
    assert!(
        db.store
            .end(others.map(|leased| all_done(&leased)).collect::<Vec<_>>(), now)
            .await
            .unwrap()
            .iter()
            .all(|held| *held)
    );
    let progress = Progress { done: 9, leased: 1, ..Progress::default() };
    assert_eq!(db.store.progress(job).await.unwrap(), progress, "{:?}", ranges(&db, job).await);
    assert_eq!(left(&db, job).await, 1);
}

async fn a_job_is_cancelled_with_its_ranges_half_done(db: Db) {
    let job = of_ten(&db).await;
    let leased = take(&db, job, 8, NOW).await;
    assert_eq!(db.store.end(vec![all_done(&leased[0])], NOW).await.unwrap(), [true]);
    assert!(db.store.cancel_job(job, after(1)).await.unwrap());
    let progress = Progress { done: 4, leased: 4, cancelled: 2, ..Progress::default() };
    assert_eq!(db.store.progress(job).await.unwrap(), progress);
    assert_eq!(left(&db, job).await, 4);
    // What is in hand may end; what wants another try is given up.
    let again = || End::Again { due: after(9) };
    assert_eq!(
        db.store.end(vec![ended(&leased[1], vec![done(), again(), again(), done()])], after(2)).await.unwrap(),
        [true]
    );
    let progress = Progress { done: 6, cancelled: 4, ..Progress::default() };
    assert_eq!(db.store.progress(job).await.unwrap(), progress);
    assert_eq!(left(&db, job).await, 0);
}

async fn what_is_given_back_counts_by_its_targets(db: Db) {
    let job = of_ten(&db).await;
    take(&db, job, 8, NOW).await;
    assert_eq!(db.store.release("one").await.unwrap(), 8);
    assert_eq!(left(&db, job).await, 10);
    let taken = take(&db, job, 8, NOW).await;
    assert_eq!(taken[0].attempt, 1, "that taking does not count");
    assert!(db.store.cancel_job(job, NOW).await.unwrap());
    // Of a job that is over, what is in hand goes when it is given back or its lease is over.
    let holding = Holding { key: taken[1].key, fence: taken[1].fence };
    assert_eq!(db.store.extend(vec![holding], LEASE, after(30)).await.unwrap(), [true]);
    db.store.release_stale(99, after(61)).await.unwrap();
    assert_eq!(left(&db, job).await, 4);
    assert_eq!(db.store.release("one").await.unwrap(), 4);
    assert_eq!(left(&db, job).await, 0);
    let progress = Progress { cancelled: 10, ..Progress::default() };
    assert_eq!(db.store.progress(job).await.unwrap(), progress);
}

/// Should two ranges overlap all the same, the key of the results keeps a target's first one.
async fn a_target_has_no_second_result(db: Db) {
    let job = of_ten(&db).await;
    let leased = take(&db, job, 4, NOW).await.remove(0);
    assert_eq!(db.store.end(vec![all_done(&leased)], NOW).await.unwrap(), [true]);
    db.sql(&format!(
        "UPDATE {} SET nr = 3 WHERE nr = 4",
        if db.is_sqlite() { "emberd_job_items" } else { "emberd.job_items" }
    ))
    .await
    .unwrap();
    let leased = take(&db, job, 1, NOW).await.remove(0);
    assert_eq!((leased.key.nr, leased.targets.len()), (3, 5));
    let ends =
        leased.targets.iter().map(|_| End::Done { scores: vec![scored("quality", Ok(0.5))], output: None }).collect();
    db.store.end(vec![ended(&leased, ends)], NOW).await.unwrap();
    let results = db.store.results(job, &ResultFilter::default(), None, 99).await.unwrap().data;
    let score = |result: &StoredResult| (result.nr, result.scored.outcome.as_ref().unwrap().score.unwrap());
    assert_eq!(results.iter().map(score).collect::<Vec<_>>()[2..5], [(2, 1.0), (3, 1.0), (4, 0.5)]);
}
