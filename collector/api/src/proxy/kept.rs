//! Answers of Phoenix that are kept for a while: the same question is not asked twice, and an old answer is better than none.
//!
//! Promise: [`ANSWERS_MAX`] answers of [`ANSWER_BYTES_MAX`] each at most, least used first to go; one counts as fresh for so long since it
//! was last asked for, as configured, but never longer than [`AGE_MAX`]; an old one is kept for when Phoenix does not answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

const ANSWERS_MAX: usize = 500;
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// However often it is asked for.
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// What an answer is kept under: what was asked, as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Whose key Phoenix saw: what one role may read is not another's.
    pub(crate) role: &'static str,
    /// Path and query.
    pub(crate) target: String,
    /// What the caller takes.
    pub(crate) accept: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct Kept {
    answer: Arc<Answer>,
    asked_at: Instant,
    used_at: Instant,
    is_valid: bool,
}

/// Answers, by their questions.
pub(crate) struct Answers {
    time: Duration,
    kept: Mutex<HashMap<Question, Kept>>,
    /// How often something was written.
    writes: AtomicU64,
    pub(crate) hits: crate::meter::Hits,
}

/// An answer that was found.
pub(crate) enum Found {
    Fresh(Arc<Answer>),
    /// For when there is no other.
    Stale(Arc<Answer>),
}

impl Answers {
    /// Answers count for so long after each use.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, kept: Mutex::default(), writes: AtomicU64::new(0), hits: Default::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Question, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, question: &Question) -> Option<Found> {
        let now = Instant::now();
        let mut all = self.kept();
        let kept = all.get_mut(question)?;
        let answer = Arc::clone(&kept.answer);
        if kept.is_valid && now - kept.used_at < self.time && now - kept.asked_at < AGE_MAX {
            kept.used_at = now;
            return Some(Found::Fresh(answer));
        }
        Some(Found::Stale(answer))
    }

    /// How often something was written so far, for [`Answers::keep`].
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Keeps an answer that was asked for when so much had been written; it is stale from the start if more was since.
    pub(crate) fn keep(&self, question: Question, answer: Arc<Answer>, writes: u64) {
        if self.time.is_zero() || answer.body.len() > ANSWER_BYTES_MAX {
            return;
        }
        let now = Instant::now();
        let mut all = self.kept();
        if all.len() >= ANSWERS_MAX && !all.contains_key(&question) {
            let least = all.iter().min_by_key(|(_, kept)| kept.used_at).map(|(question, _)| question.clone());
            least.map(|least| all.remove(&least));
        }
        let is_valid = self.writes() == writes;
        all.insert(question, Kept { answer, asked_at: now, used_at: now, is_valid });
    }

    /// Lets no answer count as fresh any more: something was written, and Phoenix alone knows what it changes.
    pub(crate) fn invalidate(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        for kept in self.kept().values_mut() {
            kept.is_valid = false;
        }
    }

    /// How many are kept, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let all = self.kept();
        (all.len(), all.values().map(|kept| kept.answer.body.len()).sum())
    }
}
