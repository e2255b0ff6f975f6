//! Traces that named a prompt before it existed move to it.
//!
//! Promise: afterwards row, state and rollups are as if the prompt had been there from the start, also for traces settled long ago.
//! What it costs follows the number of distinct names that found no prompt, not the number of rows that have them; of very many
//! names a pass looks at some, and the next one goes on after them.
//! Kept by:  `tests::prompts::a_prompt_that_appears_later_gets_its_traces`, `tests::prompts::very_many_names_are_gone_through_in_turn`.

use std::collections::HashMap;

use emberd_model::TraceId;
use uuid::Uuid;

use crate::apply::{Deltas, Names};
use crate::fault::Fault;
use crate::library::UNASSIGNED;
use crate::record::{Joined, Writer};
use crate::tx::{Counted, NAME_CHARS, Stored, Tx, Work};

/// Names looked at in a transaction.
pub(crate) const NAMES: u32 = 500;
/// Rows moved in a transaction.
const ROWS: u32 = 1_000;

pub(crate) struct Join {
    pub(crate) writer: Writer,
    /// The last name that the pass before looked at; empty to begin anew.
    pub(crate) after: String,
}

impl Work for Join {
    /// And where the next pass goes on.
    type Done = (Joined, String);
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(Joined, String), Fault> {
        let names = tx.unjoined(&self.after, NAMES).await?;
        let next = names.last().filter(|_| names.len() >= NAMES as usize).cloned().unwrap_or_default();
        let known = known(tx, names).await?;
        if known.is_empty() {
            return Ok((Joined::default(), next));
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut traces = tx.unjoined_of(&known, ROWS).await?;
        traces.sort_unstable();
        traces.dedup();
        let moved = self.move_to_prompts(tx, &traces).await?;
        // Where nothing moved though something could, another was faster: the next round sees what is left.
        let more = traces.len() >= ROWS as usize && moved > 0;
        Ok((Joined { traces: moved, more }, if more { self.after.clone() } else { next }))
    }
}

/// Of these names, those that a prompt has by now; one that was cut short becomes the titles that begin so.
async fn known<T: Tx>(tx: &mut T, names: Vec<String>) -> Result<Vec<String>, Fault> {
    let (cut, mut whole): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.chars().count() >= NAME_CHARS);
    if !cut.is_empty() {
        let cut: Vec<&str> = cut.iter().map(String::as_str).collect();
        whole.extend(tx.titles_like(&cut).await?);
    }
    let asked = Names::of(whole.iter().map(String::as_str));
    let found = tx.prompts_named(&asked.ids, &asked.texts).await?;
    whole.retain(|name| found.get(name).is_some());
    Ok(whole)
}

impl Join {
    async fn move_to_prompts<T: Tx>(&self, tx: &mut T, traces: &[TraceId]) -> Result<u64, Fault> {
        tx.own(&self.writer).await?;
        // States first, rows second: the order in which a recording takes its locks.
        let states: HashMap<TraceId, Stored> =
            tx.known(traces, true).await?.states.into_iter().map(|state| (state.trace, state)).collect();
        let orphans = tx.orphans(traces).await?;
        let names = Names::of(orphans.iter().map(|orphan| orphan.prompt_ref.as_str()));
        let prompts = tx.prompts_named(&names.ids, &names.texts).await?;

        let mut moves: Vec<(TraceId, Uuid)> = Vec::with_capacity(orphans.len());
        let mut moved: Vec<Stored> = Vec::new();
        let mut deltas = Deltas::default();
        for orphan in orphans {
            let Some(prompt) = prompts.get(&orphan.prompt_ref) else { continue };
            let mut before = Counted { prompt: UNASSIGNED, contribution: orphan.contribution };
            if let Some(state) = states.get(&orphan.trace) {
                before = state.counted.unwrap_or(before);
                let after = Counted { prompt, ..before };
                moved.push(Stored { version: state.version + 1, counted: Some(after), ..state.clone() });
            }
            deltas.add(&before, -1);
            deltas.add(&Counted { prompt, ..before }, 1);
            moves.push((orphan.trace, prompt));
        }
        moved.sort_unstable_by_key(|state| state.trace);
        moves.sort_unstable();
        tx.put(&moved, &[]).await?;
        tx.move_rows(&moves).await?;
        deltas.write(tx, &self.writer).await?;
        Ok(moves.len() as u64)
    }
}
