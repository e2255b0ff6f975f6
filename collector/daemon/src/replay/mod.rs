//! Spans that were accepted once, sent on again: from the log and the archive into Phoenix, the tables, a rule, or another endpoint.
//!
//! Promise: what falls into the plan arrives once, however often the replay is interrupted and begun again (twice at most, of the piece in
//! hand, at an OTLP endpoint that does not know its spans by their ids). The daemon may run beside it, and keeps its own cursors.
//! Shape:   a [`source`] feeds a small log of the replay's own, which an ordinary consumer reads: the same forwarder, recorder or rules as
//! the daemon's, with a cursor of their own. How far the source was fed is written down after the feeding, with where the small log
//! stood, so what was fed since then is known and left out.
//! On disk: `DATA_DIR/replays/NAME/`: [`plan`], `progress.json`, `log/`, `cursors/`, `quarantine/`. It goes when the replay is done and nothing
//! was put aside.
//! Not here: what a consumer does (`emberd-consumers`, `emberd-evaluators-jobs`), the command line (`commands::replay`).
//! Kept by: `source::tests`, `tests/it/replay.rs`.

pub(crate) mod plan;
pub(crate) mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use emberd_consumers::Progress;
use emberd_consumers::quarantine::Quarantine;
use emberd_log::{AppendError, Appender as _, DiskLog, Entry, Log as _};
use emberd_model::Offset;
use emberd_store::Store;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::plan::{Into, Marks, Plan};
use self::source::Fed;
use crate::config::Config;
use crate::wiring::{self, Consumer, Parts, Run};
use crate::world::World;

/// What may be fed and not yet be done with: more would only lie on disk twice.
const AHEAD_SPANS_MAX: u64 = 20_000;
/// The small log's bound; a segment goes when its spans are done with.
const LOG_BYTES: u64 = 512 << 20;
/// How often it is written down how far the source was fed.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the consumer has caught up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A replay, ready to go on.
pub(crate) struct Replay {
    plan: Plan,
    dir: PathBuf,
    log: Arc<DiskLog>,
    marks: Marks,
    reached: Reached,
}

/// How far a replay is, for whoever watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Spans fed since it first began.
    pub(crate) fed: u64,
    /// Of those, done with.
    pub(crate) done: u64,
}

/// How a replay ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reached: Reached,
    /// Whether all of the plan was fed and is done with.
    pub(crate) is_whole: bool,
    /// Spans that the source should hold and could not give.
    pub(crate) missing: u64,
    /// Spans that were put aside, with the reason, by the consumer's words; they lie in the replay's quarantine.
    pub(crate) aside: u64,
}

/// What does the work at the far end.
enum Worker {
    Consumer(Box<Consumer>),
    Rules(Box<wiring::Evaluation>),
}

impl Replay {
    /// Opens the replay of this plan: begins it, or goes on with it where it was interrupted.
    pub(crate) fn open(data_dir: &Path, plan: Plan, world: &World) -> anyhow::Result<Self> {
        let dir = plan.dir(data_dir);
        std::fs::create_dir_all(dir.parent().unwrap_or(data_dir))?;
        wiring::make_private(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let plan = plan.kept_in(&dir)?;
        let config = emberd_log::Config {
            budget_bytes: LOG_BYTES,
            keep: Duration::ZERO,
            segment_bytes: 32 << 20,
            tail_bytes: 16 << 20,
            queue_bytes: 16 << 20,
            ..emberd_log::Config::in_dir(dir.join("log"))
        };
        let (log, _) = DiskLog::open(config, world.disk.clone(), world.clock.clone())
            .context("cannot open the replay's own log: does the same replay run already?")?;
        let marks = Marks::read(&dir)?;
        let reached = Reached { fed: log.head().0, done: 0 };
        Ok(Self { plan, dir, log, marks, reached })
    }

    /// Whether it was begun before.
    pub(crate) fn is_resumed(&self) -> bool {
        self.log.head() > Offset(0) || self.marks.position.is_some()
    }

    /// The plan, with the moments that were fixed when it first began.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it keeps what it must find again.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Feeds what `source` gives and waits until the far end is done with it, or until `stop`; `watch` hears how far it is.
    pub(crate) async fn run(
        mut self,
        config: &Config,
        world: &World,
        store: &Store,
        open: impl FnOnce(Marks, Offset) -> anyhow::Result<source::Source>,
        stop: &CancellationToken,
        mut watch: impl FnMut(Reached, Option<&str>),
    ) -> anyhow::Result<Ended> {
        let quarantine =
            Quarantine::open(&self.dir.join("quarantine")).context("cannot open the replay's quarantine")?;
        let parts = Parts { config, world, data_dir: &self.dir, log: &self.log, store };
        let worker = worker(&self.plan.into, &parts, &quarantine)?;
        let progress = worker.progress();
        let mut source = open(self.marks.clone(), self.log.head())?;

        let mut tasks = JoinSet::new();
        let stop_worker = CancellationToken::new();
        tasks.spawn(worker.run(stop_worker.clone()));
        let fed = self.feed(&mut source, &progress, stop, &mut tasks, &mut watch).await;
        self.mark()?;
        let is_fed = fed?;
        if is_fed {
            self.log.seal().await;
        }
        let is_done = self.finish(&progress, stop, stop_worker, &mut tasks, &mut watch).await?;
        let missing = source.missing();
        let aside = progress.as_ref().map_or(0, |progress| progress.book().total("quarantined"));
        let is_whole = is_fed && is_done;
        Ok(Ended { reached: self.reached, is_whole, missing, aside })
    }

    /// Feeds until the source ends (true) or `stop`.
    async fn feed(
        &mut self,
        source: &mut source::Source,
        progress: &Option<Arc<Progress>>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
        watch: &mut impl FnMut(Reached, Option<&str>),
    ) -> anyhow::Result<bool> {
        let mut pace = Pace::new(self.plan.rate);
        let mut marked_at = Instant::now();
        loop {
            self.look(progress, watch);
            while self.is_far_ahead(progress) || !pace.may_go() {
                tokio::select! {
                    () = stop.cancelled() => return Ok(false),
                    ended = tasks.join_next() => return Err(ended_early(ended)),
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                self.look(progress, watch);
            }
            let fed = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                ended = tasks.join_next() => return Err(ended_early(ended)),
                fed = source.next() => fed?,
            };
            let Some(Fed { entry, after }) = fed else { return Ok(true) };
            let spans = u64::from(entry.spans.get());
            if !self.append(entry, stop).await? {
                return Ok(false);
            }
            pace.went(spans);
            self.marks = Marks { position: Some(after), head: self.log.head() };
            if marked_at.elapsed() >= MARK_EVERY {
                marked_at = Instant::now();
                self.mark()?;
            }
        }
    }

    /// Appends, as often as it takes; false: stopped before.
    async fn append(&mut self, entry: Entry, stop: &CancellationToken) -> anyhow::Result<bool> {
        loop {
            match self.log.append(entry.clone()).await {
                Ok(_) => return Ok(true),
                // The far end is behind: what it is done with goes, and makes room.
                Err(AppendError::BudgetFull { .. }) => tokio::select! {
                    () = stop.cancelled() => return Ok(false),
                    () = tokio::time::sleep(LOOK_EVERY * 10) => {}
                },
                Err(error) => return Err(error).context("cannot write the replay's own log"),
            }
        }
    }

    /// Waits for the far end; whether it is done with everything.
    async fn finish(
        &mut self,
        progress: &Option<Arc<Progress>>,
        stop: &CancellationToken,
        stop_worker: CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
        watch: &mut impl FnMut(Reached, Option<&str>),
    ) -> anyhow::Result<bool> {
        let mut told = false;
        loop {
            self.look(progress, watch);
            tokio::select! {
                ended = tasks.join_next() => {
                    match ended {
                        Some(Ok(done)) => done?,
                        Some(Err(died)) => return Err(anyhow!(died).context("the replay's consumer died")),
                        None => {}
                    }
                    self.look(progress, watch);
                    return Ok(!told);
                }
                () = stop.cancelled(), if !told => {
                    told = true;
                    stop_worker.cancel();
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn is_far_ahead(&self, progress: &Option<Arc<Progress>>) -> bool {
        progress.as_ref().is_some_and(|progress| self.log.head().since(progress.cursor()) > AHEAD_SPANS_MAX)
    }

    fn look(&mut self, progress: &Option<Arc<Progress>>, watch: &mut impl FnMut(Reached, Option<&str>)) {
        let done = progress.as_ref().map_or(0, |progress| progress.cursor().0);
        self.reached = Reached { fed: self.log.head().0, done };
        watch(self.reached, progress.as_ref().and_then(|progress| progress.failing()).as_deref());
    }

    fn mark(&self) -> anyhow::Result<()> {
        self.marks.write(&self.dir).context("cannot write down how far the replay is")
    }

    /// What it kept goes, once it is done.
    pub(crate) fn forget(dir: &Path) -> anyhow::Result<()> {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
    }
}

/// A replay of what `source` gives, whole, by one who waits for it; an earlier one that was cut off leaves nothing behind.
pub(crate) async fn once(
    config: &Config,
    world: &World,
    store: &Store,
    into: Into,
    source: source::Source,
) -> anyhow::Result<Ended> {
    let now = world.clock.now();
    let plan = Plan::new(&format!("once {}", now.0), into, plan::From::Both, (emberd_model::UnixNanos(0), now));
    let replay = Replay::open(&config.data_dir, plan, world)?;
    let dir = replay.dir().to_owned();
    let ended = replay.run(config, world, store, |_, _| Ok(source), &CancellationToken::new(), |_, _| ()).await;
    Replay::forget(&dir)?;
    ended
}

/// The consumer of a replay's log: as the daemon's own, but for the place where it keeps its cursor.
fn worker(into: &Into, parts: &Parts<'_>, quarantine: &Quarantine) -> anyhow::Result<Worker> {
    let consumer = |consumer| Worker::Consumer(Box::new(consumer));
    Ok(match into {
        Into::Phoenix => {
            let target = parts.config.targets()?.into_iter().find(|target| target.phoenix.is_some());
            let mut target = target.context("no Phoenix is forwarded to: set [phoenix] otlp")?;
            // Whoever asks for a replay wants all of it.
            target.choice = None;
            consumer(parts.forwarder(target, quarantine)?)
        }
        Into::Otlp(url) => {
            let endpoint = crate::config::endpoint(url).map_err(|why| anyhow!("--into otlp {url}: {why}"))?;
            consumer(parts.forwarder(emberd_consumers::forwarder::Config::otlp("replay", endpoint.room()), quarantine)?)
        }
        Into::Recorder => consumer(parts.recorder(quarantine)?),
        Into::Rule(name) => Worker::Rules(Box::new(parts.rules(name)?)),
    })
}

impl Worker {
    fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Consumer(consumer) => Some(consumer.progress()),
            Self::Rules(_) => None,
        }
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        match self {
            Self::Consumer(consumer) => match consumer.run {
                Run::Forwarder(forwarder) => {
                    forwarder.run(stop).await;
                    Ok(())
                }
                Run::Recorder(recorder) => Ok(recorder.run(stop).await?),
                Run::Archiver(_) => Err(anyhow!("a replay does not archive")),
            },
            Self::Rules(evaluation) => {
                let wiring::Evaluation { hosts, live, .. } = *evaluation;
                let live = live.context("rules cannot run here")?;
                let stop_hosts = CancellationToken::new();
                let (_, judged) = tokio::join!(hosts.run(&stop_hosts), async {
                    let judged = live.run(stop).await;
                    stop_hosts.cancel();
                    judged
                });
                Ok(judged?)
            }
        }
    }
}

fn ended_early(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(died)) => anyhow!(died).context("the replay's consumer died"),
        _ => anyhow!("the replay's consumer ended before its log did"),
    }
}

/// So many spans a second, over the whole time.
struct Pace {
    rate: Option<u64>,
    since: Instant,
    went: u64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate: (rate > 0).then_some(rate), since: Instant::now(), went: 0 }
    }

    fn may_go(&self) -> bool {
        self.rate.is_none_or(|rate| (self.went as f64) < self.since.elapsed().as_secs_f64() * rate as f64 + 1.0)
    }

    fn went(&mut self, spans: u64) {
        self.went += spans;
    }
}
