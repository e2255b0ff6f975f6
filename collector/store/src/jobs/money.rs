//! Money: what is set aside for a call before it leaves, and what it cost.

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::answers::{Answer, put_answer};
use super::paid::{JOB, Owner, RULE, reserve, settle};
use super::{ItemKey, lease_end};
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::binds;
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub i64);

/// A call of a paid endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// Whose.
    pub item: ItemKey,
    /// The item's lease when the call was made.
    pub fence: i64,
    /// The call's number, from 1, as [`Reserved::Call`] gave it.
    pub call: i64,
}

/// Whether there is money for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is set aside, under this number.
    Call(i64),
    /// It would pass the budget.
    NoBudget,
    /// The lease is another's by now, or the job is not open: make no call.
    Lost,
}

/// Whether there is money for a rule's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleReserved {
    /// It is set aside, under this number.
    Call(i64),
    /// It would pass the budget.
    NoBudget,
    /// The rule is disabled or gone: make no call.
    Disabled,
}

/// What a call cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nano-dollars; more than was reserved is written down all the same.
    pub money: Money,
    /// Tokens of the call, in and out together.
    pub tokens: i64,
    /// What was answered, for whoever asks the same again.
    pub answer: Option<Answer>,
}

/// What became of the settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Settled, and the lease still holds.
    Held,
    /// Settled, but the lease is over or another's: the answer is stored, and nothing else may be written.
    Lost,
    /// There is no such call.
    NoCall,
}

impl Store {
    /// Sets `price` (the most that the call can cost) aside. Unlimited where the job has no budget, and counted all the same.
    pub async fn reserve_call(
        &self,
        item: ItemKey,
        fence: i64,
        price: Money,
        now: UnixNanos,
    ) -> Result<Reserved, Error> {
        Ok(self.run(Reserve { item, fence, price, at: now.micros() }).await?)
    }

    /// Replaces what was reserved by what was spent, and stores the answer, in one transaction. Also where the lease was lost: the money is
    /// gone all the same. Settled twice, or after [`Store::release_stale`], the last price stands and counts once.
    pub async fn settle_call(&self, call: CallKey, spent: Spent, now: UnixNanos) -> Result<Settled, Error> {
        Ok(self.run(SettleCall { call, spent, at: now.micros() }).await?)
    }

    /// Sets money aside for a rule's call. If it is not settled within `lease`, it counts as cut off.
    pub async fn reserve_rule(
        &self,
        rule: Uuid,
        price: Money,
        lease: std::time::Duration,
        now: UnixNanos,
    ) -> Result<RuleReserved, Error> {
        let until = lease_end(now, lease);
        Ok(self.run(ReserveRule { rule, price, until, at: now.micros() }).await?)
    }

    /// Settles a rule's call; see [`Store::settle`]. False: there is no such call.
    pub async fn settle_rule(&self, rule: Uuid, call: i64, spent: Spent, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(SettleRule { rule, call, spent, at: now.micros() }).await?)
    }
}

struct Reserve {
    item: ItemKey,
    fence: i64,
    price: Money,
    at: i64,
}

impl Work for Reserve {
    type Done = Reserved;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Reserved, Fault> {
        let ItemKey { job, nr, step } = self.item;
        // The job's row first: it holds off whoever would end, cancel or retry meanwhile.
        let open = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND phase = 'open' FOR NO KEY UPDATE";
        if tx.query(open, &binds![job]).await?.is_empty() || !is_held(tx, self.item, self.fence).await? {
            return Ok(Reserved::Lost);
        }
        if !reserve(tx, JOB, job, self.price).await? {
            return Ok(Reserved::NoBudget);
        }
        let sql = "INSERT INTO emberd.job_calls (job, nr, step, call, fence, reserved, at)
             SELECT $1::uuid, $2::bigint, $3::bigint, coalesce(max(call), 0) + 1, $4::bigint, $5::bigint, $6::bigint
             FROM emberd.job_calls WHERE job = $1 AND nr = $2 AND step = $3 RETURNING call";
        let made = tx.query(sql, &binds![job, nr, step, self.fence, self.price.0, self.at]).await?;
        Ok(Reserved::Call(made.first().ok_or_else(Fault::contended)?.int(0)?))
    }
}

async fn is_held<T: Tx>(tx: &mut T, item: ItemKey, fence: i64) -> Result<bool, Fault> {
    let sql =
        "SELECT 1 FROM emberd.job_items WHERE job = $1 AND nr = $2 AND step = $3 AND fence = $4 AND state = 'leased'";
    Ok(!tx.query(sql, &binds![item.job, item.nr, item.step, fence]).await?.is_empty())
}

struct SettleCall {
    call: CallKey,
    spent: Spent,
    at: i64,
}

impl Work for SettleCall {
    type Done = Settled;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Settled, Fault> {
        let CallKey { item: ItemKey { job, nr, step }, call, fence } = self.call;
        tx.query("SELECT 1 FROM emberd.jobs WHERE id = $1 FOR NO KEY UPDATE", &binds![job]).await?;
        let sql = "SELECT reserved, spent, tokens FROM emberd.job_calls
             WHERE job = $1 AND nr = $2 AND step = $3 AND call = $4 AND fence = $5";
        let Some(before) = tx.query(sql, &binds![job, nr, step, call, fence]).await?.pop() else {
            return Ok(Settled::NoCall);
        };
        settle(tx, JOB, job, &before, &self.spent).await?;
        let sql = "UPDATE emberd.job_calls SET spent = $5, tokens = $6 WHERE job = $1 AND nr = $2 AND step = $3 AND call = $4";
        tx.execute(sql, &binds![job, nr, step, call, self.spent.money.0.max(0), self.spent.tokens]).await?;
        if let Some(answer) = &self.spent.answer {
            put_answer(tx, answer, self.spent.money, self.at).await?;
        }
        Ok(if is_held(tx, self.call.item, fence).await? { Settled::Held } else { Settled::Lost })
    }
}

struct ReserveRule {
    rule: Uuid,
    price: Money,
    until: i64,
    at: i64,
}

impl Work for ReserveRule {
    type Done = RuleReserved;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<RuleReserved, Fault> {
        let enabled = "SELECT 1 FROM emberd.rules WHERE id = $1 AND is_enabled FOR NO KEY UPDATE";
        if tx.query(enabled, &binds![self.rule]).await?.is_empty() {
            return Ok(RuleReserved::Disabled);
        }
        if !reserve(tx, RULE, self.rule, self.price).await? {
            return Ok(RuleReserved::NoBudget);
        }
        let sql = "INSERT INTO emberd.rule_calls (rule, call, until, reserved, at)
             SELECT $1::uuid, coalesce(max(call), 0) + 1, $2::bigint, $3::bigint, $4::bigint
             FROM emberd.rule_calls WHERE rule = $1 RETURNING call";
        let made = tx.query(sql, &binds![self.rule, self.until, self.price.0, self.at]).await?;
        Ok(RuleReserved::Call(made.first().ok_or_else(Fault::contended)?.int(0)?))
    }
}

struct SettleRule {
    rule: Uuid,
    call: i64,
    spent: Spent,
    at: i64,
}

impl Work for SettleRule {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let Owner { lock, .. } = RULE;
        tx.query(lock, &binds![self.rule]).await?;
        let sql = "SELECT reserved, spent, tokens FROM emberd.rule_calls WHERE rule = $1 AND call = $2";
        let Some(before) = tx.query(sql, &binds![self.rule, self.call]).await?.pop() else {
            return Ok(false);
        };
        settle(tx, RULE, self.rule, &before, &self.spent).await?;
        let sql = "UPDATE emberd.rule_calls SET spent = $3, tokens = $4 WHERE rule = $1 AND call = $2";
        tx.execute(sql, &binds![self.rule, self.call, self.spent.money.0.max(0), self.spent.tokens]).await?;
        if let Some(answer) = &self.spent.answer {
            put_answer(tx, answer, self.spent.money, self.at).await?;
        }
        Ok(true)
    }
}
