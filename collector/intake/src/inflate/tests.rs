use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::*;

const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];
const MIB: usize = 1 << 20;

fn compressed(coding: Coding, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::best();
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Zstd => zstd::bulk::compress(body, 3).unwrap(),
        Coding::Identity => body.to_vec(),
    }
}

/// Bytes that do not compress into nothing, so that cutting them short cuts something.
fn body(len: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8 + b'a'
    };
    (0..len).map(|_| next()).collect()
}

struct Run {
    outcome: Result<Bytes, Refusal>,
    inflated_bytes: u64,
    held_bytes: usize,
}

async fn run(coding: Coding, wire: Vec<u8>, max_bytes: usize, in_flight_bytes: usize) -> Run {
    run_beside(0, coding, wire, max_bytes, in_flight_bytes).await
}

/// The same, while others hold `others_bytes`.
async fn run_beside(
    others_bytes: usize,
    coding: Coding,
    wire: Vec<u8>,
    max_bytes: usize,
    in_flight_bytes: usize,
) -> Run {
    let in_flight = Arc::new(InFlight::new(in_flight_bytes, Duration::ZERO));
    let _others = in_flight.hold(others_bytes).await.unwrap();
    let counters = Counters::new(Arc::clone(&in_flight), None);
    let mut held = in_flight.hold(wire.len()).await.unwrap();
    let outcome = inflate(coding, wire.into(), max_bytes, &in_flight, &mut held, &counters).await;
    Run { outcome, inflated_bytes: counters.snapshot().inflated_bytes, held_bytes: held.bytes() }
}

/// What was compressed comes out, at sizes around the buffer's steps, and is paid for afterwards.
#[tokio::test]
async fn bodies_come_out_as_they_went_in() {
    for coding in CODINGS {
        for len in [0, 1, 31, 32, 33, FIRST_BYTES, FIRST_BYTES + 1, STEP_BYTES, STEP_BYTES + 1, 3 * MIB] {
            let body = body(len);
            let run = run(coding, compressed(coding, &body), 4 * MIB, 16 * MIB).await;
            assert_eq!(run.outcome.unwrap(), body, "{coding:?} {len}");
            assert!(run.held_bytes >= len, "{coding:?} {len}: {} held", run.held_bytes);
        }
    }
}

/// A body of exactly the limit is taken, one more byte is not, and no bomb gets further than that byte.
#[tokio::test]
async fn inflating_stops_at_the_limit() {
    for coding in CODINGS {
        let whole = run(coding, compressed(coding, &vec![0; MIB]), MIB, 16 * MIB).await;
        assert_eq!(whole.outcome.unwrap().len(), MIB, "{coding:?}");
        for len in [MIB + 1, 100 * MIB] {
            let run = run(coding, compressed(coding, &vec![0; len]), MIB, 16 * MIB).await;
            assert!(matches!(run.outcome, Err(Refusal::TooLarge { max_bytes: MIB })), "{coding:?} {len}");
            assert!(run.inflated_bytes <= MIB as u64, "{coding:?} {len}: {} inflated", run.inflated_bytes);
            assert!(run.held_bytes <= 4 * MIB, "{coding:?} {len}: {} held", run.held_bytes);
        }
    }
}

/// Several gzip members, or zstd frames, are one body, and the limit holds for their sum.
#[tokio::test]
async fn members_add_up() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let (one, two) = (body(1000), body(2000));
        let wire = [compressed(coding, &one), compressed(coding, &two)].concat();
        let whole = run(coding, wire.clone(), 3000, MIB).await;
        assert_eq!(whole.outcome.unwrap(), [one, two].concat());
        let beyond = run(coding, wire, 2999, MIB).await;
        assert!(matches!(beyond.outcome, Err(Refusal::TooLarge { .. })), "{coding:?}");
    }
}

/// A body cut off at any byte, or followed by anything, is malformed: a part of it is never taken for the whole.
#[tokio::test]
async fn a_part_is_not_the_whole() {
    for coding in CODINGS {
        let whole = compressed(coding, &body(500));
        for cut in 1..whole.len() {
            let run = run(coding, whole[..cut].to_vec(), MIB, MIB).await;
            assert!(matches!(run.outcome, Err(Refusal::Undecodable { .. })), "{coding:?} cut at {cut}");
        }
        for tail in [&b"x"[..], b"trailing garbage", &[0x1f, 0x8b]] {
            let run = run(coding, [&whole, tail].concat(), MIB, MIB).await;
            assert!(matches!(run.outcome, Err(Refusal::Undecodable { .. })), "{coding:?} followed by {tail:?}");
        }
        let run = run(coding, b"not compressed at all".to_vec(), MIB, MIB).await;
        assert!(matches!(run.outcome, Err(Refusal::Undecodable { .. })), "{coding:?}");
    }
}

/// A frame that asks for a window beyond what every decoder must have is refused before the window is allocated, and a window
/// within it is paid for.
#[tokio::test]
async fn large_zstd_windows_are_refused() {
    let with_window = |log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(b"small").unwrap();
        encoder.finish().unwrap()
    };
    let common = run(Coding::Zstd, with_window(23), MIB, 16 * MIB).await;
    assert_eq!(common.outcome.unwrap(), "small");
    let without_room = run_beside(4 * MIB, Coding::Zstd, with_window(23), MIB, 8 * MIB).await;
    assert!(matches!(without_room.outcome, Err(Refusal::Crowded { .. })));
    for log in [24, 27, 30] {
        let large = run(Coding::Zstd, with_window(log), MIB, 16 * MIB).await;
        assert!(matches!(large.outcome, Err(Refusal::Undecodable { .. })), "2^{log}");
    }
}

/// Inflating takes no byte that was not set aside first, and gives back what it does not keep.
#[tokio::test]
async fn inflating_stops_where_the_room_ends() {
    for coding in CODINGS {
        let wire = compressed(coding, &vec![0; 2 * MIB]);
        let run = run_beside(7 * MIB, coding, wire.clone(), 4 * MIB, 8 * MIB).await;
        assert!(matches!(run.outcome, Err(Refusal::Crowded { .. })), "{coding:?}");
        assert!(run.inflated_bytes <= MIB as u64);
        let alone = self::run(coding, wire, 4 * MIB, 16 * MIB).await;
        assert_eq!(alone.outcome.unwrap().len(), 2 * MIB);
        assert!(alone.held_bytes <= 4 * MIB, "{coding:?}: {} held", alone.held_bytes);
    }
}
