//! Traces that named a prompt before it existed move to it.
//!
//! Promise: afterwards row, state and rollups are as if the prompt had been there from the start, also for traces settled long ago.
//! Kept by:  `tests::a_prompt_that_appears_later_gets_its_traces`.

use std::collections::HashMap;

use emberd_model::TraceId;
use uuid::Uuid;

use crate::apply::{Deltas, Names};
use crate::fault::Fault;
use crate::library::UNASSIGNED;
use crate::record::{Joined, Writer};
use crate::tx::{Counted, Stored, Tx, Work};

/// Rows moved in a transaction.
const LIMIT: u32 = 1_000;

pub(crate) struct Join {
    pub(crate) writer: Writer,
}

impl Work for Join {
    type Done = Joined;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Joined, Fault> {
        let mut traces = tx.joinable(LIMIT).await?;
        if traces.is_empty() {
            return Ok(Joined::default());
        }
        traces.sort_unstable();
        traces.dedup();
        tx.own(&self.writer).await?;
        // States first, rows second: the order in which a recording takes its locks.
        let states: HashMap<TraceId, Stored> =
            tx.states(&traces, true).await?.into_iter().map(|state| (state.trace, state)).collect();
        let orphans = tx.orphans(&traces).await?;
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
        tx.put_states(&moved).await?;
        tx.move_rows(&moves).await?;
        deltas.write(tx, &self.writer).await?;
        // Nothing moved though something looked joinable: leave it for the next round, or this would never end.
        Ok(Joined { traces: moves.len() as u64, more: traces.len() >= LIMIT as usize && !moves.is_empty() })
    }
}
