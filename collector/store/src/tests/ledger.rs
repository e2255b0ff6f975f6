//! The recorder's book in the database: with its cursor in one transaction, balanced whatever comes.

use std::collections::BTreeMap;

use emberd_model::Offset;
use emberd_model::ledger::{Account, Book, DEFAULT_PROJECT, Fate, HOURS_MAX, Hour, Reason, Tally};

use super::harness::{Db, NOW, WRITER, recording};
use super::on_both;
use super::spans::{call, root, trace};
use crate::{Booking, Recording, Writer};

on_both!(
    what_became_of_spans_is_booked_with_the_cursor,
    a_released_item_is_booked_once,
    what_is_only_told_is_not_written,
    a_cursor_that_skips_or_goes_back_leaves_the_book_balanced,
    old_hours_are_folded,
);

async fn book(db: &Db) -> Book {
    let book = db.store.book("recorder", &Writer::new(WRITER)).await.unwrap().unwrap();
    assert!(book.is_balanced(), "{book:?}");
    book
}

fn totals(book: &Book) -> BTreeMap<&'static str, u64> {
    ["done", "duplicate", "quarantined", "shed", "lost"]
        .into_iter()
        .map(|word| (word, book.total(word)))
        .filter(|(_, spans)| *spans > 0)
        .collect()
}

fn account() -> Account {
    Account::new(Hour::of(NOW), DEFAULT_PROJECT)
}

/// New spans are done, repeated ones are duplicates, within a batch and across batches; those of a settled trace are shed.
async fn what_became_of_spans_is_booked_with_the_cursor(mut db: Db) {
    let [one, two] = trace(1, 5_000, 750);
    let spans = [one.clone(), two.clone(), root(2, 5_000, 80)];
    db.record(&[one.clone(), two.clone(), two]).await;
    assert_eq!(totals(&book(&db).await), [("done", 2), ("duplicate", 1)].into());
    db.record(&spans).await;
    assert_eq!(totals(&book(&db).await), [("done", 3), ("duplicate", 3)].into());
    db.store.settle(NOW, std::time::Duration::ZERO).await.unwrap();
    let recorded = db.record(&[call(&one, 3, (1, 1))]).await;
    assert_eq!(recorded.late, 1);
    let book = book(&db).await;
    assert_eq!(totals(&book), [("done", 3), ("duplicate", 3), ("shed", 1)].into());
    assert_eq!(book.reasons("shed"), [("settled".to_owned(), 1)].into());
    assert_eq!(book.accounts(Hour(0)), [(account(), 7)].into());
}

/// Quarantined spans that are recorded after all move from one line to the other, once, however often a crash repeats it.
async fn a_released_item_is_booked_once(db: Db) {
    let quarantined = Fate::Quarantined(Reason::new("unrecordable"));
    let mut booked = Tally::default();
    booked.add(&account(), quarantined.clone(), 2);
    let spans = trace(1, 5_000, 750);
    let apart = recording(WRITER, Offset(0), &spans);
    db.store.record(Recording { states: BTreeMap::new(), booked, ..apart }).await.unwrap();
    assert_eq!(totals(&book(&db).await), [("quarantined", 2)].into());
    let release = || {
        let mut booked = Tally::default();
        booked.add(&account(), quarantined.clone(), -2);
        Recording {
            to: Offset(2),
            booked,
            booking: Booking::Release("item".into()),
            ..recording(WRITER, Offset(2), &spans)
        }
    };
    for _ in 0..3 {
        db.store.record(release()).await.unwrap();
        assert_eq!(totals(&book(&db).await), [("done", 2)].into());
    }
    db.publish().await;
    assert_eq!(db.store.counts().await.unwrap().traces, 1);
    db.store.forget_release("recorder", &Writer::new(WRITER), "item").await.unwrap();
}

/// A part that is recorded before its cursor moves is booked with the cursor, and not twice.
async fn what_is_only_told_is_not_written(db: Db) {
    let part = recording(WRITER, Offset(0), &trace(1, 5_000, 750));
    let told = db.store.record(Recording { to: Offset(0), booking: Booking::Tell, ..part }).await.unwrap();
    assert_eq!(told.tally.spans(), 2);
    assert_eq!(book(&db).await.spans(), 0);
    let rest = Recording { to: Offset(2), booked: told.tally, ..recording(WRITER, Offset(0), &[]) };
    db.store.record(rest).await.unwrap();
    assert_eq!(totals(&book(&db).await), [("done", 2)].into());
}

async fn a_cursor_that_skips_or_goes_back_leaves_the_book_balanced(mut db: Db) {
    let writer = Writer::new(WRITER);
    db.record(&trace(1, 5_000, 750)).await;
    let mut lost = Tally::default();
    lost.add(&account(), Fate::Lost(Reason::new("damaged")), 8);
    let skipped = db.store.skip("recorder", &writer, Offset(10), lost).await.unwrap();
    assert_eq!((skipped.cursor(), totals(&skipped)), (Offset(10), [("done", 2), ("lost", 8)].into()));
    let back = db.store.skip("recorder", &writer, Offset(6), Tally::default()).await.unwrap();
    assert_eq!((back.origin(), back.cursor()), (-4, Offset(6)));
    assert_eq!(book(&db).await, back);
}

async fn old_hours_are_folded(db: Db) {
    let writer = Writer::new(WRITER);
    let mut booked = Tally::default();
    for hour in [400_000, 400_001, 400_000 + HOURS_MAX] {
        booked.add(&Account::new(Hour(hour), "a"), Fate::Done, 5);
    }
    db.store.skip("recorder", &writer, Offset(15), booked).await.unwrap();
    for _ in 0..2 {
        db.store.fold_ledger("recorder", &writer, Hour(400_002)).await.unwrap();
        let book = db.store.book("recorder", &writer).await.unwrap().unwrap();
        let expected = [(Account::new(Hour(0), "a"), 10), (Account::new(Hour(400_000 + HOURS_MAX), "a"), 5)];
        assert_eq!(book.accounts(Hour(0)), expected.into());
    }
}
