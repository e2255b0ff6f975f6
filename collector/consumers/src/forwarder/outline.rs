//! Where the spans of a request lie, so that it can be cut without being decoded.
//!
//! Promise: what is [`framed`](Outline::framed) holds the chosen spans' own bytes under copies of what they lay under, unknown
//! fields included. The request passed the walk; on other bytes there is no panic, and what makes no sense ends the outline.

use std::ops::Range;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// The fields that lead down to the spans: `resource_spans`, `scope_spans`, `spans`.
const PATH: [u32; 3] = [1, 2, 2];

/// The spans of a request, in order.
#[derive(Debug, Default)]
pub(super) struct Outline {
    spans: Vec<Place>,
    /// Of each `ResourceSpans`, the fields that are not `scope_spans`.
    resources: Vec<Vec<Range<usize>>>,
    /// Of each `ScopeSpans`, the fields that are not `spans`.
    scopes: Vec<Vec<Range<usize>>>,
}

/// Where one span lies.
#[derive(Clone, Debug)]
struct Place {
    resource: usize,
    scope: usize,
    /// Its field, key and length included.
    field: Range<usize>,
}

/// A field of a message: its number, itself, and its payload where it has a length.
struct Field {
    number: u32,
    whole: Range<usize>,
    payload: Option<Range<usize>>,
}

impl Outline {
    pub(super) fn of(request: &[u8]) -> Self {
        let mut outline = Self::default();
        for resource_spans in fields(request, 0..request.len()) {
            let (PATH0, Some(inner)) = (resource_spans.number, resource_spans.payload) else { continue };
            outline.resources.push(Vec::new());
            for field in fields(request, inner) {
                match (field.number, field.payload) {
                    (PATH1, Some(inner)) => outline.scope(request, inner),
                    _ => outline.resources.last_mut().expect("pushed above").push(field.whole),
                }
            }
        }
        outline
    }

    fn scope(&mut self, request: &[u8], inner: Range<usize>) {
        let (resource, scope) = (self.resources.len() - 1, self.scopes.len());
        let mut rest = Vec::new();
        for field in fields(request, inner) {
            match (field.number, field.payload) {
                (PATH2, Some(_)) => self.spans.push(Place { resource, scope, field: field.whole }),
                _ => rest.push(field.whole),
            }
        }
        self.scopes.push(rest);
    }

    /// How many spans there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// How many bytes the span takes, without what it lies under.
    pub(super) fn span_bytes(&self, index: usize) -> usize {
        self.spans[index].field.len()
    }

    /// How many bytes the copies of what the span lies under take.
    pub(super) fn shell_bytes(&self, index: usize) -> usize {
        let place = &self.spans[index];
        let rest = self.resources[place.resource].iter().chain(&self.scopes[place.scope]);
        // Two keys and two lengths around them.
        rest.map(ExactSizeIterator::len).sum::<usize>() + 2 * 6
    }

    /// A request with these spans of `request`, whose indices must ascend.
    pub(super) fn framed(&self, request: &[u8], spans: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let chosen: Vec<&Place> = spans.into_iter().filter_map(|index| self.spans.get(index)).collect();
        let mut out = Vec::new();
        for of_resource in chosen.chunk_by(|a, b| a.resource == b.resource) {
            let mut resource = copied(request, &self.resources[of_resource[0].resource]);
            for of_scope in of_resource.chunk_by(|a, b| a.scope == b.scope) {
                let mut scope = copied(request, &self.scopes[of_scope[0].scope]);
                of_scope.iter().for_each(|place| scope.extend_from_slice(&request[place.field.clone()]));
                put(&mut resource, PATH[1], &scope);
            }
            put(&mut out, PATH[0], &resource);
        }
        out
    }
}

const PATH0: u32 = PATH[0];
const PATH1: u32 = PATH[1];
const PATH2: u32 = PATH[2];

fn copied(request: &[u8], fields: &[Range<usize>]) -> Vec<u8> {
    fields.iter().flat_map(|field| &request[field.clone()]).copied().collect()
}

fn put(out: &mut Vec<u8>, number: u32, message: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// The fields of the message that lies there.
fn fields(request: &[u8], message: Range<usize>) -> impl Iterator<Item = Field> {
    let end = message.end;
    let mut at = message.start;
    std::iter::from_fn(move || {
        let mut rest = request.get(at..end).filter(|rest| !rest.is_empty())?;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let payload = if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let from = end - rest.remaining();
            rest = rest.get(length..)?;
            Some(from..from + length)
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            None
        };
        let whole = at..end - rest.len();
        at = whole.end;
        Some(Field { number, whole, payload })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forwarder::tests::library;

    /// Every real export, cut at every span and put together again, holds the same spans under the same resources and scopes.
    #[test]
    fn a_request_cut_and_joined_is_the_same() {
        for (name, request) in library() {
            let outline = Outline::of(&request);
            let whole: Vec<_> = emberd_model::wire::spans(&request).map(|found| found.span.raw).collect();
            assert_eq!(outline.len(), whole.len(), "{name}");
            for cut in 0..=outline.len() {
                let mut joined = outline.framed(&request, 0..cut);
                let left = joined.len();
                joined.extend(outline.framed(&request, cut..outline.len()));
                let spans: Vec<_> = emberd_model::wire::spans(&joined).collect();
                assert!(spans.iter().map(|found| found.span.raw).eq(whole.iter().copied()), "{name} cut at {cut}");
                let services = |request| -> Vec<String> {
                    emberd_model::wire::spans(request)
                        .map(|found| {
                            format!(
                                "{:?}{}",
                                found.resource.attributes().map(|a| a.key).collect::<Vec<_>>(),
                                found.scope.name
                            )
                        })
                        .collect()
                };
                assert_eq!(services(&joined), services(&request), "{name} cut at {cut}");
                let bytes: usize = (0..cut).map(|index| outline.span_bytes(index) + outline.shell_bytes(index)).sum();
                assert!(left <= bytes, "{name}: {left} bytes where at most {bytes} were promised");
            }
        }
    }

    proptest! {
        /// Bytes that make no sense end the outline, and nothing else.
        #[test]
        fn noise_has_an_outline(noise in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>()) {
            let outline = Outline::of(&noise);
            outline.framed(&noise, 0..outline.len());
            let mut request = library().remove(0).1.to_vec();
            let at = flip.index(request.len());
            request[at] ^= 1 << (at % 8);
            let outline = Outline::of(&request);
            outline.framed(&request, 0..outline.len());
        }
    }
}
