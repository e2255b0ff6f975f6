//! The newest batches in memory, and how far the log has come: what consumers follow.
//!
//! Promise: a batch is here only once it is durable, and batches are here without a gap from the first held to the head. What all
//! readers have read is not held any more, so that memory goes round while it is warm; what some have not, within a bound; and for
//! a reader that is further behind than the bound nothing is held until it comes near.
//! Not here: older batches (`reader.rs` takes those from disk).
//! Kept by: `tests` below, and `reader/tests.rs` for what is read.

use std::collections::{BTreeMap, VecDeque};
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
    /// Bytes that were ever published.
    published: u64,
    /// Some offsets within the newest `bytes_max` of those, each with what had been published before it.
    marks: VecDeque<(Offset, u64)>,
    /// Where each reader stands.
    readers: BTreeMap<u64, Offset>,
    readers_ever: u64,
}

/// Who reads, for the tail to know what is still wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReaderId(u64);

/// How far apart marks are.
const MARK_BYTES: u64 = 64 << 10;

/// What a batch is taken to cost beside its body.
const BATCH_BYTES: usize = size_of::<Batch>();

impl Tail {
    pub(crate) fn new(head: Offset, bytes_max: usize) -> Self {
        let held = Held {
            batches: VecDeque::new(),
            bytes: 0,
            bytes_max,
            published: 0,
            marks: VecDeque::from([(head, 0)]),
            readers: BTreeMap::new(),
            readers_ever: 0,
        };
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
        let out = {
            let mut held = lock(&self.held);
            for batch in batches {
                held.take(batch);
            }
            held.let_go()
        };
        self.tip.send_modify(|tip| tip.head = head);
        // Bodies are given back outside the lock: that is work, and readers wait for the lock.
        drop(out);
    }

    /// Someone reads, from this offset on.
    pub(crate) fn enter(&self, at: Offset) -> ReaderId {
        let mut held = lock(&self.held);
        held.readers_ever += 1;
        let id = held.readers_ever;
        held.readers.insert(id, at);
        ReaderId(id)
    }

    /// A reader stands there by now.
    pub(crate) fn moved(&self, reader: &ReaderId, to: Offset) {
        let out = {
            let mut held = lock(&self.held);
            held.readers.insert(reader.0, to);
            held.let_go()
        };
        drop(out);
    }

    /// A reader is gone, and waits for nothing.
    pub(crate) fn leave(&self, reader: &ReaderId) {
        let out = {
            let mut held = lock(&self.held);
            held.readers.remove(&reader.0);
            held.let_go()
        };
        drop(out);
    }

    /// Batches from the one that holds `from`, at least one and together about `bytes_max`; none if that is not in memory. None of them is
    /// past `head`, the one that the reader knows: batches are here a moment before the head is told, and a reader that stood past the head
    /// it is told next would take the log for one that lost its end.
    pub(crate) fn read(&self, from: Offset, bytes_max: usize, head: Offset) -> Option<Vec<Batch>> {
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
        let known = held.batches.range(first..).take_while(|batch| batch.end() <= head);
        let batches: Vec<Batch> = known.take_while(fits).cloned().collect();
        (!batches.is_empty()).then_some(batches)
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        lock(&self.held).bytes
    }

    pub(crate) fn seal(&self) {
        self.tip.send_modify(|tip| tip.sealed = true);
    }

    pub(crate) fn fail(&self) {
        self.tip.send_modify(|tip| tip.failed = true);
    }
}

impl Held {
    fn take(&mut self, batch: Batch) {
        let bytes = batch.body.len() + BATCH_BYTES;
        self.bytes += bytes;
        self.published += bytes as u64;
        if self.marks.back().is_none_or(|(_, before)| before + MARK_BYTES <= self.published) {
            self.marks.push_back((batch.end(), self.published));
        }
        let published = self.published;
        while self.marks.pop_front_if(|(_, before)| published - *before > self.bytes_max as u64).is_some() {}
        self.batches.push_back(batch);
    }

    /// Up to where all have read that are near. While nobody reads at all, nothing counts as read: someone may begin to.
    fn read_by_all(&self) -> Offset {
        if self.readers.is_empty() {
            return Offset::default();
        }
        let near = self.marks.front().map_or(Offset(u64::MAX), |(offset, _)| *offset);
        self.readers.values().filter(|at| **at >= near).min().copied().unwrap_or(Offset(u64::MAX))
    }

    /// Takes out what is too much, and what all have read.
    fn let_go(&mut self) -> Vec<Batch> {
        let read = self.read_by_all();
        let mut out = Vec::new();
        while let Some(batch) = self.batches.pop_front_if(|first| self.bytes > self.bytes_max || first.end() <= read) {
            self.bytes -= batch.body.len() + BATCH_BYTES;
            out.push(batch);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch, entry};

    /// A tail of at most `bytes_max`, and batches of 10 kB and something to publish in it.
    fn tail(bytes_max: usize) -> (Tail, impl FnMut(&Tail) -> Offset) {
        let (mut n, mut head) = (0, Offset(0));
        let publish = move |tail: &Tail| {
            let next = batch(&entry(n, 10_000), head);
            (n, head) = (n + 1, next.end());
            tail.publish(std::iter::once(next), head);
            head
        };
        (Tail::new(Offset(0), bytes_max), publish)
    }

    /// What everyone has read goes at once; what one has not stays, also for one that begins to read later.
    #[test]
    fn what_all_have_read_is_held_no_more() {
        let (tail, mut publish) = tail(1 << 20);
        let [one, two] = [tail.enter(Offset(0)), tail.enter(Offset(0))];
        let heads: Vec<_> = (0..4).map(|_| publish(&tail)).collect();
        let all = tail.held_bytes();
        tail.moved(&one, heads[2]);
        assert_eq!(tail.held_bytes(), all, "the other has read nothing");
        tail.moved(&two, heads[1]);
        assert_eq!(tail.read(heads[1], 1 << 20, Offset(u64::MAX)).unwrap().len(), 2);
        assert!(tail.read(heads[0], 1 << 20, Offset(u64::MAX)).is_none());
        tail.leave(&two);
        assert_eq!(tail.read(heads[2], 1 << 20, Offset(u64::MAX)).unwrap().len(), 1);
        assert!(tail.read(heads[1], 1 << 20, Offset(u64::MAX)).is_none());
        tail.moved(&one, heads[3]);
        assert_eq!(tail.held_bytes(), 0);
        tail.leave(&one);
        let before = heads[3];
        publish(&tail);
        assert_eq!(
            tail.read(before, 1 << 20, Offset(u64::MAX)).unwrap().len(),
            1,
            "while nobody reads, the newest stay"
        );
    }

    /// A reader gets nothing past the head that it knows, although more is here already: it would stand past the head it is told next.
    #[test]
    fn nothing_is_given_past_the_head_that_a_reader_knows() {
        let (tail, mut publish) = tail(1 << 20);
        let _one = tail.enter(Offset(0));
        let heads: Vec<_> = (0..4).map(|_| publish(&tail)).collect();
        let ends = |from, head| Some(tail.read(from, 1 << 20, head)?.iter().map(Batch::end).collect::<Vec<_>>());
        assert_eq!(ends(Offset(0), heads[1]), Some(heads[..2].to_vec()));
        assert_eq!(ends(heads[0], heads[1]), Some(vec![heads[1]]));
        assert_eq!(ends(heads[1], heads[1]), None);
        assert_eq!(ends(heads[1], heads[3]), Some(heads[2..].to_vec()));
    }

    /// A reader that is too far behind to find anything here has nothing held for it, until it comes near.
    #[test]
    fn nothing_is_held_for_who_is_far_behind() {
        let (tail, mut publish) = tail(200_000);
        let slow = tail.enter(Offset(0));
        let mut most = 0;
        let heads: Vec<_> = (0..40)
            .map(|_| {
                let head = publish(&tail);
                most = most.max(tail.held_bytes());
                head
            })
            .collect();
        assert!((150_000..=200_000).contains(&most), "{most}");
        assert_eq!(tail.held_bytes(), 0);
        tail.moved(&slow, heads[10]);
        publish(&tail);
        assert_eq!(tail.held_bytes(), 0, "still far");
        tail.moved(&slow, heads[34]);
        let from = publish(&tail);
        let to = publish(&tail);
        assert_eq!(
            tail.read(from, 1 << 20, Offset(u64::MAX)).unwrap().last().unwrap().end(),
            to,
            "held for who is near"
        );
    }
}
