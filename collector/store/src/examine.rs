//! How a database is, asked from beside whoever uses it, for `emberd doctor`.
//!
//! Promise: nothing is made, changed or migrated, and nobody waits for it: a file is opened for reading only, a server gets one connection
//! and a handful of questions; looking over a file's pages ends after the time that is given.
//! Not here: what is to be said of it (`daemon/doctor`).
//! Kept by: `tests::examine`.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use emberd_model::UnixNanos;
use rusqlite::OpenFlags;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use crate::error::{Error, MigrateError};
use crate::migrate::{self, Step};
use crate::sqlite;

/// Faults of a file that are named; one is enough to know that it is damaged.
const DAMAGE_MAX: usize = 5;

/// The oldest PostgreSQL that emberd is made for, as `server_version_num` counts.
pub const SERVER_OLDEST: i32 = 15_00_00;

/// How an SQLite file is.
#[derive(Debug)]
pub struct File {
    /// `wal`, once an emberd has opened it.
    pub journal: String,
    /// Its size; the write-ahead log not counted.
    pub bytes: u64,
    /// All steps of the schema, and which are applied; an error where they are not this emberd's.
    pub steps: Result<Vec<Step>, MigrateError>,
    /// What `quick_check` found, at most five faults; none: its time was over before all pages were seen.
    pub damage: Option<Vec<String>>,
}

/// How a PostgreSQL server is.
#[derive(Debug)]
pub struct Server {
    /// As it names itself.
    pub version: String,
    /// `server_version_num`: 150004 is 15.4.
    pub number: i32,
    /// Its clock, when it was asked.
    pub now: UnixNanos,
    /// All steps of the schema, and which are applied; an error where they are not this emberd's.
    pub steps: Result<Vec<Step>, MigrateError>,
    /// What emberd may not do there and has to.
    pub lacking: Vec<&'static str>,
    /// Whether users' rights can be taken, as policies ask for; none: there is no role `authenticated`.
    pub takes_roles: Option<bool>,
    /// Connections that there are now, and that it takes.
    pub connections: (i64, i64),
}

/// Looks at a file for at most about `patience`. It must be there: nothing is made.
pub async fn file(path: &Path, patience: Duration) -> Result<File, Error> {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || look(&path, patience)).await;
    looked.unwrap_or_else(|died| Err(Error::Unavailable { source: died.into() }))
}

fn look(path: &Path, patience: Duration) -> Result<File, Error> {
    let faulty = |error: rusqlite::Error| Error::from(sqlite::fault(error));
    let connection =
        rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(faulty)?;
    connection.busy_timeout(patience).map_err(faulty)?;
    let journal = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(faulty)?;
    let bytes = connection
        .query_row("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", [], |row| {
            row.get::<_, i64>(0)
        })
        .map_err(faulty)?;
    let applied = applied(&connection).map_err(faulty)?;
    let damage = quick_check(&connection, patience)?;
    Ok(File { journal, bytes: bytes.unsigned_abs(), steps: migrate::sqlite_status(&applied), damage })
}

fn applied(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<i64>> {
    let there = "SELECT count(*) FROM sqlite_master WHERE name = 'emberd_migrations'";
    if connection.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT version FROM emberd_migrations ORDER BY version")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// None where the time was over first.
fn quick_check(connection: &rusqlite::Connection, patience: Duration) -> Result<Option<Vec<String>>, Error> {
    let interrupt = connection.get_interrupt_handle();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        // Told by being dropped: the check has ended.
        if wait.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let found = check(connection);
    drop(done);
    let _ = watch.join();
    match found {
        Ok(lines) if lines == ["ok"] => Ok(Some(Vec::new())),
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Ok(None),
        Err(error) => Err(sqlite::fault(error).into()),
    }
}

fn check(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({DAMAGE_MAX})"))?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Each asks whether something that emberd has to do is forbidden.
const RIGHTS: [(&str, &str); 3] = [
    (
        "make the schema emberd (CREATE on the database)",
        "to_regnamespace('emberd') IS NULL AND NOT has_database_privilege(current_database(), 'CREATE')",
    ),
    (
        "make tables in the schema emberd (CREATE on it)",
        "to_regnamespace('emberd') IS NOT NULL AND NOT coalesce(has_schema_privilege(to_regnamespace('emberd'), 'CREATE'), false)",
    ),
    ("make tables in the schema public (CREATE on it)", "NOT has_schema_privilege('public', 'CREATE')"),
];

/// Once the tables are there: rows. Looked up in the catalog, for who may not look into a schema may not name what is in it either.
const WRITES: [(&str, &str); 2] = [
    (
        "write prompt_traces",
        "EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' \
         AND c.relname = 'prompt_traces' AND NOT has_table_privilege(c.oid, 'INSERT'))",
    ),
    (
        "write its cursor",
        "EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'emberd' \
         AND c.relname = 'cursors' AND NOT has_table_privilege(c.oid, 'UPDATE'))",
    ),
];

/// Asks a server. The URL may hold a password; no error shows it.
pub async fn server(url: &str) -> Result<Server, Error> {
    let faulty = |error: sqlx::Error| Error::from(crate::postgres::fault(error));
    let options = PgConnectOptions::from_str(url).map_err(faulty)?.application_name("emberd doctor");
    let mut connection = PgConnection::connect_with(&options).await.map_err(faulty)?;
    let asked = ask(&mut connection).await;
    // It is of no use any more, whatever comes of this.
    let _ = connection.close().await;
    asked
}

async fn ask(connection: &mut PgConnection) -> Result<Server, Error> {
    let faulty = |error: sqlx::Error| Error::from(crate::postgres::fault(error));
    let mut row = sqlx::query(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
         (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
         current_setting('max_connections')::bigint, \
         CASE WHEN to_regrole('authenticated') IS NULL THEN NULL \
              ELSE pg_has_role(current_user, to_regrole('authenticated'), 'MEMBER') END",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(faulty)?;
    let (version, number, micros): (String, i32, i64) = (row.get(0), row.get(1), row.get(2));
    let (connections, takes_roles) = ((row.get(3), row.get(4)), row.get(5));
    let mut lacking = Vec::new();
    for (what, forbidden) in RIGHTS.into_iter().chain(WRITES) {
        row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {forbidden}")))
            .fetch_one(&mut *connection)
            .await
            .map_err(faulty)?;
        if row.get::<bool, _>(0) {
            lacking.push(what);
        }
    }
    let now = UnixNanos(micros.unsigned_abs().saturating_mul(1_000));
    let steps = migrate::postgres_status(connection).await;
    Ok(Server { version, number, now, steps, lacking, takes_roles, connections })
}
