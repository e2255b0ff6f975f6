//! Mending for Phoenix.

use bytes::Bytes;
use emberd_model::wire::{self, Limits, check, without_rejected};
use emberd_model::{Flags, SpanId, TraceId};
use emberd_phoenix::mend as mend_request;
use prost::Message;

use crate::choices::Choices;
use crate::message;

/// What the walk keeps of a request can be mended: the walk takes all of the result, its spans are the same in the same order,
/// mending it again changes nothing, and what the walk did not flag needs no mending at all.
pub(super) fn mend(request: &[u8]) {
    let limits = Limits::default();
    let request = Bytes::from(without_rejected(request, &limits));
    let checked = check(&request, &limits).expect("what is left is well-formed");
    let mended = mend_request(&request).expect("what the walk takes, prost decodes");
    assert!(mended.unforwardable.is_empty(), "the walk let {:?} pass", mended.unforwardable);
    assert_eq!(mended.changed, mended.body != request, "it says that it changed something, or does not");
    assert!(mended.changed || mended.marks.is_empty());
    if !checked.flags.has(Flags::MEND) {
        assert!(!mended.changed, "the walk did not flag what needed this: {:?}", mended.marks);
    }

    let after = check(&mended.body, &limits).expect("a mended request is well-formed");
    assert_eq!((after.spans, after.rejected), (checked.spans, 0), "{:?}", after.reasons);
    assert_eq!(ids(&mended.body), ids(&request));
    for mark in &mended.marks {
        assert!(ids(&request).contains(&(mark.trace, mark.span)), "a mark of a span that is not there");
        assert!(mark.place.len() <= 100 && !mark.place.contains('\0'), "{mark:?}");
    }
    let twice = mend_request(&mended.body).expect("a mended request decodes");
    assert!(!twice.changed && twice.body == mended.body, "mending twice is not mending once: {:?}", twice.marks);
}

fn ids(request: &[u8]) -> Vec<(TraceId, SpanId)> {
    wire::spans(request).map(|found| (found.span.trace_id, found.span.span_id)).collect()
}

/// The same for requests that the input chooses, with texts and keys that OpenInference and others use.
pub(super) fn mend_forms(input: &[u8]) {
    mend(&message::request(&mut Choices::new(input)).encode_to_vec());
}
