//! The tasks of a running daemon, each under its name: who runs, who has ended and how.
//!
//! Not here: in which order they are stopped (the wiring).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::reconcile;
use crate::switches::Switch;
use crate::systemd::{Systemd, Watched};
use crate::wiring::{Consumer, Evaluation, Run};

/// All tasks; what is still running when it is dropped is cut off.
#[derive(Default)]
pub(crate) struct Rooms {
    tasks: JoinSet<anyhow::Result<()>>,
    names: BTreeMap<Id, (&'static str, AbortHandle)>,
}

impl Rooms {
    /// Starts a room.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        room: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Id {
        let handle = self.tasks.spawn(room);
        let id = handle.id();
        self.names.insert(id, (name, handle));
        id
    }

    /// Starts who tells systemd how it goes, until all is dropped.
    pub(crate) fn watch(&mut self, systemd: Systemd, watched: Watched) {
        self.spawn("watchdog", async move {
            systemd.watch(watched).await;
            Ok(())
        });
    }

    /// Starts a consumer, the recorder by its switch; `stopping`: emberd stops, and who was switched off ends.
    pub(crate) fn consumer(
        &mut self,
        consumer: Consumer,
        recording: &Switch,
        stop: CancellationToken,
        stopping: &CancellationToken,
    ) -> Id {
        match consumer.run {
            Run::Forwarder(forwarder) => self.spawn("forwarder", async move {
                forwarder.run(stop).await;
                Ok(())
            }),
            Run::Archiver(archiver) => self.spawn("archiver", async move { Ok(archiver.run(stop).await?) }),
            Run::Recorder(recorder) => {
                let (recording, stopping) = (recording.clone(), stopping.clone());
                self.spawn(
                    "recorder",
                    async move { Ok(recording.by(&stop, &stopping, |stop| recorder.run(stop)).await?) },
                )
            }
        }
    }

    /// Starts what holds the tables against what they were made of, every so often.
    pub(crate) fn reconcile(&mut self, kept: Arc<reconcile::Kept>, stop: CancellationToken) -> Id {
        self.spawn("reconcile", async move {
            reconcile::keep(kept, stop).await;
            Ok(())
        })
    }

    /// Starts what judges: the plugins, so that the API can tell what there is, and, where it is this process's role, the engine, the
    /// rules on live traffic and who tells Phoenix, all three by their switch.
    pub(crate) fn evaluation(&mut self, evaluation: Evaluation, by: &Switch, stop: &CancellationToken) -> Vec<Id> {
        let Evaluation { hosts, engine, live, outbox } = evaluation;
        let stop_hosts = CancellationToken::new();
        let mut all = vec![self.spawn("plugins", {
            let stop = stop_hosts.clone();
            async move {
                hosts.run(&stop).await;
                stop.cancelled().await;
                Ok(())
            }
        })];
        if let Some(outbox) = outbox {
            let (stop, by) = (stop.clone(), by.clone());
            all.push(self.spawn("outbox", async move {
                by.by(&stop, &stop, |stop| outbox.run(stop)).await;
                Ok(())
            }));
        }
        let runs = live.is_some();
        if let Some(live) = live {
            let (stop, by) = (stop.clone(), by.clone());
            all.push(self.spawn("rules", async move {
                by.by(&stop, &stop, |stop| live.run(stop)).await?;
                // The log may be sealed, and all of it judged, before it is time to end.
                stop.cancelled().await;
                Ok(())
            }));
        }
        // Calls of models and plugins end before the plugins do.
        let (stop, by) = (stop.clone(), by.clone());
        all.push(self.spawn("evaluation", async move {
            if runs {
                by.by(&stop, &stop, |stop| engine.run(stop)).await;
            }
            stop.cancelled().await;
            stop_hosts.cancel();
            Ok(())
        }));
        all
    }

    /// The next one that ends, and how. Cancel-safe.
    pub(crate) async fn any_ends(&mut self) -> (&'static str, anyhow::Result<()>) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, done))) => (self.forget(id), done),
            Some(Err(died)) => {
                let name = self.forget(died.id());
                (name, Err(died).with_context(|| format!("{name} died")))
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until all of these have ended; says aloud who failed.
    pub(crate) async fn ended(&mut self, which: &[Id]) {
        while which.iter().any(|id| self.names.contains_key(id)) {
            let (name, done) = self.any_ends().await;
            if let Err(error) = done {
                tracing::error!(room = name, error = format!("{error:#}"), "ended badly");
            }
        }
    }

    fn forget(&mut self, id: Id) -> &'static str {
        self.names.remove(&id).map_or("?", |(name, _)| name)
    }

    /// Ends these now, wherever they are.
    pub(crate) async fn cut_off(&mut self, which: &[Id]) {
        which.iter().filter_map(|id| self.names.get(id)).for_each(|(_, handle)| handle.abort());
        while which.iter().any(|id| self.names.contains_key(id)) {
            let (_, _aborted) = self.any_ends().await;
        }
    }

    /// Which of these still run.
    pub(crate) fn names(&self, which: &[Id]) -> Vec<&'static str> {
        which.iter().filter_map(|id| Some(self.names.get(id)?.0)).collect()
    }
}
