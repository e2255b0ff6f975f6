//! The forwarder's cutting of requests, without decoding them.

use bytes::Bytes;
use emberd_consumers::forwarder::inside::{Piece, cut, singles};
use emberd_model::wire::{Limits, check, spans, without_rejected};

use super::head;
use crate::views::{Flat, by_views};

/// However a request is cut, each piece is one that the walk takes whole, the pieces within their bounds, and laid end to end
/// they show the same spans, under the same resources and scopes, at the offsets that they say.
pub(super) fn outline(input: &[u8]) {
    let ([bytes_max, spans_max, ..], request) = head::<4>(input);
    let request = Bytes::from(without_rejected(request, &Limits::default()));
    let count = spans(&request).count() as u64;
    if count == 0 {
        return;
    }
    let (bytes_max, spans_max) = (16 * usize::from(bytes_max), 1 + u64::from(spans_max % 16));
    let whole = by_views(&request);
    let pieces = cut(request.clone(), count, bytes_max, spans_max);
    assert!(pieces.iter().all(|piece| piece.spans <= spans_max));
    assert!(pieces.iter().all(|piece| piece.body.len() <= bytes_max || piece.spans == 1), "a piece is too large");
    are_the_whole(&pieces, &whole);
    let singles = singles(request, count);
    assert!(singles.iter().all(|single| single.spans == 1));
    are_the_whole(&singles, &whole);
}

fn are_the_whole(pieces: &[Piece], whole: &[Flat]) {
    let mut first = 0;
    for piece in pieces {
        assert_eq!(piece.first, first);
        let checked = check(&piece.body, &Limits::default()).expect("a piece is well-formed");
        assert_eq!((u64::from(checked.spans), checked.rejected), (piece.spans, 0), "{:?}", checked.reasons);
        first += piece.spans;
    }
    assert_eq!(first, whole.len() as u64);
    let joined: Vec<u8> = pieces.iter().flat_map(|piece| &piece.body[..]).copied().collect();
    assert!(by_views(&joined) == whole, "the pieces show other spans");
}

/// Bytes that make no sense are cut somehow, and nothing breaks.
pub(super) fn outline_noise(input: &[u8]) {
    let ([bytes_max, spans_max, count, _], request) = head::<4>(input);
    let request = Bytes::copy_from_slice(request);
    let count = 1 + u64::from(count % 8);
    let _ = cut(request.clone(), count, usize::from(bytes_max), 1 + u64::from(spans_max % 8));
    let _ = singles(request, count);
}
