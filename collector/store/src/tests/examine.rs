//! What `emberd doctor` asks of a database, of one that is well and of ones that are not.

use std::time::Duration;

use emberd_model::UnixNanos;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::harness::{Db, NOW, on_empty_postgres, on_sqlite};
use crate::examine::{SERVER_OLDEST, file, server};
use crate::library::NewPrompt;

const PATIENCE: Duration = Duration::from_secs(10);

/// Beside one that has it open; what is not there is not made, and a flipped page is seen.
#[test]
fn a_file_is_looked_at_and_not_touched() {
    on_sqlite(|db| async move {
        let path = db.file();
        let seen = file(&path, PATIENCE).await.unwrap();
        assert_eq!((seen.journal.as_str(), seen.damage), ("wal", Some(vec![])));
        assert!(seen.bytes > 4096 && seen.steps.unwrap().iter().all(|step| step.applied));

        let absent = path.with_file_name("absent.db");
        file(&absent, PATIENCE).await.unwrap_err();
        assert!(!absent.exists());

        db.store.close().await;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..3 * 4096].fill(0xff);
        let damaged = path.with_file_name("damaged.db");
        std::fs::write(&damaged, bytes).unwrap();
        match file(&damaged, PATIENCE).await {
            Ok(seen) => assert!(seen.damage.is_some_and(|faults| !faults.is_empty())),
            Err(error) => assert!(format!("{error:?}").contains("malformed"), "{error:?}"),
        }
    });
}

/// While another writes, the copy is of one moment: whole transactions, and page for page without a fault.
#[test]
fn a_copy_is_of_one_moment() {
    on_sqlite(|db| async move {
        let make = async |n: u32| {
            for half in ["a", "b"] {
                let new = NewPrompt { title: format!("{n}{half}"), content: "x".repeat(2_000), created_by: None };
                db.store.create_prompt(new, NOW).await.unwrap();
            }
        };
        for n in 0..50 {
            make(n).await;
        }
        let (from, to) = (db.file(), db.file().with_file_name("copy.db"));
        let (copied, ()) = tokio::join!(crate::copy::file(&from, &to, |done, all| assert!(done <= all)), async {
            for n in 50..80 {
                make(n).await;
            }
        });
        copied.unwrap();
        let seen = file(&to, PATIENCE).await.unwrap();
        assert_eq!((seen.journal.as_str(), seen.damage), ("delete", Some(vec![])));
        assert!(!to.with_extension("db-wal").exists() && !to.with_extension("db-shm").exists());
        let there = rusqlite::Connection::open(&to).unwrap();
        let count: i64 = there.query_row("SELECT count(*) FROM prompts", [], |row| row.get(0)).unwrap();
        assert!((101..=161).contains(&count), "{count}");
        crate::copy::file(&to.with_file_name("absent.db"), &to.with_file_name("c.db"), |_, _| ()).await.unwrap_err();
        assert!(!to.with_file_name("absent.db").exists());
    });
}

/// A server that is well lacks nothing; one whose role may make nothing is told so, before and after the tables are there.
#[test]
fn a_server_is_asked_for_its_rights() {
    on_empty_postgres(|url| async move {
        let seen = server(&url).await.unwrap();
        assert!(seen.number >= SERVER_OLDEST && !seen.version.is_empty());
        assert!(seen.now > UnixNanos(1_700_000_000_000_000_000) && seen.connections.1 > 1);
        assert_eq!(seen.lacking, [""; 0]);
        assert!(seen.steps.unwrap().iter().all(|step| !step.applied));

        let name = format!("poor_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN"))).await.unwrap();
        let poor = {
            use sqlx::ConnectOptions;
            let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
            options.username(&name).to_url_lossy().to_string()
        };
        let seen = server(&poor).await.unwrap();
        assert_eq!(seen.lacking.len(), 2, "{:?}", seen.lacking);
        let db = Db::open(url.clone());
        db.store.migrate_up().await.unwrap();
        let rich = server(&url).await.unwrap();
        assert!(rich.steps.unwrap().iter().all(|step| step.applied) && rich.takes_roles == Some(true));
        let seen = server(&poor).await.unwrap();
        assert!(seen.lacking.contains(&"make tables in the schema emberd (CREATE on it)"), "{:?}", seen.lacking);
        assert!(seen.lacking.contains(&"write prompt_traces"), "{:?}", seen.lacking);
        assert_eq!(seen.takes_roles, Some(false));
        db.store.close().await;
        admin.execute(AssertSqlSafe(format!("DROP ROLE {name}"))).await.unwrap();
    });
}
