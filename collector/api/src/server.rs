//! Connections: accepted, served, and ended.
//!
//! Promise: a connection that says nothing is closed after [`HEADER_TIME_MAX`], one that does not read is given up (`timely`), no more than
//! [`CONNECTIONS_MAX`] are held, and after `stop` those inside get their answer, for [`DRAIN_TIME_MAX`] at most.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::middleware::AddExtension;
use axum::{Extension, Router};
use emberd_evaluators_jobs::Handle;
use emberd_graph::Graph;
use emberd_model::Clock;
use emberd_store::Store;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use crate::analytics::Events;
use crate::auth::Logins;
use crate::gate::Gate;
use crate::live::Live;
use crate::meter::Meter;
use crate::neighbours::{self, Neighbours};
use crate::proxy::Proxy;
use crate::routes::Route;
use crate::timely::Timely;
use crate::usage::Usage;
use crate::{Callers, Config, Shared, Tuning, View, analytics, contract, live, routes, summary};

/// How long a caller may take to say what it wants, and an idle connection is held.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// How many connections are held; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long those inside have once it is stopping.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How many files of datasets are read at once; further ones wait. Each takes memory, and where it is Parquet a process.
const READING_MAX: usize = 2;
/// How long no connection is accepted after the system could not give one, for want of file descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The API, bound and not yet answering.
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    routes: Vec<Route>,
    shared: Arc<Shared>,
}

impl Api {
    /// Binds the port, unless it was handed over; callers wait until [`Api::run`] answers them.
    pub fn bind(
        mut config: Config,
        store: Store,
        evaluations: Handle,
        view: Arc<dyn View>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        if matches!(config.callers, Callers::LocalAdministrator) && !config.listen.ip().is_loopback() {
            let message = format!(
                "{} can be reached from other machines, and every caller would be the administrator",
                config.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = config.handed.take().map_or_else(|| TcpListener::bind(config.listen), Ok)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let proxy =
            config.phoenix.clone().map(|phoenix| Proxy::new(phoenix, &config.caches)).transpose()?.map(Arc::new);
        let caches = Arc::clone(&config.caches.caches);
        let neighbours = Neighbours::new(&store);
        let shared = Shared {
            graph: Graph::new(store.clone()),
            store,
            view,
            clock,
            evaluations,
            meter: Meter::default(),
            reader: config.reader.clone(),
            reading: Arc::new(Semaphore::new(READING_MAX)),
            summary: config.summary,
            gate: Gate::new(config, address),
            logins: Logins::new(),
            usage: Usage::new(),
            events: Events::new(),
            cursor_key: tokio::sync::OnceCell::new(),
            proxy,
            live: Live::new(),
            neighbours,
            document: OnceLock::new(),
            caches,
        };
        let shared = Arc::new(shared);
        Live::open(&shared);
        let (router, routes) = routes::router(Arc::clone(&shared));
        let document = contract::document(&routes);
        shared.document.get_or_init(|| document.to_string().into());
        Ok(Self { listener, address, router, routes, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can be changed of it while it answers.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        Tuner(Arc::clone(&self.shared))
    }

    /// Every route.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// What `GET /openapi.json` answers.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        contract::document(&self.routes)
    }

    /// Answers until `stop`, and lets those inside finish. Dropped before that, it cuts all connections.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let drained = CancellationToken::new();
        let mut beside = JoinSet::new();
        beside.spawn(beside_requests(Arc::clone(&self.shared), stop.clone(), drained.clone()));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a handler died");
                    }
                    continue;
                }
                accepted = async {
                    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                    (place, listener.accept().await)
                } => accepted,
            };
            match accepted {
                (place, Ok((stream, from))) => {
                    let router = Extension(ConnectInfo(from)).layer(self.router.clone());
                    let stop = stop.clone();
                    connections.spawn(async move {
                        serve(stream, router, stop).await;
                        drop(place);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        drained.cancel();
        while beside.join_next().await.is_some() {}
        Ok(())
    }
}

/// Changes an API that answers.
pub struct Tuner(Arc<Shared>);

impl Tuner {
    /// Requests that come from now on are let in by this.
    pub fn tune(&self, tuning: Tuning) {
        self.0.gate.tune(tuning);
    }

    /// What was read before counts no more in this process.
    pub fn forget(&self) {
        self.0.caches.hear_all();
    }
}

/// What goes on beside requests: tokens that end and keys that change are learnt, and the summary is told, until `stop`; calls are written down
/// until the last was `drained`.
async fn beside_requests(shared: Arc<Shared>, stop: CancellationToken, drained: CancellationToken) {
    let sessions = async {
        if let Some(sessions) = &shared.gate.sessions {
            sessions.run(&shared.store, || shared.clock.now(), &stop).await;
        }
    };
    let sockets = async {
        live::run(&shared, &stop).await;
        shared.live.close().await;
    };
    let summary = async {
        if shared.summary {
            summary::run(&shared, &stop).await;
        }
    };
    tokio::join!(
        sessions,
        sockets,
        shared.neighbours.run(&stop),
        neighbours::forget_together(&shared, &stop),
        summary,
        shared.usage.run(&shared.store, &drained),
        analytics::run(&shared, &stop, &drained),
        // To the last request: what it lets count no more is told.
        shared.caches.run(drained.clone()),
    );
}

async fn serve(stream: TcpStream, router: AddExtension<Router, ConnectInfo<SocketAddr>>, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX);
    let mut connection = pin!(
        http.serve_connection(TokioIo::new(Timely::new(stream)), TowerToHyperService::new(router)).with_upgrades()
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIME_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // A caller that went away, or sent what is not HTTP.
        tracing::debug!(%error, "a connection ended early");
    }
}
