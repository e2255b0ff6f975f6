//! A minute without the endpoint, under load: nothing is lost, memory stays flat, and the backlog goes quickly.
//!
//! The endpoint is another emberd, killed and started again on its directory: unlike Phoenix it takes spans as fast as they come, so
//! what is measured is emberd. Each span is heavy, so that the backlog is several times what the log keeps in memory. One request is
//! under way at a time, as to Phoenix.

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::books::span_ids_in_log;
use super::client::Client;
use super::made::text;
use super::process::{Emberd, Home};

const OUTAGE: Duration = Duration::from_secs(60);
const SPANS: u64 = 10;
const SPAN_BYTES: usize = 8 << 10;
/// Between two requests.
const PACE: Duration = Duration::from_millis(25);
const RSS_MAX_MIB: u64 = 256;

fn request(number: u64) -> Bytes {
    let span = |n: u64| Span {
        trace_id: [number.to_be_bytes(), [1; 8]].concat(),
        span_id: (number * SPANS + n + 1).to_be_bytes().to_vec(),
        name: "heavy".into(),
        start_time_unix_nano: 1_710_108_000_000_000_000,
        end_time_unix_nano: 1_710_108_001_000_000_000,
        attributes: vec![text("input.value", &format!("{number} {n} ").repeat(SPAN_BYTES / 8))],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..SPANS).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
        .encode_to_vec()
        .into()
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

async fn pending(emberd: &Emberd) -> u64 {
    emberd.get("/api/status").await["ledger"]["consumers"]["sink"]["pending"].as_u64().unwrap()
}

/// The endpoint dies and is away for a minute under load. Every span arrives there, emberd stays within its memory while it waits and
/// while it reads the backlog back (the collector's queue does not: open-telemetry/opentelemetry-collector#11018), and the backlog
/// is gone in less time than it took to grow.
#[tokio::test(flavor = "multi_thread")]
async fn otelcol_11018_a_backlog_is_read_back_in_bounded_memory() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut there = Home::new();
    there.set("EMBERD_INTAKE_GRPC", &format!("127.0.0.1:{port}")).set("EMBERD_RECORDER_ENABLED", "false");
    let mut here = Home::new();
    here.set("EMBERD_FORWARD", &format!("[{{ name = \"sink\", url = \"grpc://127.0.0.1:{port}\", in_flight = 1 }}]"));
    let sink = there.start();
    let emberd = here.start();

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut client = Client::connect(&emberd).await;
    let mut load = tokio::task::JoinSet::new();
    load.spawn(async move {
        let (mut sent, mut slowest) = (0, Duration::ZERO);
        while !*stopped.borrow() {
            let since = Instant::now();
            client.send_grpc(request(sent)).await.unwrap();
            slowest = slowest.max(since.elapsed());
            sent += 1;
            tokio::time::sleep(PACE.saturating_sub(since.elapsed())).await;
        }
        (sent, slowest)
    });

    tokio::time::sleep(Duration::from_secs(2)).await;
    sink.kill();
    let before = emberd.rss_max_mib();
    tokio::time::sleep(OUTAGE).await;
    let (backlog, waited) = (pending(&emberd).await, emberd.rss_max_mib());
    let sink = there.start();
    let since = Instant::now();
    let mut noticed = None;
    loop {
        let pending = pending(&emberd).await;
        if noticed.is_none() && pending < backlog {
            noticed = Some(since.elapsed());
        }
        if pending <= 100 * SPANS {
            break;
        }
        assert!(since.elapsed() < 2 * OUTAGE, "the backlog of {backlog} spans does not go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let drained = since.elapsed();
    stop.send(true).unwrap();
    let (sent, slowest) = load.join_next().await.unwrap().unwrap();
    while pending(&emberd).await > 0 {
        assert!(since.elapsed() < 3 * OUTAGE, "the last spans do not arrive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rss = emberd.rss_max_mib();
    emberd.sums_are_right(&here).await;
    for emberd in [emberd, sink] {
        assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
    }

    let arrived = span_ids_in_log(there.path()).await;
    let expected: HashSet<[u8; 8]> = (0..sent * SPANS).map(|n| (n + 1).to_be_bytes()).collect();
    super::figure(
        "F10",
        &[
            ("endpoint", "another emberd, killed".into()),
            ("outage_s", OUTAGE.as_secs().into()),
            ("spans_in", expected.len().into()),
            ("spans_out", expected.intersection(&arrived).count().into()),
            ("backlog_spans", backlog.into()),
            ("backlog_mib", ((backlog * SPAN_BYTES as u64) >> 20).into()),
            ("rss_before_mib", before.into()),
            ("rss_waiting_mib", waited.into()),
            ("rss_max_mib", rss.into()),
            ("noticed_s", tenths(noticed.unwrap_or(drained)).into()),
            ("drain_s", tenths(drained).into()),
            ("drain_factor", (tenths(10 * drained / OUTAGE.as_secs() as u32) / 10.0).into()),
            ("slowest_answer_ms", (slowest.as_millis() as u64).into()),
        ],
    );
    assert_eq!(arrived, expected);
    assert!(backlog > 10_000, "only {backlog} spans had to wait");
    assert!(rss <= RSS_MAX_MIB, "{rss} MiB");
}
