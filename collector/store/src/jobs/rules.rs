//! Live rules, and what each decided of each trace.

use std::collections::{BTreeMap, HashSet};

use emberd_model::{TraceId, UnixNanos};
use serde_json::Value;
use uuid::Uuid;

use super::money::Money;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// A live rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Primary key.
    pub id: Uuid,
    /// What it is called; one of each name.
    pub name: String,
    /// Raised when its config changes.
    pub version: i64,
    /// Filter, share, evaluators.
    pub config: Value,
    /// Whether it decides.
    pub is_enabled: bool,
    /// The most that may be spent, nano-dollars; none for no bound.
    pub budget: Option<Money>,
    /// Set aside for calls on their way, nano-dollars.
    pub reserved: Money,
    /// Spent, nano-dollars.
    pub spent: Money,
    /// Tokens of all settled calls.
    pub tokens: i64,
    /// A profile.
    pub created_by: Uuid,
    /// When it was made; microseconds are kept.
    pub created_at: UnixNanos,
}

/// A rule to be made, or what an existing one of this name becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRule {
    /// What it is called.
    pub name: String,
    /// Filter, share, evaluators.
    pub config: Value,
    /// Whether it decides.
    pub is_enabled: bool,
    /// The most that may be spent, nano-dollars; what was spent before counts.
    pub budget: Option<Money>,
    /// A profile; of an existing rule it stays.
    pub created_by: Uuid,
}

/// A rule was not made.
#[derive(Debug, thiserror::Error)]
pub enum PutRuleError {
    /// `created_by` names no profile.
    #[error("no such profile")]
    NoSuchProfile,
    /// The database did not do it.
    #[error(transparent)]
    Database(#[from] Error),
}

/// What a rule decided of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whose.
    pub rule: Uuid,
    /// Of what.
    pub trace: TraceId,
    /// The rule's.
    pub version: i64,
    /// Raised when a trace is decided again because it changed.
    pub epoch: i64,
    /// run, filtered, sampled_out, not_ready, duplicate, superseded, budget, shed, disabled, or an error class.
    pub decision: String,
    /// More about it.
    pub detail: Option<String>,
    /// How many spans were seen.
    pub spans: i64,
    /// When; microseconds are kept.
    pub at: UnixNanos,
}

const RULE: &str = "id, name, version, config, is_enabled, budget, reserved, spent, tokens, created_by, created_at";

fn read(line: &Line) -> Result<Rule, Fault> {
    Ok(Rule {
        id: line.id(0)?,
        name: line.text(1)?,
        version: line.int(2)?,
        config: line.json(3)?,
        is_enabled: line.bool(4)?,
        budget: line.maybe_int(5)?.map(Money),
        reserved: Money(line.int(6)?),
        spent: Money(line.int(7)?),
        tokens: line.int(8)?,
        created_by: line.id(9)?,
        created_at: UnixNanos((line.int(10)?.max(0) as u64).saturating_mul(1_000)),
    })
}

impl Store {
    /// Makes a rule, or gives the one of this name other contents; its version is raised if the config is another.
    pub async fn put_rule(&self, new: NewRule, now: UnixNanos) -> Result<Rule, PutRuleError> {
        let put = PutRule { id: Uuid::new_v4(), new, at: now.micros() };
        self.run(put).await.map_err(Error::from)?.ok_or(PutRuleError::NoSuchProfile)
    }

    /// All rules, by name; at most 1 000.
    pub async fn rules(&self) -> Result<Vec<Rule>, Error> {
        let found = self.lines(&format!("SELECT {RULE} FROM emberd.rules ORDER BY name LIMIT 1000"), &[]).await?;
        Ok(found.iter().map(read).collect::<Result<_, Fault>>()?)
    }

    /// A rule.
    pub async fn rule(&self, id: Uuid) -> Result<Option<Rule>, Error> {
        let found = self.lines(&format!("SELECT {RULE} FROM emberd.rules WHERE id = $1"), &binds![id]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// Switches a rule on or off. False: there is none.
    pub async fn enable_rule(&self, id: Uuid, is_enabled: bool) -> Result<bool, Error> {
        Ok(self.run(EnableRule(id, is_enabled)).await?)
    }

    /// Deletes a rule with its decisions and scores. False: there is none.
    pub async fn delete_rule(&self, id: Uuid) -> Result<bool, Error> {
        Ok(self.run(DeleteRule(id)).await?)
    }

    /// Writes decisions; says of each, in order, whether it stands. One of the same rule and trace is replaced only by a higher epoch, or
    /// by a higher version in the same epoch: of several emberds that decide alike, one is told true. Those of deleted rules are not written.
    pub async fn decide(&self, decisions: Vec<Decision>) -> Result<Vec<bool>, Error> {
        Ok(self.run(Decide(decisions)).await?)
    }

    /// What was decided of a trace, by rule.
    pub async fn decisions_of(&self, trace: TraceId) -> Result<Vec<Decision>, Error> {
        let sql = "SELECT rule, version, epoch, decision, detail, spans, at FROM emberd.decisions WHERE trace_id = $1 ORDER BY rule";
        let read = |line: &Line| {
            Ok(Decision {
                rule: line.id(0)?,
                trace,
                version: line.int(1)?,
                epoch: line.int(2)?,
                decision: line.text(3)?,
                detail: line.maybe_text(4)?,
                spans: line.int(5)?,
                at: UnixNanos((line.int(6)?.max(0) as u64).saturating_mul(1_000)),
            })
        };
        let found = self.lines(sql, &binds![&trace.0[..]]).await?;
        Ok(found.iter().map(read).collect::<Result<_, Fault>>()?)
    }
}

struct PutRule {
    id: Uuid,
    new: NewRule,
    at: i64,
}

impl Work for PutRule {
    type Done = Option<Rule>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Rule>, Fault> {
        let NewRule { name, config, is_enabled, budget, created_by } = &self.new;
        if tx.query("SELECT 1 FROM public.profiles WHERE id = $1", &binds![*created_by]).await?.is_empty() {
            return Ok(None);
        }
        let sql = format!(
            "INSERT INTO emberd.rules AS r (id, name, version, config, is_enabled, budget, created_by, created_at)
             VALUES ($1, $2, 1, $3::jsonb, $4, $5, $6, $7)
             ON CONFLICT (name) DO UPDATE SET config = excluded.config, is_enabled = excluded.is_enabled,
                 budget = excluded.budget, version = r.version + CASE WHEN r.config = excluded.config THEN 0 ELSE 1 END
             RETURNING {RULE}"
        );
        let budget = budget.map(|budget| budget.0);
        let binds = binds![self.id, name, config, *is_enabled, budget, *created_by, self.at];
        tx.query(&sql, &binds).await?.first().map(read).transpose()
    }
}

struct EnableRule(Uuid, bool);

impl Work for EnableRule {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.rules SET is_enabled = $2 WHERE id = $1";
        Ok(tx.execute(sql, &binds![self.0, self.1]).await? == 1)
    }
}

struct DeleteRule(Uuid);

impl Work for DeleteRule {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        Ok(tx.execute("DELETE FROM emberd.rules WHERE id = $1", &binds![self.0]).await? == 1)
    }
}

struct Decide(Vec<Decision>);

impl Work for Decide {
    type Done = Vec<bool>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<bool>, Fault> {
        // One statement does not write a row twice: of each key the highest, the first of equals.
        let mut last = BTreeMap::<_, (usize, &Decision)>::new();
        for (at, decision) in self.0.iter().enumerate() {
            let slot = last.entry((decision.rule, decision.trace)).or_insert((at, decision));
            if (decision.epoch, decision.version) > (slot.1.epoch, slot.1.version) {
                *slot = (at, decision);
            }
        }
        let rows: Vec<Vec<Bind<'_>>> = last
            .values()
            .map(|(_, d)| {
                let at = d.at.micros();
                binds![d.rule, &d.trace.0[..], d.version, d.epoch, &d.decision, d.detail.as_deref(), d.spans, at].into()
            })
            .collect();
        let columns = ["rule_", "trace_", "version_", "epoch_", "decision_", "detail_", "spans_", "at_"];
        let sql = "INSERT INTO emberd.decisions AS d (rule, trace_id, version, epoch, decision, detail, spans, at)
             SELECT rule_, trace_, version_, epoch_, decision_, detail_, spans_, at_ FROM {rows}
             WHERE EXISTS (SELECT 1 FROM emberd.rules WHERE id = rule_)
             ON CONFLICT (rule, trace_id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch,
                 decision = excluded.decision, detail = excluded.detail, spans = excluded.spans, at = excluded.at
             WHERE excluded.epoch > d.epoch OR (excluded.epoch = d.epoch AND excluded.version > d.version)
             RETURNING rule, trace_id";
        let mut written = HashSet::new();
        for line in tx.each(sql, &columns, &rows).await? {
            let trace =
                TraceId::from_wire(line.blob(1)?).ok_or_else(|| Fault::damaged("the trace id", "a decision"))?;
            if let Some((at, _)) = last.get(&(line.id(0)?, trace)) {
                written.insert(*at);
            }
        }
        Ok((0..self.0.len()).map(|at| written.contains(&at)).collect())
    }
}
