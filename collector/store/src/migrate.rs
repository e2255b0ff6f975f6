//! The schema: steps up and down, embedded in the binary and run by sqlx.
//!
//! Promise: a step is applied whole or not at all; up, down to 0 and up again ends where the first up did; down to 0 leaves the
//! database as it was before emberd, another's tables included.
//! Shape:    `migrations/{sqlite,postgres}/NNNN_name.{up,down}.sql`, one number for what both need, so one may lack a number; applied steps are written down in `emberd_migrations` (SQLite) or
//! `emberd.migrations`.
//! Kept by:  `tests::schema`.

use serde::Serialize;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection};

use crate::error::MigrateError;
use crate::fault::Fault;
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;

/// A step of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// A step's number, name, and its SQL up and down.
type Source = (i64, &'static str, &'static str, &'static str);

macro_rules! steps {
    ($dir:literal: $($number:literal $name:literal),+ $(,)?) => {
        &[$((
            parse($number),
            $name,
            include_str!(concat!("../../../migrations/", $dir, "/", $number, "_", $name, ".up.sql")),
            include_str!(concat!("../../../migrations/", $dir, "/", $number, "_", $name, ".down.sql")),
        )),+]
    };
}

const SQLITE: &[Source] = steps!("sqlite": "0001" "library", "0002" "evaluation", "0003" "traces", "0004" "recorder", "0005" "analytics", "0006" "ledger", "0007" "lean", "0008" "jobs", "0009" "identity", "0010" "api", "0011" "users_index", "0014" "retention");
const POSTGRES: &[Source] = steps!("postgres": "0001" "library", "0002" "evaluation", "0003" "traces", "0004" "recorder", "0005" "analytics", "0006" "ledger", "0008" "jobs", "0009" "identity", "0010" "api", "0011" "users_index", "0014" "retention");

/// The number in a file's name.
const fn parse(digits: &str) -> i64 {
    let digits = digits.as_bytes();
    let (mut number, mut at) = (0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    number
}

fn migrator(steps: &[Source], table: &'static str) -> Migrator {
    let of =
        |kind, sql: &'static str, step: &Source| Migration::new(step.0, step.1.into(), kind, sql.into_sql_str(), false);
    let up = steps.iter().map(|step| of(MigrationType::ReversibleUp, step.2, step));
    let down = steps.iter().map(|step| of(MigrationType::ReversibleDown, step.3, step));
    let mut migrator = Migrator::with_migrations(up.chain(down).collect());
    migrator.dangerous_set_table_name(table);
    migrator
}

/// Which steps are applied, and all there are.
fn status(steps: &[Source], applied: &[i64]) -> Result<Vec<Step>, MigrateError> {
    if let Some(version) = applied.iter().find(|version| steps.iter().all(|step| step.0 != **version)) {
        return Err(MigrateError::Newer { version: *version });
    }
    let step = |step: &Source| Step { version: step.0, name: step.1.to_owned(), applied: applied.contains(&step.0) };
    Ok(steps.iter().map(step).collect())
}

/// The steps that differ between two answers of [`status`], as they are in the second.
pub(crate) fn changed(before: &[Step], after: Vec<Step>) -> Vec<Step> {
    after.into_iter().filter(|step| !before.contains(step)).collect()
}

/// Whether all steps are applied.
pub(crate) fn check(steps: &[Step]) -> Result<(), MigrateError> {
    let last = |steps: &mut dyn Iterator<Item = &Step>| steps.map(|step| step.version).max().unwrap_or(0);
    let needed = last(&mut steps.iter());
    match steps.iter().all(|step| step.applied) {
        true => Ok(()),
        false => Err(MigrateError::Older { applied: last(&mut steps.iter().filter(|step| step.applied)), needed }),
    }
}

/// Whether there is such a step, or none at all is asked for.
fn check_target(steps: &[Source], to: i64) -> Result<(), MigrateError> {
    match to == 0 || steps.iter().any(|step| step.0 == to) {
        true => Ok(()),
        false => Err(MigrateError::NoSuchStep { version: to }),
    }
}

impl Sqlite {
    pub(crate) async fn steps(&self) -> Result<Vec<Step>, MigrateError> {
        let mut connection = self.migrating().await?;
        let applied = sqlite_applied(&mut connection).await?;
        status(SQLITE, &applied)
    }

    pub(crate) async fn up(&self) -> Result<(), MigrateError> {
        let mut connection = self.migrating().await?;
        migrator(SQLITE, "emberd_migrations").run_direct(None, &mut connection, false).await.map_err(sqlite_error)?;
        connection.close().await.map_err(|source| sqlite_error(source.into()))
    }

    pub(crate) async fn down(&self, to: i64) -> Result<(), MigrateError> {
        check_target(SQLITE, to)?;
        let mut connection = self.migrating().await?;
        migrator(SQLITE, "emberd_migrations").undo(&mut connection, to).await.map_err(sqlite_error)?;
        if to == 0 {
            connection.execute("DROP TABLE emberd_migrations").await.map_err(|source| sqlite_error(source.into()))?;
        }
        connection.close().await.map_err(|source| sqlite_error(source.into()))
    }

    async fn migrating(&self) -> Result<SqliteConnection, MigrateError> {
        SqliteConnection::connect_with(&self.options()).await.map_err(|source| sqlite_error(source.into()))
    }
}

async fn sqlite_applied(connection: &mut SqliteConnection) -> Result<Vec<i64>, MigrateError> {
    let there: Option<i64> = sqlx::query_scalar("SELECT 1 FROM sqlite_master WHERE name = 'emberd_migrations'")
        .fetch_optional(&mut *connection)
        .await
        .map_err(|source| sqlite_error(source.into()))?;
    if there.is_none() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT version FROM emberd_migrations ORDER BY version")
        .fetch_all(connection)
        .await
        .map_err(|source| sqlite_error(source.into()))
}

/// SQLite's steps, of which these are applied.
pub(crate) fn sqlite_status(applied: &[i64]) -> Result<Vec<Step>, MigrateError> {
    status(SQLITE, applied)
}

/// PostgreSQL's steps, and which of them are applied.
pub(crate) async fn postgres_status(connection: &mut PgConnection) -> Result<Vec<Step>, MigrateError> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('emberd.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(|source| postgres_error(source.into()))?;
    if !there {
        return status(POSTGRES, &[]);
    }
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM emberd.migrations ORDER BY version")
        .fetch_all(connection)
        .await
        .map_err(|source| postgres_error(source.into()))?;
    status(POSTGRES, &applied)
}

impl Postgres {
    pub(crate) async fn steps(&self) -> Result<Vec<Step>, MigrateError> {
        let mut connection = self.pool.acquire().await.map_err(|source| postgres_error(source.into()))?;
        postgres_status(&mut connection).await
    }

    pub(crate) async fn up(&self) -> Result<(), MigrateError> {
        let mut connection = self.migrating().await?;
        migrator(POSTGRES, "emberd.migrations")
            .run_direct(None, &mut connection, false)
            .await
            .map_err(postgres_error)?;
        connection.close().await.map_err(|source| postgres_error(source.into()))
    }

    pub(crate) async fn down(&self, to: i64) -> Result<(), MigrateError> {
        check_target(POSTGRES, to)?;
        let mut connection = self.migrating().await?;
        migrator(POSTGRES, "emberd.migrations").undo(&mut connection, to).await.map_err(postgres_error)?;
        if to == 0 {
            connection.execute(FORGET_SCHEMA).await.map_err(|source| postgres_error(source.into()))?;
        }
        connection.close().await.map_err(|source| postgres_error(source.into()))
    }

    /// A connection of its own, so that a lock that sqlx holds on it cannot outlive this. The schema is made here and not by sqlx:
    /// where someone made it for a role that may not make any, even `IF NOT EXISTS` would be refused.
    async fn migrating(&self) -> Result<PgConnection, MigrateError> {
        let options = self.pool.connect_options();
        let mut connection =
            PgConnection::connect_with(&options).await.map_err(|source| postgres_error(source.into()))?;
        connection.execute(MAKE_SCHEMA).await.map_err(|source| postgres_error(source.into()))?;
        Ok(connection)
    }
}

const MAKE_SCHEMA: &str = "DO $$ BEGIN
    IF to_regnamespace('emberd') IS NULL THEN
        CREATE SCHEMA emberd;
        COMMENT ON SCHEMA emberd IS 'made by emberd';
    END IF;
EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL;
END $$";

const FORGET_SCHEMA: &str = "DROP TABLE emberd.migrations;
DO $$ BEGIN
    IF obj_description(to_regnamespace('emberd'), 'pg_namespace') = 'made by emberd' THEN DROP SCHEMA emberd; END IF;
END $$";

fn sqlite_error(error: sqlx::migrate::MigrateError) -> MigrateError {
    sorted(error, crate::sqlite::read_fault)
}

fn postgres_error(error: sqlx::migrate::MigrateError) -> MigrateError {
    sorted(error, crate::postgres::fault)
}

fn sorted(error: sqlx::migrate::MigrateError, fault: fn(sqlx::Error) -> Fault) -> MigrateError {
    use sqlx::migrate::MigrateError as Theirs;
    match error {
        Theirs::Execute(source) => MigrateError::Database(fault(source).into()),
        Theirs::ExecuteMigration(source, version) => MigrateError::Step { version, source: source.into() },
        Theirs::VersionMissing(version) => MigrateError::Newer { version },
        Theirs::VersionMismatch(version) => MigrateError::Changed { version },
        other => MigrateError::Database(Fault::Refused { source: other.into() }.into()),
    }
}
