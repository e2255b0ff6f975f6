//! Statements that are the same on both databases: written once, in PostgreSQL's words.
//!
//! Shape: SQLite gets the text with other table names (`emberd.jobs` is `emberd_jobs`), `?1` for `$1`, and without casts and row locks:
//! its one writer holds every lock. A value goes in as a [`Bind`] and comes out in a [`Line`], by position.
//! Not here: what the statements mean (`jobs/`), the drivers (`sqlite/sql.rs`, `postgres/sql.rs`).

use std::borrow::Cow;

use serde_json::Value;
use uuid::Uuid;

use crate::Moment;
use crate::fault::Fault;
use crate::text::without_nul;
use crate::tx::Answer;

/// A value for a statement. JSON goes in as text, with `::jsonb` behind its place.
#[derive(Clone, Debug)]
pub(crate) enum Bind<'a> {
    Int(Option<i64>),
    Real(Option<f64>),
    Text(Option<Cow<'a, str>>),
    Blob(&'a [u8]),
    Id(Option<Uuid>),
    Bool(bool),
    At(Option<Moment>),
    /// For `= ANY($n)`.
    Ints(Vec<i64>),
    /// For `= ANY($n)`.
    Ids(Vec<Uuid>),
    /// For `= ANY($n)`.
    Texts(Vec<String>),
}

macro_rules! bind_from {
    ($($type:ty => $value:ident $bind:expr),+ $(,)?) => {
        $(impl<'a> From<$type> for Bind<'a> {
            fn from($value: $type) -> Self { $bind }
        })+
    };
}

bind_from! {
    i64 => value Self::Int(Some(value)),
    Option<i64> => value Self::Int(value),
    Option<f64> => value Self::Real(value),
    &'a str => value Self::Text(Some(without_nul(value))),
    Option<&'a str> => value Self::Text(value.map(without_nul)),
    &'a String => value Self::Text(Some(without_nul(value))),
    String => value Self::Text(Some(Cow::Owned(without_nul(&value).into_owned()))),
    Option<String> => value Self::Text(value.map(|text| Cow::Owned(without_nul(&text).into_owned()))),
    Cow<'a, str> => value Self::Text(Some(value)),
    &'a [u8] => value Self::Blob(value),
    Uuid => value Self::Id(Some(value)),
    Option<Uuid> => value Self::Id(value),
    bool => value Self::Bool(value),
    Moment => value Self::At(Some(value)),
    Option<Moment> => value Self::At(value),
    Vec<i64> => value Self::Ints(value),
    Vec<Uuid> => value Self::Ids(value),
    Vec<String> => value Self::Texts(value),
    &'a Value => value Self::Text(Some(Cow::Owned(crate::text::json_value(value)))),
    Option<&'a Value> => value Self::Text(value.map(|value| Cow::Owned(crate::text::json_value(value)))),
}

/// `binds![a, b]`: each value as a [`Bind`].
macro_rules! binds {
    ($($value:expr),* $(,)?) => { [$($crate::sql::Bind::from($value)),*] };
}
pub(crate) use binds;

/// A value from a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    Id(Uuid),
    At(Moment),
}

/// A row, read by position.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) Vec<Cell>);

impl Line {
    fn odd<T>(&self, at: usize) -> Result<T, Fault> {
        Err(Fault::damaged("a column", format!("{at} in {:?}", self.0.get(at))))
    }

    pub(crate) fn maybe_int(&self, at: usize) -> Result<Option<i64>, Fault> {
        match self.0.get(at) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Int(value)) => Ok(Some(*value)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn int(&self, at: usize) -> Result<i64, Fault> {
        self.maybe_int(at)?.map_or_else(|| self.odd(at), Ok)
    }

    pub(crate) fn bool(&self, at: usize) -> Result<bool, Fault> {
        Ok(self.int(at)? != 0)
    }

    pub(crate) fn maybe_real(&self, at: usize) -> Result<Option<f64>, Fault> {
        match self.0.get(at) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Real(value)) => Ok(Some(*value)),
            Some(Cell::Int(value)) => Ok(Some(*value as f64)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn maybe_text(&self, at: usize) -> Result<Option<String>, Fault> {
        match self.0.get(at) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(value)) => Ok(Some(value.clone())),
            _ => self.odd(at),
        }
    }

    pub(crate) fn text(&self, at: usize) -> Result<String, Fault> {
        self.maybe_text(at)?.map_or_else(|| self.odd(at), Ok)
    }

    /// Takes a text out of the row.
    pub(crate) fn take_text(&mut self, at: usize) -> Result<String, Fault> {
        match self.0.get_mut(at) {
            Some(Cell::Text(value)) => Ok(std::mem::take(value)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn blob(&self, at: usize) -> Result<&[u8], Fault> {
        match self.0.get(at) {
            Some(Cell::Blob(value)) => Ok(value),
            _ => self.odd(at),
        }
    }

    pub(crate) fn maybe_id(&self, at: usize) -> Result<Option<Uuid>, Fault> {
        if matches!(self.0.get(at), Some(Cell::Null)) { Ok(None) } else { self.id(at).map(Some) }
    }

    pub(crate) fn id(&self, at: usize) -> Result<Uuid, Fault> {
        match self.0.get(at) {
            Some(Cell::Id(value)) => Ok(*value),
            Some(Cell::Text(text)) => Uuid::try_parse(text).or_else(|_| self.odd(at)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn maybe_moment(&self, at: usize) -> Result<Option<Moment>, Fault> {
        match self.0.get(at) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::At(value)) => Ok(Some(*value)),
            Some(Cell::Text(text)) => text.parse().map(Some).or_else(|_| self.odd(at)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn moment(&self, at: usize) -> Result<Moment, Fault> {
        self.maybe_moment(at)?.map_or_else(|| self.odd(at), Ok)
    }

    pub(crate) fn maybe_json(&self, at: usize) -> Result<Option<Value>, Fault> {
        match self.0.get(at) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => serde_json::from_str(text).map(Some).or_else(|_| self.odd(at)),
            _ => self.odd(at),
        }
    }

    pub(crate) fn json(&self, at: usize) -> Result<Value, Fault> {
        self.maybe_json(at)?.map_or_else(|| self.odd(at), Ok)
    }
}

/// A transaction that takes statements of both databases.
pub(crate) trait Sql: Send {
    /// Runs a statement; gives its rows.
    fn query(&mut self, sql: &str, binds: &[Bind<'_>]) -> impl Answer<Vec<Line>>;

    /// Runs a statement; gives how many rows it wrote.
    fn execute(&mut self, sql: &str, binds: &[Bind<'_>]) -> impl Answer<u64>;

    /// Runs a statement over `rows`, which stand in it as `{rows}`: a table `r` with these columns, whose types are those of the first
    /// row's values. PostgreSQL takes them all at once, SQLite one after the other. Gives the rows that it returns.
    fn each(&mut self, sql: &str, columns: &[&str], rows: &[Vec<Bind<'_>>]) -> impl Answer<Vec<Line>>;

    /// Goes on with this user's rights, as the policies say them; none: with emberd's own again.
    fn act_for(&mut self, user: Option<Uuid>) -> impl Answer<()>;

    /// Inserts rows into `into` (a table with its columns); `values` are made of a row's, which are `$1` and on. `rest` is what follows, such
    /// as `ON CONFLICT DO NOTHING`. Gives how many were written. Of single rows of values SQLite makes no copy of the pages they go to, as it
    /// does for [`each`](Self::each) in case a later row of the same statement fails.
    fn insert(&mut self, into: &str, values: &str, rest: &str, rows: &[Vec<Bind<'_>>]) -> impl Answer<u64>;

    /// Which one it is, where the statements differ.
    fn is_sqlite(&self) -> bool;
}

/// A statement that grows: each `?` is the next value's place.
#[derive(Default)]
pub(crate) struct Ask<'a> {
    pub(crate) sql: String,
    pub(crate) binds: Vec<Bind<'a>>,
}

impl<'a> Ask<'a> {
    /// A part of the statement, with its values.
    pub(crate) fn push<const N: usize>(&mut self, part: &str, binds: [Bind<'a>; N]) -> &mut Self {
        let mut pieces = part.split('?');
        self.sql.push_str(pieces.next().unwrap_or_default());
        for (piece, bind) in pieces.zip(binds) {
            self.binds.push(bind);
            self.sql.push_str(&format!("${}{piece}", self.binds.len()));
        }
        self
    }
}

/// The statement as SQLite takes it.
pub(crate) fn lite(sql: &str) -> String {
    const GONE: [&str; 8] =
        ["public.", "::jsonb", "::bigint", "::uuid", "::text", "::bytea", " FOR NO KEY UPDATE", " SKIP LOCKED"];
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['$', 'e', 'p', ':', ' ', '=']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(gone) = GONE.iter().find(|gone| rest.starts_with(**gone)) {
            rest = &rest[gone.len()..];
        } else if let Some(after) = rest.strip_prefix("emberd.") {
            out.push_str("emberd_");
            rest = after;
        } else if let Some((place, after)) = rest.strip_prefix("= ANY($").and_then(|after| after.split_once(')')) {
            out.push_str("IN (SELECT value FROM json_each(?");
            out.push_str(place);
            out.push_str("))");
            rest = after;
        } else {
            // A dollar without a number is a JSON path's.
            let is_place = rest.starts_with('$') && rest[1..].starts_with(|next: char| next.is_ascii_digit());
            out.push_str(if is_place { "?" } else { &rest[..1] });
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::lite;

    #[test]
    fn statements_are_turned_into_sqlites() {
        let sql = "UPDATE emberd.jobs SET plan = $12::jsonb FROM public.prompts p WHERE id = ANY($2) AND x = $1 FOR NO KEY UPDATE SKIP LOCKED";
        let expected =
            "UPDATE emberd_jobs SET plan = ?12 FROM prompts p WHERE id IN (SELECT value FROM json_each(?2)) AND x = ?1";
        assert_eq!(lite(sql), expected);
        assert_eq!(lite("SELECT json_each(data, '$.a') -- é$"), "SELECT json_each(data, '$.a') -- é$");
    }
}
