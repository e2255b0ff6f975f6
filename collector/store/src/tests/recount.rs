//! Rollups that are not the sum of their rows are found, told, and set right.

use super::harness::Db;
use super::on_both;
use super::oracle::check;
use super::spans::trace;
use crate::Moment;
use crate::recount::Recount;

on_both!(what_is_wrong_is_found_and_set_right, what_is_right_is_left_alone_beside_a_recorder);

const HOUR_MS: u64 = 3_600_000;

async fn filled(db: &mut Db, traces: u64) {
    db.prompt("faq").await;
    for number in 0..traces {
        let [root, call] = trace(number, number * HOUR_MS, 1 + number * 37 % 5_000);
        let name = if number % 3 == 0 { "faq" } else { "unknown" };
        db.record(&[root.of_prompt(name), call]).await;
    }
    db.publish().await;
}

async fn all(db: &Db, fix: bool) -> Vec<Recount> {
    let days = db.store.prompt_days(Moment::from_micros(0)).await.unwrap();
    let mut found = Vec::new();
    for day in &days {
        found.push(db.store.recount(*day, fix).await.unwrap());
    }
    for prompt in days.iter().map(|day| day.prompt).collect::<std::collections::BTreeSet<_>>() {
        found.push(db.store.recount_all(prompt, fix).await.unwrap());
    }
    found
}

async fn what_is_wrong_is_found_and_set_right(mut db: Db) {
    filled(&mut db, 60).await;
    let sound = check(&db).await;
    assert!(all(&db, true).await.iter().all(|found| found.different == 0 && !found.is_fixed));

    // A day's sums are off, another's are gone, and one row has vanished without a word.
    let rollups = if db.is_sqlite() { "emberd_rollups" } else { "emberd.rollups" };
    let some = format!("SELECT min(bucket) FROM {rollups} WHERE resolution = 'd'");
    db.sql(&format!("UPDATE {rollups} SET success = success + 7 WHERE resolution = 'd' AND bucket = ({some})"))
        .await
        .unwrap();
    let last = format!("SELECT max(bucket) FROM {rollups} WHERE resolution = 'h'");
    db.sql(&format!("DELETE FROM {rollups} WHERE resolution = 'h' AND bucket = ({last})")).await.unwrap();
    db.sql("DELETE FROM prompt_traces WHERE created_at = (SELECT min(created_at) FROM prompt_traces)").await.unwrap();

    let told = all(&db, false).await;
    assert!(told.iter().map(|found| found.different).sum::<u64>() >= 4, "{told:?}");
    assert!(told.iter().all(|found| !found.is_fixed && !found.is_unknown));
    assert_eq!(all(&db, false).await, told, "looking changes nothing");

    let fixed = all(&db, true).await;
    assert!(fixed.iter().any(|found| found.is_fixed));
    assert!(all(&db, true).await.iter().all(|found| found.different == 0), "set right once, it is right");
    db.publish().await;
    // Rows, rollups, metrics and summaries agree again; without the row that is gone they are not what they were.
    assert_ne!(check(&db).await.rollups, sound.rollups);
}

async fn what_is_right_is_left_alone_beside_a_recorder(mut db: Db) {
    filled(&mut db, 10).await;
    let store = db.store.clone();
    let counting = async {
        let mut found = Vec::new();
        for _ in 0..20 {
            for day in store.prompt_days(Moment::from_micros(0)).await.unwrap() {
                found.push(store.recount(day, true).await.unwrap());
            }
        }
        found
    };
    let recording = async {
        for number in 100..160 {
            let [root, call] = trace(number, number % 10 * HOUR_MS, 5);
            db.record(&[root.of_prompt("faq"), call]).await;
        }
    };
    let (found, ()) = futures_util::future::join(counting, recording).await;
    assert!(found.iter().all(|found| found.different == 0), "{found:?}");
    db.publish().await;
    check(&db).await;
}
