//! What can be switched off while emberd runs, and is switched on by a restart: recording, and the running of jobs and rules.
//!
//! Promise: what is switched off finishes what it has in hand, and then holds up neither the log nor the end of emberd.
//! Kept by: `tests/it/rollback.rs`, `tests/it/reload.rs`.

use std::pin::pin;
use std::sync::Arc;

use emberd_consumers::recorder;
use emberd_evaluators_jobs::live;
use emberd_log::DiskLog;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The switches, for whoever turns them; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Switches {
    judging: CancellationToken,
    recording: CancellationToken,
}

/// A switch, for what runs by it.
#[derive(Clone)]
pub(crate) struct Switch {
    off: CancellationToken,
    /// Gone with the last that runs by it.
    _running: mpsc::Sender<()>,
}

/// Both, as they are waited for.
pub(crate) struct Watched {
    switches: Switches,
    judging: mpsc::Receiver<()>,
    recording: mpsc::Receiver<()>,
}

impl Switches {
    /// What judges goes by the first, the recorder by the second.
    pub(crate) fn watched(&self) -> (Switch, Switch, Watched) {
        let ((judges, judging), (records, recording)) = (mpsc::channel(1), mpsc::channel(1));
        let by = |off: &CancellationToken, running| Switch { off: off.clone(), _running: running };
        let watched = Watched { switches: self.clone(), judging, recording };
        (by(&self.judging, judges), by(&self.recording, records), watched)
    }

    /// Whether this was the moment.
    pub(crate) fn stop_judging(&self) -> bool {
        let was_on = !self.judging.is_cancelled();
        self.judging.cancel();
        was_on
    }

    /// Whether this was the moment.
    pub(crate) fn stop_recording(&self) -> bool {
        let was_on = !self.recording.is_cancelled();
        self.recording.cancel();
        was_on
    }
}

impl Switch {
    /// Runs it until `stop`, or until the switch is off and it has finished what it had in hand: then waits until `end`, so that it
    /// does not pass for a part that ended by itself.
    pub(crate) async fn by<T, F: Future<Output = T>>(
        self,
        stop: &CancellationToken,
        end: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> T {
        let both = stop.child_token();
        let mut running = pin!(run(both.clone()));
        let done = tokio::select! {
            done = &mut running => return done,
            () = self.off.cancelled() => {
                both.cancel();
                running.await
            }
        };
        drop(self);
        end.cancelled().await;
        done
    }
}

impl Watched {
    /// Lets the log go on without what was switched off; calls `off` once both were. Runs until `end`.
    pub(crate) async fn run(mut self, log: Arc<DiskLog>, off: impl FnOnce(), end: CancellationToken) {
        let judged = async {
            self.switches.judging.cancelled().await;
            while self.judging.recv().await.is_some() {}
            log.forget(live::CONSUMER);
        };
        let recorded = async {
            self.switches.recording.cancelled().await;
            while self.recording.recv().await.is_some() {}
            log.forget(recorder::NAME);
        };
        let both = async {
            tokio::join!(judged, recorded);
            off();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = both => (),
            () = end.cancelled() => (),
        }
    }
}
