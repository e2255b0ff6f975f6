//! The smaller works: cursors and books, settling, making a prompt.

use emberd_model::Offset;
use emberd_model::ledger::{Book, Hour, Tally};

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

/// Begins where nothing was begun, and reads the book.
pub(crate) struct Begin {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
    pub(crate) at: Offset,
}

impl Work for Begin {
    type Done = Book;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Book, Fault> {
        tx.set_cursor(&self.consumer, &self.writer, self.at, true).await?;
        let at = tx.cursor(&self.consumer, &self.writer).await?.unwrap_or(self.at);
        tx.set_origin(&self.consumer, &self.writer, at.signed(), true).await?;
        read(tx, &self.consumer, &self.writer, at).await
    }
}

/// Reads a book.
pub(crate) struct ReadBook {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
}

impl Work for ReadBook {
    type Done = Option<Book>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Book>, Fault> {
        match tx.cursor(&self.consumer, &self.writer).await? {
            Some(at) => read(tx, &self.consumer, &self.writer, at).await.map(Some),
            None => Ok(None),
        }
    }
}

async fn read<T: Tx>(tx: &mut T, consumer: &str, writer: &Writer, at: Offset) -> Result<Book, Fault> {
    let origin = tx.origin(consumer, writer).await?.unwrap_or(at.signed());
    Ok(Book::of(origin, at, tx.ledger(consumer, writer).await?))
}

/// Moves a cursor over what the log does not have, or back to where the log ends.
pub(crate) struct Skip {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
    pub(crate) to: Offset,
    pub(crate) booked: Tally,
}

impl Work for Skip {
    type Done = Book;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Book, Fault> {
        let at = tx.cursor(&self.consumer, &self.writer).await?.unwrap_or(self.to);
        let mut origin = tx.origin(&self.consumer, &self.writer).await?.unwrap_or(at.signed());
        if self.to < at {
            origin += self.to.signed() - at.signed();
        }
        tx.set_cursor(&self.consumer, &self.writer, self.to, false).await?;
        tx.set_origin(&self.consumer, &self.writer, origin, false).await?;
        tx.put_ledger(&self.consumer, &self.writer, &self.booked).await?;
        read(tx, &self.consumer, &self.writer, self.to).await
    }
}

/// Books hours long past together.
pub(crate) struct FoldLedger {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
    pub(crate) horizon: Hour,
}

impl Work for FoldLedger {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        tx.fold_ledger(&self.consumer, &self.writer, self.horizon).await
    }
}

/// Forgets a released item.
pub(crate) struct ForgetRelease {
    pub(crate) consumer: String,
    pub(crate) writer: Writer,
    pub(crate) item: String,
}

impl Work for ForgetRelease {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        tx.forget_release(&self.consumer, &self.writer, &self.item).await
    }
}

pub(crate) struct Settle {
    pub(crate) since: Moment,
}

impl Work for Settle {
    type Done = Settled;
    const TRUSTED: bool = true;

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
