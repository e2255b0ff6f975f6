//! The columns `budget`, `reserved`, `spent` and `tokens`, which jobs and rules have alike.
//!
//! Promise: `reserved` is the sum of what is reserved for calls that are on their way, `spent` and `tokens` the sums over settled ones.
//! Kept by:  `tests::jobs_random`.

use uuid::Uuid;

use super::money::{Money, Spent};
use crate::fault::Fault;
use crate::sql::{Line, binds};
use crate::tx::Tx;

/// Who has a budget.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    /// Holds the row.
    pub(super) lock: &'static str,
    /// Adds to `reserved`, if the budget allows it.
    reserve: &'static str,
    /// Moves all three.
    settle: &'static str,
}

macro_rules! owner {
    ($table:literal) => {
        Owner {
            lock: concat!("SELECT 1 FROM ", $table, " WHERE id = $1 FOR NO KEY UPDATE"),
            reserve: concat!(
                "UPDATE ",
                $table,
                " SET reserved = reserved + $2 WHERE id = $1 AND (budget IS NULL OR reserved + spent + $2 <= budget)"
            ),
            settle: concat!(
                "UPDATE ",
                $table,
                " SET reserved = reserved - $2, spent = spent + $3, tokens = tokens + $4 WHERE id = $1"
            ),
        }
    };
}

pub(super) const JOB: Owner = owner!("emberd.jobs");
pub(super) const RULE: Owner = owner!("emberd.rules");

/// False: it would pass the budget.
pub(super) async fn reserve<T: Tx>(tx: &mut T, owner: Owner, id: Uuid, price: Money) -> Result<bool, Fault> {
    Ok(tx.execute(owner.reserve, &binds![id, price.0]).await? == 1)
}

/// Moves the owner's sums from what the call's row says (`reserved`, `spent`, `tokens`) to what was spent.
pub(super) async fn settle<T: Tx>(
    tx: &mut T,
    owner: Owner,
    id: Uuid,
    before: &Line,
    spent: &Spent,
) -> Result<(), Fault> {
    let (was_spent, was_tokens) = (before.maybe_int(1)?, before.int(2)?);
    let reserved = if was_spent.is_none() { before.int(0)? } else { 0 };
    let more = spent.money.0.max(0) - was_spent.unwrap_or(0);
    tx.execute(owner.settle, &binds![id, reserved, more, spent.tokens.saturating_sub(was_tokens)]).await?;
    Ok(())
}
