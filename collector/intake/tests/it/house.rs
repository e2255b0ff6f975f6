//! A house with both doors open, and nobody else in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use emberd_intake::{Addresses, Config, Counters, Doors, Serving, Unclosed};
use emberd_log::Appender;
use emberd_model::{UnixNanos, clock::Still};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

pub(crate) struct House {
    pub(crate) at: Addresses,
    pub(crate) counters: Arc<Counters>,
    pub(crate) serving: Serving,
    stop: CancellationToken,
    running: JoinSet<Result<(), Unclosed>>,
}

pub(crate) fn config() -> Config {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Config::new(anywhere, anywhere)
}

impl House {
    pub(crate) fn open(appender: Arc<dyn Appender>) -> Self {
        Self::with(config(), appender)
    }

    pub(crate) fn with(config: Config, appender: Arc<dyn Appender>) -> Self {
        let doors = Doors::bind(config, appender, Arc::new(Still::at(NOW))).unwrap();
        let stop = CancellationToken::new();
        let (at, counters, serving) = (doors.addresses(), doors.counters(), doors.serving());
        let mut running = JoinSet::new();
        running.spawn(doors.run(stop.clone()));
        Self { at, counters, serving, stop, running }
    }

    /// Begins to stop, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops, and says how that went.
    pub(crate) async fn stop(mut self) -> Result<(), Unclosed> {
        self.stop.cancel();
        in_time(self.running.join_next()).await.expect("it was running").expect("it did not panic")
    }
}

/// A test that hangs says so, instead of hanging. No test depends on how long this is.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it hangs")
}
