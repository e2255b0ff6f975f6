//! Copies of a request with some of its spans changed or left out; all else stays as it came, unknown fields included.

use std::iter::Peekable;
use std::ops::Range;

use bytes::Bytes;

use super::read::{LENGTH, Reader, key};
use super::view::{Found, spans};
use super::write;

/// What becomes of one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where the span lies in the request: [`SpanView::place`](super::SpanView::place). To leave out several neighbours
    /// at once, the places may be joined.
    pub place: Range<usize>,
    /// The encoded `Span` that takes its place; none leaves it out.
    pub to: Option<Vec<u8>>,
}

/// A copy of `request` with `changes` made, which must be in the order of their places.
///
/// A change whose place is not that of a span (or of a whole `ResourceSpans` or `ScopeSpans`) is not made, nor are
/// those after it.
pub fn edited(request: &[u8], changes: &[Change]) -> Vec<u8> {
    let longer: usize = changes.iter().filter_map(|change| change.to.as_ref()).map(Vec::len).sum();
    copied(request, longer, changes.iter().map(|change| (&change.place, change.to.as_deref())))
}

/// A copy of `request` with those of its spans alone of which `keep` says so, by their place among all and by what they are, and how many were
/// left out; the request itself where none was.
pub fn only(request: &Bytes, keep: impl Fn(usize, &Found<'_>) -> bool) -> (Bytes, u32) {
    let left_out = spans(request).enumerate().filter(|(nth, found)| !keep(*nth, found));
    let cuts: Vec<Change> = left_out.map(|(_, found)| Change { place: found.span.place(), to: None }).collect();
    if cuts.is_empty() {
        return (request.clone(), 0);
    }
    (edited(request, &cuts).into(), u32::try_from(cuts.len()).unwrap_or(u32::MAX))
}

/// What takes the place of the fields that lie there.
type Edit<'c> = (&'c Range<usize>, Option<&'c [u8]>);

/// A copy of `request`, about `longer` bytes longer, with `edits` made.
pub(super) fn copied<'c>(request: &[u8], longer: usize, edits: impl Iterator<Item = Edit<'c>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(request.len() + longer);
    copy(Reader::new(request), &[1, 2, 2], &mut edits.peekable(), &mut out);
    out
}

/// Copies one message. `path` holds the numbers of the fields that lead from here down to the spans.
fn copy<'c>(
    mut reader: Reader<'_>,
    path: &[u32],
    edits: &mut Peekable<impl Iterator<Item = Edit<'c>>>,
    out: &mut Vec<u8>,
) {
    let bytes = reader.bytes;
    let mut copied = reader.at;
    while let ([number, path @ ..], Some((place, to))) = (path, edits.peek())
        && place.start < bytes.len()
    {
        let field = reader.at;
        let Ok(inner) = next_element(&mut reader, *number) else { break };
        if place.start == field {
            // The place may be that of several neighbours.
            while reader.at < place.end && next_element(&mut reader, *number).is_ok() {}
            if reader.at != place.end {
                break;
            }
            out.extend_from_slice(&bytes[copied..field]);
            if let Some(to) = to {
                write::bytes(out, *number, to);
            }
            copied = reader.at;
            edits.next();
        } else if let Some(inner) = inner
            && place.start < inner.bytes.len()
        {
            out.extend_from_slice(&bytes[copied..field]);
            let message = write::open(out, *number);
            copy(inner, path, edits, out);
            write::close(out, message);
            copied = reader.at;
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Passes over one field: the message in it, if it is field `number`.
fn next_element<'a>(reader: &mut Reader<'a>, number: u32) -> Result<Option<Reader<'a>>, super::Malformed> {
    let next = reader.key()?;
    if next == key(number, LENGTH) {
        return reader.message().map(Some);
    }
    reader.skip(next).map(|()| None)
}
