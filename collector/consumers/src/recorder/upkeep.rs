//! What is due beside recording: publishing what changed, rows for traces whose root never comes, joining, settling.

use std::time::Duration;

use emberd_store::record::Rootless;
use tokio::time::Instant;

use super::{Error, NAME, Recorder, chain};

/// What changed is published this long after the last time, so that a dashboard sees it within a second.
const PUBLISH_EVERY: Duration = Duration::from_millis(400);
/// Windows that end "at now" move on with the day even where nothing is recorded.
const PUBLISH_AT_LEAST: Duration = Duration::from_secs(10);
/// How often traces without a root are looked through, and names that found no prompt.
const ROOTLESS_EVERY: Duration = Duration::from_millis(500);
const JOIN_EVERY: Duration = Duration::from_secs(1);
const SETTLE_EVERY: Duration = Duration::from_secs(30);
/// How often decisions about quarantined traces are looked for, and hours of the ledger folded that are long past.
const RELEASE_EVERY: Duration = Duration::from_secs(1);
const FOLD_EVERY: Duration = Duration::from_secs(3_600);
/// The least time from one pass to the next while nothing is recorded, so that a pass which leaves work cannot keep the
/// recorder from its batches.
const BREATH: Duration = Duration::from_millis(20);
/// Traces in one pass for those without a root.
const ROOTLESS_LIMIT: u32 = 500;

/// When each thing is due.
#[derive(Debug)]
pub(super) struct Upkeep {
    publish: Instant,
    rootless: Instant,
    join: Instant,
    settle: Instant,
    release: Instant,
    fold: Instant,
    last_published: Instant,
    /// When the last pass ended.
    passed: Instant,
}

impl Default for Upkeep {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            publish: now,
            rootless: now,
            join: now,
            settle: now,
            release: now,
            fold: now,
            last_published: now,
            passed: now,
        }
    }
}

impl Upkeep {
    /// When the next thing is due.
    pub(super) fn due(&self) -> Instant {
        self.publish.min(self.rootless).min(self.join).min(self.settle).min(self.release).max(self.passed + BREATH)
    }

    /// Something was recorded: it wants to be published soon.
    pub(super) fn recorded(&mut self) {
        self.publish = self.publish.min(self.last_published + PUBLISH_EVERY);
    }
}

impl Recorder {
    /// Does what is due; `is_last`: publishes all there is, for it is stopping.
    pub(super) async fn keep_up(&mut self, is_last: bool) -> Result<(), Error> {
        let now = Instant::now();
        let kept = async {
            if now >= self.upkeep.rootless && !is_last {
                self.rootless().await?;
            }
            if now >= self.upkeep.join && !is_last {
                let more = self.store.join_prompts(&self.config.writer).await?;
                self.upkeep.join = if more.more { now } else { now + JOIN_EVERY };
                if more.traces > 0 {
                    self.upkeep.recorded();
                }
            }
            if now >= self.upkeep.settle && !is_last {
                let settled = self.store.settle(self.clock.now(), self.config.quiet).await?;
                self.upkeep.settle = if settled.more { now } else { now + SETTLE_EVERY };
            }
            if now >= self.upkeep.fold && !is_last {
                let horizon = self.progress.book().horizon();
                self.store.fold_ledger(NAME, &self.config.writer, horizon).await?;
                self.upkeep.fold = now + FOLD_EVERY;
            }
            if now >= self.upkeep.publish || is_last {
                self.publish(is_last).await?;
            }
            Ok::<_, emberd_store::Error>(())
        };
        if let Err(error) = kept.await {
            let chain = chain(&error);
            tracing::warn!(consumer = NAME, error = %chain, "upkeep failed, trying again in a second");
            self.progress.failed("upkeep", &chain);
            let later = now + Duration::from_secs(1);
            let upkeep = &mut self.upkeep;
            for due in [&mut upkeep.publish, &mut upkeep.rootless, &mut upkeep.join, &mut upkeep.settle] {
                *due = later.max(*due);
            }
        }
        if now >= self.upkeep.release && !is_last {
            self.upkeep.release = now + RELEASE_EVERY;
            self.release().await?;
        }
        self.upkeep.passed = Instant::now();
        Ok(())
    }

    async fn rootless(&mut self) -> Result<(), emberd_store::Error> {
        let pass = Rootless {
            writer: self.config.writer.clone(),
            now: self.clock.now(),
            wait: self.config.root_wait,
            limit: ROOTLESS_LIMIT,
            prices: self.config.prices.clone(),
        };
        let now = pass.now;
        let done = self.store.rootless(pass).await?;
        if done.written > 0 {
            self.progress.unpublished(true);
            self.upkeep.recorded();
        }
        let is_more = done.next.is_some_and(|next| next <= now);
        self.upkeep.rootless = Instant::now() + if is_more { Duration::ZERO } else { ROOTLESS_EVERY };
        Ok(())
    }

    async fn publish(&mut self, is_last: bool) -> Result<(), emberd_store::Error> {
        loop {
            let published = self.store.publish(self.clock.now()).await?;
            if !published.more {
                break;
            }
            if !is_last {
                // Recording goes first; the rest is published after the next batch.
                self.upkeep.last_published = Instant::now();
                self.upkeep.publish = self.upkeep.last_published;
                return Ok(());
            }
        }
        self.progress.unpublished(false);
        self.upkeep.last_published = Instant::now();
        self.upkeep.publish = self.upkeep.last_published + PUBLISH_AT_LEAST;
        Ok(())
    }
}
