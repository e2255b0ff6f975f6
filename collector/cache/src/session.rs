//! One connection to Redis and one subscription, from the moment they stand until one of them is lost; then the next, after a pause.
//!
//! Promise: who looks something up asks only while the last beats came back in time: a beat is published on one connection and heard on the
//! other, so it has passed all that a look-up passes, and every invalidation that was published before it was heard. Whenever the subscription
//! is new, what is in memory is forgotten: invalidations may have been missed.
//! Not here: what a look-up does (`far.rs`).

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::AsyncConnectionConfig;
use redis::aio::{MultiplexedConnection, PubSubStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::far::{DEADLINE, Far, Put};
use crate::pattern::Pattern;
use crate::stats::State;
use crate::wire::{Names, cache_version};

/// What the background waits for at most, for whatever it does there.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between beats while all is well, and first while it is not.
const BEAT: Duration = Duration::from_millis(500);
const BEAT_TROUBLED: Duration = Duration::from_millis(50);
/// Beats in time after which it is asked again.
const GOOD_BEATS: u32 = 2;
/// A beat passes two connections.
const BEAT_TIME: Duration = DEADLINE.saturating_mul(2);
/// Between attempts at a connection.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Written at once.
const PUTS_AT_ONCE: usize = 32;
const SAID_AT_ONCE: usize = 64;
/// A key's version outlives every value that could stand under it.
const VERSION_TIME: Duration = Duration::from_secs(4 * 3_600);

/// What came from elsewhere.
pub(crate) enum Heard {
    /// This counts no more.
    Forget(Pattern),
    /// Nobody knows what was missed.
    Missed,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Refused(#[from] redis::RedisError),
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    #[error("the connection was closed")]
    Closed,
}

impl From<tokio::time::error::Elapsed> for Lost {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Silent
    }
}

impl Far {
    /// Keeps a connection until `stop`; then tells what is still to be told, if that is quick.
    pub(crate) async fn run(&self, heard: &(dyn Fn(Heard) + Sync), stop: &CancellationToken) {
        let mut queue = self.queue.lock().await;
        let (mut pause, mut was_told) = (PAUSE, None::<String>);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = Box::pin(self.session(heard, &mut queue)) => ended,
            };
            self.is_up.store(false, Ordering::SeqCst);
            self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
            if was_told.replace(ended.to_string()).as_deref() != Some(&ended.to_string()) {
                tracing::warn!(redis = self.place(), error = %ended, "no connection to Redis: the caches go without");
            }
            // After a good while all is new, and worth a word again.
            let was_long = began.elapsed() > 2 * PAUSE_MAX;
            was_told = was_told.filter(|_| !was_long);
            pause = if was_long { PAUSE } else { (2 * pause).min(PAUSE_MAX) };
            // Not all at once, where there are many emberds.
            let _ = timeout(pause.mul_f64(rand::random_range(0.5..1.0)), stop.cancelled()).await;
        }
        self.is_up.store(false, Ordering::SeqCst);
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut link) = link.filter(|_| self.unsaid.count() > 0) {
            let tell = async { while self.unsaid.count() > 0 && self.tell_batch(&mut link).await.is_ok() {} };
            let _ = timeout(LAST_WORDS, tell).await;
        }
    }

    async fn session(&self, heard: &(dyn Fn(Heard) + Sync), queue: &mut mpsc::Receiver<Put>) -> Lost {
        match self.connect().await {
            Err(lost) => lost,
            Ok((link, stream)) => {
                self.calls.connections.one();
                heard(Heard::Missed);
                *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
                let (beat, beats) = watch::channel(0);
                tokio::select! {
                    lost = self.listen(stream, heard, &beat) => lost,
                    lost = self.watch(link.clone(), beats) => lost,
                    lost = self.tell(link.clone()) => lost,
                    lost = self.write(link, queue) => lost,
                }
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, PubSubStream), Lost> {
        let how = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_pipeline_buffer_size(256);
        let mut subscription = timeout(PATIENCE, self.client.get_async_pubsub()).await??;
        for channel in [self.channel(), self.beat_channel()] {
            timeout(PATIENCE, subscription.subscribe(channel)).await??;
        }
        let link = timeout(PATIENCE, self.client.get_multiplexed_async_connection_with_config(&how)).await??;
        Ok((link, subscription.into_on_message()))
    }

    fn channel(&self) -> String {
        format!("{}:forget", self.prefix)
    }

    fn beat_channel(&self) -> String {
        format!("{}:beat:{}", self.prefix, self.id)
    }

    async fn listen(
        &self,
        mut stream: PubSubStream,
        heard: &(dyn Fn(Heard) + Sync),
        beat: &watch::Sender<u64>,
    ) -> Lost {
        let beats = self.beat_channel();
        while let Some(message) = stream.next().await {
            let Ok(text) = std::str::from_utf8(message.get_payload_bytes()) else { continue };
            if message.get_channel_name() == beats {
                beat.send_replace(text.parse().unwrap_or(0));
            } else if let Some((id, pattern)) = text.split_once(' ')
                && id != self.id
                && let Some(pattern) = Pattern::parse(pattern)
            {
                heard(Heard::Forget(pattern));
            }
        }
        Lost::Closed
    }

    /// Sends beats. Who is slow is not asked; who does not answer at all is left.
    async fn watch(&self, mut link: MultiplexedConnection, mut beats: watch::Receiver<u64>) -> Lost {
        let (mut nth, mut good, mut pause) = (0_u64, 0, Duration::ZERO);
        loop {
            let _ = timeout(pause, self.troubled.notified()).await;
            let was_up = self.state() == State::Up;
            nth += 1;
            let began = Instant::now();
            let beat = async {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(self.beat_channel()).arg(nth).exec_async(&mut link).await?;
                let _ = beats.wait_for(|heard| *heard >= nth).await;
                Ok::<_, Lost>(())
            };
            match timeout(PATIENCE, beat).await {
                Ok(Ok(())) => (),
                Ok(Err(lost)) => return lost,
                Err(_) => return Lost::Silent,
            }
            if was_up && self.state() == State::Up {
                (good, pause) = (0, BEAT);
                continue;
            }
            good = if began.elapsed() <= BEAT_TIME { good + 1 } else { 0 };
            pause = if good == 0 { (2 * pause).clamp(BEAT_TROUBLED, BEAT) } else { BEAT_TROUBLED };
            if good >= GOOD_BEATS {
                self.recovered();
                (good, pause) = (0, BEAT);
            }
        }
    }

    async fn tell(&self, mut link: MultiplexedConnection) -> Lost {
        let mut pause = BEAT_TROUBLED;
        loop {
            match self.tell_batch(&mut link).await {
                Ok(()) => pause = BEAT_TROUBLED,
                Err(error) => {
                    tracing::debug!(%error, "Redis was not told what counts no more: it is told again");
                    sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Changes the versions first: what is written under the old ones counts no more from then on, whoever writes it.
    async fn tell_batch(&self, link: &mut MultiplexedConnection) -> redis::RedisResult<()> {
        let batch = self.unsaid.batch(SAID_AT_ONCE).await;
        let mut told = redis::pipe();
        for pattern in &batch {
            let version = format!("{:016x}", rand::random::<u64>());
            match pattern.one() {
                Some(key) => {
                    let names = Names::new(&self.prefix, pattern.cache(), key);
                    let time = VERSION_TIME.as_millis() as u64;
                    told.cmd("SET").arg(&names.key_version).arg(version).arg("PX").arg(time).ignore();
                    told.cmd("DEL").arg(&names.value).ignore();
                }
                // Names are hashes: which of them begin alike, Redis cannot tell.
                None => {
                    told.cmd("SET").arg(cache_version(&self.prefix, pattern.cache())).arg(version).ignore();
                }
            }
            told.cmd("PUBLISH").arg(self.channel()).arg(format!("{} {pattern}", self.id)).ignore();
        }
        told.exec_async(link).await?;
        self.unsaid.confirmed();
        Ok(())
    }

    async fn write(&self, mut link: MultiplexedConnection, queue: &mut mpsc::Receiver<Put>) -> Lost {
        let mut batch = Vec::with_capacity(PUTS_AT_ONCE);
        loop {
            batch.clear();
            if queue.recv_many(&mut batch, PUTS_AT_ONCE).await == 0 {
                return Lost::Closed;
            }
            let count = batch.len() as u64;
            if self.state() != State::Up {
                self.calls.dropped.more(count);
                continue;
            }
            let mut puts = redis::pipe();
            for Put { name, bytes, time, .. } in &batch {
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
                puts.cmd("SET").arg(name).arg(bytes).arg("PX").arg(ms).ignore();
            }
            match puts.exec_async(&mut link).await {
                Ok(()) => self.calls.written.more(count),
                Err(error) => {
                    self.calls.dropped.more(count);
                    tracing::debug!(%error, "what was to be kept in Redis is not");
                    if error.code().is_none() {
                        self.fault(error.is_connection_dropped());
                    }
                }
            }
        }
    }
}
