//! The wiring: every room is built here, in the order in which they need each other, and stopped in the order in which data flows.
//!
//! A span's way: [`Doors`] append to the [`DiskLog`]; each consumer reads it with a [`Reader`](emberd_log::Reader) of its own and keeps a
//! cursor of its own; the [`Store`] holds what the recorder makes of it; the [`Api`] shows it.
//!
//! Promise: ports are bound before anything runs, so a bad one fails at once; a constructor never spawns; whatever ends by itself ends
//! all of emberd, loudly.
//! Kept by: `tests/it/stopping.rs`, `tests/it/kill.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use emberd_api::Api;
use emberd_consumers::archiver::orders::Orders;
use emberd_consumers::quarantine::Quarantine;
use emberd_consumers::{Progress, archiver, forwarder, recorder};
use emberd_evaluators_hosts::Hosts;
use emberd_evaluators_jobs::live::{self, Live};
use emberd_evaluators_jobs::outbox::{self, Outbox};
use emberd_evaluators_jobs::{self as jobs, Engine};
use emberd_intake::redact::Redact;
use emberd_intake::{Doors, Kept, TurnedAway};
use emberd_log::{CursorFile, DiskLog, Log, Recovery};
use emberd_model::Offset;
use emberd_store::error::MigrateError;
use emberd_store::{Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::judging::Judging;
use crate::reconcile;
use crate::reload::Controls;
use crate::retention::Retention;
use crate::rooms::Rooms;
use crate::run_file::OwnRunFile;
use crate::settings::PHOENIX;
use crate::switches::Switches;
use crate::systemd::{Systemd, Watched};
use crate::view::Board;
use crate::world::World;

/// How long the start waits for the database before it goes on without.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a consumer may take to let go of what it has in hand; it goes on from its cursor at the next start.
const LET_GO_DEADLINE: Duration = Duration::from_secs(3);
/// How long consumers may go on after the doors are closed, within systemd's usual half minute for all.
const CONSUMERS_DEADLINE: Duration = Duration::from_secs(8);

/// Everything, built and bound, not yet running.
pub(crate) struct Daemon {
    data_dir: PathBuf,
    doors: Doors,
    log: Arc<DiskLog>,
    store: Store,
    consumers: Vec<Consumer>,
    evaluation: Evaluation,
    retention: Option<Retention>,
    api: Api,
    addresses: Addresses,
    /// None where nothing is consumed, or nothing is to be reconciled.
    reconcile: Option<Arc<reconcile::Kept>>,
    systemd: Systemd,
    switches: Switches,
    /// The tables were taken away: what works on them rests.
    rolled_back: bool,
}

/// Where emberd listens, as bound.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Addresses {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) api: SocketAddr,
}

/// What judges: the plugins, the engine of evaluation jobs, the rules on live traffic, and who tells Phoenix of it all.
pub(crate) struct Evaluation {
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) engine: Arc<Engine>,
    /// None without the role: jobs and rules are only made and watched here.
    pub(crate) live: Option<Live>,
    /// None where no Phoenix is forwarded to from here.
    pub(crate) outbox: Option<Outbox>,
}

/// What reads the log.
pub(crate) struct Consumer {
    progress: Arc<Progress>,
    pub(crate) run: Run,
}

pub(crate) enum Run {
    Forwarder(Box<forwarder::Forwarder>),
    Recorder(Box<recorder::Recorder>),
    Archiver(Box<archiver::Archiver>),
}

/// Builds everything, in the order in which the rooms need each other.
pub(crate) async fn assemble(mut config: Config, mut world: World, roles: Roles) -> anyhow::Result<Daemon> {
    let data_dir = std::path::absolute(&config.data_dir)?;
    make_private(&data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let (log, recovery) = DiskLog::open(config.log.room(&data_dir), world.disk.clone(), world.clock.clone())?; // what we keep
    report(&recovery);
    let store = Store::connect(config.store.room(&data_dir)).await?; // what we know
    let turned_away = TurnedAway::open(world.disk.clone(), &data_dir.join("ledger")); // what we did not keep
    let turned_away = Arc::new(turned_away.context("cannot open the ledger")?);
    let kept = Kept { counts: turned_away.clone(), clock: world.clock.clone() };
    let redact = Redact::new(std::mem::take(&mut config.redact))?.map(Arc::new);
    let intake = config.intake.room(redact.clone(), kept)?;
    let intake = emberd_intake::Config { handed: std::mem::take(&mut world.handed.doors), ..intake };
    let doors = Doors::bind(intake, log.clone(), world.clock.clone()).context("cannot bind the OTLP doors")?;
    let doors_at = doors.addresses();
    if config.rolled_back {
        tracing::warn!(
            "emberd was rolled back: spans are kept and forwarded, nothing is recorded, every flag is off; `emberd migrate up` and a restart bring it back"
        );
    } else {
        bring_up(&store).await?;
    }
    let parts = Parts { config: &config, world: &world, data_dir: &data_dir, log: &log, store: &store };
    let consumers = if roles.consume { parts.consumers()? } else { Vec::new() };

    let evaluates = roles.evaluate && config.flags.evaluations.enabled;
    let evaluation = parts.evaluation(&consumers, evaluates)?; // what judges
    let progress = consumers.iter().map(|consumer| consumer.progress.clone()).collect();
    let handle = evaluation.engine.handle();
    let judging = Judging { hosts: evaluation.hosts.clone(), handle: handle.clone() };
    let (counters, clock) = (doors.counters(), world.clock.clone());
    let retention = roles.consume.then(|| parts.retention()).transpose()?; // what we let go of
    let board = Board::new(log.clone(), store.clone(), counters, turned_away, progress, judging, clock)
        .with(redact, retention.as_ref().map(Retention::counts));
    let caches = config.cache.room(config.identity.as_ref(), world.clock.clone())?; // what was read before
    let callers = config.identity.take();
    let handed = world.handed.api.take();
    let room = emberd_api::Config { handed, ..config.api.room(callers, config.flags, &config.phoenix, caches)? };
    let api = Api::bind(room, store.clone(), handle, Arc::new(board), world.clock.clone())
        .with_context(|| format!("cannot bind the API to {}", config.api.listen))?;
    let addresses = Addresses { grpc: doors_at.grpc, http: doors_at.http, api: api.address() };
    let systemd = world.systemd.clone();
    let reconciles = roles.consume && config.recorder.enabled && !config.reconcile.every.is_zero();
    let (switches, rolled_back) = (Switches::default(), config.rolled_back);
    let log_dir = data_dir.join("log");
    let reconcile = reconciles.then(|| Arc::new(reconcile::Kept { config, world, store: store.clone(), log: log_dir }));
    Ok(Daemon {
        data_dir,
        doors,
        log,
        store,
        consumers,
        evaluation,
        retention,
        api,
        addresses,
        reconcile,
        systemd,
        switches,
        rolled_back,
    })
}

/// Brings the tables up. A database that is away holds nobody up: spans are kept, and the recorder does it when it can.
async fn bring_up(store: &Store) -> anyhow::Result<()> {
    if tokio::time::timeout(DATABASE_PATIENCE, store.ping()).await.is_err() {
        tracing::warn!("the database does not answer: spans are kept until it does");
        return Ok(());
    }
    match store.migrate_up().await {
        Ok(_) => Ok(()),
        Err(MigrateError::Database(error @ emberd_store::Error::Unavailable { .. })) => {
            tracing::warn!(
                error = format!("{:#}", anyhow!(error)),
                "the database is away: spans are kept until it is back"
            );
            Ok(())
        }
        Err(error) => Err(error).context("cannot bring the database's tables up"),
    }
}

impl Consumer {
    /// How far it is.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

/// What the consumers are built from: the daemon's, and a replay's, whose log and directory are its own.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) world: &'a World,
    pub(crate) data_dir: &'a Path,
    pub(crate) log: &'a Arc<DiskLog>,
    pub(crate) store: &'a Store,
}

impl Parts<'_> {
    fn consumers(&self) -> anyhow::Result<Vec<Consumer>> {
        let quarantine = Quarantine::open(&self.data_dir.join("quarantine")).context("cannot open the quarantine")?;
        let mut consumers = Vec::new();
        for target in self.config.targets()? {
            consumers.push(self.forwarder(target, &quarantine)?);
        }
        if self.config.recorder.enabled {
            consumers.push(self.recorder(&quarantine)?);
        }
        if self.config.archive.enabled {
            consumers.push(self.archiver(&quarantine)?);
        }
        Ok(consumers)
    }

    pub(crate) fn forwarder(&self, target: forwarder::Config, quarantine: &Quarantine) -> anyhow::Result<Consumer> {
        let progress =
            Arc::new(Progress::forwarding(&target.name, target.phoenix.as_ref().is_some_and(|phoenix| phoenix.verify)));
        let files = forwarder::Files {
            disk: self.world.disk.clone(),
            dir: self.data_dir.join("cursors"),
            quarantine: quarantine.clone(),
        };
        // Until the forwarder says where its cursor stands, nothing may go.
        self.log.register(&target.name, self.log.tail());
        let run = forwarder::Forwarder::new(
            target,
            self.log.reader(self.log.tail()),
            files,
            self.world.clock.clone(),
            progress.clone(),
            self.passed(progress.name()),
            self.pressure(),
        )?;
        Ok(Consumer { progress, run: Run::Forwarder(Box::new(run)) })
    }

    pub(crate) fn recorder(&self, quarantine: &Quarantine) -> anyhow::Result<Consumer> {
        let progress = Arc::new(Progress::new(recorder::NAME));
        let settings = &self.config.recorder;
        // Until the database says where its cursor stands, nothing may go.
        self.log.register(recorder::NAME, self.log.tail());
        let run = recorder::Recorder::new(
            recorder::Config {
                writer: log_name(&self.data_dir.join("log"))?,
                reading: settings.reading(),
                prices: settings.prices()?,
                root_wait: settings.root_wait,
                quiet: settings.quiet,
            },
            self.log.reader(self.log.tail()),
            self.store.clone(),
            quarantine.clone(),
            self.world.clock.clone(),
            progress.clone(),
            self.passed(recorder::NAME),
        );
        Ok(Consumer { progress, run: Run::Recorder(Box::new(run)) })
    }

    fn archiver(&self, quarantine: &Quarantine) -> anyhow::Result<Consumer> {
        let (config, data_dir) = (&self.config.archive, self.data_dir);
        let progress = Arc::new(Progress::new(archiver::NAME));
        // Until the manifest says where its cursor stands, nothing may go.
        self.log.register(archiver::NAME, self.log.tail());
        let name = log_name(&data_dir.join("log"))?;
        let parts = archiver::Parts {
            reader: self.log.reader(self.log.tail()),
            place: config.place(data_dir)?,
            journal: (self.world.disk.clone(), data_dir.join("cursors")),
            quarantine: quarantine.clone(),
            orders: Orders::in_dir(&data_dir.join("orders")),
            clock: self.world.clock.clone(),
            progress: progress.clone(),
            passed: Box::new(self.passed(archiver::NAME)),
        };
        let how = config.room(name.as_str().to_owned(), self.config)?;
        let run = archiver::Archiver::new(how, parts).context("cannot make the archiver")?;
        Ok(Consumer { progress, run: Run::Archiver(Box::new(run)) })
    }

    fn retention(&self) -> anyhow::Result<Retention> {
        let quarantine = Quarantine::open(&self.data_dir.join("quarantine")).context("cannot open the quarantine")?;
        Ok(Retention::new(&self.config.retention, self.store.clone(), quarantine, self.world.clock.clone()))
    }

    fn evaluation(&self, consumers: &[Consumer], runs: bool) -> anyhow::Result<Evaluation> {
        let plugins = self.config.plugins.iter().map(config::Plugin::room).collect();
        let all = |errors: Vec<String>| anyhow!("{}", errors.join("; "));
        let hosts = Hosts::new(plugins, &self.data_dir.join("plugins"))
            .map_err(|errors| all(errors.iter().map(ToString::to_string).collect()))?;
        let hosts = Arc::new(hosts);
        let phoenix = consumers.iter().map(|consumer| &consumer.progress).find(|progress| progress.name() == PHOENIX);
        let how =
            jobs::Config { tells_phoenix: phoenix.is_some(), ..self.config.llm.room(self.config.recorder.prices()?) };
        let engine = Engine::new(how, self.store.clone(), self.world.clock.clone(), hosts.clone())
            .map_err(|errors| all(errors.iter().map(|error| format!("[llm] {error}")).collect()))?;
        let live = if runs { Some(engine.live(self.live(live::Config::default())?)) } else { None };
        let outbox = phoenix.filter(|_| runs).map(|progress| self.outbox(progress.clone())).transpose()?;
        Ok(Evaluation { hosts, engine: Arc::new(engine), live, outbox })
    }

    /// One rule, enabled or not, over all that the log holds and will hold until it is sealed.
    pub(crate) fn rules(&self, name: &str) -> anyhow::Result<Evaluation> {
        let mut evaluation = self.evaluation(&[], false)?;
        // What is replayed is complete already: nothing is waited for but the next piece.
        let (quiet, only) = (Duration::from_secs(1), Some(name.to_owned()));
        let how =
            live::Config { only, quiet_min: quiet, quiet_max: quiet * 2, late: Duration::ZERO, ..Default::default() };
        evaluation.live = Some(evaluation.engine.live(self.live(how)?));
        Ok(evaluation)
    }

    fn live(&self, config: live::Config) -> anyhow::Result<live::Parts> {
        // Until it says where its cursor stands, nothing may go.
        self.log.register(live::CONSUMER, self.log.tail());
        let log = self.log.clone();
        Ok(live::Parts {
            reader: self.log.reader(self.log.tail()),
            head: Box::new(move || log.head()),
            cursor: CursorFile::open_on(self.world.disk.clone(), &self.data_dir.join("cursors"), live::CONSUMER)?,
            passed: Box::new(self.passed(live::CONSUMER)),
            config,
        })
    }

    /// Scores are told only of spans that the forwarder saw in Phoenix, or gave up: its cursor is past them.
    fn outbox(&self, forwarded: Arc<Progress>) -> anyhow::Result<Outbox> {
        let client = self.config.phoenix.client()?;
        let verified = move |offset: Offset| forwarded.cursor() >= offset;
        let (store, clock) = (self.store.clone(), self.world.clock.clone());
        Ok(Outbox::new(store, clock, Arc::new(client), Arc::new(verified), outbox::Config::default()))
    }

    /// Says what part of the log's budget the spans behind an offset take, as far as bytes can be told from spans.
    fn pressure(&self) -> impl Fn(Offset) -> f64 + Send + Sync + 'static {
        let log = self.log.clone();
        move |cursor| {
            let (head, tail, used) = (log.head(), log.tail(), log.used());
            let waiting = head.since(cursor.max(tail)) as f64 / head.since(tail).max(1) as f64;
            waiting * used.bytes as f64 / used.budget_bytes.max(1) as f64
        }
    }

    /// Tells the log how far a consumer is, so that it can let go of what all have passed.
    fn passed(&self, consumer: &str) -> impl Fn(Offset) + Send + Sync + 'static {
        let (log, consumer) = (self.log.clone(), consumer.to_owned());
        move |cursor| log.passed(&consumer, cursor)
    }
}

/// Prompts and answers lie below: nobody else on the machine may read them. Parents are not made: a mount that is not there must not
/// be papered over.
pub(crate) fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// The file of the log's own name, in its directory.
pub(crate) const LOG_NAME: &str = "name";

/// The log's own name, made with it and kept in it: the recorder's cursor in the database belongs to this name, so that a new log in
/// the old place is not taken for the old one.
fn log_name(dir: &Path) -> anyhow::Result<Writer> {
    let path = dir.join(LOG_NAME);
    if !path.exists() {
        emberd_log::replace_file(&path, uuid::Uuid::new_v4().simple().to_string().as_bytes())?;
    }
    known_log_name(dir)
}

/// The name of a log that is there.
pub(crate) fn known_log_name(dir: &Path) -> anyhow::Result<Writer> {
    let path = dir.join(LOG_NAME);
    let name = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Writer::new(name.trim()))
}

fn report(recovery: &Recovery) {
    tracing::info!(head = %recovery.head, tail = %recovery.tail, segments = recovery.segments, took = ?recovery.took, "the log is open");
    if recovery.torn_bytes > 0 {
        tracing::info!(bytes = recovery.torn_bytes, "a write that nobody was told of was cut off");
    }
    for damage in &recovery.damaged {
        tracing::error!(?damage, "spans that were acknowledged cannot be read any more");
    }
}

/// Which parts of emberd run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Forwarding and recording.
    pub(crate) consume: bool,
    /// Running evaluations.
    pub(crate) evaluate: bool,
}

impl Daemon {
    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What can be changed of it while it runs.
    pub(crate) fn controls(&self) -> Controls {
        Controls { senders: self.doors.senders(), tuner: self.api.tuner(), switches: self.switches.clone() }
    }

    /// Runs until `stop`, then stops in the order that data flows: doors, log, consumers, API.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { data_dir, doors, log, store, consumers, evaluation, retention, api, addresses, .. } = self;
        let Self { reconcile, systemd, switches, rolled_back, .. } = self;
        let (judging, recording, watched) = switches.watched();
        let [leave, stop_doors, stop_consumers, stop_evaluation, stop_api] =
            std::array::from_fn(|_| CancellationToken::new());
        let mut rooms = Rooms::default();
        let serving = doors.serving();
        let doors = rooms.spawn("intake", {
            let stop = stop_doors.clone();
            async move { Ok(doors.run(stop).await?) }
        });
        let progress = consumers.iter().map(|consumer| consumer.progress.clone()).collect();
        rooms.watch(systemd.clone(), Watched { log: log.clone(), consumers: progress });
        let consumers: Vec<_> = consumers
            .into_iter()
            .map(|consumer| rooms.consumer(consumer, &recording, stop_consumers.clone(), &leave))
            .collect();
        let mut judges = rooms.evaluation(evaluation, &judging, &stop_evaluation);
        judges.extend(retention.map(|retention| rooms.spawn("retention", retention.run(stop_evaluation.clone()))));
        drop((judging, recording));
        let reconciling = reconcile.map(|kept| rooms.reconcile(kept, stop_evaluation.clone()));
        let api = rooms.spawn("api", {
            let stop = stop_api.clone();
            async move { Ok(api.run(stop).await?) }
        });
        let run_file = OwnRunFile::write(&data_dir, addresses, rolled_back)?;
        let watched = rooms.spawn("switches", {
            let (log, run_file, leave) = (log.clone(), run_file.clone(), leave.clone());
            async move {
                watched.run(log, || run_file.rolled_back(), leave).await;
                Ok(())
            }
        });
        tracing::info!(grpc = %addresses.grpc, http = %addresses.http, api = %addresses.api, "emberd is up");
        systemd.ready();

        let failed = tokio::select! {
            () = stop.cancelled() => None,
            (name, ended) = rooms.any_ends() => Some(ended.err().unwrap_or_else(|| anyhow!("{name} ended by itself")).context(name)),
            error = log.failed() => Some(anyhow::Error::new(error).context("the disk failed: nothing more is acknowledged")),
        };
        if let Some(error) = &failed {
            tracing::error!(error = format!("{error:#}"), "stopping: a part of emberd ended");
        }

        systemd.stopping();
        leave.cancel(); // who was switched off ends now; not with `stop`, or it would pass for one that ended by itself
        rooms.ended(&[watched]).await;
        stop_evaluation.cancel(); // calls in flight get their grace while the spans drain
        serving.set(false); // whoever asks for health is sent elsewhere
        stop_doors.cancel();
        rooms.ended(&[doors]).await; // new requests: UNAVAILABLE; those inside get their true answer
        log.seal().await; // no more appends; readers come to an end
        if tokio::time::timeout(CONSUMERS_DEADLINE, rooms.ended(&consumers)).await.is_err() {
            tracing::info!(behind = ?rooms.names(&consumers), "stopping consumers that are behind; they go on from their cursors");
        }
        stop_consumers.cancel(); // finish the batch in hand, commit the cursor
        if tokio::time::timeout(LET_GO_DEADLINE, rooms.ended(&consumers)).await.is_err() {
            tracing::warn!(stuck = ?rooms.names(&consumers), "cut off; nothing is lost, for their cursors did not move");
            rooms.cut_off(&consumers).await;
        }
        rooms.ended(&judges).await;
        rooms.ended(reconciling.as_slice()).await;
        stop_api.cancel(); // last, so that an operator can watch the drain
        rooms.ended(&[api]).await;
        let _ = tokio::time::timeout(LET_GO_DEADLINE, store.close()).await;
        drop(run_file);
        tracing::info!(head = %log.head(), "emberd has stopped");
        failed.map_or(Ok(()), Err)
    }
}
