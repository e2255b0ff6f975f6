//! What is known of somebody goes from every table, nothing of others does, and it may be asked for again.

use std::collections::BTreeSet;
use std::time::Duration;

use emberd_model::{TraceId, UnixNanos};
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::on_both;
use super::retention::{count, numbers, put};
use super::spans::{trace, trace_id};
use crate::Moment;
use crate::erase::Whom;
use crate::sql::{Bind, binds};

on_both!(somebodys_rows_go_and_nobody_elses);

const ADA: Uuid = Uuid::from_u128(0xada);
const BOB: Uuid = Uuid::from_u128(0xb0b);

/// A row for this trace and this user in each table that may have one.
async fn plant(db: &Db, trace: TraceId, user: Uuid, nr: u128) {
    let (hex, at) = (trace.to_string(), Moment::from(NOW));
    let (id, nil) = (Uuid::from_u128(0xf000 + nr), Uuid::nil());
    let bytes = || Bind::Blob(trace.0.to_vec().leak());
    let rule = Uuid::from_u128(0xaaaa);
    put(db, "INSERT INTO emberd.rules (id, name, version, config, is_enabled, created_by, created_at) VALUES ($1, 'r', 1, '{}', $3, $2, 1) ON CONFLICT DO NOTHING", [rule.into(), nil.into(), Bind::Bool(true)]).await;
    put(db, "INSERT INTO emberd.decisions (rule, trace_id, version, epoch, decision, spans, at) VALUES ($1, $2, 1, 1, 'run', 1, 1)", [rule.into(), bytes()]).await;
    put(db, "INSERT INTO emberd.trace_scores (trace_id, rule, name, epoch, version, subject, explanation, direction, at) VALUES ($1, $2, 'n', 1, '1', 'trace', 'secret', 'neutral', 1)", [bytes(), rule.into()]).await;
    put(
        db,
        "INSERT INTO emberd.outbox (kind, key, body, due_at) VALUES ('k', $1, '{}', 1)",
        binds![format!("x/{hex}")],
    )
    .await;
    put(
        db,
        "INSERT INTO public.api_usage_logs (id, method, path, status, latency_ms) VALUES ($1, 'GET', $2, 200, 1)",
        binds![id, format!("/api/traces/{hex}")],
    )
    .await;
    let other = Uuid::from_u128(0xfa000 + nr);
    put(db, "INSERT INTO public.api_usage_logs (id, user_id, method, path, status, latency_ms) VALUES ($1, $2, 'GET', '/', 200, 1)", binds![other, user]).await;
    put(db, "INSERT INTO public.analytics_events (id, name, user_id) VALUES ($1, 'e', $2)", binds![id, user]).await;
    put(db, "INSERT INTO public.user_sessions (session_id, user_id, first_activity_at, last_activity_at) VALUES ($1, $2, $3, $3)", binds![id, user, at]).await;
    put(
        db,
        "INSERT INTO emberd.asked (creator, operation, key, digest, made, at) VALUES ($1, 'o', 'k', $2, $1, 1)",
        [user.into(), Bind::Blob(b"d")],
    )
    .await;
    put(db, "INSERT INTO public.prompt_evaluations (id, prompt_id, phoenix_eval_id, name, status, created_by) VALUES ($1, $2, $3, 'e', 'completed', $2)", binds![id, nil, nr.to_string()]).await;
    put(
        db,
        "INSERT INTO emberd.jobs (id, plan, phase, creator, created_at) VALUES ($1, '{}', 'closed', $2, 1)",
        binds![id, nil],
    )
    .await;
    put(
        db,
        "INSERT INTO emberd.job_targets (job, nr, target, body) VALUES ($1, 0, $2, '{\"input\": \"secret\"}')",
        binds![id, &hex as &str].map(owned),
    )
    .await;
    put(db, "INSERT INTO emberd.job_results (job, nr, step, name, version, explanation, direction, at) VALUES ($1, 0, 1, 'n', '1', 'secret', 'neutral', 1)", binds![id]).await;
}

fn owned(bind: Bind<'_>) -> Bind<'static> {
    match bind {
        Bind::Text(text) => Bind::Text(text.map(|text| text.into_owned().into())),
        Bind::Id(id) => Bind::Id(id),
        other => panic!("{other:?}"),
    }
}

async fn somebodys_rows_go_and_nobody_elses(mut db: Db) {
    db.prompt("greeting").await;
    for (id, email) in [(ADA, "ada@example.com"), (BOB, "bob@example.com")] {
        put(&db, "INSERT INTO public.profiles (id, email) VALUES ($1, $2)", binds![id, email.to_owned()]).await;
    }
    // Two of Ada's, one by her id and one by her address; one of Bob's; the first is settled.
    for (nr, user) in [(1, ADA.to_string()), (2, "ada@example.com".into()), (3, "bob@example.com".into())] {
        let [root, call] = trace(nr, 60_000 * nr, 100);
        db.record(&[root.of_prompt("greeting").with("user.id", user).with("session.id", format!("s{nr}")), call]).await;
        if nr == 1 {
            let later = UnixNanos(NOW.0 + 7_200_000_000_000);
            assert_eq!(db.store.settle(later, Duration::from_secs(3_600)).await.unwrap().traces, 1);
        }
    }
    db.publish().await;
    for (nr, user) in [(1, ADA), (3, BOB)] {
        plant(&db, trace_id(nr), user, nr.into()).await;
    }
    let of = |nr: u64| serde_json::json!({ "id": trace_id(nr).to_string(), "input": "secret" });
    let data = serde_json::json!([of(2), of(3), { "id": "other", "input": trace_id(1).to_string() }]);
    put(&db, "INSERT INTO public.evaluation_datasets (id, name, type, data, created_by) VALUES ($1, 'd', 'custom', $2::jsonb, $3)", binds![ADA, data.to_string(), Uuid::nil()]).await;
    put(&db, "INSERT INTO emberd.answers (digest, body, cost, at) VALUES ($1, 'secret', 0, 1)", [Bind::Blob(b"d")])
        .await;

    let mut whom = Whom::default();
    assert_eq!(db.store.profiles_named_by("ADA@example.com").await.unwrap(), [(ADA, "ada@example.com".to_owned())]);
    whom.profiles.insert(ADA);
    whom.users.extend([ADA.to_string(), "ada@example.com".to_owned()]);
    let traces = db.store.traces_naming(&whom).await.unwrap();
    assert_eq!(traces, BTreeSet::from([trace_id(1), trace_id(2)]));
    let by_session = Whom { sessions: BTreeSet::from(["s3".to_owned()]), ..Whom::default() };
    assert_eq!(db.store.traces_naming(&by_session).await.unwrap(), BTreeSet::from([trace_id(3)]));

    let before = numbers(&db).await;
    let there = db.store.erasable(&whom, &traces).await.unwrap();
    let expected = [
        ("analytics_events", 1),
        ("api_usage_logs", 2),
        ("decisions", 1),
        ("evaluation results", 1),
        ("evaluation targets", 1),
        ("evaluation_datasets", 2),
        ("idempotency keys", 1),
        ("kept answers of models", 1),
        ("outbox", 1),
        ("prompt_traces", 2),
        ("scores", 1),
        ("trace states", 1),
        ("user_sessions", 1),
    ];
    assert_eq!(there.iter().map(|(place, rows)| (*place, *rows)).collect::<Vec<_>>(), expected);
    assert_eq!(count(&db, "public.prompt_traces").await, 3, "looking takes nothing away");
    assert_eq!(db.store.erase(&whom, &traces, NOW).await.unwrap(), there);
    for _ in 0..2 {
        let left = db.store.erasable(&whom, &traces).await.unwrap();
        assert!(left.values().all(|rows| *rows == 0), "{left:?}");
        db.store.erase(&whom, &traces, NOW).await.unwrap();
    }
    for (table, rows) in [
        ("public.prompt_traces", 1),
        ("public.api_usage_logs", 2),
        ("public.analytics_events", 1),
        ("public.user_sessions", 1),
        ("emberd.trace_scores", 1),
        ("emberd.decisions", 1),
        ("emberd.outbox", 1),
        ("emberd.asked", 1),
        ("emberd.job_results", 1),
        ("emberd.job_targets", 2),
    ] {
        assert_eq!(count(&db, table).await, rows, "{table}");
    }
    // Numbers stay, and what comes late for what went is late.
    assert_eq!(numbers(&db).await, before);
    let [root, call] = trace(2, 120_000, 100);
    let recorded = db.record(&[root, call]).await;
    assert_eq!((recorded.late, recorded.new, recorded.rows), (1, 0, 0));
    assert!(db.store.traces_naming(&whom).await.unwrap().is_empty());
}
