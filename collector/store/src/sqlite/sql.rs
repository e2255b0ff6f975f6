//! Statements of both databases, on SQLite.

use std::borrow::Cow;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, ToSql};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Column as _, Row as _, TypeInfo as _, ValueRef as _};

use super::Sqlite;
use super::fault::{fault, read_fault};
use super::tx::SqliteTx;
use uuid::Uuid;

use crate::fault::Fault;
use crate::sql::{Bind, Cell, Line, Sql, lite};

impl ToSql for Bind<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Int(Some(value)) => ToSqlOutput::Owned(Value::Integer(*value)),
            Self::Real(Some(value)) => ToSqlOutput::Owned(Value::Real(*value)),
            Self::Text(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Self::Blob(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Self::Bool(value) => ToSqlOutput::Owned(Value::Integer(i64::from(*value))),
            Self::Int(None) | Self::Real(None) | Self::Text(None) | Self::Id(None) | Self::At(None) => {
                ToSqlOutput::Owned(Value::Null)
            }
            other => ToSqlOutput::Owned(Value::Text(other.to_text().into_owned())),
        })
    }
}

impl Bind<'_> {
    /// What SQLite keeps as text: ids, times, lists (as JSON).
    fn to_text(&self) -> Cow<'_, str> {
        let list = |json: Result<String, serde_json::Error>| json.unwrap_or_else(|_| "[]".to_owned());
        match self {
            Self::Id(Some(id)) => id.to_string().into(),
            Self::At(Some(at)) => at.to_string().into(),
            Self::Ints(values) => list(serde_json::to_string(values)).into(),
            Self::Ids(values) => list(serde_json::to_string(values)).into(),
            Self::Texts(values) => list(serde_json::to_string(values)).into(),
            Self::Text(Some(text)) => text.as_ref().into(),
            _ => "".into(),
        }
    }
}

fn run(statement: &mut CachedStatement<'_>, binds: &[Bind<'_>], lines: &mut Vec<Line>) -> Result<(), Fault> {
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(binds)).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        lines.push(line(row, columns)?);
    }
    Ok(())
}

fn line(row: &Row<'_>, columns: usize) -> Result<Line, Fault> {
    let cell = |at| {
        Ok(match row.get_ref(at).map_err(fault)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(value) => Cell::Int(value),
            ValueRef::Real(value) => Cell::Real(value),
            ValueRef::Text(value) => Cell::Text(String::from_utf8_lossy(value).into_owned()),
            ValueRef::Blob(value) => Cell::Blob(value.to_vec()),
        })
    };
    (0..columns).map(cell).collect::<Result<_, Fault>>().map(Line)
}

impl Sql for SqliteTx<'_> {
    async fn query(&mut self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        let mut lines = Vec::new();
        run(&mut self.connection.prepare_cached(&lite(sql)).map_err(fault)?, binds, &mut lines)?;
        Ok(lines)
    }

    async fn execute(&mut self, sql: &str, binds: &[Bind<'_>]) -> Result<u64, Fault> {
        let mut statement = self.connection.prepare_cached(&lite(sql)).map_err(fault)?;
        statement.execute(rusqlite::params_from_iter(binds)).map(|rows| rows as u64).map_err(fault)
    }

    async fn each(&mut self, sql: &str, columns: &[&str], rows: &[Vec<Bind<'_>>]) -> Result<Vec<Line>, Fault> {
        let places: Vec<String> =
            columns.iter().enumerate().map(|(at, column)| format!("${} AS {column}", at + 1)).collect();
        let sql = sql.replace("{rows}", &format!("(SELECT {}) AS r", places.join(", ")));
        let mut statement = self.connection.prepare_cached(&lite(&sql)).map_err(fault)?;
        let mut lines = Vec::new();
        for row in rows {
            run(&mut statement, row, &mut lines)?;
        }
        Ok(lines)
    }

    /// The rules stand in the statements.
    async fn act_for(&mut self, _user: Option<Uuid>) -> Result<(), Fault> {
        Ok(())
    }

    async fn insert(&mut self, into: &str, values: &str, rest: &str, rows: &[Vec<Bind<'_>>]) -> Result<u64, Fault> {
        let sql = lite(&format!("INSERT INTO {into} VALUES ({values}) {rest}"));
        let mut statement = self.connection.prepare_cached(&sql).map_err(fault)?;
        let mut written = 0;
        for row in rows {
            written += statement.execute(rusqlite::params_from_iter(row)).map_err(fault)? as u64;
        }
        Ok(written)
    }

    fn is_sqlite(&self) -> bool {
        true
    }
}

impl Sqlite {
    /// Reads, beside the writer.
    pub(crate) async fn lines(&self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        let mut query = sqlx::query(AssertSqlSafe(lite(sql)));
        for bind in binds {
            query = match bind {
                Bind::Int(value) => query.bind(*value),
                Bind::Real(value) => query.bind(*value),
                Bind::Bool(value) => query.bind(i64::from(*value)),
                Bind::Blob(value) => query.bind(value.to_vec()),
                Bind::Text(None) | Bind::Id(None) | Bind::At(None) => query.bind(None::<String>),
                other => query.bind(other.to_text().into_owned()),
            };
        }
        query.fetch_all(&self.readers).await.map_err(read_fault)?.iter().map(read_line).collect()
    }
}

impl Sqlite {
    /// Reads many rows, beside the writer and the pool, whose driver hands over each value of each row by itself.
    pub(crate) async fn bulk(&self, sql: &str, binds: Vec<Bind<'static>>) -> Result<Vec<Line>, Fault> {
        let sql = lite(sql);
        let read = move |connection: &mut Connection| {
            let mut lines = Vec::new();
            run(&mut connection.prepare_cached(&sql).map_err(fault)?, &binds, &mut lines)?;
            Ok(lines)
        };
        self.reader.call(read).await?
    }
}

fn read_line(row: &SqliteRow) -> Result<Line, Fault> {
    let cell = |at: usize| {
        let raw = row.try_get_raw(at).map_err(read_fault)?;
        let kind = raw.type_info();
        Ok(match kind.name() {
            _ if raw.is_null() => Cell::Null,
            "INTEGER" => Cell::Int(row.try_get_unchecked(at).map_err(read_fault)?),
            "REAL" => Cell::Real(row.try_get_unchecked(at).map_err(read_fault)?),
            "TEXT" => Cell::Text(row.try_get_unchecked(at).map_err(read_fault)?),
            "BLOB" => Cell::Blob(row.try_get_unchecked(at).map_err(read_fault)?),
            other => return Err(Fault::damaged("the type", format!("{} ({other})", row.column(at).name()))),
        })
    };
    (0..row.len()).map(cell).collect::<Result<_, Fault>>().map(Line)
}
