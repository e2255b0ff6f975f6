//! A recording is applied whole or not at all, and once.

use std::time::Duration;

use emberd_model::ledger::Tally;
use emberd_model::{Offset, UnixNanos};
use serde_json::Value;

use super::harness::{Db, NOW, WRITER, recording};
use super::on_both;
use super::oracle::{all_traces, check};
use super::spans::{call, root, trace, trace_id};
use crate::apply::Recordings;
use crate::fault::Fault;
use crate::library::UNASSIGNED;
use crate::record::Rootless;
use crate::told::Told;
use crate::tx::{Tx, Work};
use crate::{RecordError, Recorded, Recording, Writer};

on_both!(
    a_trace_becomes_a_row,
    a_repeated_batch_changes_nothing,
    a_cursor_that_stands_elsewhere_stops_a_recording,
    a_transaction_that_is_dropped_leaves_nothing,
    a_late_root_corrects_row_and_rollups,
    a_root_that_never_comes_is_waited_for,
    a_settled_trace_counts_what_comes_late,
    a_state_that_waits_for_its_root_does_not_settle,
    users_and_sessions_are_looked_up,
    hostile_text_is_recorded,
    a_state_that_cannot_be_read_stops_nothing,
    cursors_belong_to_a_consumer_and_a_log,
);

async fn a_trace_becomes_a_row(mut db: Db) {
    let recorded = db.record(&trace(1, 5_000, 750)).await;
    assert_eq!(recorded, Recorded { new: 1, rows: 1, ..Recorded::default() });
    db.publish().await;
    let seen = check(&db).await;
    assert_eq!(seen.traces.len(), 1);
    let row = &seen.traces[0];
    assert_eq!(row["phoenix_trace_id"], trace_id(1).to_string());
    assert_eq!(row["prompt_id"], UNASSIGNED.to_string());
    assert_eq!(row["execution_time_ms"], 750);
    assert_eq!(row["status"], "success");
    assert_eq!(row["model"], "gpt-4o");
    assert_eq!(row["tokens_used"], serde_json::json!({"prompt": 10, "completion": 5, "total": 15}));
    assert_eq!(row["created_at"], "2026-11-21T12:34:51.000000Z");
    let counts = db.store.counts().await.unwrap();
    assert_eq!((counts.traces, counts.unassigned, counts.open_traces, counts.unpublished), (1, 1, 1, 0));
}

/// A span sent again costs a look at its state and no write: not even the row is touched.
async fn a_repeated_batch_changes_nothing(mut db: Db) {
    let spans = [trace(1, 5_000, 750), trace(2, 4_000, 80)].concat();
    db.record(&spans).await;
    db.publish().await;
    let before = check(&db).await;
    let recorded = db.record(&spans).await;
    assert_eq!(recorded, Recorded { unchanged: 2, ..Recorded::default() });
    assert_eq!(db.store.counts().await.unwrap().unpublished, 0);
    assert_eq!(check(&db).await, before);
}

async fn a_cursor_that_stands_elsewhere_stops_a_recording(mut db: Db) {
    db.record(&trace(1, 5_000, 750)).await;
    let stale = recording(WRITER, Offset(0), &trace(2, 5_000, 750));
    match db.store.record(stale).await {
        Err(RecordError::CursorConflict { expected: Offset(0), found: Some(Offset(2)) }) => {}
        other => panic!("{other:?}"),
    }
    // The database went back to before this log was ever recorded.
    let unknown = recording("other-log", Offset(7), &trace(2, 5_000, 750));
    match db.store.record(unknown).await {
        Err(RecordError::CursorConflict { expected: Offset(7), found: None }) => {}
        other => panic!("{other:?}"),
    }
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 1);
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

async fn a_transaction_that_is_dropped_leaves_nothing(mut db: Db) {
    db.record(&trace(1, 5_000, 750)).await;
    db.publish().await;
    let before = check(&db).await;
    let lost = Lost(db.recording_of(WRITER, &trace(2, 5_000, 10)));
    assert!(db.store.run(lost).await.is_err());
    db.restart().await;
    assert_eq!(check(&db).await, before);
    assert_eq!(db.store.cursor("recorder", &Writer::new(WRITER)).await.unwrap(), Some(Offset(2)));
    // The same spans once more, and now it goes through.
    assert_eq!(db.record(&trace(2, 5_000, 10)).await.new, 1);
}

/// A row written without its root, in another hour than the root's, is moved there when the root comes.
async fn a_late_root_corrects_row_and_rollups(mut db: Db) {
    let root = root(1, 2 * 3_600_000, 3_600_000);
    let mut late_call = call(&root, 2, (7, 3));
    late_call.start_ms += 3_500_000;
    late_call.duration_ms = 400;
    db.record(&[late_call]).await;
    assert_eq!(all_traces(&db).await.len(), 0);
    assert_eq!(db.rootless().await, 1);
    db.publish().await;
    let seen = check(&db).await;
    assert_eq!(seen.traces[0]["execution_time_ms"], 400);
    assert_eq!(seen.traces[0]["metadata"]["root"], "missing");

    // Without a root still, but more is known: the row follows.
    db.record(&[call(&root, 3, (1, 1)).failed()]).await;
    db.publish().await;
    assert_eq!(check(&db).await.traces[0]["metadata"]["spans"], 2);

    db.record(&[root]).await;
    db.publish().await;
    let seen = check(&db).await;
    assert_eq!(seen.traces[0]["execution_time_ms"], 3_600_000);
    assert_eq!(seen.traces[0]["metadata"]["root"], Value::Null);
}

async fn a_root_that_never_comes_is_waited_for(mut db: Db) {
    let minute = Duration::from_secs(60);
    let later = |seconds: u64| UnixNanos(NOW.0 + seconds * 1_000_000_000);
    let pass =
        |now, limit| Rootless { writer: Writer::new(WRITER), now, wait: minute, limit, prices: Default::default() };
    // Two without a root, the second ten seconds after the first; one with; one that deserves no row.
    let orphan = |trace| call(&root(trace, 5_000, 40), 2, (1, 1));
    db.record_at(WRITER, &[orphan(1)], NOW).await;
    db.record_at(WRITER, &[orphan(2)], later(10)).await;
    db.record_at(WRITER, &trace(3, 5_000, 40), later(10)).await;
    db.record_at(WRITER, &[crate::tests::spans::Span { id: 5, ..root(4, 5_000, 40) }], NOW).await;
    assert_eq!(db.store.counts().await.unwrap().rootless, 2);

    let done = db.store.rootless(pass(later(59), 10)).await.unwrap();
    assert_eq!((done.written, done.next), (0, Some(later(60))));
    let done = db.store.rootless(pass(later(60), 10)).await.unwrap();
    assert_eq!((done.written, done.next), (1, Some(later(70))));
    assert_eq!(all_traces(&db).await.len(), 2);
    let done = db.store.rootless(pass(later(70), 1)).await.unwrap();
    assert_eq!((done.written, done.next), (1, None));
    let done = db.store.rootless(pass(later(71), 1)).await.unwrap();
    assert_eq!((done.written, done.next), (0, None));
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 3);
}

async fn a_settled_trace_counts_what_comes_late(mut db: Db) {
    let hour = Duration::from_secs(3600);
    db.record(&trace(1, 5_000, 750)).await;
    db.record(&trace(2, 5_000, 750)).await;
    db.publish().await;
    let before = check(&db).await;
    assert_eq!(db.store.settle(NOW, hour).await.unwrap().traces, 0);
    let later = UnixNanos(NOW.0 + 3_700_000_000_000);
    let settled = db.store.settle(later, hour).await.unwrap();
    assert_eq!((settled.traces, settled.more), (2, false));

    let late = call(&root(1, 5_000, 750), 9, (1_000, 1_000));
    let recorded = db.record(&[late]).await;
    assert_eq!(recorded, Recorded { late: 1, ..Recorded::default() });
    assert_eq!(check(&db).await, before);
    assert_eq!(db.store.counts().await.unwrap().open_traces, 0);
}

async fn a_state_that_waits_for_its_root_does_not_settle(mut db: Db) {
    db.record(&[call(&root(1, 5_000, 40), 2, (1, 1))]).await;
    let much_later = UnixNanos(NOW.0 + 7 * 86_400_000_000_000);
    assert_eq!(db.store.settle(much_later, Duration::from_secs(3600)).await.unwrap().traces, 0);
    assert_eq!(db.rootless().await, 1);
    assert_eq!(db.store.settle(much_later, Duration::from_secs(3600)).await.unwrap().traces, 1);
    assert_eq!(all_traces(&db).await.len(), 1);
}

async fn users_and_sessions_are_looked_up(mut db: Db) {
    let ada = uuid::Uuid::from_u128(0xada);
    db.sql(&format!("INSERT INTO profiles (id, email) VALUES ('{ada}', 'ada@example.com')")).await.unwrap();
    let session = uuid::Uuid::from_u128(0x5e55);
    for (number, user) in [(1, "ada@example.com".to_owned()), (2, ada.to_string()), (3, "nobody".to_owned())] {
        let [root, call] = trace(number, 1_000 * number, 10);
        db.record(&[root.with("user.id", user).with("session.id", session.to_string()), call]).await;
    }
    let users: Vec<_> = all_traces(&db).await.into_iter().map(|trace| trace.user_id).collect();
    assert_eq!(users, [Some(ada), Some(ada), None]);
    let filter = crate::library::TraceFilter { session_id: Some(session), ..Default::default() };
    assert_eq!(db.store.traces(&filter, None, 50).await.unwrap().data.len(), 3);
}

/// NUL, lone escapes and very long names stop no batch, and no row either.
async fn hostile_text_is_recorded(mut db: Db) {
    let texts = ["a\0b", "\0", "\\u0000", "\u{feff}\u{202e}", "'; DROP TABLE prompt_traces; --", &"x".repeat(9_000)];
    for (number, text) in texts.iter().enumerate() {
        let [root, call] = trace(number as u64, 1_000, 10);
        let root = root
            .of_prompt(text)
            .with("user.id", *text)
            .with("session.id", *text)
            .with("metadata", serde_json::json!({"key\0": [text]}).to_string())
            .with("input.value", *text);
        db.record(&[root, call.with("llm.model_name", *text)]).await;
    }
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), texts.len());
    db.prompt(texts[4]).await;
    assert_eq!(db.join_prompts().await, 1);
}

async fn a_state_that_cannot_be_read_stops_nothing(mut db: Db) {
    db.record(&[call(&root(1, 5_000, 40), 2, (1, 1))]).await;
    let table = if db.is_sqlite() { "emberd_trace_state" } else { "emberd.trace_state" };
    let garbage = if db.is_sqlite() { "x'ff00'" } else { "'\\xff00'" };
    db.sql(&format!("UPDATE {table} SET state = {garbage}")).await.unwrap();
    let recorded = db.record(&[trace(1, 5_000, 40), trace(2, 5_000, 40)].concat()).await;
    assert_eq!((recorded.unreadable, recorded.new), (1, 1));
    assert_eq!(db.rootless().await, 0);
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 1);
}

async fn cursors_belong_to_a_consumer_and_a_log(db: Db) {
    let (one, other) = (Writer::new("one"), Writer::new("other"));
    let store = &db.store;
    assert_eq!(store.cursor("recorder", &one).await.unwrap(), None);
    assert_eq!(store.begin_at("recorder", &one, Offset(40)).await.unwrap().cursor(), Offset(40));
    assert_eq!(store.begin_at("recorder", &one, Offset(90)).await.unwrap().cursor(), Offset(40));
    assert_eq!(store.begin_at("recorder", &other, Offset(5)).await.unwrap().cursor(), Offset(5));
    store.skip("recorder", &one, Offset(3), Tally::default()).await.unwrap();
    store.skip("archiver", &one, Offset(4), Tally::default()).await.unwrap();
    assert_eq!(store.cursor("recorder", &one).await.unwrap(), Some(Offset(3)));
    assert_eq!(store.cursor("recorder", &other).await.unwrap(), Some(Offset(5)));
    assert_eq!(store.cursor("archiver", &one).await.unwrap(), Some(Offset(4)));
}
