use std::time::Duration;

use emberd_log::Appending;
use emberd_log::sim::SimDisk;
use emberd_model::{UnixNanos, clock::Still};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};

use super::*;
use crate::append::Strays;

/// Takes nothing, and fails the test if it is asked to.
struct Sealed;

impl Appender for Sealed {
    fn append(&self, _: Entry) -> Appending {
        panic!("nothing may be appended any more");
    }
}

fn intake() -> (Intake, Strays) {
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::new(anywhere, anywhere);
    let in_flight = Arc::new(InFlight::new(config.in_flight_bytes, Duration::ZERO));
    let (send, strays) = Strays::new();
    let intake = Intake {
        counters: Arc::new(Counters::new(Arc::clone(&in_flight), None)),
        senders: Senders::of(&mut config),
        config,
        in_flight,
        appender: Arc::new(Sealed),
        clock: Arc::new(Still::at(UnixNanos(1))),
        strays: send,
        stopping: AtomicBool::new(false),
        serving: Arc::new(AtomicBool::new(true)),
    };
    (intake, strays)
}

fn request(path: &str, media: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let request = Request::post(path).version(http::Version::HTTP_2).header("content-type", media);
    request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A request that slips in between the word to stop and the closing of its connection is told to come again.
#[tokio::test]
async fn new_requests_are_refused_while_stopping() {
    let (intake, _strays) = intake();
    intake.stopping.store(true, Ordering::Relaxed);
    let answer = crate::grpc::serve(&intake, request(EXPORT, "application/grpc", &[0; 5])).await;
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert!(answer.headers().contains_key("grpc-status-details-bin"));
    for media in ["application/x-protobuf", "application/json"] {
        let answer = crate::http::serve(&intake, request("/v1/traces", media, b"{}")).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "5");
        assert_eq!(answer.headers()["content-type"], media);
    }
    let health = request("/grpc.health.v1.Health/Check", "application/grpc", &[0; 5]);
    let answer = crate::grpc::serve(&intake, health).await;
    let said = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(said[5..], [0x08, 2], "health is answered to the end: not serving");
    assert_eq!(intake.in_flight.used(), 0);
}

/// What a client hears about rejected spans is short, however many there are.
#[test]
fn reasons_are_cut_short() {
    let reasons = (0..1_000).map(|span| format!("span {span}: trace id is 15 bytes long")).collect();
    let answer = Answer::to(&Checked { spans: 5, rejected: 1_000, reasons, ..Checked::default() });
    assert_eq!(answer.rejected, 1_000);
    assert!(
        answer.message.starts_with("1000 of 1005 spans cannot be kept: span 0: trace id is 15 bytes long; span 1: ")
    );
    assert!(answer.message.len() < REASONS_BYTES_MAX + 100, "{} bytes", answer.message.len());
}

/// The bytes in which what was turned away is counted: they are read for ever, and what is written is still the same.
#[test]
fn the_first_form_of_the_counts_is_read_and_written_for_ever() {
    use crate::turned_away::{Line, TurnedAway, What, read};
    use emberd_model::ledger::Hour;

    const SLOT: &str = "7031cac5107a070005000000000000000200627564676574000000000000000000000000000000000000000000000000000000\
        00000000000000000000000000";
    let slot: Vec<u8> =
        (0..SLOT.len()).step_by(2).map(|at| u8::from_str_radix(&SLOT[at..at + 2], 16).unwrap()).collect();
    let (old, new, dir) = (SimDisk::new(), SimDisk::new(), std::path::Path::new("/ledger"));
    old.put(&dir.join("turned_away"), slot.clone());
    let transport = crate::Transport::Grpc;
    let line =
        Line { hour: Hour(490_000), what: What::Refused, transport: transport.as_str(), reason: "budget".into() };
    assert_eq!(read(&old, dir).unwrap(), std::collections::BTreeMap::from([(line, 5)]));
    let counts = TurnedAway::open(Arc::new(new.clone()), dir).unwrap();
    counts.add(Hour(490_000), What::Refused, transport, "budget", 5);
    assert_eq!(new.bytes(&dir.join("turned_away")).unwrap(), slot);
}
