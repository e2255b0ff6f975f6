//! The newest batches in memory, and how far the log has come: what consumers follow.
//!
//! Promise: a batch is here only once it is durable, and batches are here without a gap from the first held to the head.
//! Not here: older batches (`reader.rs` takes those from disk).

use std::collections::VecDeque;
use std::sync::Mutex;

use emberd_model::{Batch, Offset};
use tokio::sync::watch;

use crate::keeper::lock;

/// How far the log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    /// Where the next batch will begin; all before is durable.
    pub(crate) head: Offset,
    /// Nothing will follow.
    pub(crate) sealed: bool,
    /// A write or sync failed.
    pub(crate) failed: bool,
}

/// The newest batches.
#[derive(Debug)]
pub(crate) struct Tail {
    held: Mutex<Held>,
    tip: watch::Sender<Tip>,
}

#[derive(Debug)]
struct Held {
    batches: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

/// What a batch is taken to cost beside its body.
const BATCH_BYTES: usize = size_of::<Batch>();

impl Tail {
    pub(crate) fn new(head: Offset, bytes_max: usize) -> Self {
        let held = Held { batches: VecDeque::new(), bytes: 0, bytes_max };
        Self { held: Mutex::new(held), tip: watch::Sender::new(Tip { head, sealed: false, failed: false }) }
    }

    pub(crate) fn tip(&self) -> Tip {
        *self.tip.borrow()
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    /// Batches have become durable, the last of them before `head`.
    pub(crate) fn publish(&self, batches: impl Iterator<Item = Batch>, head: Offset) {
        let mut out = Vec::new();
        {
            let mut held = lock(&self.held);
            for batch in batches {
                held.bytes += batch.body.len() + BATCH_BYTES;
                held.batches.push_back(batch);
            }
            while held.bytes > held.bytes_max {
                let Some(batch) = held.batches.pop_front() else { break };
                held.bytes -= batch.body.len() + BATCH_BYTES;
                out.push(batch);
            }
        }
        self.tip.send_modify(|tip| tip.head = head);
        // Bodies are given back outside the lock: that is work, and readers wait for the lock.
        drop(out);
    }

    /// Batches from the one that holds `from`, at least one and together about `bytes_max`; none if that is not in memory.
    pub(crate) fn read(&self, from: Offset, bytes_max: usize) -> Option<Vec<Batch>> {
        let held = lock(&self.held);
        if held.batches.front()?.offset > from {
            return None;
        }
        let first = held.batches.partition_point(|batch| batch.end() <= from);
        let mut bytes = 0;
        let fits = |batch: &&Batch| {
            let first = bytes == 0;
            bytes += batch.body.len().max(1);
            first || bytes <= bytes_max
        };
        let batches: Vec<Batch> = held.batches.range(first..).take_while(fits).cloned().collect();
        (!batches.is_empty()).then_some(batches)
    }

    pub(crate) fn seal(&self) {
        self.tip.send_modify(|tip| tip.sealed = true);
    }

    pub(crate) fn fail(&self) {
        self.tip.send_modify(|tip| tip.failed = true);
    }
}
