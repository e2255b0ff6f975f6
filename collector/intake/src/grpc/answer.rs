//! Answers in gRPC's form.

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;

use super::{ENCODINGS, frame};
use crate::export::Answer;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::status;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// An empty message, framed: full success.
const EMPTY: Bytes = Bytes::from_static(&[0; frame::PREFIX_BYTES]);

/// The spans are durable, or can never be.
pub(super) fn kept(answer: Answer) -> Response<Reply> {
    if answer.rejected == 0 {
        return ok(EMPTY);
    }
    let partial = ExportTracePartialSuccess { rejected_spans: answer.rejected.into(), error_message: answer.message };
    let message = ExportTraceServiceResponse { partial_success: Some(partial) };
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(frame::PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    framed.put_slice(&message.encode_to_vec());
    ok(framed.freeze())
}

/// A framed message and the status OK.
pub(super) fn ok(framed: Bytes) -> Response<Reply> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Reply::with_trailers(framed, trailers));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A trailers-only answer; plain HTTP to what is not gRPC.
pub(super) fn refused(refusal: &Refusal) -> Response<Reply> {
    if let Refusal::NotHttp2 | Refusal::MediaType(_) | Refusal::Method(_) = refusal {
        return plain(refusal);
    }
    let mut response = Response::new(Reply::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(STATUS, HeaderValue::from(refusal.verdict().code as u16));
    headers.insert(MESSAGE, percent_encoded(&refusal.to_string()));
    let details = BASE64_STANDARD_NO_PAD.encode(status::protobuf(refusal));
    // Base64 is always a header value.
    if let Ok(details) = HeaderValue::try_from(details) {
        headers.insert(DETAILS, details);
    }
    if let Refusal::UnknownCoding { .. } = refusal {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
    }
    response
}

fn plain(refusal: &Refusal) -> Response<Reply> {
    let mut response = Response::new(Reply::of(refusal.to_string()));
    *response.status_mut() = refusal.verdict().http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    match refusal {
        Refusal::Method(_) => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
        Refusal::NotHttp2 => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
        _ => {}
    }
    response
}

/// `grpc-message` is percent-encoded UTF-8, so that any text is a header value. Cut to what clients' header limits bear.
fn percent_encoded(message: &str) -> HeaderValue {
    const BYTES_MAX: usize = 512;
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes().take(BYTES_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static("refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text from outside cannot break out of the header, whatever it holds.
    #[test]
    fn messages_are_header_values() {
        let cases = [("plain text", "plain text"), ("100% é\n", "100%25 %C3%A9%0A"), ("\0\x7f", "%00%7F")];
        for (text, expected) in cases {
            assert_eq!(percent_encoded(text), expected);
        }
    }
}
