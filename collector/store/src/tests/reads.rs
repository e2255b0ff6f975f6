//! What readers get: pages, filters, numbers.

use emberd_model::row::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::on_both;
use super::spans::{NOW_MS, trace, trace_id};
use crate::library::{NewPrompt, Trace, TraceFilter, UNASSIGNED};
use crate::{Error, Moment};

on_both!(
    pages_hold_each_row_once,
    filters_hold_together,
    prompts_are_paged,
    rows_are_written_as_the_contract_says,
    the_pool_and_a_ping_tell_numbers,
    a_missing_schema_is_refused_and_not_unavailable,
);

/// Fifty traces, many of which begin in the same millisecond.
async fn fifty(db: &mut Db) {
    let spans: Vec<_> = (0..50).flat_map(|number| trace(number, number / 10 * 1_000, number)).collect();
    db.record(&spans).await;
}

async fn pages_hold_each_row_once(mut db: Db) {
    fifty(&mut db).await;
    for limit in [1, 7, 10, 50, 500] {
        let mut seen: Vec<(Moment, Uuid)> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = db.store.traces(&TraceFilter::default(), cursor.as_deref(), limit).await.unwrap();
            assert!(page.data.len() <= limit as usize);
            seen.extend(page.data.iter().map(|trace| (trace.created_at, trace.id)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 50);
        assert!(seen.is_sorted_by(|one, next| one > next), "newest first, each once");
    }
    for cursor in ["", "x", "1_x", "x_00000000-0000-0000-0000-000000000000"] {
        let page = db.store.traces(&TraceFilter::default(), Some(cursor), 10).await;
        assert!(matches!(page, Err(Error::BadCursor)), "{cursor}");
    }
}

async fn filters_hold_together(mut db: Db) {
    fifty(&mut db).await;
    let prompt = db.prompt("faq").await;
    let [root, call] = trace(99, 2_500, 10);
    let session = Uuid::from_u128(5);
    let root = root.of_prompt("faq").with("session.id", session.to_string()).failed();
    db.record(&[root, call.with("llm.model_name", "claude-x")]).await;
    let count = async |filter: TraceFilter| db.store.traces(&filter, None, 500).await.unwrap().data.len();
    let moment = |ago_ms: u64| Some(Moment::from_micros(((NOW_MS - ago_ms) * 1_000) as i64));
    let all = TraceFilter::default;
    assert_eq!(count(all()).await, 51);
    assert_eq!(count(TraceFilter { prompt_id: Some(prompt), ..all() }).await, 1);
    assert_eq!(count(TraceFilter { prompt_id: Some(UNASSIGNED), ..all() }).await, 50);
    assert_eq!(count(TraceFilter { status: Some(Status::Error), ..all() }).await, 1);
    assert_eq!(count(TraceFilter { status: Some(Status::Timeout), ..all() }).await, 0);
    assert_eq!(count(TraceFilter { session_id: Some(session), ..all() }).await, 1);
    assert_eq!(count(TraceFilter { model: Some("gpt-4o".into()), ..all() }).await, 50);
    assert_eq!(count(TraceFilter { trace: Some(trace_id(7)), ..all() }).await, 1);
    assert_eq!(count(TraceFilter { from: moment(2_000), ..all() }).await, 30);
    assert_eq!(count(TraceFilter { to: moment(2_000), ..all() }).await, 21);
    assert_eq!(count(TraceFilter { from: moment(2_500), to: moment(2_499), ..all() }).await, 1);
    let none = TraceFilter { prompt_id: Some(prompt), status: Some(Status::Success), ..all() };
    assert_eq!(count(none).await, 0);
}

async fn prompts_are_paged(db: Db) {
    for number in 0..9 {
        let new = NewPrompt { title: format!("prompt {number}"), content: "c".into(), created_by: None };
        let now = emberd_model::UnixNanos(NOW.0 + number / 3 * 1_000_000_000);
        db.store.create_prompt(new, now).await.unwrap();
    }
    let mut titles = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = db.store.prompts(cursor.as_deref(), 4).await.unwrap();
        titles.extend(page.data.into_iter().map(|prompt| prompt.title));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), 10);
    assert_eq!(db.store.prompt(Uuid::from_u128(1)).await.unwrap(), None);
}

async fn rows_are_written_as_the_contract_says(mut db: Db) {
    let prompt = db.prompt("faq").await;
    let [root, call] = trace(1, 5_000, 10);
    db.record(&[root.of_prompt("faq"), call]).await;
    db.publish().await;
    let keys = |row: Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let trace: Trace = db.store.traces(&TraceFilter::default(), None, 1).await.unwrap().data.pop().unwrap();
    let mut columns = keys(json!(trace));
    columns.sort();
    assert_eq!(
        columns.join(" "),
        "created_at error execution_time_ms id metadata model phoenix_trace_id prompt_id session_id status tokens_used user_id"
    );
    let summary = db.store.summary(prompt).await.unwrap().unwrap();
    assert_eq!(
        json!(summary),
        json!({
            "prompt_id": prompt, "prompt_title": "faq", "total_traces": 1, "total_evaluations": 0, "avg_latency": 10.0,
            "median_latency": 10.0, "p95_latency": 10.0, "success_rate": 1.0, "avg_tokens": 15.0,
            "last_used_at": "2026-11-21T12:34:51.000000Z",
        })
    );
    let metrics = db.store.performance(prompt, &Default::default()).await.unwrap();
    assert_eq!(metrics.len(), 4 * 6);
    assert_eq!(db.store.summary(Uuid::from_u128(1)).await.unwrap(), None);
}

async fn the_pool_and_a_ping_tell_numbers(db: Db) {
    let ping = db.store.ping().await.unwrap();
    assert!(ping.query > std::time::Duration::ZERO);
    let pool = db.store.pool();
    assert_eq!(pool.max, 8);
    assert!(pool.in_use + pool.idle >= 1 && pool.in_use + pool.idle <= pool.max, "{pool:?}");
}

async fn a_missing_schema_is_refused_and_not_unavailable(db: Db) {
    db.store.migrate_down(0).await.unwrap();
    assert!(matches!(db.store.counts().await, Err(Error::Refused { .. })));
    assert!(matches!(db.store.publish(NOW).await, Err(Error::Refused { .. })));
    db.store.ping().await.unwrap();
}
