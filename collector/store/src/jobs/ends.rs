//! Ends of items: results, state, and what waited for them, in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use super::ItemKey;
use super::items::{HELD, held_binds};
use super::scores::{COLUMNS, Scored};
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// What became of a target in an item.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Done: these are its results (of a run step: what it gave, which unblocks the target's evaluators).
    Done {
        /// One of each name; the first one counts.
        scores: Vec<Scored>,
        /// What a run step gave; of other steps it is not kept.
        output: Option<Value>,
    },
    /// Failed for good: these errors stand for its scores. A failed run step fails the target's blocked evaluators.
    Failed {
        /// One of each name.
        errors: Vec<Scored>,
        /// For a run step: each evaluator's step, with what stands for its score (class `no_output`). A step may stand more than once,
        /// with several names.
        dependants: Vec<(i64, Scored)>,
    },
    /// Again, not before then.
    Again {
        /// When.
        due: UnixNanos,
    },
}

/// One ended item under its fence.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Which.
    pub key: ItemKey,
    /// As it was taken.
    pub fence: i64,
    /// What became of each of its targets, in their order: of all that it was taken with, or it does not count as held.
    pub ends: Vec<End>,
}

impl Ended {
    /// Its last target's number.
    fn upto(&self) -> i64 {
        self.key.nr + self.ends.len() as i64 - 1
    }

    /// The item as it is after its end: what is done together stays a range, all else stands alone.
    fn parts(&self, is_live: bool) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (nr, end) in (self.key.nr..).zip(&self.ends) {
            let (state, due) = match end {
                End::Done { .. } => ("done", 0),
                End::Failed { .. } => ("failed", 0),
                End::Again { due } if is_live => ("waiting", due.micros()),
                End::Again { .. } => ("cancelled", 0),
            };
            match parts.last_mut() {
                Some(last) if state == "done" && last.state == "done" => last.upto = nr,
                _ => parts.push(Part { nr, upto: nr, state, due }),
            }
        }
        parts
    }
}

/// A part of an item that ended.
struct Part {
    nr: i64,
    upto: i64,
    state: &'static str,
    due: i64,
}

impl Store {
    /// Ends items, each only if its lease is still its own; says of each, in order, whether it was. Of an item that was not, nothing is
    /// written. A job whose last item ends goes on to closing.
    pub async fn end(&self, ended: impl Into<Arc<Vec<Ended>>>, now: UnixNanos) -> Result<Vec<bool>, Error> {
        Ok(self.run(EndItems { ended: ended.into(), at: now.micros() }).await?)
    }
}

struct EndItems {
    ended: Arc<Vec<Ended>>,
    at: i64,
}

/// Items by key and fence.
type Fenced<T> = HashMap<(ItemKey, i64), T>;

impl EndItems {
    /// The jobs' rows, held: whether each may still be worked on.
    async fn lock<T: Tx>(&self, tx: &mut T) -> Result<HashMap<Uuid, bool>, Fault> {
        let jobs: BTreeSet<Uuid> = self.ended.iter().map(|ended| ended.key.job).collect();
        let sql = "SELECT id, phase FROM emberd.jobs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
        let lines = tx.query(sql, &binds![jobs.into_iter().collect::<Vec<_>>()]).await?;
        lines.iter().map(|line| Ok((line.id(0)?, line.text(1)? != "closed"))).collect()
    }

    /// Moves the items to their state, each to that of its first part; gives those that were held, with their attempts. The state is
    /// asked for in words that no index has, so that PostgreSQL finds each row by its primary key also while it knows nothing of the
    /// table: through the index of leased items it would go over all of them for each.
    async fn items<T: Tx>(&self, tx: &mut T, live: &HashMap<Uuid, bool>) -> Result<Fenced<i64>, Fault> {
        let mut rows: BTreeMap<(ItemKey, i64), Vec<Bind<'_>>> = BTreeMap::new();
        for ended in self.ended.iter() {
            let Some(is_live) = live.get(&ended.key.job) else { continue };
            let Some(first) = ended.parts(*is_live).into_iter().next() else { continue };
            // The same twice: the first counts, as it would in a call of its own.
            rows.entry((ended.key, ended.fence)).or_insert_with(|| {
                let to = binds![ended.upto(), first.upto, first.state, first.due];
                held_binds(ended.key, ended.fence).into_iter().chain(to).collect()
            });
        }
        let columns: Vec<&str> = HELD.into_iter().chain(["upto_", "first_", "state_", "due_"]).collect();
        let sql = "UPDATE emberd.job_items SET upto = first_, state = state_, due_at = due_, owner = NULL, lease_until = 0 FROM {rows}
             WHERE job = job_ AND nr = nr_ AND step = step_ AND fence = fence_ AND upto = upto_ AND state || '' = 'leased'
             RETURNING job, nr, step, fence, attempts";
        let lines = tx.each(sql, &columns, &rows.into_values().collect::<Vec<_>>()).await?;
        let key = |line: &Line| Ok(ItemKey { job: line.id(0)?, nr: line.int(1)?, step: line.int(2)? });
        lines.iter().map(|line| Ok(((key(line)?, line.int(3)?), line.int(4)?))).collect()
    }

    /// Writes the further parts of an item that is parted. One that stands already is an error, and nothing is written.
    async fn part<T: Tx>(&self, tx: &mut T, parted: &[(&Ended, Vec<Part>, i64)]) -> Result<(), Fault> {
        let mut rows: Vec<Vec<Bind<'_>>> = Vec::new();
        for (Ended { key, fence, .. }, parts, attempts) in parted {
            rows.extend(parts.iter().skip(1).map(|part| {
                binds![key.job, part.nr, part.upto, key.step, part.state, *attempts, part.due, *fence].into()
            }));
        }
        let into = "emberd.job_items (job, nr, upto, step, state, attempts, due_at, fence)";
        tx.insert(into, "$1, $2, $3, $4, $5, $6, $7, $8", "", &rows).await?;
        Ok(())
    }

    async fn output<T: Tx>(&self, tx: &mut T, key: ItemKey, output: Option<&Value>) -> Result<(), Fault> {
        let sql = "UPDATE emberd.job_targets SET output = $3::jsonb WHERE job = $1 AND nr = $2";
        tx.execute(sql, &binds![key.job, key.nr, output]).await?;
        Ok(())
    }
}

/// By step, what stands for the scores of a target that was not run.
type StandIns<'a> = &'a [(i64, Scored)];

/// What ends lead to, by job.
#[derive(Default)]
struct Effects<'a> {
    /// Run steps that are done: their targets.
    ran: BTreeMap<Uuid, Vec<i64>>,
    /// Run steps that failed: their targets, and what stands for the evaluators' scores.
    not_run: BTreeMap<Uuid, HashMap<i64, StandIns<'a>>>,
    /// Items that are over.
    over: BTreeMap<Uuid, i64>,
    results: Vec<(ItemKey, &'a Scored)>,
}

impl Work for EndItems {
    type Done = Vec<bool>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<bool>, Fault> {
        let live = self.lock(tx).await?;
        let mut held = self.items(tx, &live).await?;
        let (mut effects, mut parted) = (Effects::default(), Vec::new());
        let mut answers = Vec::with_capacity(self.ended.len());
        for ended in self.ended.iter() {
            let attempts = held.remove(&(ended.key, ended.fence));
            answers.push(attempts.is_some());
            let Some(attempts) = attempts else { continue };
            let is_live = live.get(&ended.key.job) == Some(&true);
            let parts = ended.parts(is_live);
            if parts.len() > 1 {
                parted.push((ended, parts, attempts));
            }
            for (nr, end) in (ended.key.nr..).zip(&ended.ends) {
                let key = ItemKey { nr, ..ended.key };
                if let (0, End::Done { output, .. }) = (key.step, end) {
                    self.output(tx, key, output.as_ref()).await?;
                }
                effects.of(key, end, is_live);
            }
        }
        self.part(tx, &parted).await?;
        effects.write(tx, self.at).await?;
        Ok(answers)
    }
}

impl<'a> Effects<'a> {
    /// Those of a target's end.
    fn of(&mut self, key: ItemKey, end: &'a End, is_live: bool) {
        match end {
            End::Done { scores, .. } => {
                self.results.extend(scores.iter().map(|scored| (key, scored)));
                if key.step == 0 {
                    self.ran.entry(key.job).or_default().push(key.nr);
                }
            }
            End::Failed { errors, dependants } => {
                self.results.extend(errors.iter().map(|scored| (key, scored)));
                if key.step == 0 {
                    self.not_run.entry(key.job).or_default().insert(key.nr, dependants);
                }
            }
            End::Again { .. } if is_live => return,
            End::Again { .. } => {}
        }
        *self.over.entry(key.job).or_default() += 1;
    }

    async fn write<T: Tx>(mut self, tx: &mut T, at: i64) -> Result<(), Fault> {
        for (job, numbers) in std::mem::take(&mut self.ran) {
            let sql = "UPDATE emberd.job_items SET state = 'waiting', due_at = $3
                 WHERE job = $1 AND nr = ANY($2) AND state = 'blocked'";
            tx.execute(sql, &binds![job, numbers, at]).await?;
        }
        for (job, targets) in std::mem::take(&mut self.not_run) {
            let sql =
                "UPDATE emberd.job_items SET state = 'failed' WHERE job = $1 AND nr = ANY($2) AND state = 'blocked'
                 RETURNING nr, step";
            let numbers: Vec<i64> = targets.keys().copied().collect();
            for line in tx.query(sql, &binds![job, numbers]).await? {
                let (nr, step) = (line.int(0)?, line.int(1)?);
                let key = ItemKey { job, nr, step };
                let stand_ins = targets.get(&nr).into_iter().flat_map(|dependants| dependants.iter());
                self.results.extend(stand_ins.filter(|(of, _)| *of == step).map(|(_, scored)| (key, scored)));
                *self.over.entry(job).or_default() += 1;
            }
        }
        self.results(tx, at).await?;
        for (job, over) in &self.over {
            // The row is held, so no other end can be between the number and the phase.
            let sql = "UPDATE emberd.jobs SET items_left = items_left - $2, lease_until = 0,
                     phase = CASE WHEN items_left = $2 AND phase = 'open' THEN 'closing' ELSE phase END WHERE id = $1";
            tx.execute(sql, &binds![*job, *over]).await?;
        }
        Ok(())
    }

    async fn results<T: Tx>(&self, tx: &mut T, at: i64) -> Result<(), Fault> {
        let rows: Vec<Vec<Bind<'_>>> = self
            .results
            .iter()
            .map(|(key, scored)| {
                let latency = i64::try_from(scored.latency.as_micros()).unwrap_or(i64::MAX);
                let own = binds![key.job, key.nr, key.step, latency, i64::from(scored.cached), at];
                own.into_iter().chain(scored.binds()).collect()
            })
            .collect();
        let into = format!("emberd.job_results (job, nr, step, latency_us, cached, at, {COLUMNS})");
        let values = "$1, $2, $3, $4, $5 = 1, $6, $7, $8, $9, $10, $11, $12, $13::jsonb, $14, $15, $16";
        // The first of each name counts.
        tx.insert(&into, values, "ON CONFLICT (job, nr, step, name) DO NOTHING", &rows).await?;
        Ok(())
    }
}
