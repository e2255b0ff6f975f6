//! What becomes of a log that does not give what was asked for.

use std::sync::Arc;

use emberd_log::{ReadError, SegmentId};
use emberd_model::Offset;

use super::sink::{Act, Over, Sink};
use super::source::{Place, batch, batches};

/// What is gone or damaged is counted and passed, what is beyond the head is clamped, and everything readable arrives.
#[tokio::test]
async fn what_cannot_be_read_is_counted_and_passed() {
    let sink = Sink::that(|_, _| Act::Take).listen(Over::Grpc).await;
    let place = Place::new();
    let disk = ReadError::Disk {
        segment: SegmentId(1),
        from: Offset(30),
        to: Offset(40),
        source: Arc::new(std::io::Error::other("ill")),
    };
    let script = [
        Err(ReadError::Gone { asked: Offset(0), tail: Offset(10) }),
        Ok(vec![batch(10, 5)]),
        Err(ReadError::Damaged { from: Offset(15), to: Offset(20) }),
        Ok(vec![batch(20, 10)]),
        Err(disk),
        Ok(vec![batch(30, 1)]),
    ];
    let progress = place.forward(sink.config(), script.into()).await;
    assert_eq!(sink.sink.taken(), (10..15).chain(20..31).collect::<Vec<_>>());
    let ledger = progress.ledger(Offset(31));
    assert_eq!((&ledger["lost"], &ledger["verified"], &ledger["pending"]), (&15.into(), &16.into(), &0.into()));
    for class in ["gone", "damaged", "disk"] {
        assert_eq!(ledger["failures"][class], 1, "{ledger}");
    }
    assert_eq!(place.cursor(), Some(Offset(31)));
}

/// A cursor from another log does not stall the forwarder.
#[tokio::test]
async fn a_cursor_beyond_the_head_is_clamped() {
    let sink = Sink::that(|_, _| Act::Take).listen(Over::Grpc).await;
    let place = Place::new();
    // As an older emberd left it: the book begins there.
    let file = emberd_log::CursorFile::open(place.path(), &place.name).unwrap();
    file.store(Offset(1_000)).unwrap();
    let script = [Err(ReadError::Ahead { asked: Offset(1_000), head: Offset(7) })];
    let progress = place.forward(sink.config(), script.into()).await;
    assert_eq!(progress.cursor(), Offset(7));
    assert_eq!(progress.ledger(Offset(7))["failures"]["ahead"], 1);
    assert_eq!(place.cursor(), Some(Offset(7)), "the file still says more than there is");
}

/// A torn cursor file costs repetition, never a span.
#[tokio::test]
async fn a_damaged_cursor_sends_everything_again() {
    let sink = Sink::that(|_, _| Act::Take).listen(Over::Grpc).await;
    let place = Place::new();
    std::fs::write(place.path().join("sink.journal"), "noise").unwrap();
    let progress = place.forward(sink.config(), batches([3, 3])).await;
    assert_eq!(sink.sink.taken(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(progress.ledger(Offset(6))["failures"]["cursor"], 1);
    assert_eq!(place.cursor(), Some(Offset(6)));
}
