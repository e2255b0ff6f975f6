//! Invalidations that Redis has not confirmed yet. While there is one, nothing of its cache is read from Redis.
//!
//! Bounded: more than [`UNSAID_MAX`] become one for each cache, which forgets all of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::pattern::Pattern;

const UNSAID_MAX: usize = 1_000;

#[derive(Default)]
struct Queue {
    all: VecDeque<(u64, Pattern)>,
    next: u64,
    /// The newest that is being told.
    telling: Option<u64>,
}

/// They, oldest first.
#[derive(Default)]
pub(crate) struct Unsaid {
    queue: Mutex<Queue>,
    /// How many, for those who ask before each look-up.
    count: AtomicUsize,
    more: Notify,
}

impl Unsaid {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether something of this cache is among them.
    pub(crate) fn covers(&self, cache: &str) -> bool {
        self.count() > 0 && self.queue().all.iter().any(|(_, pattern)| pattern.cache() == cache)
    }

    pub(crate) fn push(&self, pattern: Pattern) {
        let mut queue = self.queue();
        // One that is on its way already may come before what this one is about.
        let telling = queue.telling;
        if queue.all.iter().any(|(nth, other)| Some(*nth) > telling && *other == pattern) {
            return;
        }
        let add = |queue: &mut Queue, pattern| {
            queue.all.push_back((queue.next, pattern));
            queue.next += 1;
        };
        add(&mut queue, pattern);
        if queue.all.len() > UNSAID_MAX {
            let mut caches: Vec<String> = queue.all.drain(..).map(|(_, pattern)| pattern.cache().to_owned()).collect();
            caches.sort();
            caches.dedup();
            for cache in caches {
                add(&mut queue, Pattern::beginning(&cache, ""));
            }
        }
        self.count.store(queue.all.len(), Ordering::SeqCst);
        drop(queue);
        self.more.notify_one();
    }

    /// The oldest ones, as soon as there are any.
    pub(crate) async fn batch(&self, most: usize) -> Vec<Pattern> {
        loop {
            {
                let mut queue = self.queue();
                let batch: Vec<_> = queue.all.iter().take(most).cloned().collect();
                if let Some((newest, _)) = batch.last() {
                    queue.telling = Some(*newest);
                    return batch.into_iter().map(|(_, pattern)| pattern).collect();
                }
            }
            self.more.notified().await;
        }
    }

    /// Redis has confirmed the last batch.
    pub(crate) fn confirmed(&self) {
        let mut queue = self.queue();
        if let Some(newest) = queue.telling {
            queue.all.retain(|(nth, _)| *nth > newest);
        }
        self.count.store(queue.all.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn texts(unsaid: &Unsaid) -> Vec<String> {
        unsaid.batch(2).await.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_is_not_confirmed_stays_and_what_comes_meanwhile_too() {
        let unsaid = Unsaid::default();
        for key in ["a", "b", "a", "c"] {
            unsaid.push(Pattern::key("c", key));
        }
        assert_eq!(texts(&unsaid).await, ["c:a", "c:b"]);
        unsaid.push(Pattern::key("c", "b"));
        assert_eq!(unsaid.count(), 4, "b is on its way, and must go again");
        unsaid.confirmed();
        assert_eq!(texts(&unsaid).await, ["c:c", "c:b"]);
        assert!(unsaid.covers("c") && !unsaid.covers("d"));
        unsaid.confirmed();
        assert!(!unsaid.covers("c"));
    }

    #[tokio::test]
    async fn too_many_become_one_of_each_cache() {
        let unsaid = Unsaid::default();
        unsaid.push(Pattern::key("d", "x"));
        assert_eq!(texts(&unsaid).await, ["d:x"]);
        for key in 0..=UNSAID_MAX {
            unsaid.push(Pattern::key("c", &key.to_string()));
        }
        assert!(unsaid.count() <= UNSAID_MAX);
        unsaid.confirmed();
        let left: Vec<String> = unsaid.batch(UNSAID_MAX).await.iter().map(ToString::to_string).collect();
        assert!(left.contains(&"c:*".to_owned()) && left.contains(&"d:*".to_owned()), "{left:?}");
    }
}
