//! Row-level security: what a request made for a user may see and change (PostgreSQL).

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::harness::{Db, on_postgres};
use super::spans::trace;
use crate::jobs::{DatasetType, NewDataset, Viewer};

const ADA: Uuid = Uuid::from_u128(0xada);
const BOB: Uuid = Uuid::from_u128(0xb0b);

/// Runs a statement as a transaction for this user would; gives how many rows it touched.
async fn as_user(db: &Db, user: Uuid, sql: &str) -> Result<u64, String> {
    let mut connection = PgConnection::connect(db.url()).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    tx.execute("SET LOCAL ROLE authenticated").await.unwrap();
    let claims = format!("SELECT set_config('request.jwt.claims', '{{\"sub\": \"{user}\"}}', true)");
    tx.execute(AssertSqlSafe(claims)).await.unwrap();
    let done = tx.execute(AssertSqlSafe(sql)).await.map_err(|error| error.to_string())?;
    tx.commit().await.unwrap();
    Ok(done.rows_affected())
}

async fn with_users(mut db: Db) -> Db {
    for (id, email) in [(ADA, "ada@example.com"), (BOB, "bob@example.com")] {
        db.sql(&format!("INSERT INTO profiles (id, email) VALUES ('{id}', '{email}')")).await.unwrap();
    }
    let [root, call] = trace(1, 5_000, 10);
    db.record(&[root.with("user.id", "ada@example.com"), call]).await;
    db.publish().await;
    db
}

fn denied(outcome: Result<u64, String>) {
    let error = outcome.unwrap_err();
    assert!(error.contains("row-level security") || error.contains("permission denied"), "{error}");
}

#[test]
fn evaluations_are_seen_by_all_and_changed_by_their_creators() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        let insert = |by: Uuid, id: &str| {
            format!(
                "INSERT INTO prompt_evaluations (prompt_id, phoenix_eval_id, name, status, created_by)
                 VALUES ('{}', '{id}', 'n', 'pending', '{by}')",
                Uuid::nil()
            )
        };
        assert_eq!(as_user(&db, ADA, &insert(ADA, "one")).await, Ok(1));
        denied(as_user(&db, ADA, &insert(BOB, "two")).await);
        assert_eq!(as_user(&db, BOB, "SELECT * FROM prompt_evaluations").await, Ok(1));
        assert_eq!(as_user(&db, BOB, "UPDATE prompt_evaluations SET name = 'mine'").await, Ok(0));
        assert_eq!(as_user(&db, BOB, "DELETE FROM prompt_evaluations").await, Ok(0));
        denied(as_user(&db, ADA, &format!("UPDATE prompt_evaluations SET created_by = '{BOB}'")).await);
        assert_eq!(as_user(&db, ADA, "UPDATE prompt_evaluations SET name = 'better'").await, Ok(1));
        // The summary is open, and nothing else of emberd's own.
        let summary = format!("SELECT * FROM prompt_performance_summary WHERE prompt_id = '{}'", Uuid::nil());
        assert_eq!(as_user(&db, BOB, &summary).await, Ok(1));
        denied(as_user(&db, BOB, "SELECT * FROM emberd.trace_state").await);
        assert_eq!(as_user(&db, ADA, "DELETE FROM prompt_evaluations").await, Ok(1));
    });
}

#[test]
fn traces_are_seen_by_all_and_changed_by_their_users() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        assert_eq!(as_user(&db, BOB, "SELECT * FROM prompt_traces").await, Ok(1));
        assert_eq!(as_user(&db, BOB, "DELETE FROM prompt_traces").await, Ok(0));
        assert_eq!(
            as_user(&db, BOB, "SELECT * FROM prompt_performance_metrics WHERE aggregation_window = '1h'").await,
            Ok(6)
        );
        denied(as_user(&db, BOB, "DELETE FROM prompt_performance_metrics").await);
        assert_eq!(as_user(&db, ADA, "DELETE FROM prompt_traces").await, Ok(1));
    });
}

#[test]
fn datasets_are_seen_when_public_or_own() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        let insert = |public: bool| {
            format!(
                "INSERT INTO evaluation_datasets (name, type, data, is_public, created_by)
                 VALUES ('d', 'qa_pairs', '[]', {public}, '{ADA}')"
            )
        };
        assert_eq!(as_user(&db, ADA, &insert(false)).await, Ok(1));
        assert_eq!(as_user(&db, ADA, &insert(true)).await, Ok(1));
        assert_eq!(as_user(&db, ADA, "SELECT * FROM evaluation_datasets").await, Ok(2));
        assert_eq!(as_user(&db, BOB, "SELECT * FROM evaluation_datasets").await, Ok(1));
        assert_eq!(as_user(&db, BOB, "DELETE FROM evaluation_datasets").await, Ok(0));
    });
}

#[test]
fn experiments_are_seen_by_all_and_analytics_by_none() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        let insert = format!(
            "INSERT INTO experiments (name, phoenix_experiment_id, prompt_ids, status, created_by)
             VALUES ('e', 'x', ARRAY['{}'::uuid], 'draft', '{ADA}')",
            Uuid::nil()
        );
        assert_eq!(as_user(&db, ADA, &insert).await, Ok(1));
        assert_eq!(as_user(&db, BOB, "SELECT * FROM experiments").await, Ok(1));
        assert_eq!(as_user(&db, BOB, "DELETE FROM experiments").await, Ok(0));
        denied(as_user(&db, BOB, "SELECT * FROM api_usage_logs").await);
    });
}

/// The summary is read with the reader's own rights: it must not need more than a reader has.
#[test]
fn the_summary_is_seen_by_all_and_prompts_are_changed_by_none() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        let seen = as_user(&db, BOB, "SELECT * FROM prompt_performance_summary").await;
        assert!(seen.as_ref().is_ok_and(|rows| *rows >= 1), "{seen:?}");
        denied(as_user(&db, BOB, "UPDATE prompts SET title = 'mine'").await);
    });
}

/// emberd's own way to the database, with a statement in which no rule stands: the policies alone decide, and a connection that was used
/// for a user goes back without the user's rights.
#[test]
fn a_statement_without_a_rule_gives_what_the_policy_allows() {
    on_postgres(|db| async {
        let db = with_users(db).await;
        let made = |public: bool| NewDataset {
            name: format!("public {public}"),
            description: None,
            kind: DatasetType::Custom,
            data: serde_json::value::RawValue::from_string("[]".into()).unwrap(),
            metadata: serde_json::json!({}),
            is_public: public,
            created_by: ADA,
        };
        for public in [true, false] {
            db.store.create_dataset(made(public), super::harness::NOW).await.unwrap().unwrap();
        }
        let count = async |store: &crate::Store, sql: &str| store.lines(sql, &[]).await.map(|lines| lines.len());
        let every = "SELECT id FROM public.evaluation_datasets WHERE true";
        for _ in 0..20 {
            for (viewer, seen) in [
                (Viewer { user: ADA, is_admin: false }, 2),
                (Viewer { user: BOB, is_admin: false }, 1),
                (Viewer { user: BOB, is_admin: true }, 2),
            ] {
                assert_eq!(count(&db.store.seen_by(viewer), every).await.unwrap(), seen, "{viewer:?}");
            }
            assert_eq!(count(&db.store, every).await.unwrap(), 2);
        }
        // What is emberd's own is closed to users, and nothing can be written while reading for one.
        let bob = db.store.seen_by(Viewer { user: BOB, is_admin: false });
        count(&bob, "SELECT * FROM emberd.passwords").await.unwrap_err();
        count(&bob, "DELETE FROM public.evaluation_datasets RETURNING id").await.unwrap_err();
        assert_eq!(count(&db.store, "SELECT * FROM emberd.passwords").await.unwrap(), 0);
        // Nor is a row made in another's name.
        let user = db
            .store
            .lines("SELECT current_user::text, current_setting('request.jwt.claims', true)", &[])
            .await
            .unwrap();
        assert_ne!(user[0].text(0).unwrap(), "authenticated");
        assert!(user[0].maybe_text(1).unwrap().unwrap_or_default().is_empty());
    });
}
