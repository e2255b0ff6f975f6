//! No span is given up by time.

use std::collections::BTreeSet;
use std::time::Duration;

use emberd_model::Offset;

use super::sink::{Act, BOTH, Sink};
use super::source::{Place, Played, batches};
use crate::forwarder::Config;

/// An endpoint is away for four days, with the waits and patience of a real configuration: its spans are kept, and arrive once it
/// is back. Queues that give an item up after so many minutes of trying lose what they kept on disk
/// (opentelemetry-collector#15324, opentelemetry-collector-contrib#45747).
#[tokio::test(start_paused = true)]
async fn otelcol_15324_no_outage_is_too_long() {
    for over in BOTH {
        let sink = Sink::that(|_, _| Act::Take);
        let (address, endpoint) = {
            let early = sink.listen(over).await;
            (early.address, early.config().endpoint)
        };
        let place = Place::new();
        let config = Config::otlp("sink", endpoint);
        let running = place.start(config, Played { position: Offset(0), script: batches([4, 4]), sealed: true });
        tokio::time::sleep(Duration::from_secs(4 * 24 * 3_600)).await;
        let ledger = running.progress.ledger(Offset(8));
        assert_eq!((&ledger["pending"], &ledger["quarantined"]), (&8.into(), &0.into()), "{over:?} {ledger}");
        let tries: u64 = ledger["failures"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
        assert!(tries > 4 * 24 * 60, "it has stopped trying: {ledger}");

        let late = sink.listen_at(over, address).await;
        tokio::time::advance(Duration::from_secs(120)).await;
        tokio::time::resume();
        running.ended().await;
        assert_eq!(late.sink.taken().into_iter().collect::<BTreeSet<_>>(), (0..8).collect(), "{over:?}");
        assert_eq!(place.quarantine(), []);
        tokio::time::pause();
    }
}
