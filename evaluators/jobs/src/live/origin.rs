//! What emitted a span, kept beside it; and spans with their origins as one encoded request again.
//!
//! Of a resource, its texts are kept: they name the service, the project and the prompt.

use std::sync::Arc;

use bytes::Bytes;
use emberd_model::wire::ResourceView;

/// Of a resource's texts, bytes that are kept.
const BYTES_MAX: usize = 16 << 10;

/// What emitted spans.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) service: Arc<str>,
    /// As an encoded `Resource`.
    pub(super) encoded: Vec<u8>,
}

impl Origin {
    pub(super) fn of(resource: &ResourceView<'_>) -> Self {
        let (mut encoded, mut service) = (Vec::new(), "");
        for attribute in resource.attributes() {
            let Some(text) = attribute.value().as_str() else { continue };
            if attribute.key == "service.name" && service.is_empty() {
                service = text;
            }
            if encoded.len() + attribute.key.len() + text.len() > BYTES_MAX {
                continue;
            }
            let (mut value, mut pair) = (Vec::new(), Vec::new());
            field(&mut value, 1, text.as_bytes());
            field(&mut pair, 1, attribute.key.as_bytes());
            field(&mut pair, 2, &value);
            field(&mut encoded, 1, &pair);
        }
        Self { service: service.into(), encoded }
    }
}

/// One request of these spans, each under a resource of its own unless it follows one of the same.
pub(super) fn request(spans: &[(&Origin, &[u8])]) -> Bytes {
    let mut request = Vec::new();
    for group in spans.chunk_by(|one, other| std::ptr::eq(one.0, other.0)) {
        let (mut scope, mut resource) = (Vec::new(), Vec::new());
        for (_, raw) in group {
            field(&mut scope, 2, raw);
        }
        if let Some((origin, _)) = group.first() {
            field(&mut resource, 1, &origin.encoded);
        }
        field(&mut resource, 2, &scope);
        field(&mut request, 1, &resource);
    }
    request.into()
}

/// A field of bytes, as protobuf writes it.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut len = bytes.len() as u64;
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}
