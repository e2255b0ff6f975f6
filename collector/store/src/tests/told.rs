//! Who listens hears of rows after their transaction, and emberds on one PostgreSQL hear each other.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::broadcast::error::TryRecvError;

use super::harness::{Db, on_empty_postgres};
use super::on_both;
use super::spans::{call, root, trace, trace_id};
use crate::library::UNASSIGNED;
use crate::told::{Heard, MESSAGE_BYTES_MAX};
use crate::{Config, Store};

on_both!(who_listens_hears_of_rows, a_recording_that_fails_tells_nothing);

async fn who_listens_hears_of_rows(mut db: Db) {
    db.record(&trace(1, 5_000, 750)).await;
    let mut rows = db.store.completed();
    assert_eq!(rows.try_recv(), Err(TryRecvError::Empty), "what was recorded before is not told");
    let prompt = db.prompt("greeting").await;
    let [root_span, call_span] = trace(2, 4_000, 80).map(|span| span.of_prompt("greeting"));
    let later = call(&root_span, 77, (100, 50));
    db.record(std::slice::from_ref(&call_span)).await;
    assert_eq!(rows.try_recv(), Err(TryRecvError::Empty), "its root has not ended");
    db.record(&[root_span]).await;
    let told = rows.try_recv().unwrap();
    let expected = json!([{
        "traceId": trace_id(2).to_string(), "promptId": prompt, "sessionId": null, "status": "success", "executionTimeMs": 80,
        "model": "gpt-4o", "tokens": {"prompt": 10, "completion": 5, "total": 15},
    }]);
    assert_eq!(serde_json::to_value(&told[..]).unwrap(), expected);
    db.record(&[call_span]).await;
    assert_eq!(rows.try_recv(), Err(TryRecvError::Empty), "nothing new was said");
    db.record(&[later]).await;
    assert_eq!(rows.try_recv().unwrap()[0].tokens.total, 165, "a later span changes the row");
    db.record(&[call(&root(3, 4_000, 80), 5, (1, 1))]).await;
    assert_eq!(db.rootless().await, 1);
    let rootless = rows.try_recv().unwrap();
    assert_eq!((rootless[0].trace_id.clone(), rootless[0].prompt_id), (trace_id(3).to_string(), UNASSIGNED));
}

async fn a_recording_that_fails_tells_nothing(db: Db) {
    let mut rows = db.store.completed();
    let recording = db.recording_of("log-1", &trace(1, 5_000, 750));
    db.store.record(recording.clone()).await.unwrap();
    assert_eq!(rows.try_recv().unwrap().len(), 1);
    db.store.record(recording).await.unwrap_err();
    assert_eq!(rows.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn emberds_on_one_postgres_hear_each_other() {
    on_empty_postgres(|url| async move {
        let open = || Store::connect(Config { url: url.clone(), max_connections: 2, data_dir: PathBuf::new() });
        let (here, there) = (open().await.unwrap(), open().await.unwrap());
        let (mut at_here, mut at_there) = (here.others(), there.others());
        let (from_here, from_there) = (at_here.voice(), at_there.voice());
        // Until both listen.
        let ready = async {
            while tokio::time::timeout(Duration::from_millis(200), at_there.next()).await.is_err() {
                from_here.tell("ready", &["1".into()]).await.unwrap();
            }
            while tokio::time::timeout(Duration::from_millis(200), at_here.next()).await.is_err() {
                from_there.tell("ready", &["1".into()]).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
        let large = "x".repeat(MESSAGE_BYTES_MAX);
        let bodies = ["a b\nc".to_owned(), "x".repeat(MESSAGE_BYTES_MAX + 1), large.clone()];
        from_there.tell("own", &["not heard by itself".into()]).await.unwrap();
        from_here.tell("topic", &bodies).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            match tokio::time::timeout(Duration::from_secs(10), at_there.next()).await.unwrap() {
                Heard::Message { topic, .. } if topic == "ready" => {}
                Heard::Message { topic, body } if topic == "topic" => heard.push(body),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, ["a b\nc".to_owned(), large]);
        // A line that was cut is laid again, and what was said in between may be lost.
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
        let mut admin = PgConnection::connect(&url).await.unwrap();
        admin.execute(cut).await.unwrap();
        let again =
            tokio::time::timeout(Duration::from_secs(20), async { while at_there.next().await != Heard::Missed {} });
        again.await.expect("told that something may have been missed");
        from_here.tell("topic", &["again".into()]).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(10), at_there.next()).await.unwrap();
        assert_eq!(heard, Heard::Message { topic: "topic".into(), body: "again".into() });
        here.close().await;
        there.close().await;
    });
}
