//! Rows into a table the plain way: a prepared INSERT each, committed one by one or many together.

use emberd_model::row::Row;
use sqlx::{Connection, PgConnection};

use crate::meter::{Meter, Spent};

const COLUMNS: &str = "id TEXT, prompt_id TEXT, trace TEXT UNIQUE, session TEXT, ms INTEGER, tokens TEXT, model TEXT, status TEXT, \
     metadata TEXT, at BIGINT";

/// A row's texts, in the order of [`COLUMNS`] without `ms` and `at`.
fn texts(row: &Row) -> [Option<String>; 8] {
    [
        Some(row.id.to_string()),
        row.prompt_ref.clone(),
        Some(row.trace_id.to_string()),
        row.session_id.map(|id| id.to_string()),
        Some(row.tokens.total.to_string()),
        Some(row.model.clone()),
        Some(row.status.as_str().to_owned()),
        serde_json::to_string(&row.metadata).ok(),
    ]
}

/// As durable as emberd's own writes: each commit reaches the disk.
pub(super) fn sqlite(rows: &[Vec<Row>], together: usize) -> anyhow::Result<Spent> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let db = rusqlite::Connection::open(dir.path().join("plain.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(&format!("CREATE TABLE t ({COLUMNS})"))?;
    let rows: Vec<&Row> = rows.iter().flatten().collect();
    let meter = Meter::begin(None);
    for rows in rows.chunks(together) {
        let transaction = db.unchecked_transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO t VALUES (?,?,?,?,?,?,?,?,?,?)")?;
        for row in rows {
            let [id, prompt, trace, session, tokens, model, status, metadata] = texts(row);
            insert.execute(rusqlite::params![
                id,
                prompt,
                trace,
                session,
                row.execution_time_ms,
                tokens,
                model,
                status,
                metadata,
                row.created_at.micros(),
            ])?;
        }
        drop(insert);
        transaction.commit()?;
    }
    Ok(meter.end(rows.len() as u64))
}

pub(super) async fn postgres(server: &str, rows: &[Vec<Row>], together: usize) -> anyhow::Result<Spent> {
    let database = Database::create(server).await?;
    let mut connection = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE TABLE t ({COLUMNS})"))).execute(&mut connection).await?;
    let rows: Vec<&Row> = rows.iter().flatten().collect();
    let meter = Meter::begin(Some(database.postmaster));
    for rows in rows.chunks(together) {
        let mut transaction = connection.begin().await?;
        for row in rows {
            let [id, prompt, trace, session, tokens, model, status, metadata] = texts(row);
            sqlx::query("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
                .bind(id)
                .bind(prompt)
                .bind(trace)
                .bind(session)
                .bind(row.execution_time_ms)
                .bind(tokens)
                .bind(model)
                .bind(status)
                .bind(metadata)
                .bind(row.created_at.micros())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    let spent = meter.end(rows.len() as u64);
    connection.close().await?;
    database.drop().await?;
    Ok(spent)
}

/// A database of its own on a server.
pub(crate) struct Database {
    admin: PgConnection,
    name: String,
    pub(crate) url: String,
    /// The server's first process.
    pub(crate) postmaster: u32,
}

impl Database {
    pub(crate) async fn create(server: &str) -> anyhow::Result<Self> {
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
        let url = format!("{}/{name}", server.rsplit_once('/').map_or(server, |(head, _)| head));
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut admin).await?;
        let stat = std::fs::read_to_string(format!("/proc/{backend}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        Ok(Self { admin, name, url, postmaster: parent.unwrap_or(0) })
    }

    pub(crate) async fn drop(mut self) -> anyhow::Result<()> {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut self.admin).await?;
        Ok(())
    }
}
