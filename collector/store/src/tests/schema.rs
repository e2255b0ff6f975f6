//! The schema goes up, down, and up again, on an empty database and beside tables that were there before.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::harness::{Db, NOW, on_empty_postgres, on_postgres, on_sqlite};
use super::oracle::check;
use super::spans::trace;
use crate::error::{CreatePromptError, MigrateError};
use crate::library::{NewPrompt, UNASSIGNED};

/// Everything that stands in the database, one line each.
async fn everything(db: &Db) -> BTreeSet<String> {
    match db.is_sqlite() {
        true => {
            let mut connection =
                sqlx::SqliteConnection::connect(&format!("sqlite:{}", db.file().display())).await.unwrap();
            let rows =
                connection.fetch_all("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master").await;
            rows.unwrap().iter().map(|row| row.get::<String, _>(0)).collect()
        }
        false => {
            let mut connection = PgConnection::connect(db.url()).await.unwrap();
            let rows = connection.fetch_all(EVERYTHING).await.unwrap();
            rows.iter().map(|row| row.get::<String, _>(0)).collect()
        }
    }
}

const EVERYTHING: &str = "
    WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('public', 'auth', 'emberd'))
    SELECT 'schema ' || nspname FROM ours WHERE nspname <> 'public'
    UNION ALL SELECT format('column %s.%s.%s %s %s %s %s', table_schema, table_name, column_name, data_type, is_nullable,
        column_default, is_identity) FROM information_schema.columns WHERE table_schema IN (SELECT nspname FROM ours)
    UNION ALL SELECT format('index %s on %s.%s', indexdef, schemaname, tablename)
        FROM pg_indexes WHERE schemaname IN (SELECT nspname FROM ours)
    UNION ALL SELECT format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE connamespace IN (SELECT oid FROM ours)
    UNION ALL SELECT format('policy %s on %s.%s for %s to %s using %s check %s', policyname, schemaname, tablename, cmd, roles,
        qual, with_check) FROM pg_policies
    UNION ALL SELECT format('view %s.%s %s', schemaname, viewname, definition)
        FROM pg_views WHERE schemaname IN (SELECT nspname FROM ours)
    UNION ALL SELECT format('function %s %s', oid::regprocedure, md5(prosrc))
        FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
    UNION ALL SELECT format('trigger %s', pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('class %s %s rls %s %s %s', oid::regclass, relkind, relrowsecurity, reloptions, relacl)
        FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours) AND relkind IN ('r', 'v', 'm', 'S')";

async fn up_down_up(db: &Db) {
    let before = everything(db).await;
    let steps = db.store.migrate_status().await.unwrap();
    assert!(steps.len() >= 6 && steps.iter().all(|step| !step.applied));
    assert!(matches!(db.store.check_schema().await, Err(MigrateError::Older { applied: 0, .. })));

    let up = db.store.migrate_up().await.unwrap();
    let all: Vec<i64> = steps.iter().map(|step| step.version).collect();
    assert!(all.is_sorted() && all.starts_with(&[1, 2, 3, 4, 5, 6]), "{all:?}");
    assert_eq!(up.iter().map(|step| step.version).collect::<Vec<_>>(), all);
    db.store.check_schema().await.unwrap();
    assert_eq!(db.store.migrate_up().await.unwrap(), []);
    let first = everything(db).await;

    let down = db.store.migrate_down(3).await.unwrap();
    assert_eq!(
        down.iter().map(|step| (step.version, step.applied)).collect::<Vec<_>>(),
        all[3..].iter().rev().map(|version| (*version, false)).collect::<Vec<_>>()
    );
    match db.store.check_schema().await {
        Err(MigrateError::Older { applied: 3, needed }) if needed == all[all.len() - 1] => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(db.store.migrate_down(77).await, Err(MigrateError::NoSuchStep { version: 77 })));
    assert_eq!(db.store.migrate_down(0).await.unwrap().len(), 3);
    assert_eq!(everything(db).await, before, "down to 0 leaves something, or takes too much");

    db.store.migrate_up().await.unwrap();
    assert_eq!(everything(db).await, first);
}

#[test]
fn sqlite_goes_up_down_and_up() {
    on_sqlite(|db| async move {
        db.store.migrate_down(0).await.unwrap();
        up_down_up(&db).await;
    });
}

#[test]
fn postgres_goes_up_down_and_up() {
    on_empty_postgres(|url| async {
        let db = Db::open(url);
        up_down_up(&db).await;
    });
}

/// As on Supabase: prompts with columns of their own, profiles, and auth.uid() are there, and stay as they are.
const LIBRARY: &str = "
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
        $$ SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
    CREATE TYPE public.visibility AS ENUM ('private', 'public');
    CREATE TABLE public.profiles (id uuid PRIMARY KEY, email text, name text, role text, department text);
    INSERT INTO public.profiles VALUES ('00000000-0000-0000-0000-00000000000a', 'ada@example.com', 'Ada', 'admin', 'R');
    CREATE TABLE public.prompts (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        title varchar(200) NOT NULL,
        content text NOT NULL,
        tags text[] NOT NULL,
        variables jsonb NOT NULL,
        visibility public.visibility NOT NULL,
        is_template boolean NOT NULL,
        uses integer NOT NULL,
        created_by uuid NOT NULL REFERENCES public.profiles (id),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL
    );
    ALTER TABLE public.prompts ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everyone ON public.prompts FOR SELECT USING (true);
    INSERT INTO public.prompts (title, content, tags, variables, visibility, is_template, uses, created_by, updated_at)
        VALUES ('faq', 'Answer.', '{}', '{}', 'public', false, 3, '00000000-0000-0000-0000-00000000000a', now())";

#[test]
fn another_librarys_tables_are_used_and_left_alone() {
    on_empty_postgres(|url| async {
        let mut db = Db::open(url);
        db.sql(LIBRARY).await.unwrap();
        up_down_up(&db).await;
        // The reserved prompt stands among theirs, whatever they demand of one, and everything works.
        let [root, call] = trace(1, 5_000, 10);
        db.record(&[root.of_prompt("faq"), call]).await;
        db.record(&trace(2, 5_000, 10)).await;
        db.publish().await;
        let seen = check(&db).await;
        assert_eq!(seen.summaries.len(), 1);
        assert_eq!(seen.summaries[0]["total_traces"], 1);
        let prompts = db.store.prompts(None, 10).await.unwrap().data;
        let faq = prompts.iter().find(|prompt| prompt.title == "faq").unwrap();
        assert_eq!(faq.content.as_deref(), Some("Answer."));
        assert_eq!(faq.created_by, Some(uuid::Uuid::from_u128(0xa)));
        let new = NewPrompt { title: "t".into(), content: "c".into(), created_by: None };
        assert!(matches!(db.store.create_prompt(new, NOW).await, Err(CreatePromptError::NotOurs)));
        // Their prompts survive the way down; the reserved one goes.
        db.store.migrate_down(0).await.unwrap();
        let mut connection = PgConnection::connect(db.url()).await.unwrap();
        let titles: Vec<String> =
            sqlx::query_scalar("SELECT title FROM public.prompts").fetch_all(&mut connection).await.unwrap();
        assert_eq!(titles, ["faq"]);
    });
}

/// Someone made the schema for a role that may not make any.
#[test]
fn a_schema_made_for_us_is_used_and_left_there() {
    on_empty_postgres(|url| async {
        let db = Db::open(url);
        db.sql("CREATE SCHEMA emberd").await.unwrap();
        db.store.migrate_up().await.unwrap();
        db.store.migrate_down(0).await.unwrap();
        assert_eq!(everything(&db).await.into_iter().collect::<Vec<_>>(), ["schema emberd"]);
    });
}

/// A newer emberd was here: nothing is written, in either direction.
async fn a_newer_schema_is_left_alone(db: Db) {
    let table = if db.is_sqlite() { "emberd_migrations" } else { "emberd.migrations" };
    db.sql(&format!(
        "INSERT INTO {table} (version, description, success, checksum, execution_time) VALUES (99, 'future', true, '', 0)"
    ))
    .await
    .unwrap();
    assert!(matches!(db.store.check_schema().await, Err(MigrateError::Newer { version: 99 })));
    assert!(matches!(db.store.migrate_up().await, Err(MigrateError::Newer { version: 99 })));
    assert!(matches!(db.store.migrate_down(0).await, Err(MigrateError::Newer { version: 99 })));
    assert!(db.store.prompt(UNASSIGNED).await.unwrap().is_some());
}

/// A step that was edited after it was applied is not run over.
async fn a_changed_step_is_noticed(db: Db) {
    let table = if db.is_sqlite() { "emberd_migrations" } else { "emberd.migrations" };
    db.sql(&format!("UPDATE {table} SET checksum = '' WHERE version = 2")).await.unwrap();
    assert!(matches!(db.store.migrate_up().await, Err(MigrateError::Changed { version: 2 })));
}

/// A step that fails half-way leaves nothing of itself, and goes through once its cause is gone.
async fn a_failed_step_is_rolled_back(db: Db) {
    db.store.migrate_down(2).await.unwrap();
    let before = everything(&db).await;
    // In the way of the third step's second table.
    let table = if db.is_sqlite() { "prompt_performance_metrics" } else { "public.prompt_performance_metrics" };
    db.sql(&format!("CREATE TABLE {table} (x integer)")).await.unwrap();
    match db.store.migrate_up().await {
        Err(MigrateError::Step { version: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    db.sql(&format!("DROP TABLE {table}")).await.unwrap();
    assert_eq!(everything(&db).await, before);
    let missing = db.store.migrate_status().await.unwrap().iter().filter(|step| !step.applied).count();
    assert_eq!(db.store.migrate_up().await.unwrap().len(), missing);
}

super::on_both!(a_newer_schema_is_left_alone, a_changed_step_is_noticed, a_failed_step_is_rolled_back);

/// `prompts` and `profiles` are found in `public` although a role called emberd has its own schema first on its search path.
#[test]
fn the_search_path_does_not_matter() {
    on_postgres(|db| async move {
        let mut connection = PgConnection::connect(db.url()).await.unwrap();
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'emberd' AND tablename LIKE 'prompt%'";
        let strays: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        assert_eq!(strays, 0);
    });
}

/// The beginnings of the steps' SHA-384, as databases have them written down: a step that was once applied somewhere never changes.
const SQLITE_SUMS: &[(i64, &str)] = &[
    (1, "b70b2ccfb0d1119e"),
    (2, "fb4f17faf1aa50c2"),
    (3, "bdb5f24d6d496add"),
    (4, "9328d79db000a9e1"),
    (5, "91d77fe9d8a3ee40"),
    (6, "31cfba67a09e343e"),
    (7, "f1ecb869421a179c"),
    (8, "dd4a869fd40360bf"),
    (9, "9100e1cc8004658a"),
    (10, "13ac3a39c49a2fdf"),
    (11, "bf1896698885630b"),
];
const POSTGRES_SUMS: &[(i64, &str)] = &[
    (1, "f79cd5c2845708e5"),
    (2, "b93cd0b7097d02b8"),
    (3, "f06123ee7bef793a"),
    (4, "b49eb1e7778428b9"),
    (5, "4d99e1c38958193c"),
    (6, "f062c0bb4b1a8351"),
    (8, "0b57c1661260f719"),
    (9, "b70aecff9d335a03"),
    (10, "a8dcbe5f125645cc"),
    (11, "a324fb18b31bcec1"),
];

async fn steps_are_what_they_were(db: &Db, sums: &[(i64, &str)]) {
    let found: Vec<(i64, Vec<u8>)> = match db.is_sqlite() {
        true => {
            let mut connection =
                sqlx::SqliteConnection::connect(&format!("sqlite:{}", db.file().display())).await.unwrap();
            let rows = connection.fetch_all("SELECT version, checksum FROM emberd_migrations").await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
        false => {
            let mut connection = PgConnection::connect(db.url()).await.unwrap();
            let rows = connection.fetch_all("SELECT version, checksum FROM emberd.migrations").await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
    };
    for (version, sum) in sums {
        let (_, found) = found.iter().find(|(known, _)| known == version).expect("a step is never taken away");
        let hex: String = found[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, *sum, "step {version} is not what it was: make a new one");
    }
}

#[test]
fn steps_that_were_applied_somewhere_never_change() {
    on_sqlite(|db| async move { steps_are_what_they_were(&db, SQLITE_SUMS).await });
    on_postgres(|db| async move { steps_are_what_they_were(&db, POSTGRES_SUMS).await });
}
