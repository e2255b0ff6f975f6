//! The real Phoenix behind the real emberd: what it must hold in the end, and what its absence must not touch.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use emberd_phoenix::process::{Phoenix, Ports};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

use super::client::{Client, Transport};
use super::fixtures;
use super::library::{Kind, Library};
use super::made::Made;

pub fn venv() -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd/phoenix");
    let venv = std::env::var_os("EMBERD_PHOENIX").map_or_else(cache, PathBuf::from);
    assert!(emberd_phoenix::process::installed(&venv), "no Phoenix in {}; run make setup", venv.display());
    venv
}

pub async fn started(dir: &std::path::Path, ports: Ports) -> Phoenix {
    let mut phoenix = Phoenix::start(&venv(), dir, ports).unwrap();
    phoenix.ready(Duration::from_secs(120)).await.unwrap();
    phoenix
}

pub fn point_at(library: &mut Library, phoenix: &Phoenix) {
    library.home.set("EMBERD_PHOENIX_OTLP", &phoenix.otlp()).set("EMBERD_PHOENIX_URL", &phoenix.url());
}

/// Every span id that Phoenix holds, over all its projects, by REST.
pub async fn held(phoenix: &Phoenix) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let get = async |url: String| reqwest::get(url).await.unwrap().json::<Value>().await.unwrap();
    let projects = get(format!("{}/v1/projects?limit=1000", phoenix.url())).await;
    for project in projects["data"].as_array().unwrap() {
        let base = format!("{}/v1/projects/{}/spans?limit=1000", phoenix.url(), project["id"].as_str().unwrap());
        let mut page = get(base.clone()).await;
        loop {
            let spans = page["data"].as_array().unwrap_or_else(|| panic!("{page}"));
            ids.extend(spans.iter().map(|span| span["context"]["span_id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(cursor) => page = get(format!("{base}&cursor={cursor}")).await,
                None => break,
            }
        }
    }
    ids
}

pub fn span_ids(body: &[u8]) -> Vec<String> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    spans.map(|span| emberd_model::SpanId(span.span_id.try_into().unwrap()).to_string()).collect()
}

/// Waits until Phoenix holds all of `expected`.
async fn all_arrive(phoenix: &Phoenix, expected: &BTreeSet<String>, patience: Duration) {
    let since = Instant::now();
    loop {
        let held = held(phoenix).await;
        let missing: Vec<_> = expected.difference(&held).collect();
        if missing.is_empty() {
            return;
        }
        assert!(since.elapsed() < patience, "{} of {} spans never arrived: {missing:?}", missing.len(), expected.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// All fixtures, sent through emberd, are in Phoenix span for span.
#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_reaches_phoenix_span_for_span() {
    let mut library = Library::new(Kind::Sqlite).await;
    let phoenix = started(&library.home.path().join("phoenix"), Ports::free().unwrap()).await;
    point_at(&mut library, &phoenix);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    let mut expected = BTreeSet::new();
    for export in fixtures::all().iter().flat_map(|fixture| &fixture.requests) {
        client.send(Transport::Grpc, export).await.unwrap();
        expected.extend(span_ids(&export.protobuf));
    }
    all_arrive(&phoenix, &expected, Duration::from_secs(60)).await;
    assert_eq!(held(&phoenix).await, expected, "Phoenix holds spans that nobody sent");
    let since = Instant::now();
    loop {
        let status = emberd.get("/api/status").await;
        let ledger = &status["ledger"]["consumers"]["phoenix"];
        if ledger["verified"].as_u64() == status["ledger"]["accepted_spans"].as_u64() {
            assert_eq!(ledger["quarantined"], 0, "{status:#}");
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "not verified: {status:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Phoenix stops for a minute under load, losing what it held in memory: intake goes on as before, and all of it is there after.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_phoenix_costs_nothing() {
    let mut library = Library::new(Kind::Sqlite).await;
    let dir = library.home.path().join("phoenix");
    let phoenix = started(&dir, Ports::free().unwrap()).await;
    point_at(&mut library, &phoenix);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let (mut expected, mut slowest) = (BTreeSet::new(), Duration::ZERO);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for number in (0..).step_by(3) {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.changed() => break,
            }
            let body = Made::new(number).requests[0].clone();
            let sent = Instant::now();
            client.send_grpc(body.clone()).await.unwrap();
            slowest = slowest.max(sent.elapsed());
            expected.extend(span_ids(&body));
        }
        (expected, slowest)
    });

    tokio::time::sleep(Duration::from_secs(5)).await;
    let ports = phoenix.ports;
    phoenix.kill().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let phoenix = started(&dir, ports).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send(true).unwrap();
    let (expected, slowest) = load.await.unwrap();
    let since = Instant::now();
    all_arrive(&phoenix, &expected, Duration::from_secs(120)).await;
    emberd.recorded().await;
    assert_eq!(library.traces().await.len() * 2, expected.len());
    emberd.sums_are_right(&library.home).await;
    let rss = emberd.rss_max_mib();
    super::figure(
        "F10-phoenix",
        &[
            ("endpoint", "Phoenix, killed".into()),
            ("outage_s", 60.into()),
            ("spans_in", expected.len().into()),
            ("spans_out", held(&phoenix).await.intersection(&expected).count().into()),
            ("rss_max_mib", rss.into()),
            ("drain_s", since.elapsed().as_secs().into()),
            ("slowest_answer_ms", (slowest.as_millis() as u64).into()),
        ],
    );
    assert!(rss <= 256, "{rss} MiB");
    assert!(emberd.terminate().success());
}
