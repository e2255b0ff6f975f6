//! Both doors: bound, then open, then closed.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use emberd_log::Appender;
use emberd_model::Clock;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::append::Strays;
use crate::config::Config;
use crate::counters::Counters;
use crate::export::Intake;
use crate::in_flight::InFlight;
use crate::listen::{self, Lines};
use crate::senders::Senders;
use crate::{grpc, http};

/// OTLP's doors. Clients can connect once they are bound, and are answered once they run.
pub struct Doors {
    grpc: TcpListener,
    http: TcpListener,
    addresses: Addresses,
    intake: Arc<Intake>,
    strays: Strays,
}

/// Where the doors listen, as bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP/gRPC.
    pub grpc: SocketAddr,
    /// OTLP/HTTP.
    pub http: SocketAddr,
}

/// Says whether gRPC health checks hear that the doors take spans; they do from the start, until the doors stop.
#[derive(Clone, Debug)]
pub struct Serving(Arc<AtomicBool>);

impl Serving {
    /// Sets what health checks hear.
    pub fn set(&self, is_serving: bool) {
        self.0.store(is_serving, Ordering::Relaxed);
    }
}

/// Not all that was inside ended in time. What had been appended stays; who waited for an answer gets none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after {after:?}, {connections} connections are open and {appends} appends of clients that left are undecided")]
pub struct Unclosed {
    /// Connections that were cut off.
    pub connections: usize,
    /// Appends that the log had not decided on, and for which no client waits any more.
    pub appends: usize,
    /// How long they had.
    pub after: Duration,
}

impl Doors {
    /// Binds both ports, unless they were handed over. Must be called within a tokio runtime; spawns nothing.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn bind(mut config: Config, appender: Arc<dyn Appender>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let grpc = listen::bind(config.grpc, config.handed.grpc.take())?;
        let http = listen::bind(config.http, config.handed.http.take())?;
        let addresses = Addresses { grpc: grpc.local_addr()?, http: http.local_addr()? };
        let in_flight = Arc::new(InFlight::new(config.in_flight_bytes, config.in_flight_wait));
        let (send, strays) = Strays::new();
        let intake = Arc::new(Intake {
            senders: Senders::of(&mut config),
            counters: Arc::new(Counters::new(Arc::clone(&in_flight), config.kept.clone())),
            config,
            in_flight,
            appender,
            clock,
            strays: send,
            stopping: AtomicBool::new(false),
            serving: Arc::new(AtomicBool::new(true)),
        });
        Ok(Self { grpc, http, addresses, intake, strays })
    }

    /// Where they listen.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Their counters, which outlive them.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.intake.counters)
    }

    /// Who may send, for the wiring to change while the doors are open.
    #[must_use]
    pub fn senders(&self) -> Senders {
        self.intake.senders.clone()
    }

    /// What gRPC health checks hear, for the wiring to set.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving(Arc::clone(&self.intake.serving))
    }

    /// Answers requests until `stop`; then refuses new ones as retryable, lets those inside have their true answer, and closes.
    ///
    /// # Errors
    /// [`Unclosed`] if that took longer than the config's `close_timeout`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Unclosed> {
        let Self { grpc, http, intake, mut strays, .. } = self;
        let lines = Lines::new(&intake.config, Arc::clone(&intake.counters));
        let within = intake.config.close_timeout;
        let counters = Arc::clone(&intake.counters);
        let serving = async {
            let announce = async {
                stop.cancelled().await;
                intake.stopping.store(true, Ordering::Relaxed);
                lines.close();
                Instant::now() + within
            };
            let inside = Arc::clone(&intake);
            let grpc = lines.serve(
                grpc,
                service_fn(move |request| {
                    let intake = Arc::clone(&inside);
                    async move { Ok::<_, Infallible>(grpc::serve(&intake, request).await) }
                }),
            );
            let inside = Arc::clone(&intake);
            let http = lines.serve(
                http,
                service_fn(move |request| {
                    let intake = Arc::clone(&inside);
                    async move { Ok::<_, Infallible>(http::serve(&intake, request).await) }
                }),
            );
            let (deadline, grpc, http) = tokio::join!(announce, grpc, http);
            (deadline, close(&lines, [grpc, http], deadline).await)
        };
        let (deadline, connections) = strays.run_until(serving).await;
        let _ = tokio::time::timeout_at(deadline, strays.finish()).await;
        counters.sync();
        match (connections, strays.undecided()) {
            (0, 0) => Ok(()),
            (connections, appends) => Err(Unclosed { connections, appends, after: within }),
        }
    }
}

/// Waits for connections and their requests to end; cuts off those that do not, and says how many.
async fn close(lines: &Lines, mut open: [JoinSet<()>; 2], deadline: Instant) -> usize {
    let ended = tokio::time::timeout_at(deadline, async {
        for connections in &mut open {
            while connections.join_next().await.is_some() {}
        }
        lines.quiet().await;
    });
    if ended.await.is_ok() {
        return 0;
    }
    let left = open.iter().map(JoinSet::len).sum();
    for connections in &mut open {
        connections.shutdown().await;
    }
    left
}
