//! The OTLP/HTTP door: `POST /v1/traces`, protobuf and JSON.
//!
//! Promise: an answer has the form of its request, errors too: a `google.rpc.Status` in protobuf or JSON; only 429 and 503 mean
//! "again", and both say when.
//! On the wire: HTTP/1.1 and HTTP/2; `content-encoding` gzip, deflate, zstd or none. One path, after percent-decoding it once;
//! a query is ignored.
//! Not here: what is done with a request (`export`), which status goes with which reason (`refusal`).
//! Kept by: `tests/bad_input.toml` (sent by `tests/it/catalogue`), `tests/it/http_table.rs`.

mod answer;
mod cors;
mod media;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

pub use cors::{BadOrigin, Origins};
pub(crate) use media::Form;

use crate::body::Pieces;
use crate::export::{Answer, Head, Intake};
use crate::inflate::{Coding, inflate};
use crate::refusal::{Refusal, excerpt};
use crate::reply::Reply;

const PATH: &str = "/v1/traces";
/// What `accept-encoding` says when a body's encoding is not known.
const ENCODINGS: &str = "gzip, deflate, zstd";

/// Answers one request.
pub(crate) async fn serve<B>(intake: &Intake, request: Request<B>) -> Response<Reply>
where
    B: Body<Data = Bytes> + Unpin,
{
    let origin = intake.senders.borrow().origins.allowed(request.headers());
    if request.method() == Method::OPTIONS && cors::is_preflight(request.headers()) && is_traces(request.uri().path()) {
        return match &origin {
            Some(origin) => cors::preflight(origin, request.headers()),
            None => answer::refused(&cors::not_allowed(request.headers()), Form::Json),
        };
    }
    let since = Instant::now();
    let deadline = since + intake.config.request_timeout;
    let named = Form::of(request.headers());
    let form = named.unwrap_or(Form::Json);
    let transport = form.transport();
    let is_http1 = request.version() < Version::HTTP_2;
    let is_head = request.method() == Method::HEAD;
    intake.counters.request(transport);
    let export = export(intake, Head { transport, since, deadline }, named, request);
    let outcome = timeout_at(deadline, export).await.unwrap_or(Err(Refusal::Deadline(deadline - since)));
    let mut response = match outcome {
        Ok(kept) => {
            intake.counters.answered(transport, kept.rejected > 0, since.elapsed());
            answer::kept(kept, form)
        }
        Err(refusal) => {
            intake.counters.refused(transport, refusal.verdict().reason);
            let mut response = answer::refused(&refusal, form);
            if is_http1 && answer::is_last(&refusal) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    };
    if let Some(origin) = &origin {
        cors::allow(origin, response.headers_mut());
    }
    if is_head {
        // hyper leaves the body away over HTTP/1 only; over HTTP/2 it would be a protocol error.
        *response.body_mut() = Reply::default();
    }
    response
}

async fn export<B>(intake: &Intake, from: Head, form: Option<Form>, request: Request<B>) -> Result<Answer, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    if !is_traces(head.uri.path()) {
        return Err(Refusal::Unknown(excerpt(head.uri.path().as_bytes())));
    }
    if head.method != Method::POST {
        return Err(Refusal::Method(excerpt(head.method.as_str().as_bytes())));
    }
    let admitted = intake.admit(from, &head.headers)?;
    let form = form.ok_or_else(|| media::unknown(&head.headers))?;
    let coding = coding(&head.headers)?;
    let announced = body.size_hint().exact();
    let max_bytes = intake.config.max_request_bytes;
    let mut pieces = Pieces::of(body, intake.config.patience());
    let (wire, mut held) = pieces.whole(announced, max_bytes, &intake.in_flight).await?;
    intake.counters.body(from.transport, wire.len());
    let mut body = inflate(coding, wire, max_bytes, &intake.in_flight, &mut held, &intake.counters).await?;
    if form == Form::Json {
        (body, held) = intake.rewrite(body, held).await?;
    }
    intake.export(&admitted, body, held).await
}

/// One rule for how a path may be written: percent-decoded once, it is the path, byte for byte.
fn is_traces(path: &str) -> bool {
    let mut rest = path.as_bytes();
    PATH.bytes().all(|expected| {
        let (byte, after) = match *rest {
            [b'%', high, low, ref after @ ..] => {
                let digit = |c: u8| (c as char).to_digit(16);
                let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
                ((high << 4 | low) as u8, after)
            }
            [byte, ref after @ ..] => (byte, after),
            [] => return false,
        };
        rest = after;
        byte == expected
    }) && rest.is_empty()
}

fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Coding::Identity) };
    // Codings upon codings are bombs more often than bodies.
    let known = match values.next() {
        None => value.to_str().ok().and_then(|name| Coding::named(name.trim())),
        Some(_) => None,
    };
    known.ok_or_else(|| Refusal::UnknownCoding {
        header: "content-encoding",
        value: excerpt(value.as_bytes()),
        takes: ENCODINGS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one way to write the path, and percent-encoding does not make another resource of it.
    #[test]
    fn the_path_is_decoded_once() {
        for path in ["/v1/traces", "/v1/%74races", "/%76%31/traces", "%2Fv1%2ftraces"] {
            assert!(is_traces(path), "{path}");
        }
        for path in [
            "/v1/trace",
            "/v1/traces/",
            "//v1/traces",
            "/v1/%2574races",
            "/v1/traces%",
            "/v1/trace%7",
            "/V1/traces",
            "",
        ] {
            assert!(!is_traces(path), "{path}");
        }
    }
}
