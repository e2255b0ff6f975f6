//! What recording costs: `cargo test --release -p emberd-store cost -- --ignored --nocapture --test-threads 1`.
//!
//! Like the spike behind facts on recording: batches of N traces, of which 5 % continue a trace of the batch before and 5 % have a state
//! and no row; 20 prompts, one session for ten traces. The fold is done beforehand; all else that [`crate::Store::record`] does is inside.
//! CPU is this process's (SQLite's too) and, for PostgreSQL, that of the backends of this database.

use std::time::{Duration, Instant};

use emberd_model::ledger::Tally;
use emberd_model::{Offset, UnixNanos};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::harness::{Db, NOW, WRITER, on_postgres, on_sqlite, recording};
use super::spans::{Span, call, root};
use crate::{Recording, Writer};

const BATCHES: usize = 40;
const PROMPTS: u64 = 20;
const TICK: Duration = Duration::from_millis(10);

fn text(seed: u64) -> String {
    (0..40).map(|word| format!("w{:x} ", (seed * 31 + word) * 2_654_435_761 % 65_521)).collect()
}

/// A chat: a root with input and output, an LLM call, a tool call.
fn chat(number: u64) -> Vec<Span> {
    let root = root(number, number % 600_000, 200 + number % 4_000)
        .of_prompt(&format!("prompt {}", number % PROMPTS))
        .with("session.id", format!("session {}", number / 10))
        .with("user.id", "ada@example.com")
        .with("input.value", text(number))
        .with("output.value", text(number + 1));
    let tool = Span { id: 3, attributes: vec![("openinference.span.kind", json!("TOOL"))], ..root.clone() };
    let call = call(&root, 2, (300, 120)).with("llm.provider", "openai");
    vec![root, call, tool]
}

fn recordings(size: u64) -> Vec<Recording> {
    let mut from = Offset(0);
    let mut all = Vec::new();
    for batch in 0..BATCHES as u64 {
        let mut spans = Vec::new();
        for number in batch * size..(batch + 1) * size {
            match number % 20 {
                // A state, and no row: a span without LLM call, prompt or root.
                0 => spans.push(Span { id: 9, ..root(number, 1_000, 10) }),
                // Its second half comes with the next batch.
                1 => spans.extend(chat(number).into_iter().take(2)),
                _ => spans.extend(chat(number)),
            }
            if number % 20 == 1 && number >= size {
                spans.extend(chat(number - size).into_iter().skip(2));
            }
        }
        let recording = recording(WRITER, from, &spans);
        from = recording.to;
        all.push(recording);
    }
    all
}

fn ticks(pid: &str) -> u32 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}

async fn backends(db: &Db) -> Vec<String> {
    if db.is_sqlite() {
        return Vec::new();
    }
    let mut connection = PgConnection::connect(db.url()).await.unwrap();
    let sql =
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'emberd'";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
}

async fn measure(mut db: Db) {
    for number in 0..PROMPTS {
        db.prompt(&format!("prompt {number}")).await;
    }
    for size in [100, 1_000, 5_000] {
        let recordings = recordings(size);
        let traces = recordings.iter().map(|recording| recording.states.len()).sum::<usize>() as f64;
        db.store.skip("recorder", &Writer::new(WRITER), Offset(0), Tally::default()).await.unwrap();
        // Connections and plans are there before.
        db.store.publish(NOW).await.unwrap();
        let pids = backends(&db).await;
        let server = || pids.iter().map(|pid| ticks(pid)).sum::<u32>();
        let (cpu, behind, start) = (ticks("self"), server(), Instant::now());
        let mut rows = 0;
        for recording in recordings {
            rows += db.store.record(recording).await.unwrap().rows;
        }
        let wall = start.elapsed();
        let (cpu, behind) = ((ticks("self") - cpu) * TICK, (server() - behind) * TICK);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / traces;
        let published = Instant::now();
        while db.store.publish(UnixNanos(NOW.0)).await.unwrap().more {}
        println!(
            "{} N={size}: {rows} rows of {traces} traces; us/trace: {:.1} client CPU, {:.1} server CPU, {:.1} wall; publish {:?}",
            db.store.kind(),
            each(cpu),
            each(behind),
            each(wall),
            published.elapsed(),
        );
        forget(&mut db).await;
    }
}

async fn forget(db: &mut Db) {
    let schema = if db.is_sqlite() { "emberd_" } else { "emberd." };
    let mut sql = String::from("DELETE FROM prompt_traces; DELETE FROM prompt_performance_metrics;");
    for table in ["trace_state", "rollups", "totals", "dirty"] {
        sql += &format!("DELETE FROM {schema}{table};");
    }
    db.sql(&sql).await.unwrap();
}

#[test]
#[ignore = "a measurement"]
fn on_the_embedded_database() {
    on_sqlite(measure);
}

#[test]
#[ignore = "a measurement"]
fn on_a_server() {
    on_postgres(measure);
}
