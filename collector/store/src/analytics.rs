//! Product analytics: events, sessions, a day's totals.
//!
//! Promise: an event that is sent again with its id is one row; sessions and days are computed from what is there and put in place of what
//! was, so that whoever computes them again, or several at once, ends at the same rows.
//! What a session is: the traces of one session id; or one user's calls of the API that lie no more than [`SESSION_PAUSE`] apart, whose id
//! follows from the user and the session's beginning, and whose traces, tokens and cost are 0: they stand at the traces' own sessions.
//! Not here: when anything is computed (`emberd-api`).
//! Kept by: `tests::analytics`.

use std::collections::BTreeMap;
use std::time::Duration;

use emberd_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::record::Writer;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// A user who calls again after this long begins another session.
pub const SESSION_PAUSE: Duration = Duration::from_secs(30 * 60);
/// Sessions of traces in one transaction.
const SESSIONS_AT_ONCE: usize = 1_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// Costs are added up in millionths of a millionth, which doubles of 15 digits hold and a sum of 9 million dollars fits.
const PICO: i64 = 1_000_000_000_000;

/// A row of `analytics_events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Primary key.
    pub id: Uuid,
    /// What happened.
    pub name: String,
    /// An object.
    pub properties: Value,
    /// A profile.
    pub user: Option<Uuid>,
    /// The application's session.
    pub session: Option<Uuid>,
    /// The prompt that it is about.
    pub prompt: Option<Uuid>,
    /// When.
    pub at: Moment,
}

/// A row of `user_sessions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Primary key.
    pub id: Uuid,
    /// A profile.
    pub user: Option<Uuid>,
    /// The first that was seen of it.
    pub first: Moment,
    /// The last.
    pub last: Moment,
    /// Traces in it.
    pub traces: i64,
    /// Their tokens.
    pub tokens: i64,
    /// Their cost, in the price table's currency.
    pub cost: String,
}

/// A row of `daily_metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DayTotals {
    /// As `2026-11-21`, UTC.
    pub day: String,
    /// Traces that began on it.
    pub traces: i64,
    /// Their tokens.
    pub tokens: i64,
    /// Their cost, in the price table's currency.
    pub cost: String,
    /// Who called the API, had a trace or an event.
    pub users: i64,
    /// Evaluations made on it.
    pub evaluations: i64,
}

/// Millionths of millionths as a decimal, without zeros at its end.
fn decimal(pico: i64) -> String {
    let (whole, rest) = (pico / PICO, (pico % PICO).unsigned_abs());
    let digits = format!("{rest:012}");
    match digits.trim_end_matches('0') {
        "" => whole.to_string(),
        digits => format!("{whole}.{digits}"),
    }
}

/// A decimal as the database tells it, without zeros at its end.
fn plain(cost: &str) -> String {
    match cost.split_once('.') {
        Some((whole, rest)) if rest.trim_end_matches('0').is_empty() => whole.to_owned(),
        Some((whole, rest)) => format!("{whole}.{}", rest.trim_end_matches('0')),
        None => cost.to_owned(),
    }
}

impl Store {
    /// Writes down events; one whose id is there already is left as it was.
    pub async fn put_events(&self, events: Vec<Event>) -> Result<(), Error> {
        Ok(self.run(PutEvents(events)).await?)
    }

    /// Notes that these users were active at these times: their session goes on, or another begins.
    pub async fn touch_sessions(&self, active: Vec<(Uuid, UnixNanos)>) -> Result<(), Error> {
        Ok(self.run(Touch(active.into_iter().map(|(user, at)| (user, Moment::from(at))).collect())).await?)
    }

    /// Computes the sessions of the traces that began at or after `since`, whole. It is read beside the writer, who is kept for a moment only.
    pub async fn refresh_sessions(&self, since: UnixNanos) -> Result<(), Error> {
        let lite = self.kind() == "sqlite";
        let (pico, tokens) = (pico(lite), tokens(lite));
        let user = if lite { "max(user_id)" } else { "max(user_id::text)" };
        // The coalesce keeps SQLite from going through the index over all sessions in place of that over times.
        let sql = format!(
            "SELECT session_id, {user}, min(created_at), max(created_at), count(*), {tokens}, {pico} FROM public.prompt_traces
             WHERE session_id IN (SELECT session_id FROM public.prompt_traces WHERE created_at >= $1 AND coalesce(session_id, session_id) IS NOT NULL)
             GROUP BY session_id ORDER BY session_id"
        );
        let read = |line: &Line| -> Result<Session, Fault> {
            let (first, last, traces) = (line.moment(2)?, line.moment(3)?, line.int(4)?);
            let (tokens, cost) = (line.int(5)?, decimal(line.int(6)?));
            Ok(Session { id: line.id(0)?, user: line.maybe_id(1)?, first, last, traces, tokens, cost })
        };
        let lines = self.bulk(&sql, binds![Moment::from(since)].into()).await?;
        for lines in lines.chunks(SESSIONS_AT_ONCE) {
            let sessions = lines.iter().map(read).collect::<Result<_, Fault>>()?;
            self.run(PutSessions(sessions)).await?;
        }
        Ok(())
    }

    /// Computes the totals of the UTC day in which `at` lies, in the same way.
    pub async fn refresh_day(&self, at: UnixNanos) -> Result<(), Error> {
        let lite = self.kind() == "sqlite";
        let first = Moment::from(at).micros().div_euclid(DAY_MICROS) * DAY_MICROS;
        let (from, to) = (Moment::from_micros(first), Moment::from_micros(first + DAY_MICROS));
        let within = "created_at >= $1 AND created_at < $2";
        let of_traces =
            format!("SELECT count(*), {}, {} FROM public.prompt_traces WHERE {within}", tokens(lite), pico(lite));
        let of_users = format!(
            "SELECT count(*) FROM (
                 SELECT user_id FROM public.api_usage_logs WHERE {within} UNION
                 SELECT user_id FROM public.prompt_traces WHERE {within} UNION
                 SELECT user_id FROM public.analytics_events WHERE {within} UNION
                 SELECT user_id FROM public.user_sessions WHERE last_activity_at >= $1 AND first_activity_at < $2
             ) AS of_users WHERE user_id IS NOT NULL"
        );
        let of_evaluations = format!("SELECT count(*) FROM public.prompt_evaluations WHERE {within}");
        let mut numbers = Vec::new();
        for (sql, columns) in [(of_traces, 3), (of_users, 1), (of_evaluations, 1)] {
            let lines = self.lines(&sql, &binds![from, to]).await?;
            let line = lines.first().ok_or_else(|| Fault::damaged("a count", "no row"))?;
            for column in 0..columns {
                numbers.push(line.int(column)?);
            }
        }
        let [traces, tokens, pico, users, evaluations] = numbers[..] else { return Ok(()) };
        // The ten characters before the time of day.
        let day = from.to_string().chars().take(10).collect();
        self.run(PutDay(DayTotals { day, traces, tokens, cost: decimal(pico), users, evaluations })).await?;
        Ok(())
    }

    /// The last events, newest first.
    pub async fn events(&self, limit: u32) -> Result<Vec<Event>, Error> {
        let sql = "SELECT id, name, properties, user_id, session_id, prompt_id, created_at FROM public.analytics_events
             ORDER BY created_at DESC, id DESC LIMIT $1";
        let read = |line: &Line| -> Result<Event, Fault> {
            let (user, session, prompt) = (line.maybe_id(3)?, line.maybe_id(4)?, line.maybe_id(5)?);
            let (name, properties) = (line.text(1)?, line.json(2)?);
            Ok(Event { id: line.id(0)?, name, properties, user, session, prompt, at: line.moment(6)? })
        };
        let lines = self.lines(sql, &binds![i64::from(limit)]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }

    /// The sessions last active, newest first.
    pub async fn sessions(&self, limit: u32) -> Result<Vec<Session>, Error> {
        let cost = if self.kind() == "sqlite" { "cost" } else { "cost::text" };
        let sql = format!(
            "SELECT session_id, user_id, first_activity_at, last_activity_at, traces, tokens, {cost} FROM public.user_sessions
             ORDER BY last_activity_at DESC, session_id LIMIT $1"
        );
        let read = |line: &Line| -> Result<Session, Fault> {
            let (first, last) = (line.moment(2)?, line.moment(3)?);
            let (traces, tokens, cost) = (line.int(4)?, line.int(5)?, plain(&line.text(6)?));
            Ok(Session { id: line.id(0)?, user: line.maybe_id(1)?, first, last, traces, tokens, cost })
        };
        let lines = self.lines(&sql, &binds![i64::from(limit)]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }

    /// Days' totals, latest first.
    pub async fn days(&self, limit: u32) -> Result<Vec<DayTotals>, Error> {
        let (day, cost) = if self.kind() == "sqlite" { ("day", "cost") } else { ("day::text", "cost::text") };
        let sql = format!(
            "SELECT {day}, traces, tokens, {cost}, users, evaluations FROM public.daily_metrics ORDER BY day DESC LIMIT $1"
        );
        let read = |line: &Line| -> Result<DayTotals, Fault> {
            let (traces, tokens, cost) = (line.int(1)?, line.int(2)?, plain(&line.text(3)?));
            Ok(DayTotals { day: line.text(0)?, traces, tokens, cost, users: line.int(4)?, evaluations: line.int(5)? })
        };
        let lines = self.lines(&sql, &binds![i64::from(limit)]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }
}

struct PutEvents(Vec<Event>);

impl Work for PutEvents {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let row = |event: &Event| -> Vec<Bind<'static>> {
            let Event { id, name, properties, user, session, prompt, at } = event;
            binds![*id, name.clone(), crate::text::json_value(properties), *user, *session, *prompt, *at].into()
        };
        // Each once: PostgreSQL takes them in one statement, which may not meet a row that it has just made.
        let rows: BTreeMap<Uuid, Vec<Bind<'_>>> = self.0.iter().rev().map(|event| (event.id, row(event))).collect();
        let rows: Vec<Vec<Bind<'_>>> = rows.into_values().collect();
        let into = "public.analytics_events (id, name, properties, user_id, session_id, prompt_id, created_at)";
        tx.insert(into, "$1, $2, $3::jsonb, $4, $5, $6, $7", "ON CONFLICT DO NOTHING", &rows).await?;
        Ok(())
    }
}

/// The id of a user's session: of the user, and when it began.
fn session_id(user: Uuid, first: Moment) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("emberd:session:{user}:{}", first.micros()).as_bytes())
}

struct Touch(Vec<(Uuid, Moment)>);

impl Work for Touch {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let Some(earliest) = self.0.iter().map(|(_, at)| at.micros()).min() else { return Ok(()) };
        // Two that begin a user's session at once would begin two.
        tx.own(&Writer::new("the sessions of users")).await?;
        let pause = i64::try_from(SESSION_PAUSE.as_micros()).unwrap_or(i64::MAX);
        let users: Vec<Uuid> = self.0.iter().map(|(user, _)| *user).collect();
        let sql = "SELECT session_id, user_id, first_activity_at, last_activity_at FROM public.user_sessions
             WHERE last_activity_at >= $1 AND user_id = ANY($2)";
        let mut open: BTreeMap<Uuid, (Moment, Moment)> = BTreeMap::new();
        for line in tx.query(sql, &binds![Moment::from_micros(earliest - pause), users]).await? {
            let (id, user, first, last) = (line.id(0)?, line.id(1)?, line.moment(2)?, line.moment(3)?);
            // A trace's session is no user's.
            if id == session_id(user, first) && open.get(&user).is_none_or(|(_, known)| known.micros() < last.micros())
            {
                open.insert(user, (first, last));
            }
        }
        let mut changed = BTreeMap::new();
        let mut active = self.0.clone();
        active.sort_by_key(|(_, at)| at.micros());
        for (user, at) in active {
            let going = open.get(&user).filter(|(_, last)| at.micros() - last.micros() <= pause).copied();
            let (first, last) = going.unwrap_or((at, at));
            let last = if last.micros() > at.micros() { last } else { at };
            open.insert(user, (first, last));
            changed.insert(session_id(user, first), (user, first, last));
        }
        let row = |(id, (user, first, last)): (Uuid, (Uuid, Moment, Moment))| binds![id, user, first, last].to_vec();
        let rows: Vec<Vec<Bind<'_>>> = changed.into_iter().map(row).collect();
        let into = "public.user_sessions (session_id, user_id, first_activity_at, last_activity_at)";
        let rest = "ON CONFLICT (session_id) DO UPDATE SET last_activity_at = excluded.last_activity_at";
        tx.insert(into, "$1, $2, $3, $4", rest, &rows).await?;
        Ok(())
    }
}

/// The sum of the rows' costs in [`PICO`]s.
fn pico(is_sqlite: bool) -> &'static str {
    if is_sqlite {
        "coalesce(sum(CAST(round(json_extract(metadata, '$.cost.total') * 1000000000000) AS INTEGER)), 0)"
    } else {
        "coalesce(sum(round(CASE WHEN jsonb_typeof(metadata #> '{cost,total}') = 'number'
             THEN (metadata #>> '{cost,total}')::numeric END * 1000000000000)), 0)::bigint"
    }
}

fn tokens(is_sqlite: bool) -> &'static str {
    if is_sqlite {
        "coalesce(sum(json_extract(tokens_used, '$.total')), 0)"
    } else {
        "coalesce(sum((tokens_used ->> 'total')::bigint), 0)::bigint"
    }
}

struct PutSessions(Vec<Session>);

impl Work for PutSessions {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let row = |session: &Session| -> Vec<Bind<'static>> {
            let Session { id, user, first, last, traces, tokens, cost } = session;
            binds![*id, *user, *first, *last, *traces, *tokens, cost.clone()].into()
        };
        let rows: Vec<Vec<Bind<'_>>> = self.0.iter().map(row).collect();
        let into =
            "public.user_sessions (session_id, user_id, first_activity_at, last_activity_at, traces, tokens, cost)";
        let values = if tx.is_sqlite() { "$1, $2, $3, $4, $5, $6, $7" } else { "$1, $2, $3, $4, $5, $6, $7::numeric" };
        let rest = "ON CONFLICT (session_id) DO UPDATE SET user_id = excluded.user_id,
                 first_activity_at = excluded.first_activity_at, last_activity_at = excluded.last_activity_at,
                 traces = excluded.traces, tokens = excluded.tokens, cost = excluded.cost";
        tx.insert(into, values, rest, &rows).await?;
        Ok(())
    }
}

struct PutDay(DayTotals);

impl Work for PutDay {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let DayTotals { day, traces, tokens, cost, users, evaluations } = &self.0;
        let (as_day, as_cost) = if tx.is_sqlite() { ("$1", "$4") } else { ("$1::text::date", "$4::text::numeric") };
        let sql = format!(
            "INSERT INTO public.daily_metrics (day, traces, tokens, cost, users, evaluations)
             VALUES ({as_day}, $2, $3, {as_cost}, $5, $6)
             ON CONFLICT (day) DO UPDATE SET traces = excluded.traces, tokens = excluded.tokens, cost = excluded.cost,
                 users = excluded.users, evaluations = excluded.evaluations"
        );
        tx.execute(&sql, &binds![day, *traces, *tokens, cost, *users, *evaluations]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{decimal, plain};

    #[test]
    fn costs_are_exact_decimals() {
        for (pico, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (75_000_000, "0.000075"),
            (1_000_000_000_000, "1"),
            (2_500_000_000_000, "2.5"),
        ] {
            assert_eq!(decimal(pico), text);
            assert_eq!(plain(&format!("{text}{}", if text.contains('.') { "00" } else { ".000" })), text);
        }
    }
}
