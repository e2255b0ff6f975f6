use std::convert::Infallible;
use std::task::Poll;

use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

const KIB: usize = 1024;
const PATIENCE: Patience = Patience { idle: Duration::from_secs(15), bytes_per_second_min: KIB };

fn pieces(of: Vec<Bytes>) -> Pieces<impl Body<Data = Bytes> + Unpin> {
    let frames = of.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    Pieces::of(StreamBody::new(stream::iter(frames)), PATIENCE)
}

/// So many pieces of this size, with a pause after each; then nothing, and no end.
fn dripping(bytes: usize, pause: Duration, count: usize) -> Pieces<impl Body<Data = Bytes> + Unpin> {
    let drops = stream::unfold(0, move |drop| async move {
        if drop == count {
            return std::future::pending().await;
        }
        if drop > 0 {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; bytes]))), drop + 1))
    });
    Pieces::of(StreamBody::new(drops.boxed()), PATIENCE)
}

fn numbered(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A body in one piece stays that piece, paid for once, by its size.
#[tokio::test]
async fn one_piece_is_not_copied() {
    let wire = numbered(100 * KIB);
    for announced in [Some(100 * KIB as u64), None] {
        let in_flight = InFlight::new(128 * KIB, Duration::ZERO);
        let (body, held) = pieces(vec![wire.clone()]).whole(announced, 1 << 20, &in_flight).await.unwrap();
        assert_eq!((body.as_ptr(), held.bytes(), in_flight.used()), (wire.as_ptr(), wire.len(), wire.len()));
    }
}

/// Whatever the pieces, announced or not, the body comes out whole and all of it is paid for.
#[tokio::test]
async fn pieces_become_the_body() {
    let in_flight = InFlight::new(1 << 20, Duration::ZERO);
    for len in [0, 1, 4095, 4096, 4097, 100_000, 300_000] {
        for step in [1, 1000, 16 * KIB, 299_999] {
            if len / step > 5000 {
                continue;
            }
            let wire = numbered(len);
            let parts: Vec<_> = wire.chunks(step).map(Bytes::copy_from_slice).collect();
            for announced in [Some(len as u64), None] {
                let (body, held) = pieces(parts.clone()).whole(announced, len, &in_flight).await.unwrap();
                assert_eq!(body, wire, "{len} by {step}");
                assert!(held.bytes() >= len && held.bytes() <= len.max(4 * KIB), "{len} by {step}: {}", held.bytes());
                drop(held);
                assert_eq!(in_flight.used(), 0);
            }
        }
    }
}

/// What is announced takes nothing; what has come takes at most four times of itself.
#[tokio::test(start_paused = true)]
async fn nothing_is_set_aside_for_an_announcement() {
    const ANNOUNCED: u64 = 64 << 20;
    let in_flight = InFlight::new(256 << 20, Duration::ZERO);
    let mut body = dripping(1000, Duration::from_millis(10), 50);
    let whole = body.whole(Some(ANNOUNCED), ANNOUNCED as usize, &in_flight);
    tokio::pin!(whole);
    let mut came = 0;
    while came < 50_000 {
        assert!(futures_util::poll!(whole.as_mut()).is_pending());
        came += 1000;
        assert!(in_flight.used() <= (4 * came).max(4 * KIB), "{} for {came}", in_flight.used());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A body that is too large is refused at once if it says so, and else at the byte.
#[tokio::test]
async fn large_bodies_are_refused() {
    let in_flight = InFlight::new(1 << 20, Duration::ZERO);
    let cases = [
        (Some(1001), vec![], "announced"),
        (None, vec![numbered(1001)], "in one piece"),
        (None, vec![numbered(600), numbered(401)], "in two"),
    ];
    for (announced, parts, what) in cases {
        let refused = pieces(parts).whole(announced, 1000, &in_flight).await.unwrap_err();
        assert!(matches!(refused, Refusal::TooLarge { max_bytes: 1000 }), "{what}: {refused:?}");
        assert_eq!(in_flight.used(), 0);
    }
    let parts = vec![numbered(600), numbered(400)];
    assert_eq!(pieces(parts).whole(None, 1000, &in_flight).await.unwrap().0.len(), 1000);
}

/// A body that pauses is let go; so is one that never pauses and yet brings next to nothing, whatever it sent before.
#[tokio::test(start_paused = true)]
async fn slow_bodies_are_let_go() {
    let second = Duration::from_secs(1);
    let in_flight = InFlight::new(1 << 20, Duration::ZERO);
    let refusal = async |mut body: Pieces<_>| {
        let since = Instant::now();
        let refusal = body.whole(Some(900_000), 1 << 20, &in_flight).await.unwrap_err();
        (refusal, since.elapsed())
    };
    let (stalled, after) = refusal(dripping(500_000, second, 1)).await;
    assert!(matches!(stalled, Refusal::Stalled(_)), "{stalled:?}");
    assert_eq!(after.as_secs(), 15);
    let mut body = dripping(100, second, 10_000);
    let since = Instant::now();
    let slow = body.whole(None, 1 << 20, &in_flight).await.unwrap_err();
    assert!(matches!(slow, Refusal::Slow { bytes: 1500..=1600, .. }), "{slow:?}");
    assert_eq!(since.elapsed().as_secs(), 15);
    assert_eq!(in_flight.used(), 0);

    // Two kilobytes a second are slow, and enough.
    let drops = stream::iter(0..40).then(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; 2 * KIB])))
    });
    let mut body = Pieces::of(StreamBody::new(drops.boxed()), PATIENCE);
    assert_eq!(body.whole(None, 1 << 20, &in_flight).await.unwrap().0.len(), 80 * KIB);
}

/// Time that a body spends ready to be read is nobody's slowness.
#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_late_blames_nobody() {
    let mut polls = 0;
    let frames = stream::poll_fn(move |cx| {
        polls += 1;
        match polls {
            1 | 3 => Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(numbered(20_000))))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(None),
        }
    });
    let mut body = Pieces::of(StreamBody::new(frames), PATIENCE);
    assert_eq!(body.next().await.unwrap().unwrap().len(), 20_000);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(body.next().await.unwrap().unwrap().len(), 20_000);
    assert!(body.next().await.unwrap().is_none());
}
