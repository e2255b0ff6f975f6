//! Writes commits into the segment that is open: many batches, one write, one sync.
//!
//! Promise: a commit is written only after all before it was durable, so that its header proves what came before; after the
//! first failed write or sync nothing is written any more. A sync that fails may have dropped pages and succeed the next time,
//! so asking again would be asking for a lie.
//! Not here: threads and who waits (`engine.rs`, `queue.rs`), where segments come from (`keeper.rs`). Everything here happens
//! on the caller's thread, so that tests can cut it off at any call.

use std::io;
use std::sync::Arc;

use emberd_model::{Batch, Offset, UnixNanos};

use crate::buffer::Buffer;
use crate::config::Durability;
use crate::disk::Disk;
use crate::error::SegmentId;
use crate::format::{BLOCK, COMMIT_BYTES, Commit, Place, Record, SegmentHead, block_up, record_bytes};
use crate::keeper::Prepared;
use crate::log::Entry;
use crate::segment::SegmentFile;

/// An entry with its body's check sum, which the appending thread took while it had the body at hand.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) entry: Entry,
    pub(crate) crc: u32,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) base: Offset,
    pub(crate) file: SegmentFile,
    /// Where the next commit goes; 0 while not even the header is written.
    pub(crate) at: u64,
    pub(crate) file_bytes: u64,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// So many entries are durable, the first of them at this offset.
    Entries(usize, Offset),
    /// The first entry needs another segment, of at least so many bytes.
    Full(u64),
}

/// The end of the log.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    durability: Durability,
    active: Option<Active>,
    head: Offset,
    buffer: Buffer,
    poisoned: bool,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, durability: Durability, active: Option<Active>, head: Offset) -> Self {
        Self { disk, durability, active, head, buffer: Buffer::default(), poisoned: false }
    }

    pub(crate) fn head(&self) -> Offset {
        self.head
    }

    pub(crate) fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// Goes on in another segment.
    pub(crate) fn begin(&mut self, prepared: Prepared, salt: u64) -> &Active {
        let Prepared { id, file, file_bytes } = prepared;
        self.active.insert(Active { id, salt, base: self.head, file, at: 0, file_bytes })
    }

    /// Writes as many of the entries as fit into the segment, as one commit, and makes them durable.
    pub(crate) fn write(&mut self, entries: &[Queued], now: UnixNanos) -> io::Result<Wrote> {
        let first = self.head;
        let fit = match &self.active {
            Some(active) => active.fit(entries),
            None => 0,
        };
        let (Some(active), 1..) = (&mut self.active, fit) else {
            let body = entries.first().map_or(0, |queued| queued.entry.body.len() as u64);
            return Ok(Wrote::Full(bytes_alone(body)));
        };
        let end = active.lay_out(&mut self.buffer, &entries[..fit], first, self.durability, now);
        self.put(self.durability == Durability::Sync)?;
        self.head = end;
        Ok(Wrote::Entries(fit, first))
    }

    /// Writes a mark where the next commit will go: proof that all before it was durable. Nothing is written where no block
    /// is left for it; then the next segment's header is the proof.
    pub(crate) fn mark(&mut self, sync: bool, now: UnixNanos) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let at = active.at.max(BLOCK);
        if at + BLOCK > active.file_bytes {
            return Ok(());
        }
        active.lay_out(&mut self.buffer, &[], self.head, self.durability, now);
        self.put(sync && self.durability == Durability::Sync)?;
        if let Some(active) = &mut self.active {
            active.at = at;
        }
        Ok(())
    }

    /// Writes records of an unproven commit once more, over themselves: whatever the page cache says, they are durable then.
    pub(crate) fn write_again(&mut self, batches: &[Batch], first: Offset, now: UnixNanos) -> io::Result<()> {
        let entries: Vec<Queued> = batches.iter().filter_map(queued).collect();
        let Some(active) = &mut self.active else { return Ok(()) };
        if entries.is_empty() {
            return Ok(());
        }
        let end = active.lay_out(&mut self.buffer, &entries, first, self.durability, now);
        active.file_bytes = active.file_bytes.max(active.at + self.buffer.len() as u64);
        self.put(true)?;
        self.head = end;
        Ok(())
    }

    /// Overwrites these blocks of the segment with zeros, durably.
    pub(crate) fn wipe(&mut self, blocks: &[u64]) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        self.buffer.clear_for(BLOCK as usize);
        self.buffer.push(&[0]);
        self.buffer.pad(BLOCK as usize);
        for at in blocks {
            active.file.write(&*self.disk, self.buffer.bytes(), *at)?;
        }
        if blocks.is_empty() { Ok(()) } else { active.file.sync() }
    }

    /// Writes the buffer where the segment ends, and syncs.
    fn put(&mut self, sync: bool) -> io::Result<()> {
        let Some(active) = self.active.as_mut().filter(|_| !self.poisoned) else {
            return Err(io::Error::other("an earlier write failed"));
        };
        let done = active.file.write(&*self.disk, self.buffer.bytes(), active.at);
        let done = done.and_then(|()| if sync { active.file.sync() } else { Ok(()) });
        match done {
            Ok(()) => active.at += self.buffer.len() as u64,
            Err(_) => self.poisoned = true,
        }
        done
    }
}

fn queued(batch: &Batch) -> Option<Queued> {
    let entry = Entry {
        spans: batch.spans.try_into().ok()?,
        received_at: batch.received_at,
        key: batch.key,
        flags: batch.flags,
        body: batch.body.clone(),
    };
    Some(Queued { crc: crate::format::body_crc(&entry.body), entry })
}

/// What a segment must hold so that one entry with a body of `body` bytes fits.
pub(crate) fn bytes_alone(body: u64) -> u64 {
    BLOCK + block_up(COMMIT_BYTES + record_bytes(body))
}

impl Active {
    /// How many of the entries fit here as one commit.
    fn fit(&self, entries: &[Queued]) -> usize {
        // Commits begin and end on blocks, so only whole blocks count.
        let room = (self.file_bytes / BLOCK * BLOCK).saturating_sub(self.at.max(BLOCK));
        let mut taken = COMMIT_BYTES;
        let fits = |queued: &&Queued| {
            taken += record_bytes(queued.entry.body.len() as u64);
            taken <= room
        };
        entries.iter().take_while(fits).count()
    }

    /// Fills the buffer with a commit of the entries, after the segment's header if that is still to be written. Gives the
    /// offset after the last.
    fn lay_out(
        &self,
        buffer: &mut Buffer,
        entries: &[Queued],
        first: Offset,
        durability: Durability,
        now: UnixNanos,
    ) -> Offset {
        let spans: u64 = entries.iter().map(|queued| u64::from(queued.entry.spans.get())).sum();
        let records: u64 = entries.iter().map(|queued| record_bytes(queued.entry.body.len() as u64)).sum();
        buffer.clear_for((2 * BLOCK + COMMIT_BYTES + records) as usize);
        if self.at == 0 {
            let head = SegmentHead { segment: self.id, salt: self.salt, base: first, made_at: now };
            buffer.push(&head.encode());
            buffer.pad(BLOCK as usize);
        }
        let place = |buffer: &Buffer| Place { segment: self.id, salt: self.salt, at: self.at + buffer.len() as u64 };
        let commit = Commit {
            first,
            spans,
            bytes: (COMMIT_BYTES + records) as u32,
            records: entries.len() as u32,
            synced: durability == Durability::Sync,
        };
        buffer.push(&commit.encode(place(buffer)));
        let mut offset = first;
        for Queued { entry, crc } in entries {
            let record = Record::of(entry, *crc, offset);
            buffer.push(&record.encode(place(buffer)));
            buffer.push(&entry.body);
            buffer.pad(8);
            offset = record.end();
        }
        buffer.pad(BLOCK as usize);
        offset
    }
}
