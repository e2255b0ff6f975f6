//! An endpoint that cannot keep up gets a choice of traces, each whole or not at all: exactly those that the settings speak for, by an
//! outside count; everything else is booked as shed, and is in prompt_traces as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use emberd_log::{RealDisk, inspect};
use emberd_model::{Offset, TraceId};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};
use serde_json::json;

use super::client::Client;
use super::ledger::{forwarded, told};
use super::library::{Kind, Library};
use super::made::text;
use super::process::{Emberd, Home};
use super::sink::{self, Sink};

const SHARE: f64 = 0.2;
const TRACES: u64 = 150;

/// What in a trace speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Nothing,
    Error,
    Slow,
    Prompt,
    OtherPrompt,
    AlmostSlow,
    Warned,
}

impl Sign {
    fn of(trace: u64) -> Self {
        use Sign::{AlmostSlow, Error, Nothing, OtherPrompt, Prompt, Slow, Warned};
        [Error, Nothing, Slow, Nothing, Prompt, Nothing, OtherPrompt, AlmostSlow, Warned, Nothing, Nothing]
            [trace as usize % 11]
    }

    fn speaks(self) -> bool {
        matches!(self, Self::Error | Self::Slow | Self::Prompt)
    }

    fn on(self, mut span: Span) -> Span {
        let millis = |millis: u64| span.start_time_unix_nano + millis * 1_000_000;
        match self {
            Self::Nothing => {}
            Self::Error => span.status = Some(Status { code: StatusCode::Error.into(), message: "no".into() }),
            Self::Warned => span.status = Some(Status { code: StatusCode::Ok.into(), message: "error".into() }),
            Self::Slow => span.end_time_unix_nano = millis(10_000),
            Self::AlmostSlow => span.end_time_unix_nano = millis(9_999),
            Self::Prompt => span.attributes.push(text("prompt.id", "dear")),
            Self::OtherPrompt => span.attributes.push(text("prompt.id", "dearest")),
        }
        span
    }
}

fn is_chosen(trace: u64) -> bool {
    Sign::of(trace).speaks() || TraceId(sink::trace_id(trace)).is_in_share(SHARE)
}

fn chooses(home: &mut Home, sink: &Sink) {
    home.set("EMBERD_PHOENIX_OTLP", &sink.url())
        .set("EMBERD_PHOENIX_VERIFY", "false")
        .set("EMBERD_PHOENIX_CHOOSE_AT", "0%")
        .set("EMBERD_PHOENIX_CHOOSE_SLOW", "10s")
        .set("EMBERD_PHOENIX_CHOOSE_PROMPTS", "[\"dear\"]")
        .set("EMBERD_PHOENIX_CHOOSE_SHARE", "20%")
        .set("EMBERD_PHOENIX_CHOOSE_TRACES_PER_SECOND", "0");
}

/// Sends the same span of several traces, a few traces to a request.
async fn send(emberd: &Emberd, traces: impl Iterator<Item = u64>, make: impl Fn(u64) -> Span) {
    let mut client = Client::connect(emberd).await;
    let traces: Vec<u64> = traces.collect();
    for some in traces.chunks(4) {
        client.send_grpc(sink::request(Some("shop"), some.iter().map(|trace| make(*trace)).collect())).await.unwrap();
    }
}

async fn stop(emberd: Emberd) {
    assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
}

fn names<'a>(traces: impl Iterator<Item = u64> + 'a, numbers: &'a [u64]) -> BTreeSet<String> {
    traces.flat_map(|trace| numbers.iter().map(move |number| format!("{trace}/{number}"))).collect()
}

/// Errors, slow spans, named prompts and the share, to the span: also when what speaks comes with a later request, and when spans come
/// after a kill. A trace that was left out stays left out, whatever its late spans say.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_chosen_traces_arrive_whole() {
    let (mut library, sink) = (Library::new(Kind::Sqlite).await, Sink::new());
    chooses(&mut library.home, &sink);
    let emberd = library.home.start();
    // The call comes first, and what speaks comes with the root, a request later for the odd ones.
    send(&emberd, (0..TRACES).filter(|trace| trace % 2 == 1), |trace| sink::span(trace, 1)).await;
    send(&emberd, 0..TRACES, |trace| Sign::of(trace).on(sink::span(trace, 0))).await;
    send(&emberd, (0..TRACES).filter(|trace| trace % 2 == 0), |trace| sink::span(trace, 1)).await;
    forwarded(&emberd, "phoenix").await;
    let chosen = || (0..TRACES).filter(|trace| is_chosen(*trace));
    let arrived = |sink: &Sink| sink.taken().into_keys().collect::<BTreeSet<_>>();
    assert_eq!(arrived(&sink), names(chosen(), &[0, 1]));
    assert!(chosen().any(|trace| !Sign::of(trace).speaks()) && chosen().count() < TRACES as usize * 2 / 3);
    emberd.sums_are_right(&library.home).await;
    emberd.kill();

    // Late spans, after a kill and after a stop; those of traces that were left out would speak now.
    for (number, kill) in [(2, false), (3, true)] {
        let emberd = library.home.start();
        send(&emberd, 0..TRACES, |trace| Sign::Error.on(sink::span(trace, number))).await;
        forwarded(&emberd, "phoenix").await;
        emberd.sums_are_right(&library.home).await;
        if kill { emberd.kill() } else { stop(emberd).await }
    }
    assert_eq!(arrived(&sink), names(chosen(), &[0, 1, 2, 3]));
    // A kill costs repetition, nothing else did.
    assert!(sink.taken().values().all(|times| *times == 1), "{:?}", sink.taken());

    let emberd = library.home.start();
    emberd.recorded().await;
    let ledger = told(&library.home, &["ledger", "--check"]);
    let phoenix = &ledger["consumers"]["phoenix"];
    let shed = (TRACES - chosen().count() as u64) * 4;
    assert_eq!((&phoenix["done"], &phoenix["shed"]), (&json!(4 * TRACES - shed), &json!(shed)), "{ledger:#}");
    assert_eq!(phoenix["reasons"]["shed"], json!({ "share": shed }), "{ledger:#}");
    assert_eq!(ledger["consumers"]["recorder"]["done"], 4 * TRACES, "{ledger:#}");
    stop(emberd).await;
    let rows: BTreeSet<String> =
        library.traces().await.iter().map(|row| row["phoenix_trace_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rows, (0..TRACES).map(|trace| TraceId(sink::trace_id(trace)).to_string()).collect());
}

/// No more traces than the settings allow for each second of receiving, the first ones; later spans of any trace follow its decision.
/// The log, read past emberd, says in which second each came.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_holds_so_many_traces() {
    const MOST: usize = 3;
    let (mut home, sink) = (Home::new(), Sink::new());
    chooses(&mut home, &sink);
    home.set("EMBERD_PHOENIX_CHOOSE_TRACES_PER_SECOND", &MOST.to_string());
    let emberd = home.start();
    for round in 0..3 {
        let of_round = round * 100..round * 100 + 100;
        send(&emberd, of_round.clone(), |trace| Sign::of(trace).on(sink::span(trace, 0))).await;
        send(&emberd, of_round, |trace| sink::span(trace, 1)).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    forwarded(&emberd, "phoenix").await;
    emberd.sums_are_right(&home).await;
    let ledger = told(&home, &["ledger"]);
    stop(emberd).await;

    let (mut seconds, mut decided): (BTreeMap<u64, usize>, BTreeMap<u64, Option<&str>>) = Default::default();
    let mut shed: BTreeMap<&str, u64> = BTreeMap::new();
    let read_segment = |_: &inspect::Found| true;
    let mut batches = Vec::new();
    inspect::batches(&RealDisk, &home.path().join("log"), Offset(0), |_, batch| batches.push(batch), read_segment)
        .unwrap();
    let mut expected = BTreeSet::new();
    for batch in batches {
        let second = batch.received_at.0 / 1_000_000_000;
        let request = prost::Message::decode(batch.body).unwrap();
        for span in sink::spans_of(request) {
            let trace: u64 = span.name.split_once('/').unwrap().0.parse().unwrap();
            let rule = *decided.entry(trace).or_insert_with(|| {
                if !is_chosen(trace) {
                    return Some("share");
                }
                let taken = seconds.entry(second).or_default();
                *taken += 1;
                (*taken > MOST).then_some("traces_per_second")
            });
            match rule {
                None => assert!(expected.insert(span.name)),
                Some(rule) => *shed.entry(rule).or_default() += 1,
            }
        }
    }
    assert_eq!(sink.taken().into_keys().collect::<BTreeSet<_>>(), expected);
    assert_eq!(ledger["consumers"]["phoenix"]["reasons"]["shed"], json!(shed), "{ledger:#}");
    assert_eq!(ledger["consumers"]["phoenix"]["done"], expected.len(), "{ledger:#}");
    assert!(shed.len() == 2 && expected.len() >= 2 * MOST, "{shed:?} {}", expected.len());
}

const HEAVY_BYTES: usize = 256 << 10;
const BUDGET_BYTES: usize = 64 << 20;

/// While the endpoint is away and what waits is below the bound, nothing is shed: it all arrives. Past the bound everything is still taken
/// in and recorded, and the endpoint gets its choice when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shed_below_the_bound() {
    let (mut library, sink) = (Library::new(Kind::Sqlite).await, Sink::new());
    chooses(&mut library.home, &sink);
    library.home.set("EMBERD_PHOENIX_CHOOSE_AT", "50%").set("EMBERD_PHOENIX_CHOOSE_AFTER", "0s");
    library.home.set("EMBERD_LOG_BUDGET", "64MiB").set("EMBERD_LOG_SEGMENT", "4MiB");
    let emberd = library.home.start();
    let heavy = |trace, number| {
        let mut span = sink::span(trace, number);
        span.attributes.push(text("input.value", &"x".repeat(HEAVY_BYTES)));
        span
    };
    let pair = async |traces: std::ops::Range<u64>| {
        let mut client = Client::connect(&emberd).await;
        for trace in traces {
            client.send_grpc(sink::request(None, vec![Sign::of(trace).on(heavy(trace, 0))])).await.unwrap();
            client.send_grpc(sink::request(None, vec![sink::span(trace, 1)])).await.unwrap();
        }
    };
    let phoenix = async || emberd.get("/api/status").await["ledger"]["consumers"]["phoenix"].clone();
    // A third of the budget.
    let below = (BUDGET_BYTES / 3 / HEAVY_BYTES) as u64;
    sink.goes_away(true);
    pair(0..below).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(phoenix().await["pending"], below * 2);
    sink.goes_away(false);
    forwarded(&emberd, "phoenix").await;
    assert_eq!(phoenix().await["shed"], 0, "{}", emberd.said());
    assert_eq!(sink.taken().into_keys().collect::<BTreeSet<_>>(), names(0..below, &[0, 1]));
    assert!((0..below).any(|trace| !is_chosen(trace)), "one that would have been left out");

    sink.goes_away(true);
    let past = below + (BUDGET_BYTES * 3 / 4 / HEAVY_BYTES) as u64;
    pair(below..past).await;
    assert_eq!(phoenix().await["pending"], (past - below) * 2, "all of it was taken in");
    assert_eq!(phoenix().await["shed"], 0);
    sink.goes_away(false);
    forwarded(&emberd, "phoenix").await;
    emberd.recorded().await;
    emberd.sums_are_right(&library.home).await;
    let ledger = told(&library.home, &["ledger", "--check"]);
    let arrived: BTreeSet<String> = sink.taken().into_keys().collect();
    let whole: BTreeSet<u64> = (0..past).filter(|trace| arrived.contains(&format!("{trace}/0"))).collect();
    assert_eq!(arrived, names(whole.iter().copied(), &[0, 1]), "traces in part");
    let left_out: Vec<u64> = (0..past).filter(|trace| !whole.contains(trace)).collect();
    assert!(left_out.iter().all(|trace| *trace >= below && !is_chosen(*trace)), "{left_out:?}");
    assert!(!left_out.is_empty(), "nothing was left out: {ledger:#}\n{}", emberd.said());
    assert_eq!(ledger["consumers"]["phoenix"]["reasons"]["shed"], json!({ "share": left_out.len() * 2 }), "{ledger:#}");
    assert_eq!(ledger["refused_spans"], 0, "{ledger:#}");
    stop(emberd).await;
    assert_eq!(library.traces().await.len() as u64, past);
}
