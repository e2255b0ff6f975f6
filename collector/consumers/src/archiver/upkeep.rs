//! What the archiver does between commits: orders, larger files, old days.

use std::time::Duration;

use emberd_archive::Day;
use emberd_archive::keeping::Archive;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Config, Parts, Stopped, orders};

/// How often orders are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often small files are looked for, and old ones.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How often files are looked for that came late and count for nothing.
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);

/// When it was done last.
#[derive(Debug)]
pub(super) struct Upkeep {
    looked_at: Instant,
    tidied_at: Instant,
    swept_at: Instant,
}

impl Default for Upkeep {
    fn default() -> Self {
        let now = Instant::now();
        Self { looked_at: now, tidied_at: now, swept_at: now }
    }
}

impl Upkeep {
    /// When it is to be done again, if nothing else happens.
    pub(super) fn due(&self) -> Instant {
        self.looked_at + LOOK_EVERY
    }

    /// Does what is due. What fails is tried again at its next time: nothing waits for it.
    pub(super) async fn keep_up(
        &mut self,
        archive: &mut Archive,
        config: &Config,
        parts: &Parts,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        if self.looked_at.elapsed() < LOOK_EVERY || stop.is_cancelled() {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let today = Day::of(parts.clock.now());
        if let Err(error) = orders::carry_out(&parts.orders, archive, today).await {
            tracing::warn!(%error, "orders to the archive cannot be read");
        }
        if self.tidied_at.elapsed() < TIDY_EVERY {
            return Ok(());
        }
        self.tidied_at = Instant::now();
        let sweeps = self.swept_at.elapsed() >= SWEEP_EVERY;
        if sweeps {
            self.swept_at = Instant::now();
        }
        let tidied = async {
            // One step at a time: the log is read in between.
            if let Some(done) = archive.compact(today, &config.compaction, orders::merge).await? {
                tracing::info!(
                    files = done.files_before,
                    into = done.files_after,
                    spans = done.rows,
                    "files of the archive became larger ones"
                );
            }
            let dropped = archive.retain(today, &config.retention).await?;
            if dropped.files > 0 {
                tracing::info!(
                    files = dropped.files,
                    spans = dropped.rows,
                    bytes = dropped.bytes,
                    "old files of the archive went"
                );
            }
            if sweeps {
                archive.sweep().await?;
            }
            Ok::<(), emberd_archive::keeping::Error>(())
        };
        match tidied.await {
            Err(error) if super::wants_reopening(&error) => Err(Stopped::archive(error)),
            Err(error) => {
                parts.progress.failed("upkeep", &super::chain(&error));
                tracing::warn!(error = super::chain(&error), "the archive's files could not be tidied up");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
