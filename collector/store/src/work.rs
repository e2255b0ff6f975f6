//! The smaller works: cursors, settling, making a prompt.

use emberd_model::Offset;

use crate::Moment;
use crate::fault::Fault;
use crate::library::Prompt;
use crate::record::{Settled, Writer};
use crate::tx::{Tx, Work};

/// States dropped in a transaction.
const SETTLE_LIMIT: u32 = 5_000;

pub(crate) struct GetCursor {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
}

impl Work for GetCursor {
    type Done = Option<Offset>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Offset>, Fault> {
        tx.cursor(&self.consumer, &self.writer).await
    }
}

pub(crate) struct SetCursor {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
    pub(crate) to: Offset,
    pub(crate) only_new: bool,
}

impl Work for SetCursor {
    type Done = Offset;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Offset, Fault> {
        tx.set_cursor(&self.consumer, &self.writer, self.to, self.only_new).await?;
        Ok(tx.cursor(&self.consumer, &self.writer).await?.unwrap_or(self.to))
    }
}

pub(crate) struct Settle {
    pub(crate) since: Moment,
}

impl Work for Settle {
    type Done = Settled;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Settled, Fault> {
        let traces = tx.settle(self.since, SETTLE_LIMIT).await?;
        Ok(Settled { traces, more: traces >= u64::from(SETTLE_LIMIT) })
    }
}

pub(crate) struct MakePrompt {
    pub(crate) prompt: Prompt,
}

/// Why no prompt was made.
pub(crate) enum NotMade {
    NotOurs,
    NoSuchProfile,
}

impl Work for MakePrompt {
    type Done = Result<(), NotMade>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Self::Done, Fault> {
        if !tx.owns_prompts().await? {
            return Ok(Err(NotMade::NotOurs));
        }
        if let Some(profile) = self.prompt.created_by
            && tx.profiles_named(&[profile], &[]).await?.ids.is_empty()
        {
            return Ok(Err(NotMade::NoSuchProfile));
        }
        tx.put_prompt(&self.prompt).await?;
        Ok(Ok(()))
    }
}
