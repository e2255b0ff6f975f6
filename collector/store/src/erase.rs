//! What is known of a person, a session or a trace goes, wherever it stands.
//!
//! Promise: afterwards no table holds a text of these traces, nor of this person's doings; the traces are remembered by their ids, so that
//! what comes late for them is not recorded. Numbers that came of them stay: rollups, totals, an evaluation's sums. Done in pieces, each in
//! a transaction of its own; the rows of `prompt_traces`, by which the others are found, go last: so it may be repeated after a crash.
//! Not here: the log, Phoenix, files (the daemon's `erase`); whose request it is.
//! Kept by: `tests::erasing`.

use std::collections::{BTreeMap, BTreeSet};

use emberd_model::{TraceId, UnixNanos};
use serde_json::Value;
use uuid::Uuid;

use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::retention::{forget, remember};
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Who or what is to go.
#[derive(Clone, Debug, Default)]
pub struct Whom {
    /// How spans and rows name the user: as given, as a profile's id or email, hashed as redaction does.
    pub users: BTreeSet<String>,
    /// The profiles of that user.
    pub profiles: BTreeSet<Uuid>,
    /// How spans name the session.
    pub sessions: BTreeSet<String>,
}

impl Whom {
    fn session_ids(&self) -> Vec<Uuid> {
        let id = |session: &String| {
            Uuid::parse_str(session).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, session.as_bytes()))
        };
        self.sessions.iter().map(id).collect()
    }
}

/// How many there are, or were, by place.
pub type Places = BTreeMap<&'static str, u64>;

/// Traces in a transaction.
const TRACES: usize = 100;

impl Store {
    /// The profiles that a text names: by id or by email.
    pub async fn profiles_named_by(&self, user: &str) -> Result<Vec<(Uuid, String)>, Error> {
        let sql = "SELECT id, email FROM public.profiles WHERE email = $1 OR id = $2 OR lower(email) = lower($1)";
        let found = self.lines(sql, &binds![user, Uuid::parse_str(user).ok()]).await?;
        Ok(found
            .iter()
            .map(|line| Ok((line.id(0)?, line.maybe_text(1)?.unwrap_or_default())))
            .collect::<Result<_, Fault>>()?)
    }

    /// The traces whose rows name them. Reads the whole table for a user, whom no index finds.
    pub async fn traces_naming(&self, whom: &Whom) -> Result<BTreeSet<TraceId>, Error> {
        let lite = self.kind() == "sqlite";
        let named = |key: &str| if lite { format!("metadata ->> '$.{key}'") } else { format!("metadata ->> '{key}'") };
        let mut found = Vec::new();
        if !whom.sessions.is_empty() {
            let sql = format!(
                "SELECT phoenix_trace_id FROM public.prompt_traces WHERE session_id = ANY($1) OR {} = ANY($2)",
                named("session_id")
            );
            let texts = Bind::Texts(whom.sessions.iter().cloned().collect());
            found.extend(self.lines(&sql, &[Bind::Ids(whom.session_ids()), texts]).await?);
        }
        if !whom.users.is_empty() {
            let sql = format!(
                "SELECT phoenix_trace_id FROM public.prompt_traces WHERE user_id = ANY($1) OR {} = ANY($2)",
                named("user_id")
            );
            let texts = Bind::Texts(whom.users.iter().cloned().collect());
            found.extend(self.lines(&sql, &[Bind::Ids(whom.profiles.iter().copied().collect()), texts]).await?);
        }
        let mut traces = BTreeSet::new();
        for line in &found {
            traces.extend(line.text(0)?.parse::<TraceId>().ok());
        }
        Ok(traces)
    }

    /// How much there is of them.
    pub async fn erasable(&self, whom: &Whom, traces: &BTreeSet<TraceId>) -> Result<Places, Error> {
        self.go_over(whom, traces, None).await
    }

    /// Takes it away; how much it was.
    pub async fn erase(&self, whom: &Whom, traces: &BTreeSet<TraceId>, now: UnixNanos) -> Result<Places, Error> {
        self.go_over(whom, traces, Some(now)).await
    }

    async fn go_over(
        &self,
        whom: &Whom,
        traces: &BTreeSet<TraceId>,
        erase: Option<UnixNanos>,
    ) -> Result<Places, Error> {
        let all: Vec<TraceId> = traces.iter().copied().collect();
        let mut places = self.run(Person { whom: whom.clone(), erase: erase.is_some() }).await?;
        for chunk in all.chunks(TRACES) {
            let now = erase.map(Moment::from);
            for (place, rows) in self.run(Of { traces: chunk.to_vec(), now }).await? {
                *places.entry(place).or_default() += rows;
            }
        }
        places.insert("evaluation_datasets", self.examples_of(&all, erase.is_some()).await?);
        Ok(places)
    }

    /// Examples of datasets that were made of these traces: their ids are the traces'.
    async fn examples_of(&self, traces: &[TraceId], erase: bool) -> Result<u64, Error> {
        if traces.is_empty() {
            return Ok(0);
        }
        let ids: BTreeSet<String> = traces.iter().map(TraceId::to_string).collect();
        let mut gone = 0;
        for line in self.lines("SELECT id FROM public.evaluation_datasets", &[]).await? {
            gone += self.run(Dataset { id: line.id(0)?, traces: ids.clone(), erase }).await?;
        }
        Ok(gone)
    }
}

/// Has SQLite write zeros over what it deletes, from now on; PostgreSQL does it when it vacuums.
async fn for_good<T: Tx>(tx: &mut T) -> Result<(), Fault> {
    if tx.is_sqlite() {
        tx.query("PRAGMA secure_delete = ON", &[]).await?;
    }
    Ok(())
}

/// Rows that a statement's condition finds: counted, or deleted.
async fn rows<T: Tx>(tx: &mut T, erase: bool, table: &str, condition: &str, binds: &[Bind<'_>]) -> Result<u64, Fault> {
    if erase {
        return tx.execute(&format!("DELETE FROM {table} WHERE {condition}"), binds).await;
    }
    let found = tx.query(&format!("SELECT count(*) FROM {table} WHERE {condition}"), binds).await?;
    found.first().map_or(Ok(0), |line| Ok(line.int(0)?.unsigned_abs()))
}

/// What a person did, and their sessions.
struct Person {
    whom: Whom,
    erase: bool,
}

impl Work for Person {
    type Done = Places;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Places, Fault> {
        let profiles = || Bind::Ids(self.whom.profiles.iter().copied().collect());
        let sessions = || Bind::Ids(self.whom.session_ids());
        for_good(tx).await?;
        let mut places = Places::new();
        for (place, table, condition, by_session) in [
            ("analytics_events", "public.analytics_events", "user_id = ANY($1) OR session_id = ANY($2)", true),
            ("user_sessions", "public.user_sessions", "user_id = ANY($1) OR session_id = ANY($2)", true),
            ("api_usage_logs", "public.api_usage_logs", "user_id = ANY($1)", false),
            ("idempotency keys", "emberd.asked", "creator = ANY($1)", false),
        ] {
            let binds = if by_session { vec![profiles(), sessions()] } else { vec![profiles()] };
            places.insert(place, rows(tx, self.erase, table, condition, &binds).await?);
        }
        Ok(places)
    }
}

/// What stands of some traces.
struct Of {
    traces: Vec<TraceId>,
    /// None: it is only counted.
    now: Option<Moment>,
}

impl Work for Of {
    type Done = Places;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Places, Fault> {
        let erase = self.now.is_some();
        let names: Vec<String> = self.traces.iter().map(TraceId::to_string).collect();
        let mut places = Places::new();
        let mut add = |place, rows| *places.entry(place).or_default() += rows;
        let (targets, results) = judged(tx, erase, &names).await?;
        add("evaluation targets", targets);
        add("evaluation results", results);
        if targets > 0 {
            // Which answers of models are about these traces nobody can tell: whoever asks again pays again.
            add("kept answers of models", rows(tx, erase, "emberd.answers", "1 = 1", &[]).await?);
        }
        let lite = tx.is_sqlite();
        let within = |column: &str, name: &str| match lite {
            true => format!("instr({column}, {name}) > 0"),
            false => format!("position({name} in {column}::text) > 0"),
        };
        let told = format!("{} OR {}", within("key", "$1"), within("body", "$1"));
        let asked = within("path", "$1");
        for (trace, name) in self.traces.iter().zip(&names) {
            add("outbox", rows(tx, erase, "emberd.outbox", &told, &binds![name]).await?);
            add("api_usage_logs", rows(tx, erase, "public.api_usage_logs", &asked, &binds![name]).await?);
            for (place, table) in [
                ("scores", "emberd.trace_scores"),
                ("decisions", "emberd.decisions"),
                ("trace states", "emberd.trace_state"),
            ] {
                add(place, rows(tx, erase, table, "trace_id = $1", &binds![&trace.0[..]]).await?);
            }
        }
        let of = Bind::Texts(names.clone());
        add("prompt_traces", rows(tx, false, "public.prompt_traces", "phoenix_trace_id = ANY($1)", &[of]).await?);
        if let Some(now) = self.now {
            remember(tx, self.traces.iter().copied(), now.micros()).await?;
            forget(tx, names, now.micros()).await?;
        }
        Ok(places)
    }
}

/// What evaluations hold of traces that they judged: the target stays as an empty one, for its place in the sums.
async fn judged<T: Tx>(tx: &mut T, erase: bool, names: &[String]) -> Result<(u64, u64), Fault> {
    let sql = "SELECT job, nr FROM emberd.job_targets WHERE target = ANY($1)";
    let found = tx.query(sql, &[Bind::Texts(names.to_vec())]).await?;
    let mut results = 0;
    for line in &found {
        let (job, nr) = (line.id(0)?, line.int(1)?);
        results += rows(tx, erase, "emberd.job_results", "job = $1 AND nr = $2", &binds![job, nr]).await?;
        if erase {
            let sql =
                "UPDATE emberd.job_targets SET target = $3, body = $4::jsonb, output = NULL WHERE job = $1 AND nr = $2";
            tx.execute(sql, &binds![job, nr, format!("erased {nr}"), "{}"]).await?;
        }
    }
    Ok((found.len() as u64, results))
}

/// The examples of one dataset.
struct Dataset {
    id: Uuid,
    traces: BTreeSet<String>,
    erase: bool,
}

impl Work for Dataset {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        let sql = "SELECT data FROM public.evaluation_datasets WHERE id = $1 FOR NO KEY UPDATE";
        let Some(line) = tx.query(sql, &binds![self.id]).await?.pop() else { return Ok(0) };
        let mut data = line.json(0)?;
        let mut gone = 0;
        without(&mut data, &self.traces, &mut gone);
        if gone > 0 && self.erase {
            let sql = "UPDATE public.evaluation_datasets SET data = $2::jsonb WHERE id = $1";
            tx.execute(sql, &binds![self.id, &data]).await?;
        }
        Ok(gone)
    }
}

/// Takes the elements out of a list that name one of these traces anywhere in them.
fn without(data: &mut Value, traces: &BTreeSet<String>, gone: &mut u64) {
    match data {
        Value::Array(examples) => {
            let before = examples.len();
            examples.retain(|example| !names(example, traces));
            *gone += (before - examples.len()) as u64;
        }
        // Examples under a key of their own.
        Value::Object(fields) => fields.values_mut().for_each(|field| without(field, traces, gone)),
        _ => {}
    }
}

fn names(value: &Value, traces: &BTreeSet<String>) -> bool {
    match value {
        Value::String(text) => traces.contains(text),
        Value::Array(values) => values.iter().any(|value| names(value, traces)),
        Value::Object(fields) => fields.values().any(|value| names(value, traces)),
        _ => false,
    }
}
