//! Traces in SQLite: states, rows, and the names that found no prompt.
//!
//! Promise: one index with random keys, that of `phoenix_trace_id`, finds row and state of a trace.
//! On disk: a row's number (`emberd_no`) is its state's number (`no`). A state without a row has a number below zero and is found by a
//! partial index, which is small, for such traces are few and short-lived. A row that is deleted, by whomever, gives its state such
//! a number (a trigger). A state that stands under a row's number and is another trace's belongs to no row: it does not count.
//! Each line of `emberd_unjoined` is a hint: whoever reads it looks at the row.
//! Kept by:  `tests::recording`, `tests::prompts`, `tests::any_order`.

use std::sync::LazyLock;

use emberd_model::TraceId;
use emberd_model::row::Tokens;
use rusqlite::{CachedStatement, OptionalExtension, ToSql, params};
use uuid::Uuid;

use super::fault::fault;
use super::rows::{STORED, stored};
use super::tx::{Id, SqliteTx};
use crate::Moment;
use crate::fault::Fault;
use crate::library::UNASSIGNED;
use crate::text::without_nul;
use crate::tx::{Known, NAME_CHARS, Resolved, Stored};

pub(super) const MICROS_PER_MINUTE: i64 = 60_000_000;

static STATE_BY_ROW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT t.emberd_no, {STORED} FROM prompt_traces t
         LEFT JOIN emberd_trace_state s ON s.no = t.emberd_no AND s.trace_id = ?2 WHERE t.phoenix_trace_id = ?1"
    )
});
static STATE_WITHOUT_ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT 0, {STORED} FROM emberd_trace_state s WHERE s.no < 0 AND s.trace_id = ?1"));

/// A trace id as `phoenix_trace_id`, without an allocation.
pub(super) struct Hex([u8; 32]);

impl Hex {
    pub(super) fn of(trace: TraceId) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(trace.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

/// The part of a name that `emberd_unjoined` holds.
fn cut(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS).map_or(name, |(end, _)| &name[..end])
}

impl SqliteTx<'_> {
    pub(super) fn known_of(&self, traces: &[TraceId]) -> Result<Known, Fault> {
        let mut by_row = self.prepare(&STATE_BY_ROW)?;
        let mut rowless = match self.lowest_number()? < 0 {
            true => Some(self.prepare(&STATE_WITHOUT_ROW)?),
            false => None,
        };
        let mut forgotten = self.prepare("SELECT 1 FROM emberd_forgotten WHERE trace_id = ?1")?;
        let mut known = Known::default();
        for trace in traces {
            let mut rows = by_row.query(params![Hex::of(*trace).as_str(), &trace.0[..]]).map_err(fault)?;
            if let Some(row) = rows.next().map_err(fault)? {
                match row.get_ref(1).map_err(fault)? {
                    rusqlite::types::ValueRef::Null => known.settled.push(*trace),
                    _ => known.states.push(stored(row)?),
                }
                continue;
            }
            if let Some(rowless) = &mut rowless {
                let mut rows = rowless.query([&trace.0[..]]).map_err(fault)?;
                if let Some(row) = rows.next().map_err(fault)? {
                    known.states.push(stored(row)?);
                    continue;
                }
            }
            if forgotten.exists([&trace.0[..]]).map_err(fault)? {
                known.settled.push(*trace);
            }
        }
        Ok(known)
    }

    /// The lowest number of a state; below zero if any trace has no row.
    fn lowest_number(&self) -> Result<i64, Fault> {
        let lowest: Option<i64> =
            self.prepare("SELECT min(no) FROM emberd_trace_state")?.query_row([], |row| row.get(0)).map_err(fault)?;
        Ok(lowest.unwrap_or(0))
    }

    pub(super) fn put_all(&self, states: &[Stored], rows: &[Resolved]) -> Result<(), Fault> {
        if rows.iter().any(|row| row.prompt == UNASSIGNED) {
            self.expect_reserved_prompt()?;
        }
        let mut put = Put {
            insert_row: self.prepare(INSERT_ROW)?,
            upsert_row: None,
            update_row: None,
            insert_state: self.prepare(INSERT_STATE)?,
            update_state: None,
            unjoined: self.prepare("INSERT OR IGNORE INTO emberd_unjoined (name, no) VALUES (?1, ?2)")?,
            free: None,
        };
        let mut rows = rows.iter().peekable();
        for (at, state) in states.iter().enumerate() {
            let number = match rows.next_if(|row| row.at == at) {
                Some(row) => put.row(self, state, row)?,
                None => state.place,
            };
            put.state(self, state, number)?;
        }
        debug_assert!(rows.next().is_none(), "rows are sorted as their states are");
        Ok(())
    }

    /// Foreign keys are not checked row by row here. All other prompts were looked up in this transaction.
    fn expect_reserved_prompt(&self) -> Result<(), Fault> {
        let mut there = self.prepare("SELECT 1 FROM prompts WHERE id = ?1")?;
        match there.exists([Id::of(UNASSIGNED).as_str()]).map_err(fault)? {
            true => Ok(()),
            false => Err(Fault::contended()),
        }
    }

    pub(super) fn unjoined_names(&self, after: &str, limit: u32) -> Result<Vec<String>, Fault> {
        // From name to name, a look into the table each, however many rows have it.
        let mut statement = self.prepare("SELECT name FROM emberd_unjoined WHERE name > ?1 ORDER BY name LIMIT 1")?;
        let mut names: Vec<String> = Vec::new();
        while names.len() < limit as usize {
            let after = names.last().map_or(after, String::as_str);
            match statement.query_row([after], |row| row.get(0)).optional().map_err(fault)? {
                Some(name) => names.push(name),
                None => break,
            }
        }
        Ok(names)
    }

    /// Up to `limit` traces of the reserved prompt that name this one. Lines that are no longer true go.
    pub(super) fn unjoined_by(&self, name: &str, limit: usize) -> Result<Vec<TraceId>, Fault> {
        let mut statement = self.prepare(
            "SELECT u.no, t.phoenix_trace_id, t.metadata ->> '$.prompt_ref' FROM emberd_unjoined u
             LEFT JOIN prompt_traces t ON t.emberd_no = u.no AND t.prompt_id = '00000000-0000-0000-0000-000000000000'
             WHERE u.name = ?1",
        )?;
        let (mut traces, mut untrue) = (Vec::new(), Vec::new());
        let mut rows = statement.query([cut(name)]).map_err(fault)?;
        while traces.len() < limit && untrue.len() < limit {
            let Some(row) = rows.next().map_err(fault)? else { break };
            let named: Option<String> = row.get(2).map_err(fault)?;
            match named {
                Some(named) if named == name => {
                    // A row that someone else wrote may have any text for a trace id: it is not emberd's to move.
                    let trace: String = row.get(1).map_err(fault)?;
                    traces.extend(trace.parse::<TraceId>().ok());
                }
                Some(named) if cut(&named) == cut(name) => {}
                _ => untrue.push(row.get::<_, i64>(0).map_err(fault)?),
            }
        }
        drop(rows);
        for no in untrue {
            self.execute("DELETE FROM emberd_unjoined WHERE name = ?1 AND no = ?2", params![cut(name), no])?;
        }
        Ok(traces)
    }

    pub(super) fn move_all(&self, moves: &[(TraceId, Uuid)]) -> Result<(), Fault> {
        let mut update = self.prepare(
            "UPDATE prompt_traces SET prompt_id = ?2 WHERE phoenix_trace_id = ?1
             RETURNING emberd_no, substr(metadata ->> '$.prompt_ref', 1, 100)",
        )?;
        let mut joined = self.prepare("DELETE FROM emberd_unjoined WHERE name = ?1 AND no = ?2")?;
        for (trace, prompt) in moves {
            let moved: Option<(i64, Option<String>)> = update
                .query_row(params![Hex::of(*trace).as_str(), Id::of(*prompt).as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
                .map_err(fault)?;
            if let Some((no, Some(name))) = moved {
                joined.execute(params![name, no]).map_err(fault)?;
            }
        }
        Ok(())
    }
}

const INSERT_ROW: &str = "INSERT INTO prompt_traces
     (prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata, created_at, user_id, id)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
/// For a trace whose state had no row: someone else may have made one.
const UPSERT_ROW: &str = "INSERT INTO prompt_traces
     (prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata, created_at, user_id, id)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
     ON CONFLICT (phoenix_trace_id) DO UPDATE SET prompt_id = excluded.prompt_id, session_id = excluded.session_id,
         execution_time_ms = excluded.execution_time_ms, tokens_used = excluded.tokens_used, model = excluded.model,
         status = excluded.status, error = excluded.error, metadata = excluded.metadata,
         created_at = excluded.created_at, user_id = excluded.user_id
     RETURNING emberd_no";
const UPDATE_ROW: &str =
    "UPDATE prompt_traces SET prompt_id = ?1, session_id = ?3, execution_time_ms = ?4, tokens_used = ?5,
         model = ?6, status = ?7, error = ?8, metadata = ?9, created_at = ?10, user_id = ?11
     WHERE phoenix_trace_id = ?2";
const INSERT_STATE: &str = "INSERT OR REPLACE INTO emberd_trace_state
     (no, trace_id, version, first_seen_micros, touched_minute, waiting, prompt_id, hour, latency_ms, status, prompt_tokens,
      completion_tokens, total_tokens, llm_time_ms, state)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
/// Also to another number, where the trace has its first row now.
const UPDATE_STATE: &str = "UPDATE OR REPLACE emberd_trace_state SET no = ?1, version = ?3, first_seen_micros = ?4,
         touched_minute = ?5, waiting = ?6, prompt_id = ?7, hour = ?8, latency_ms = ?9, status = ?10, prompt_tokens = ?11,
         completion_tokens = ?12, total_tokens = ?13, llm_time_ms = ?14, state = ?15
     WHERE no = ?16 AND trace_id = ?2 AND version = ?3 - 1";

/// What writes traces, prepared once for many.
struct Put<'a> {
    insert_row: CachedStatement<'a>,
    upsert_row: Option<CachedStatement<'a>>,
    update_row: Option<CachedStatement<'a>>,
    insert_state: CachedStatement<'a>,
    update_state: Option<CachedStatement<'a>>,
    unjoined: CachedStatement<'a>,
    /// The next number for a state without a row.
    free: Option<i64>,
}

fn prepared<'a, 'b>(
    tx: &'a SqliteTx<'_>,
    statement: &'b mut Option<CachedStatement<'a>>,
    sql: &str,
) -> Result<&'b mut CachedStatement<'a>, Fault> {
    Ok(match statement {
        Some(statement) => statement,
        none => none.insert(tx.prepare(sql)?),
    })
}

impl<'a> Put<'a> {
    /// Writes a row; gives its number.
    fn row(&mut self, tx: &'a SqliteTx<'_>, state: &Stored, resolved: &Resolved) -> Result<i64, Fault> {
        let Resolved { row, prompt, user, metadata, .. } = resolved;
        let Tokens { prompt: input, completion, total } = row.tokens;
        let (id, prompt_id, trace) = (Id::of(row.id), Id::of(*prompt), Hex::of(row.trace_id));
        let (session, user) = (row.session_id.map(Id::of), user.map(Id::of));
        let created = Moment::from(row.created_at).text();
        let tokens = format!(r#"{{"prompt":{input},"completion":{completion},"total":{total}}}"#);
        let (model, error) = (without_nul(&row.model), row.error.as_deref().map(without_nul));
        let (session, user) = (session.as_ref().map(Id::as_str), user.as_ref().map(Id::as_str));
        let (id, prompt_id, trace, created) = (id.as_str(), prompt_id.as_str(), trace.as_str(), created.as_str());
        let status = row.status.as_str();
        let params: [&dyn ToSql; 12] = [
            &prompt_id,
            &trace,
            &session,
            &row.execution_time_ms,
            &tokens,
            &model,
            &status,
            &error,
            metadata,
            &created,
            &user,
            &id,
        ];
        let number = if state.place > 0 {
            prepared(tx, &mut self.update_row, UPDATE_ROW)?.execute(&params[..11]).map_err(fault)?;
            state.place
        } else if state.place < 0 {
            prepared(tx, &mut self.upsert_row, UPSERT_ROW)?.query_row(&params[..], |row| row.get(0)).map_err(fault)?
        } else {
            self.insert_row.insert(&params[..]).map_err(fault)?
        };
        if let Some(name) = row.prompt_ref.as_deref() {
            let name = without_nul(name);
            if *prompt == UNASSIGNED {
                self.unjoined.execute(params![cut(&name), number]).map_err(fault)?;
            } else if state.place != 0 {
                tx.execute("DELETE FROM emberd_unjoined WHERE name = ?1 AND no = ?2", params![cut(&name), number])?;
            }
        }
        Ok(number)
    }

    /// Writes a state under its row's number; where it has no row (a number not above zero), under its own.
    fn state(&mut self, tx: &'a SqliteTx<'_>, state: &Stored, number: i64) -> Result<(), Fault> {
        let number = if number == 0 { self.number_without_row(tx)? } else { number };
        let prompt = state.counted.map(|counted| Id::of(counted.prompt));
        let adds = state.counted.map(|counted| counted.contribution);
        let params = params![
            number,
            &state.trace.0[..],
            state.version,
            state.first_seen.micros(),
            state.touched.micros().div_euclid(MICROS_PER_MINUTE),
            state.waiting,
            prompt.as_ref().map(Id::as_str),
            adds.map(|adds| adds.hour),
            adds.map(|adds| adds.latency_ms as i64),
            adds.map(|adds| adds.status.as_str()),
            adds.map(|adds| adds.tokens.prompt),
            adds.map(|adds| adds.tokens.completion),
            adds.map(|adds| adds.tokens.total),
            adds.map(|adds| adds.llm_time_ms as i64),
            state.state,
        ];
        if state.place == 0 {
            self.insert_state.execute(params).map_err(fault)?;
            return Ok(());
        }
        let update = prepared(tx, &mut self.update_state, UPDATE_STATE)?;
        update.raw_bind_parameter(16, state.place).map_err(fault)?;
        for (at, value) in params.iter().enumerate() {
            update.raw_bind_parameter(at + 1, value).map_err(fault)?;
        }
        match update.raw_execute().map_err(fault)? {
            1 => Ok(()),
            _ => Err(Fault::contended()),
        }
    }

    fn number_without_row(&mut self, tx: &SqliteTx<'_>) -> Result<i64, Fault> {
        let next = match self.free {
            Some(next) => next,
            None => tx.lowest_number()?.min(0) - 1,
        };
        self.free = Some(next - 1);
        Ok(next)
    }
}
