//! Works through the jobs of a phase, each held by one emberd while it is worked on.

use std::time::Duration;

use emberd_store::Error;
use emberd_store::jobs::{HeldJob, Phase};
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;

/// After an error of the database's.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done with the jobs of a phase.
pub(crate) trait Stage: Sync {
    /// The phase.
    const PHASE: Phase;
    /// What is done, for the log.
    const DOING: &'static str;

    /// Does it with one job; an error is one of the database's, and it is done again.
    fn work(&self, held: &HeldJob) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns when there may be something new.
    fn woken(&mut self) -> impl Future<Output = ()> + Send;
}

/// Until `stop`, works on each job of the phase, one after the other, and again until it succeeds or the job is another's; where there is
/// none, looks again after the poll or when woken.
pub(crate) async fn each<S: Stage>(shared: &Shared, stop: &CancellationToken, mut stage: S) {
    while !stop.is_cancelled() {
        let wait = match shared.store.hold_job(S::PHASE, &shared.owner, shared.config.lease, shared.now()).await {
            Ok(Some(held)) => {
                while let Err(error) = stage.work(&held).await {
                    tracing::warn!(job = %held.job.id, error = %shared.told(&error), "{} a job has to wait", S::DOING);
                    // Held all the same: nobody else need wait for our lease to end.
                    let is_stopped = tokio::time::timeout(AGAIN, stop.cancelled()).await.is_ok();
                    let extended = shared.store.extend_job(held.job.id, held.fence, shared.config.lease, shared.now());
                    if is_stopped || matches!(extended.await, Ok(false)) {
                        break;
                    }
                }
                continue;
            }
            Ok(None) => shared.config.poll,
            Err(error) => {
                tracing::warn!(error = %shared.told(&error), "{}: jobs could not be looked for", S::DOING);
                shared.config.poll.max(AGAIN)
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
            () = stage.woken() => {}
        }
    }
}
