use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::body::Patience;

fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

async fn read(pieces: Vec<Bytes>, max_bytes: usize) -> Result<(Message, Held), Refusal> {
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let patience = Patience { idle: Duration::from_secs(1), bytes_per_second_min: 1 };
    let mut body = Pieces::of(StreamBody::new(stream::iter(frames)), patience);
    message(&mut body, max_bytes, &InFlight::new(1 << 20, Duration::ZERO)).await
}

/// However a message falls onto frames, prefix included, it comes out whole.
#[tokio::test]
async fn any_split_gives_the_same_message() {
    let message = b"eleven byte";
    let wire = Bytes::from(framed(1, 11, message));
    for first in 0..=wire.len() {
        for second in first..=wire.len() {
            let pieces = vec![wire.slice(..first), wire.slice(first..second), wire.slice(second..)];
            let (read, held) = read(pieces, 11).await.unwrap();
            assert_eq!((read.compressed, read.bytes.as_ref()), (true, &message[..]), "{first}, {second}");
            assert!(held.bytes() >= message.len());
        }
    }
}

/// A message that came in one frame goes on as that frame's memory.
#[tokio::test]
async fn one_frame_is_not_copied() {
    let wire = Bytes::from(framed(0, 100_000, &vec![7; 100_000]));
    let (message, _held) = read(vec![wire.clone()], 100_000).await.unwrap();
    assert_eq!(message.bytes.as_ptr(), wire[PREFIX_BYTES..].as_ptr());
}

/// What is not one well-framed message is refused for what it is, large lengths before anything is allocated.
#[tokio::test]
async fn bad_frames_are_refused() {
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("nothing", vec![], "before its message begins"),
        ("half a prefix", vec![0, 0, 0], "before its message begins"),
        ("half a message", framed(0, 10, b"half"), "within its message"),
        ("a flag of 2", framed(2, 0, b""), "neither 0 nor 1"),
        ("a second message", [framed(0, 1, b"a"), framed(0, 1, b"b")].concat(), "second message"),
        ("a byte too many", framed(0, 1, b"ab"), "second message"),
        ("4 GiB announced", framed(0, u32::MAX, b""), "more than 1000 bytes"),
        ("a byte over the limit", framed(0, 1001, b""), "more than 1000 bytes"),
    ];
    for (what, wire, expected) in cases {
        // As one frame, and byte by byte.
        let pieces = vec![Bytes::from(wire.clone())];
        let dribble = wire.iter().map(|&byte| Bytes::from(vec![byte])).collect();
        for pieces in [pieces, dribble] {
            let message = read(pieces, 1000).await.unwrap_err().to_string();
            assert!(message.contains(expected), "{what}: {message}");
        }
    }
}
