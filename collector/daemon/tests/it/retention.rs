//! `[retention]` in the running daemon: what is too old goes while it works, and neither what is younger nor any sum goes with it.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use super::client::Client;
use super::library::{Kind, Library};
use super::made::text;
use super::process::Emberd;
use super::sink;

/// A trace of one call that began so many days ago.
fn call(nr: u8, days: u64) -> Span {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let began = now - Duration::from_secs(days * 86_400);
    Span {
        trace_id: vec![nr; 16],
        span_id: vec![nr; 8],
        name: "call".into(),
        start_time_unix_nano: began.as_nanos() as u64,
        end_time_unix_nano: began.as_nanos() as u64 + 250_000_000,
        attributes: vec![text("openinference.span.kind", "LLM"), text("prompt.id", "greeting")],
        ..Span::default()
    }
}

fn names(traces: &[Value]) -> Vec<&str> {
    traces.iter().map(|trace| trace["phoenix_trace_id"].as_str().unwrap()).collect()
}

/// An emberd whose first pass over the tables has met what is old and settled. One that was slow to settle it passes again in ten minutes, or
/// when it is started again.
async fn until_two_are_left(library: &Library) -> Emberd {
    for _ in 0..3 {
        let emberd = library.home.start();
        for _ in 0..150 {
            if library.traces().await.len() == 2 {
                return emberd;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(emberd.terminate().success());
    }
    panic!("the old does not go: {:?}", library.traces().await);
}

async fn the_old_goes(kind: Kind) {
    let mut library = Library::new(kind).await;
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for (nr, days) in [(1, 90), (2, 40), (3, 10), (4, 0)] {
        client.send_grpc(sink::request(Some("shop"), vec![call(nr, days)])).await.unwrap();
    }
    emberd.recorded().await;
    assert_eq!(library.traces().await.len(), 4);
    let rollups = library.rollups().await;
    assert!(!rollups.is_empty());
    assert!(emberd.terminate().success());

    // What may still take in spans stays, however old: a day, or a second here.
    library.home.set("EMBERD_RETENTION_TRACES", "30d");
    library.home.set("EMBERD_RECORDER_ROOT_WAIT", "1s").set("EMBERD_RECORDER_QUIET", "1s");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let emberd = until_two_are_left(&library).await;
    let [three, four] = [3, 4].map(|nr: u8| format!("{nr:02x}").repeat(16));
    assert_eq!(names(&library.traces().await), [&three, &four]);
    assert_eq!(library.rollups().await, rollups, "the numbers that came of what went are kept");

    // A span that comes late, for a trace that went, does not bring half of it back; one of a trace that stayed is taken in.
    let mut client = Client::connect(&emberd).await;
    for (nr, days) in [(2, 40), (3, 10)] {
        let late = Span { span_id: vec![nr + 100; 8], parent_span_id: vec![nr; 8], ..call(nr, days) };
        client.send_grpc(sink::request(Some("shop"), vec![late])).await.unwrap();
    }
    emberd.recorded().await;
    assert_eq!(names(&library.traces().await), [&three, &four]);
    emberd.sums_are_right(&library.home).await;
    assert!(emberd.terminate().success());
}

/// Rows older than `[retention]` says go from the running daemon's database, and do not come back by a span that is late.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_and_stays_away() {
    for kind in Kind::ALL {
        the_old_goes(kind).await;
    }
}
