//! Where appends wait for the writer: in groups, each of which becomes durable and is answered as one.
//!
//! Promise: what waits is bounded in bytes; groups are taken in the order of the appends; every append that was let in is
//! answered exactly once, even if the writer goes away.
//! A group, not an append, has the shared state: an append costs one place in a vector, and one lock for all of a group's
//! answers wakes them together.
//! Not here: writing (`engine.rs`).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use emberd_model::Offset;
use tokio::sync::Semaphore;

use crate::error::AppendError;
use crate::format::RECORD_BYTES;
use crate::keeper::lock;
use crate::writer::Queued;

/// A group is closed when it would become larger than this, and the next one begun: about what a disk takes in the time of
/// a sync. A single entry may be larger and is a group of its own.
pub(crate) const GROUP_BYTES: usize = 8 << 20;

type Answer = Result<Offset, AppendError>;

/// The appends that wait.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// Bytes that may still come in.
    room: Semaphore,
    bytes_max: u32,
}

#[derive(Debug)]
struct State {
    /// Groups that are as large as they may become.
    full: VecDeque<Group>,
    forming: Group,
    /// Why nothing more is let in.
    closed: Option<AppendError>,
    /// The writer sleeps.
    idle: bool,
}

/// Entries that become durable together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    entries: Vec<Queued>,
    bytes: usize,
    /// What is given back to the queue's room when they are answered.
    cost: usize,
    answers: Arc<Answers>,
}

#[derive(Debug, Default)]
struct Answers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By place in the group; an answer is taken once.
    answers: Option<Vec<Option<Answer>>>,
    wakers: Vec<Option<Waker>>,
}

/// What the writer gets when it asks for work.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A group to be written and answered.
    Group(Group),
    /// Nothing came within the time.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        let state = State { full: VecDeque::new(), forming: Group::default(), closed: None, idle: false };
        let room = Semaphore::new(bytes_max as usize);
        Self { state: Mutex::new(state), arrived: Condvar::new(), room, bytes_max }
    }

    /// What an entry counts against the bound; one larger than the bound takes all of it.
    fn cost(&self, queued: &Queued) -> u32 {
        u32::try_from(queued.bytes()).unwrap_or(u32::MAX).min(self.bytes_max)
    }

    /// Lets an entry in at once, if there is room.
    pub(crate) fn try_push(&self, queued: Queued) -> Result<Result<Pending, AppendError>, Queued> {
        let cost = self.cost(&queued);
        match self.room.try_acquire_many(cost) {
            Ok(permit) => {
                permit.forget();
                Ok(self.push(queued, cost))
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(queued),
            Err(tokio::sync::TryAcquireError::Closed) => Ok(Err(self.why_closed())),
        }
    }

    /// Waits for room, then lets the entry in.
    pub(crate) async fn push_when_room(&self, queued: Queued) -> Result<Pending, AppendError> {
        let cost = self.cost(&queued);
        match self.room.acquire_many(cost).await {
            Ok(permit) => {
                permit.forget();
                self.push(queued, cost)
            }
            Err(_) => Err(self.why_closed()),
        }
    }

    fn push(&self, queued: Queued, cost: u32) -> Result<Pending, AppendError> {
        let mut state = lock(&self.state);
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        let bytes = queued.bytes();
        if state.forming.bytes + bytes > GROUP_BYTES && !state.forming.entries.is_empty() {
            let full = std::mem::take(&mut state.forming);
            state.full.push_back(full);
        }
        let group = &mut state.forming;
        let pending = Pending { answers: Arc::clone(&group.answers), place: group.entries.len() };
        group.entries.push(queued);
        group.bytes += bytes;
        group.cost += cost as usize;
        if std::mem::take(&mut state.idle) {
            self.arrived.notify_one();
        }
        Ok(pending)
    }

    /// The oldest group, once there is one. Waits at most `patience`, if given.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Taken {
        let mut state = lock(&self.state);
        loop {
            if let Some(group) = state.full.pop_front() {
                return Taken::Group(group);
            }
            if !state.forming.entries.is_empty() {
                let places = state.forming.entries.len();
                let group = std::mem::take(&mut state.forming);
                // As large as the last one was: under load groups are alike.
                state.forming.entries.reserve(places);
                return Taken::Group(group);
            }
            if state.closed.is_some() {
                return Taken::Closed;
            }
            state.idle = true;
            state = match patience {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout(state, patience);
                    let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    let nothing = state.full.is_empty() && state.forming.entries.is_empty() && state.closed.is_none();
                    if timeout.timed_out() && nothing {
                        state.idle = false;
                        return Taken::Idle;
                    }
                    state
                }
            };
        }
    }

    /// Answers a group, in the order of its entries, and makes room.
    pub(crate) fn answer(&self, mut group: Group, answers: Vec<Answer>) {
        // The bodies go first: whoever waits for room gets memory that is free.
        group.entries = Vec::new();
        let cost = std::mem::take(&mut group.cost);
        group.answers.give(answers);
        self.room.add_permits(cost);
    }

    /// Lets nothing more in. What is inside will still be taken.
    pub(crate) fn close(&self, why: AppendError) {
        lock(&self.state).closed.get_or_insert(why);
        self.room.close();
        self.arrived.notify_all();
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes_max as usize - self.room.available_permits()
    }

    fn why_closed(&self) -> AppendError {
        lock(&self.state).closed.clone().unwrap_or(AppendError::Stopping)
    }
}

impl Queued {
    fn bytes(&self) -> usize {
        self.entry.body.len() + RECORD_BYTES as usize
    }
}

impl Group {
    pub(crate) fn entries(&self) -> &[Queued] {
        &self.entries
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only a group that nobody answered still has entries: the writer ended in the midst of it.
        let unanswered = self.entries.iter().map(|_| Err(AppendError::Stopping)).collect::<Vec<_>>();
        if !unanswered.is_empty() {
            self.answers.give(unanswered);
        }
    }
}

impl Answers {
    fn give(&self, answers: Vec<Answer>) {
        let wakers = {
            let mut waiting = lock(&self.0);
            waiting.answers.get_or_insert_with(|| answers.into_iter().map(Some).collect());
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// An append that was let in, until it is answered.
#[derive(Debug)]
pub(crate) struct Pending {
    answers: Arc<Answers>,
    place: usize,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut waiting = lock(&self.answers.0);
        if let Some(answers) = &mut waiting.answers {
            return Poll::Ready(
                answers.get_mut(self.place).and_then(Option::take).unwrap_or(Err(AppendError::Stopping)),
            );
        }
        if waiting.wakers.len() <= self.place {
            waiting.wakers.resize(self.place + 1, None);
        }
        match &mut waiting.wakers[self.place] {
            Some(known) => known.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
