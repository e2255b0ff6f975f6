//! One test for each way in which an endpoint can fail, and what may not come of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use emberd_model::Offset;
use tonic::Code;

use super::sink::{Act, BOTH, Over, Seen, Sink};
use super::source::{Place, Played, batch, batches, until};
use super::{attribute, request, span};
use crate::forwarder::{Compression, Config, Key};

/// The spans taken, each once however often it was sent.
fn distinct(sink: &Sink) -> BTreeSet<u64> {
    sink.taken().into_iter().collect()
}

fn all(spans: u64) -> BTreeSet<u64> {
    (0..spans).collect()
}

/// Batches arrive as they lie in the log, byte for byte, in their order, whatever the wire and the compression.
#[tokio::test]
async fn batches_arrive_whole_and_in_order() {
    for over in BOTH {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let sink = Sink::that(|_, _| Act::Take).listen(over).await;
            let place = Place::new();
            let config = Config { compression, in_flight: 1, ..sink.config() };
            let progress = place.forward(config, batches([1, 2, 3, 400, 5])).await;
            assert_eq!(sink.sink.taken(), (0..411).collect::<Vec<_>>(), "{over:?} {compression:?}");
            let sent: Vec<u8> = sink.sink.seen().iter().flat_map(|seen| seen.body.to_vec()).collect();
            let kept: Vec<u8> =
                batches([1, 2, 3, 400, 5]).into_iter().flatten().flatten().flat_map(|batch| batch.body).collect();
            assert_eq!(sent, kept);
            assert_eq!(place.cursor(), Some(Offset(411)));
            let ledger = progress.ledger(Offset(411));
            assert_eq!(
                (&ledger["sent"], &ledger["verified"], &ledger["pending"]),
                (&411.into(), &411.into(), &0.into())
            );
        }
    }
}

/// Several batches become one message; one that is too large for the endpoint's bound goes in pieces.
#[tokio::test]
async fn batches_are_laid_end_to_end_and_cut_to_the_bound() {
    let sink = Sink::that(|_, _| Act::Take).listen(Over::Grpc).await;
    let given = vec![batch(0, 10), batch(10, 10), batch(20, 2_000), batch(2_020, 1)];
    let config = Config { load_bytes_max: 64 << 10, ..sink.config() };
    Place::new().forward(config, [Ok(given)].into()).await;
    assert_eq!(distinct(&sink.sink), all(2_021));
    let seen = sink.sink.seen();
    assert!(seen.iter().all(|seen| seen.body.len() <= 64 << 10));
    assert!((3..10).contains(&seen.len()), "{} requests", seen.len());
}

/// A span that is refused does not take its 999 neighbours along, is found in few steps, and is kept with the answer.
#[tokio::test]
async fn one_bad_span_of_a_thousand_goes_into_quarantine_alone() {
    let answers = [
        (Over::Grpc, Act::Status(Code::InvalidArgument, "bad span"), "refused"),
        (Over::Grpc, Act::Status(Code::Unknown, "Unexpected <class 'RecursionError'>"), "refused"),
        (Over::Grpc, Act::Status(Code::Internal, "oops"), "broken"),
        (Over::Http, Act::Http(400, ""), "refused"),
        (Over::Http, Act::Http(422, ""), "refused"),
        (Over::Http, Act::Http(500, ""), "broken"),
    ];
    for (over, answer, reason) in answers {
        let bad = answer.clone();
        let sink = Sink::that(move |seen, _| if seen.spans.contains(&500) { bad.clone() } else { Act::Take });
        let sink = sink.listen(over).await;
        let place = Place::new();
        let progress = place.forward(sink.config(), batches([400, 600])).await;

        let expected: BTreeSet<u64> = all(1_000).into_iter().filter(|number| *number != 500).collect();
        assert_eq!(distinct(&sink.sink), expected, "{answer:?}");
        assert_eq!(sink.sink.taken().len(), 999, "a span went out twice");
        let [item] = &place.quarantine()[..] else { panic!("{:?}", place.quarantine()) };
        assert_eq!(
            (item.offset, item.spans, &item.reason[..], &item.span_ids[0][..]),
            (500, 1, reason, "00000000000001f5")
        );
        assert!(!item.answer.is_empty());
        let sends = sink.sink.seen().iter().filter(|seen| seen.spans.len() != 400).count();
        assert!(sends <= 22 + 3, "{answer:?}: {sends} requests");
        assert_eq!(place.cursor(), Some(Offset(1_000)));
        let ledger = progress.ledger(Offset(1_000));
        assert_eq!((&ledger["verified"], &ledger["quarantined"]), (&999.into(), &1.into()));
        assert_eq!(ledger["failing"], false);
    }
}

/// An endpoint that is busy gets its spans later, however often it says so, and after the wait that it asks for.
#[tokio::test]
async fn a_busy_endpoint_is_waited_for() {
    let answers = [
        (Over::Grpc, Act::Status(Code::Unavailable, "Server is at capacity"), 0),
        (Over::Grpc, Act::Status(Code::ResourceExhausted, "at capacity"), 0),
        (Over::Grpc, Act::StatusWait(Code::Unavailable, 1), 1),
        (Over::Grpc, Act::StatusWait(Code::ResourceExhausted, -7), 0),
        (Over::Http, Act::Http(503, ""), 0),
        (Over::Http, Act::Http(429, "1"), 1),
        (Over::Http, Act::Http(503, "Fri, 20 Nov 2026 00:00:00 GMT"), 0),
        (Over::Http, Act::Http(503, "whenever"), 0),
        (Over::Http, Act::Http(507, ""), 0),
    ];
    for (over, answer, wait) in answers {
        let times = if wait == 0 { 5 } else { 1 };
        let busy = answer.clone();
        let sink = Sink::that(move |_, count| if count < times { busy.clone() } else { Act::Take }).listen(over).await;
        let (place, begun) = (Place::new(), Instant::now());
        let progress = place.forward(Config { in_flight: 1, ..sink.config() }, batches([3, 3])).await;
        assert_eq!(sink.sink.taken(), [0, 1, 2, 3, 4, 5], "{answer:?}");
        assert_eq!(place.quarantine(), []);
        assert!(begun.elapsed() >= Duration::from_secs(wait));
        assert_eq!(progress.ledger(Offset(6))["failures"]["busy"], times);
    }
}

/// A revoked key stops the spans, not for good and not for any of them; a new one is read without a restart.
#[tokio::test]
async fn a_refused_key_is_read_again_and_nothing_is_dropped() {
    for (over, refusal) in [
        (Over::Grpc, Act::Status(Code::Unauthenticated, "")),
        (Over::Grpc, Act::Status(Code::PermissionDenied, "Viewers cannot perform this action.")),
        (Over::Http, Act::Http(401, "")),
        (Over::Http, Act::Http(403, "")),
    ] {
        let valid = |seen: &Seen| seen.headers.get("authorization").is_some_and(|key| key == "Bearer new");
        let sink = Sink::that(move |seen, _| if valid(seen) { Act::Take } else { refusal.clone() }).listen(over).await;
        let place = Place::new();
        let reads = Arc::new(AtomicUsize::new(0));
        let count = reads.clone();
        let key = move || Ok(if count.fetch_add(1, SeqCst) < 4 { "old\n" } else { "new\n" }.to_owned());
        let config = Config { key: Some(Key::new(key)), ..sink.config() };
        let running = place.start(config, Played { position: Offset(0), script: batches([5, 5]), sealed: true });
        until("the alarm", || running.progress.failing().is_some() || reads.load(SeqCst) > 4).await;
        let progress = running.progress.clone();
        running.ended().await;
        assert_eq!(distinct(&sink.sink), all(10));
        assert_eq!(place.quarantine(), []);
        assert_eq!(progress.failing(), None);
    }
}

/// An endpoint with a smaller bound than was thought: loads are halved until they fit, and stay small.
#[tokio::test]
async fn what_is_too_large_is_halved() {
    for over in BOTH {
        let sink = Sink::of_size(20_000, |_, _| Act::Take).listen(over).await;
        let mut large = batch(1_000, 1);
        let mut spans = vec![span(1_000)];
        spans[0].attributes.push(attribute("prompt", &"long ".repeat(10_000)));
        large.body = request(spans);
        let mut script = batches([1_000]);
        script.push_back(Ok(vec![large, batch(1_001, 1)]));
        let place = Place::new();
        place.forward(Config { in_flight: 1, ..sink.config() }, script).await;
        let expected: BTreeSet<u64> = all(1_002).into_iter().filter(|number| *number != 1_000).collect();
        assert_eq!(distinct(&sink.sink), expected, "{over:?}");
        let [item] = &place.quarantine()[..] else { panic!("{:?}", place.quarantine()) };
        assert_eq!((item.offset, &item.reason[..]), (1_000, "too_large"));
        assert_eq!(place.cursor(), Some(Offset(1_002)));
    }
}

/// OTLP forbids to send again what was partly taken. How many were not is in the books; which, nobody can say.
#[tokio::test]
async fn a_partial_success_is_final_and_in_the_books() {
    for over in BOTH {
        for (rejected, said, kept) in [(3, "bad kind", 3), (0, "deprecated", 0), (-5, "", 0), (999, "all", 10)] {
            let sink = Sink::that(move |_, _| Act::TakePart(rejected, said)).listen(over).await;
            let place = Place::new();
            let progress = place.forward(sink.config(), batches([10])).await;
            assert_eq!(sink.sink.seen().len(), 1, "it was sent again");
            let items = place.quarantine();
            assert_eq!(items.iter().map(|item| item.spans).sum::<u64>(), kept);
            if kept > 0 {
                assert_eq!((&items[0].reason[..], items[0].span_ids.len()), ("partial_success", 10));
                assert_eq!(items[0].answer, format!("{kept} of 10, unknown which: {said}"));
            }
            let ledger = progress.ledger(Offset(10));
            assert_eq!((&ledger["verified"], &ledger["quarantined"]), (&(10 - kept).into(), &kept.into()));
        }
    }
}

/// Whatever becomes of a connection, spans arrive; some perhaps twice.
#[tokio::test]
async fn broken_and_silent_connections_cost_nothing() {
    for (over, act) in [
        (Over::Http, Act::Break),
        (Over::Http, Act::TakeAndBreak),
        (Over::Http, Act::Hang),
        (Over::Http, Act::Drip),
        (Over::Http, Act::Endless),
        (Over::Grpc, Act::Hang),
        (Over::Grpc, Act::Endless),
    ] {
        let bad = act.clone();
        let sink = Sink::that(move |_, count| if count < 2 { bad.clone() } else { Act::Take }).listen(over).await;
        let place = Place::new();
        place.forward(sink.config(), batches([4, 4])).await;
        assert_eq!(distinct(&sink.sink), all(8), "{act:?}");
        assert_eq!(place.quarantine(), []);
    }
}

/// Nobody listens yet, or somebody else does: spans wait until the right one is there.
#[tokio::test]
async fn an_endpoint_that_is_not_there_yet_is_waited_for() {
    for over in BOTH {
        let sink = Sink::that(|_, _| Act::Take);
        let (address, config) = {
            let early = sink.listen(over).await;
            (early.address, early.config())
        };
        let place = Place::new();
        let running = place.start(config, Played { position: Offset(0), script: batches([4, 4]), sealed: true });
        let failures =
            |running: &super::source::Running| running.progress.ledger(Offset(8))["failures"]["unreachable"].as_u64();
        until("three tries", || failures(&running) >= Some(3)).await;
        let late = sink.listen_at(over, address).await;
        running.ended().await;
        assert_eq!(distinct(&late.sink), all(8));
        assert_eq!(place.quarantine(), []);
    }
    for (over, act) in [
        (Over::Http, Act::Http(404, "")),
        (Over::Http, Act::Http(405, "")),
        (Over::Http, Act::Http(415, "")),
        (Over::Http, Act::Http(302, "")),
        (Over::Http, Act::WebPage),
        (Over::Grpc, Act::Status(Code::Unimplemented, "")),
    ] {
        let wrong = act.clone();
        let sink = Sink::that(move |_, count| if count < 3 { wrong.clone() } else { Act::Take }).listen(over).await;
        let place = Place::new();
        place.forward(sink.config(), batches([4])).await;
        assert_eq!((distinct(&sink.sink), place.quarantine()), (all(4), vec![]), "{act:?}");
    }
}

/// An endpoint that refuses everything, a request without spans included, is ill: no span is to blame, and none is put aside.
#[tokio::test]
async fn an_endpoint_that_refuses_everything_condemns_nothing() {
    for (over, act) in [
        (Over::Grpc, Act::Status(Code::InvalidArgument, "no")),
        (Over::Grpc, Act::Status(Code::Internal, "no")),
        (Over::Http, Act::Http(400, "")),
        (Over::Http, Act::Http(500, "")),
    ] {
        let sink = Sink::that(move |_, _| act.clone()).listen(over).await;
        let place = Place::new();
        let running = place.start(sink.config(), Played { position: Offset(0), script: batches([20]), sealed: true });
        until("many tries", || sink.sink.seen().len() > 40).await;
        assert!(running.progress.failing().is_some());
        sink.sink.now(|_, _| Act::Take);
        running.ended().await;
        assert_eq!((distinct(&sink.sink), place.quarantine()), (all(20), vec![]));
    }
}

/// Several loads are under way at once; the cursor stays behind the first that is not done.
#[tokio::test]
async fn the_cursor_stays_behind_what_is_not_done() {
    let sink =
        Sink::that(|seen, _| if seen.spans.contains(&0) { Act::Status(Code::Unavailable, "") } else { Act::Take });
    let sink = sink.listen(Over::Grpc).await;
    let place = Place::new();
    // The first load's endpoint is busy for it alone, so its circuit does not close: the others must have begun before it failed.
    let config = Config { in_flight: 4, load_bytes_max: 1, ..sink.config() };
    let running = place.start(config, Played { position: Offset(0), script: batches([1; 8]), sealed: true });
    until("others are through", || sink.sink.taken().len() >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((place.cursor().unwrap_or_default(), running.progress.cursor()), (Offset(0), Offset(0)));
    sink.sink.now(|_, _| Act::Take);
    running.ended().await;
    assert_eq!((distinct(&sink.sink), place.cursor()), (all(8), Some(Offset(8))));
}

/// Told to stop while the endpoint is dead, it stops; started again, it goes on where its cursor was.
#[tokio::test]
async fn it_stops_in_time_and_goes_on_later() {
    for over in BOTH {
        let sink =
            Sink::that(|seen, _| if seen.spans.contains(&30) { Act::Hang } else { Act::Take }).listen(over).await;
        let place = Place::new();
        let config = Config { in_flight: 1, ..sink.config() };
        let played = |script| Played { position: Offset(0), script, sealed: false };
        let running = place.start(config.clone(), played(batches([10; 5])));
        until("it hangs", || sink.sink.seen().iter().any(|seen| seen.spans.contains(&30))).await;
        let begun = Instant::now();
        running.stop.cancel();
        running.ended().await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(place.cursor(), Some(Offset(30)));

        sink.sink.now(|_, _| Act::Take);
        let progress = place.forward(config, batches([10; 5])).await;
        assert_eq!((distinct(&sink.sink), place.cursor()), (all(50), Some(Offset(50))));
        assert_eq!(sink.sink.taken().iter().filter(|number| **number < 30).count(), 30, "done spans went out again");
        assert_eq!(progress.cursor(), Offset(50));
    }
}

/// A crash between putting a span aside and moving the cursor puts it aside again: there is still one of it, and one in the books.
#[tokio::test]
async fn a_span_is_put_aside_once_however_often() {
    let sink = Sink::that(|seen, _| if seen.spans.contains(&7) { Act::Http(400, "") } else { Act::Take });
    let sink = sink.listen(Over::Http).await;
    let place = Place::new();
    for _ in 0..3 {
        let progress = place.forward(sink.config(), batches([10])).await;
        assert_eq!(progress.ledger(Offset(10))["quarantined"], 1);
        std::fs::remove_file(place.path().join("sink.journal")).unwrap();
    }
    assert_eq!(place.quarantine().len(), 1);
}

/// Headers of the configuration go with every request.
#[tokio::test]
async fn configured_headers_are_sent() {
    for over in BOTH {
        let sink = Sink::that(|_, _| Act::Take).listen(over).await;
        let headers: HashMap<String, String> = [("x-tenant".to_owned(), "a".to_owned())].into();
        let config = Config { headers: (&headers).try_into().unwrap(), ..sink.config() };
        Place::new().forward(config, batches([1])).await;
        assert_eq!(sink.sink.seen()[0].headers["x-tenant"], "a");
        assert!(sink.sink.seen()[0].headers["user-agent"].to_str().unwrap().starts_with("emberd/"));
    }
}
