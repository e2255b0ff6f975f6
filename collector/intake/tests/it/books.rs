//! The books balance, whatever clients do.

use std::time::Duration;

use emberd_intake::{Reason, Snapshot};
use tokio::task::JoinSet;

use crate::client::{Client, Version, framed, grpc, whole};
use crate::export::spans;
use crate::house::{House, config, in_time};
use crate::shelf::Shelf;

fn balance(counted: &Snapshot) {
    let out = counted.accepted_spans() + counted.rejected_spans() + counted.refused_spans();
    assert_eq!(counted.received_spans(), out, "{counted:?}");
}

/// A client that leaves between write and answer takes nothing with it: its spans are kept, counted, and paid for until then.
#[tokio::test]
async fn clients_that_leave_are_counted() {
    let shelf = Shelf::closed();
    let house = House::open(shelf.clone());
    let counters = house.counters.clone();
    let mut stays = Client::connect(house.at.grpc, Version::Two).await;
    let mut leaves = Client::connect(house.at.grpc, Version::Two).await;
    let mut stayed = JoinSet::new();
    stayed.spawn(stays.begin(grpc(whole(framed(0, &spans(5))))));
    let mut left = JoinSet::new();
    left.spawn(leaves.begin(grpc(whole(framed(0, &spans(7))))));
    in_time(shelf.came(2)).await;
    drop((left, leaves));
    in_time(async {
        while counters.snapshot().stray_spans < 7 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let held = counters.snapshot();
    assert_eq!((held.accepted_spans(), held.received_spans()), (0, 12));
    assert!(held.in_flight_bytes > 0, "what a client left behind is still paid for");
    shelf.let_go();
    assert_eq!(in_time(stayed.join_next()).await.unwrap().unwrap().unwrap().code(), 0);
    drop(stays);
    house.stop().await.unwrap();
    let counted = counters.snapshot();
    assert_eq!((counted.accepted_spans(), counted.stray_spans, counted.in_flight_bytes), (12, 7, 0));
    balance(&counted);
}

/// A deadline that passes while the log is busy is said to be one, and the spans are counted once the log has decided.
#[tokio::test]
async fn deadlines_that_pass_are_counted() {
    let mut config = config();
    config.request_timeout = Duration::from_millis(50);
    let shelf = Shelf::closed();
    let house = House::with(config, shelf.clone());
    let counters = house.counters.clone();
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let answer = client.call(&spans(3)).await;
    assert_eq!((answer.code(), answer.is_retryable()), (4, true));
    assert_eq!(counters.snapshot().lanes[0].refused[Reason::Deadline as usize], 1);
    shelf.let_go();
    drop(client);
    house.stop().await.unwrap();
    let counted = counters.snapshot();
    assert_eq!((counted.accepted_spans(), counted.stray_spans), (3, 3));
    balance(&counted);
}

/// The metrics page has every counter, by transport and reason, in Prometheus' form.
#[tokio::test]
async fn metrics_say_what_was_counted() {
    let house = House::open(Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    assert_eq!(client.call(&spans(5)).await.code(), 0);
    assert_eq!(client.call(b"rubbish").await.code(), 3);
    let mut page = String::new();
    house.counters.write_prometheus(&mut page);
    for line in [
        "# TYPE emberd_intake_accepted_spans_total counter",
        "emberd_intake_requests_total{transport=\"grpc\"} 2",
        "emberd_intake_accepted_spans_total{transport=\"grpc\"} 5",
        "emberd_intake_accepted_spans_total{transport=\"http_json\"} 0",
        "emberd_intake_refused_total{transport=\"grpc\",reason=\"malformed\"} 1",
        "emberd_intake_refused_spans_total{transport=\"grpc\",reason=\"budget\"} 0",
        "emberd_intake_connections_open 1",
        "emberd_intake_in_flight_bytes 0",
        "emberd_intake_in_flight_max_bytes 268435456",
        "emberd_intake_answer_seconds_bucket{transport=\"grpc\",le=\"+Inf\"} 1",
        "emberd_intake_answer_seconds_count{transport=\"grpc\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("emberd_intake_") && value.parse::<f64>().is_ok(), "{line}");
    }
    house.stop().await.unwrap();
}
