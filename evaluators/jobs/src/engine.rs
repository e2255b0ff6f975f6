//! The engine: what its loops share, and their beginning and end.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_evaluators_hosts::Hosts;
use emberd_model::{Clock, UnixNanos};
use emberd_store::jobs::Job;
use emberd_store::{Error, Store};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Config, ConfigError};
use crate::counters::Counting;
use crate::ends::{self, Ending};
use crate::events::Events;
use crate::handle::Handle;
use crate::leases::{self, Leases};
use crate::provider::Providers;
use crate::{clean, close, events, prepare, work};

/// The longest pause between tries of a database that is away.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// Runs evaluation jobs. Any number of engines may run on one PostgreSQL.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    ends: Mutex<Option<Receiver<Ending>>>,
}

/// What loops, items and handles share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) providers: Providers,
    /// Who holds what this engine took.
    pub(crate) owner: String,
    pub(crate) leases: Arc<Leases>,
    pub(crate) ends: Sender<Ending>,
    pub(crate) events: Events,
    pub(crate) counting: Counting,
    /// There is something new: ask the database now.
    pub(crate) wake: Notify,
    /// Rules are to be read anew.
    pub(crate) rules_changed: AtomicBool,
    /// Jobs whose items may be taken.
    pub(crate) open: watch::Sender<Arc<Vec<Job>>>,
    /// Nothing new is begun.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    /// An error with what is behind it, for the log.
    pub(crate) fn told(&self, error: &Error) -> String {
        let source = std::error::Error::source(error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    /// Asks the database until it is there, or `stop`.
    pub(crate) async fn patiently<T, F: Future<Output = Result<T, Error>>>(
        &self,
        stop: &CancellationToken,
        ask: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut wait = Duration::from_millis(50);
        loop {
            match ask().await {
                Err(Error::Unavailable { source }) => {
                    tracing::debug!(%source, "the database is away");
                    if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                        return Err(Error::Unavailable { source });
                    }
                    wait = (wait * 2).min(AWAY_MAX);
                }
                answer => return answer,
            }
        }
    }
}

impl Engine {
    /// Builds an engine; nothing runs before [`Engine::run`]. A default crypto provider for TLS must have been installed by then.
    ///
    /// # Errors
    /// All that is wrong with the configuration.
    pub fn new(
        config: Config,
        store: Store,
        clock: Arc<dyn Clock>,
        hosts: Arc<Hosts>,
    ) -> Result<Self, Vec<ConfigError>> {
        let errors = config.check();
        if !errors.is_empty() {
            return Err(errors);
        }
        let providers = Providers::new(&config.endpoints).map_err(|error| vec![error])?;
        let (ends, queue) = channel(ends::QUEUE);
        let shared = Shared {
            config,
            store,
            clock,
            hosts,
            providers,
            owner: Uuid::new_v4().to_string(),
            leases: Arc::default(),
            ends,
            events: Events::default(),
            counting: Counting::default(),
            wake: Notify::new(),
            rules_changed: AtomicBool::new(false),
            open: watch::Sender::new(Arc::default()),
            stopping: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared), ends: Mutex::new(Some(queue)) })
    }

    /// The way in for the API and the command line; cheap to clone, and works whether or not this engine runs.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    /// Runs until `stop`: then nothing new is begun, calls in flight get their grace, and what is still in hand is given back. Once only;
    /// a second call returns at once. Dropped, it is as if killed: leases bring its items back.
    pub async fn run(&self, stop: CancellationToken) {
        let queue = self.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        let mut loops = JoinSet::new();
        let (worked, ended) = (CancellationToken::new(), CancellationToken::new());
        let stopping = self.shared.stopping.clone();
        let shared = || Arc::clone(&self.shared);
        spawn(&mut loops, shared(), stopping.clone(), async |shared, stop| prepare::run(&shared, &stop).await);
        spawn(&mut loops, shared(), stopping.clone(), async |shared, stop| close::run(&shared, &stop).await);
        spawn(&mut loops, shared(), stopping.clone(), async |shared, stop| clean::run(&shared, &stop).await);
        spawn(&mut loops, shared(), stopping.clone(), async |shared, stop| work::refresh(&shared, &stop).await);
        spawn(&mut loops, shared(), stopping.clone(), async |shared, stop| events::run(&shared, &stop).await);
        spawn(&mut loops, shared(), ended.clone(), async |shared, stop| leases::keep(&shared, &stop).await);
        let writer = {
            let (shared, worked) = (shared(), worked.clone());
            async move { ends::write(&shared, &mut queue, &worked).await }
        };
        let mut writers = JoinSet::new();
        writers.spawn(writer);
        let work = async {
            work::run(&self.shared, &stopping).await;
            worked.cancel();
            writers.join_next().await;
            ended.cancel();
        };
        let stopped = async {
            stop.cancelled().await;
            stopping.cancel();
        };
        tokio::join!(work, stopped);
        while let Some(done) = loops.join_next().await {
            if let Err(error) = done {
                tracing::error!(%error, "a loop of the evaluation jobs broke off");
            }
        }
        match self.shared.store.release(&self.shared.owner).await {
            Ok(items) => tracing::debug!(items, "evaluation jobs stopped"),
            Err(error) => {
                tracing::warn!(error = %self.shared.told(&error), "items could not be given back: their leases will end")
            }
        }
    }
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    loops: &mut JoinSet<()>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    run: impl FnOnce(Arc<Shared>, CancellationToken) -> F,
) {
    loops.spawn(run(shared, stop));
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Engine").field("owner", &self.shared.owner).finish_non_exhaustive()
    }
}
