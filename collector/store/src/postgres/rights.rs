//! With whose rights a statement runs: emberd's own, or a user's, for whom the policies hold.
//!
//! Promise: what is asked for a user runs in a transaction that carries the user's claims (`request.jwt.claims`, as Supabase's own API
//! does) under the role `authenticated`; both end with it, so that a connection goes back to the pool with emberd's rights. Where the
//! database has no such role, or emberd may not take it, the rules that stand in the statements are the only ones, and the log says so.
//! Kept by: `tests::rights::a_statement_without_a_rule_gives_what_the_policy_allows`.

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, Postgres as Pg, Transaction};
use uuid::Uuid;

use super::Postgres;
use super::fault::fault;
use crate::fault::Fault;

/// Whether emberd may act as the role that policies are made for.
pub(super) const MAY: &str = "SELECT coalesce(pg_has_role(current_user, to_regrole('authenticated'), 'MEMBER'), false)";
/// Back to emberd's own.
pub(super) const RESET: &str = "RESET ROLE; SELECT set_config('request.jwt.claims', '', true)";

/// The statements that take a user's rights until the transaction ends. A UUID has no character that could end the text.
pub(super) fn take(user: Uuid) -> String {
    format!(
        "SET LOCAL ROLE authenticated; \
         SELECT set_config('request.jwt.claims', '{{\"sub\": \"{user}\", \"role\": \"authenticated\"}}', true)"
    )
}

/// A connection to read from.
pub(crate) enum Reading {
    Own(PoolConnection<Pg>),
    /// Rolled back when it is dropped.
    User(Transaction<'static, Pg>),
}

impl Reading {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::User(transaction) => transaction,
        }
    }
}

impl Postgres {
    /// The same database with this user's rights; none: emberd's own.
    pub(crate) fn seen_by(&self, user: Option<Uuid>) -> Self {
        Self { user, ..self.clone() }
    }

    pub(crate) async fn reading(&self) -> Result<Reading, Fault> {
        match self.user {
            Some(user) if self.has_role().await? => {
                let begin = AssertSqlSafe(format!("BEGIN READ ONLY; {}", take(user)));
                Ok(Reading::User(self.pool.begin_with(begin).await.map_err(fault)?))
            }
            _ => Ok(Reading::Own(self.pool.acquire().await.map_err(fault)?)),
        }
    }

    async fn has_role(&self) -> Result<bool, Fault> {
        let ask = async {
            let has: bool = sqlx::query_scalar(MAY).fetch_one(&self.pool).await.map_err(fault)?;
            if !has {
                tracing::warn!(
                    "emberd's user may not act as the role authenticated: users' rights stand in emberd's statements alone; \
                     GRANT authenticated TO that user"
                );
            }
            Ok(has)
        };
        self.has_role.get_or_try_init(|| ask).await.copied()
    }
}
