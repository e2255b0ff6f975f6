//! Result rows into a table the plain way: a prepared INSERT each, two thousand in a transaction.

use sqlx::{Connection, PgConnection};

use crate::meter::{Meter, Spent};
use crate::recorder::plain::Database;

const COLUMNS: &str = "job TEXT, nr BIGINT, step BIGINT, name TEXT, version TEXT, score DOUBLE PRECISION, label TEXT, direction TEXT, \
     metadata TEXT, latency BIGINT, at BIGINT, PRIMARY KEY (job, nr, step, name)";
const TOGETHER: u64 = 2_000;
const AT: i64 = 1_795_219_200_000_000;

/// As durable as emberd's own writes: each commit reaches the disk.
pub(super) fn sqlite(items: u64) -> anyhow::Result<Spent> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let db = rusqlite::Connection::open(dir.path().join("plain.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(&format!("CREATE TABLE t ({COLUMNS}) WITHOUT ROWID"))?;
    let job = uuid::Uuid::new_v4().to_string();
    let meter = Meter::begin(None);
    for from in (0..items).step_by(TOGETHER as usize) {
        let transaction = db.unchecked_transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO t VALUES (?,?,?,?,?,?,?,?,?,?,?)")?;
        for nr in from..items.min(from + TOGETHER) {
            let score = f64::from(u8::from(nr.is_multiple_of(3)));
            insert.execute(rusqlite::params![
                job,
                nr as i64,
                1,
                "exact_match",
                "1",
                score,
                None::<String>,
                "maximize",
                "{}",
                2,
                AT
            ])?;
        }
        drop(insert);
        transaction.commit()?;
    }
    Ok(meter.end(items))
}

pub(super) async fn postgres(server: &str, items: u64) -> anyhow::Result<Spent> {
    let database = Database::create(server).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE TABLE t ({COLUMNS})"))).execute(&mut connection).await?;
    let job = uuid::Uuid::new_v4().to_string();
    let meter = Meter::begin(Some(database.postmaster));
    for from in (0..items).step_by(TOGETHER as usize) {
        let mut transaction = connection.begin().await?;
        for nr in from..items.min(from + TOGETHER) {
            sqlx::query("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
                .bind(&job)
                .bind(nr as i64)
                .bind(1_i64)
                .bind("exact_match")
                .bind("1")
                .bind(f64::from(u8::from(nr.is_multiple_of(3))))
                .bind(None::<String>)
                .bind("maximize")
                .bind("{}")
                .bind(2_i64)
                .bind(AT)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    let spent = meter.end(items);
    connection.close().await?;
    database.drop().await?;
    Ok(spent)
}
