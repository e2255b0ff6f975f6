//! What is old goes, in batches that are bounded, and what hangs on it stays true.

use std::sync::Arc;
use std::time::Duration;

use emberd_model::UnixNanos;
use emberd_model::clock::Still;
use tokio_util::sync::CancellationToken;

use super::harness::{Db, NOW, on_postgres};
use super::on_both;
use super::spans::{call, root, trace, trace_id};
use crate::Moment;
use crate::fault::Fault;
use crate::retention::{Keeper, Mark, Table};
use crate::sql::{Bind, binds};
use crate::tx::{Tx, Work};

on_both!(
    old_traces_go_and_their_numbers_stay,
    every_table_lets_go_of_what_is_old,
    closed_evaluations_keep_their_rows,
    a_keeper_goes_on_where_another_was_cut_off,
);

const DAY: u64 = 86_400_000;
const DAY_NANOS: u64 = DAY * 1_000_000;

fn ago(days: u64) -> UnixNanos {
    UnixNanos(NOW.0 - days * DAY_NANOS)
}

/// A statement of both databases, with one time, as microseconds and as a moment.
struct Put(String, Vec<Bind<'static>>);

impl Work for Put {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        tx.execute(&self.0, &self.1).await.map(drop)
    }
}

pub(crate) async fn put(db: &Db, sql: &str, binds: impl Into<Vec<Bind<'static>>>) {
    db.store.run(Put(sql.into(), binds.into())).await.unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
}

/// How many rows a table has.
pub(crate) async fn count(db: &Db, table: &str) -> i64 {
    let lines = db.store.lines(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
    lines[0].int(0).unwrap()
}

/// All batches of so many rows; how many went, and in how many batches.
async fn retain(db: &Db, table: Table, before: UnixNanos, rows: u32) -> (u64, u32) {
    let (mut deleted, mut batches, mut from): (u64, u32, Option<Mark>) = (0, 0, None);
    loop {
        let batch = db.store.retain(table, before, NOW, rows, from).await.unwrap();
        assert!(!batch.busy && batch.deleted <= u64::from(rows), "{batch:?}");
        deleted += batch.deleted;
        batches += 1;
        from = batch.next;
        if from.is_none() {
            return (deleted, batches);
        }
        assert!(batches < 1_000, "it does not come to an end");
    }
}

/// The numbers that came of rows.
pub(crate) async fn numbers(db: &Db) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT prompt_id, resolution, bucket, success, error, total_tokens, latency_sum_ms FROM emberd.rollups ORDER BY 1, 2, 3",
        "SELECT prompt_id, traces, success, latency_sum_ms, total_tokens FROM emberd.totals ORDER BY 1",
    ] {
        let columns = sql;
        let found = db.store.lines(columns, &[]).await;
        all.extend(found.unwrap().iter().map(|line| format!("{line:?}")));
    }
    all
}

async fn old_traces_go_and_their_numbers_stay(mut db: Db) {
    db.prompt("greeting").await;
    for nr in 0..20 {
        let [root, call] = trace(nr, nr * DAY + 1_000, 100 + nr);
        db.record(&[root.of_prompt("greeting"), call]).await;
    }
    db.publish().await;
    let before = numbers(&db).await;
    assert!(before.len() > 20);
    // While states still take in spans, rows stay.
    assert_eq!(retain(&db, Table::Traces, ago(10), 3).await.0, 0);
    assert_eq!(count(&db, "public.prompt_traces").await, 20);
    let later = UnixNanos(NOW.0 + 2 * DAY_NANOS);
    while db.store.settle(later, Duration::from_secs(3_600)).await.unwrap().more {}
    let open = trace(7, 7 * DAY + 1_000, 100);
    db.record(&open).await;

    // Rows 10 to 19 are older than ten days.
    let (deleted, batches) = retain(&db, Table::Traces, ago(10), 3).await;
    assert_eq!((deleted, batches), (10, 4));
    assert_eq!(count(&db, "public.prompt_traces").await, 10);
    assert_eq!(count(&db, "emberd.forgotten").await, 10);
    assert_eq!(numbers(&db).await, before);

    // A late span of one that went: counted as late, and nothing comes back.
    let late = root(15, 15 * DAY + 1_000, 100);
    let recorded = db.record(&[call(&late, 9, (1_000, 1_000)), late.clone()]).await;
    assert_eq!((recorded.late, recorded.new, recorded.rows), (1, 0, 0));
    assert_eq!(db.rootless().await, 0);
    db.publish().await;
    assert_eq!(numbers(&db).await, before);
    let row = trace_id(15).to_string();
    let found = db.store.lines("SELECT 1 FROM public.prompt_traces WHERE phoenix_trace_id = $1", &binds![&row]).await;
    assert!(found.unwrap().is_empty());
    // The summary still says when a prompt was used last, even when none of its rows is left.
    retain(&db, Table::Traces, NOW, 100).await;
    assert_eq!(count(&db, "public.prompt_traces").await, 0);
    let [root, call] = trace(100, 500, 10);
    db.record(&[root.of_prompt("greeting"), call]).await;
    db.publish().await;
    assert!(numbers(&db).await.len() >= before.len());
    // Names of what went go too, in the end.
    assert_eq!(retain(&db, Table::Forgotten, UnixNanos(NOW.0 + 2_000), 7).await.0, 20);
}

async fn every_table_lets_go_of_what_is_old(db: Db) {
    let prompt = db.prompt("greeting").await;
    for days in 0..20_u64 {
        let (at, micros) = (Moment::from(ago(days)), Moment::from(ago(days)).micros());
        let id = || uuid::Uuid::from_u128(u128::from(days) + 1);
        let word = || format!("w{days}");
        put(&db, "INSERT INTO public.api_usage_logs (id, method, path, status, latency_ms, created_at) VALUES ($1, 'GET', '/', 200, 1, $2)", binds![id(), at]).await;
        put(&db, "INSERT INTO public.analytics_events (id, name, created_at) VALUES ($1, 'e', $2)", binds![id(), at])
            .await;
        put(
            &db,
            "INSERT INTO public.user_sessions (session_id, first_activity_at, last_activity_at) VALUES ($1, $2, $2)",
            binds![id(), at],
        )
        .await;
        let day = if db.is_sqlite() { "$1" } else { "$1::text::date" };
        let text: String = at.to_string().chars().take(10).collect();
        put(&db, &format!("INSERT INTO public.daily_metrics (day) VALUES ({day})"), binds![text]).await;
        put(&db, "INSERT INTO public.prompt_performance_metrics (id, prompt_id, metric_type, value, \"timestamp\", aggregation_window) VALUES ($1, $2, 'latency_p50', 1, $3, '1h')", binds![id(), prompt, at]).await;
        put(
            &db,
            "INSERT INTO emberd.asked (creator, operation, key, digest, made, at) VALUES ($1, 'o', $2, $3, $1, $4)",
            [id().into(), word().into(), Bind::Blob(b"d"), micros.into()],
        )
        .await;
        put(
            &db,
            "INSERT INTO emberd.outbox (kind, key, body, due_at, refused) VALUES ('k', $1, '{}', $2, 'no')",
            binds![word(), micros],
        )
        .await;
        put(
            &db,
            "INSERT INTO emberd.outbox (kind, key, body, due_at) VALUES ('open', $1, '{}', $2)",
            binds![word(), micros],
        )
        .await;
        put(
            &db,
            "INSERT INTO emberd.forgotten (trace_id, at) VALUES ($1, $2)",
            [Bind::Blob(vec![days as u8; 16].leak()), micros.into()],
        )
        .await;
    }
    for (table, name) in [
        (Table::Usage, "public.api_usage_logs"),
        (Table::Events, "public.analytics_events"),
        (Table::Sessions, "public.user_sessions"),
        (Table::Days, "public.daily_metrics"),
        (Table::Metrics, "public.prompt_performance_metrics"),
        (Table::Requests, "emberd.asked"),
        (Table::Outbox, "emberd.outbox WHERE kind = 'k'"),
        (Table::Forgotten, "emberd.forgotten"),
    ] {
        let (deleted, batches) = retain(&db, table, ago(10), 4).await;
        // Days 11 to 19 are older; the tenth is not.
        assert_eq!((deleted, batches), (9, 3), "{name}");
        assert_eq!(count(&db, name).await, 11, "{name}");
    }
    assert_eq!(count(&db, "emberd.outbox WHERE kind = 'open'").await, 20, "what is still to be told stays");
}

/// A closed evaluation of so many targets, made so many days ago.
async fn evaluation(db: &Db, nr: u128, days: u64, phase: &str, targets: i64) {
    let (id, at) = (uuid::Uuid::from_u128(0xe000 + nr), Moment::from(ago(days)));
    let admin = uuid::Uuid::nil();
    let prompt = uuid::Uuid::nil();
    put(db, "INSERT INTO public.prompt_evaluations (id, prompt_id, phoenix_eval_id, name, status, created_by) VALUES ($1, $2, $3, 'e', 'completed', $4)", binds![id, prompt, nr.to_string(), admin]).await;
    put(
        db,
        "INSERT INTO emberd.jobs (id, plan, phase, creator, created_at) VALUES ($1, '{}', $2, $3, $4)",
        binds![id, phase.to_owned(), admin, at.micros()],
    )
    .await;
    for target in 0..targets {
        put(
            db,
            "INSERT INTO emberd.job_targets (job, nr, target, body) VALUES ($1, $2, $3, '{}')",
            binds![id, target, target.to_string()],
        )
        .await;
        put(
            db,
            "INSERT INTO emberd.job_items (job, nr, upto, step, state) VALUES ($1, $2, $2, 1, 'done')",
            binds![id, target],
        )
        .await;
        put(db, "INSERT INTO emberd.job_results (job, nr, step, name, version, direction, at) VALUES ($1, $2, 1, 'n', '1', 'neutral', 1)", binds![id, target]).await;
    }
}

async fn closed_evaluations_keep_their_rows(db: Db) {
    for (nr, days, phase) in [(1, 30, "closed"), (2, 20, "closed"), (3, 30, "open"), (4, 5, "closed")] {
        evaluation(&db, nr, days, phase, 5).await;
    }
    let (deleted, _) = retain(&db, Table::Evaluations, ago(10), 4).await;
    assert_eq!(deleted, 2 * 3 * 5);
    for table in ["emberd.job_targets", "emberd.job_items", "emberd.job_results"] {
        assert_eq!(count(&db, table).await, 10, "{table}");
    }
    assert_eq!((count(&db, "emberd.jobs").await, count(&db, "public.prompt_evaluations").await), (4, 4));
}

async fn a_keeper_goes_on_where_another_was_cut_off(mut db: Db) {
    for nr in 0..30 {
        db.record(&trace(nr, nr * DAY + 1_000, 100)).await;
    }
    while db.store.settle(UnixNanos(NOW.0 + 2 * DAY_NANOS), Duration::from_secs(60)).await.unwrap().more {}
    // Two batches, and then a crash.
    let mut from = None;
    for _ in 0..2 {
        from = db.store.retain(Table::Traces, ago(10), NOW, 5, from).await.unwrap().next;
    }
    assert_eq!(count(&db, "public.prompt_traces").await, 20);
    db.restart().await;
    let kept = vec![(Table::Traces, Duration::from_secs(10 * 86_400)), (Table::Forgotten, Duration::from_secs(3_600))];
    let keeper = Keeper::new(db.store.clone(), Arc::new(Still::at(NOW)), kept);
    let counts = keeper.counts();
    keeper.pass(&CancellationToken::new()).await.unwrap();
    assert_eq!(count(&db, "public.prompt_traces").await, 10);
    assert_eq!(counts.deleted().collect::<Vec<_>>(), [(Table::Traces, 10)]);
    assert!(counts.held_max() > Duration::ZERO && counts.failing().is_none());
    // One that is to stop does nothing more.
    let stopped = CancellationToken::new();
    stopped.cancel();
    let keeper = Keeper::new(db.store.clone(), Arc::new(Still::at(NOW)), vec![(Table::Traces, Duration::ZERO)]);
    keeper.pass(&stopped).await.unwrap();
    assert_eq!(count(&db, "public.prompt_traces").await, 10);
}

/// Several emberds take turns, and a row that somebody holds is passed by, not waited for.
#[test]
fn emberds_take_turns_and_wait_for_nobody() {
    on_postgres(|db| async move {
        use sqlx::{Connection, Executor};
        for days in 1..=10_u64 {
            let (id, at) = (uuid::Uuid::from_u128(u128::from(days)), Moment::from(ago(days)));
            put(&db, "INSERT INTO public.analytics_events (id, name, created_at) VALUES ($1, 'e', $2)", binds![id, at])
                .await;
        }
        let mut other = sqlx::PgConnection::connect(db.url()).await.unwrap();
        other.execute("BEGIN").await.unwrap();
        other.execute("SELECT pg_advisory_xact_lock(7308605958142558210)").await.unwrap();
        assert_eq!(super::super::retention::RETENTION_LOCK, 7308605958142558210);
        let batch = db.store.retain(Table::Events, NOW, NOW, 100, None).await.unwrap();
        assert!(batch.busy && batch.deleted == 0, "{batch:?}");
        other.execute("ROLLBACK; BEGIN").await.unwrap();
        other.execute("SELECT 1 FROM public.analytics_events ORDER BY created_at LIMIT 1 FOR UPDATE").await.unwrap();
        let batch = db.store.retain(Table::Events, NOW, NOW, 100, None).await.unwrap();
        assert_eq!((batch.busy, batch.deleted), (false, 9));
        other.execute("ROLLBACK").await.unwrap();
        let batch = db.store.retain(Table::Events, NOW, NOW, 100, None).await.unwrap();
        assert_eq!(batch.deleted, 1);
        assert_eq!(count(&db, "public.analytics_events").await, 0);
    });
}
