//! Statements of both databases, on PostgreSQL.

use serde_json::value::RawValue;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Column as _, Executor as _, Postgres as Pg, Row as _, TypeInfo as _, ValueRef as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::fault::fault;
use super::tx::PgTx;
use super::{Postgres, rights};
use crate::Moment;
use crate::fault::Fault;
use crate::sql::{Bind, Cell, Line, Sql};

type Ask<'q> = Query<'q, Pg, PgArguments>;

fn ask<'q>(sql: &str, binds: &[Bind<'_>]) -> Ask<'q> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for bind in binds {
        query = match bind {
            Bind::Int(value) => query.bind(*value),
            Bind::Real(value) => query.bind(*value),
            Bind::Text(value) => query.bind(value.as_deref().map(str::to_owned)),
            Bind::Blob(value) => query.bind(value.to_vec()),
            Bind::Id(value) => query.bind(*value),
            Bind::Bool(value) => query.bind(*value),
            Bind::At(value) => query.bind(value.map(Moment::datetime)),
            Bind::Ints(values) => query.bind(values.clone()),
            Bind::Ids(values) => query.bind(values.clone()),
            Bind::Texts(values) => query.bind(values.clone()),
        };
    }
    query
}

/// The type of an array of such values.
fn array(bind: &Bind<'_>) -> &'static str {
    match bind {
        Bind::Int(_) => "bigint[]",
        Bind::Real(_) => "float8[]",
        Bind::Text(_) => "text[]",
        Bind::Blob(_) => "bytea[]",
        Bind::Id(_) => "uuid[]",
        Bind::Bool(_) => "boolean[]",
        Bind::At(_) => "timestamptz[]",
        Bind::Ints(_) | Bind::Ids(_) | Bind::Texts(_) => unreachable!("a list is no value of a row"),
    }
}

/// Binds a column of the rows.
fn bind_column<'q>(query: Ask<'q>, rows: &[Vec<Bind<'_>>], at: usize) -> Ask<'q> {
    macro_rules! column {
        ($type:ty, $kind:ident($value:ident) => $of:expr) => {{
            let values: Vec<Option<$type>> = rows
                .iter()
                .map(|row| match row.get(at) {
                    Some(Bind::$kind($value)) => $of,
                    _ => None,
                })
                .collect();
            query.bind(values)
        }};
    }
    match &rows[0][at] {
        Bind::Int(_) => column!(i64, Int(value) => *value),
        Bind::Real(_) => column!(f64, Real(value) => *value),
        Bind::Text(_) => column!(String, Text(value) => value.as_deref().map(str::to_owned)),
        Bind::Blob(_) => column!(Vec<u8>, Blob(value) => Some(value.to_vec())),
        Bind::Id(_) => column!(Uuid, Id(value) => *value),
        Bind::Bool(_) => column!(bool, Bool(value) => Some(*value)),
        Bind::At(_) => column!(OffsetDateTime, At(value) => value.map(Moment::datetime)),
        Bind::Ints(_) | Bind::Ids(_) | Bind::Texts(_) => query,
    }
}

/// The statement with `{rows}` as a table of these columns. There is a first row.
fn over<'q>(sql: &str, columns: &[&str], rows: &[Vec<Bind<'_>>]) -> Ask<'q> {
    let places: Vec<String> =
        rows[0].iter().enumerate().map(|(at, bind)| format!("${}::{}", at + 1, array(bind))).collect();
    let table = format!("unnest({}) AS r ({})", places.join(", "), columns.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql.replace("{rows}", &table)));
    for at in 0..columns.len() {
        query = bind_column(query, rows, at);
    }
    query
}

impl Sql for PgTx<'_> {
    async fn query(&mut self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        ask(sql, binds).fetch_all(&mut *self.tx).await.map_err(fault)?.iter().map(line).collect()
    }

    async fn execute(&mut self, sql: &str, binds: &[Bind<'_>]) -> Result<u64, Fault> {
        Ok(ask(sql, binds).execute(&mut *self.tx).await.map_err(fault)?.rows_affected())
    }

    async fn each(&mut self, sql: &str, columns: &[&str], rows: &[Vec<Bind<'_>>]) -> Result<Vec<Line>, Fault> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        over(sql, columns, rows).fetch_all(&mut *self.tx).await.map_err(fault)?.iter().map(line).collect()
    }

    async fn insert(&mut self, into: &str, values: &str, rest: &str, rows: &[Vec<Bind<'_>>]) -> Result<u64, Fault> {
        let Some(first) = rows.first() else {
            return Ok(0);
        };
        let values = values.replace('$', "c");
        let columns: Vec<String> = (1..=first.len()).map(|at| format!("c{at}")).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let sql = format!("INSERT INTO {into} SELECT {values} FROM {{rows}} {rest}");
        Ok(over(&sql, &columns, rows).execute(&mut *self.tx).await.map_err(fault)?.rows_affected())
    }

    async fn act_for(&mut self, user: Option<Uuid>) -> Result<(), Fault> {
        let sql = match user {
            None => AssertSqlSafe(rights::RESET.to_owned()),
            Some(user) => {
                let may: bool = sqlx::query_scalar(rights::MAY).fetch_one(&mut *self.tx).await.map_err(fault)?;
                if !may {
                    return Ok(());
                }
                AssertSqlSafe(rights::take(user))
            }
        };
        self.tx.execute(sqlx::raw_sql(sql)).await.map_err(fault)?;
        Ok(())
    }

    fn is_sqlite(&self) -> bool {
        false
    }
}

impl Postgres {
    /// Reads many rows.
    pub(crate) async fn bulk(&self, sql: &str, binds: Vec<Bind<'static>>) -> Result<Vec<Line>, Fault> {
        self.lines(sql, &binds).await
    }

    /// Reads.
    pub(crate) async fn lines(&self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        ask(sql, binds).fetch_all(self.reading().await?.connection()).await.map_err(fault)?.iter().map(line).collect()
    }
}

fn line(row: &PgRow) -> Result<Line, Fault> {
    let cell = |at: usize| {
        let raw = row.try_get_raw(at).map_err(fault)?;
        let kind = raw.type_info();
        Ok(match kind.name() {
            _ if raw.is_null() => Cell::Null,
            "INT8" => Cell::Int(row.try_get(at).map_err(fault)?),
            "INT4" => Cell::Int(row.try_get::<i32, _>(at).map_err(fault)?.into()),
            "BOOL" => Cell::Int(row.try_get::<bool, _>(at).map_err(fault)?.into()),
            "FLOAT8" => Cell::Real(row.try_get(at).map_err(fault)?),
            "TEXT" | "VARCHAR" => Cell::Text(row.try_get(at).map_err(fault)?),
            "JSONB" | "JSON" => {
                Cell::Text(row.try_get::<Json<Box<RawValue>>, _>(at).map_err(fault)?.0.get().to_owned())
            }
            "BYTEA" => Cell::Blob(row.try_get(at).map_err(fault)?),
            "UUID" => Cell::Id(row.try_get(at).map_err(fault)?),
            "TIMESTAMPTZ" => Cell::At(row.try_get::<OffsetDateTime, _>(at).map_err(fault)?.into()),
            other => return Err(Fault::damaged("the type", format!("{} ({other})", row.column(at).name()))),
        })
    };
    (0..row.len()).map(cell).collect::<Result<_, Fault>>().map(Line)
}
