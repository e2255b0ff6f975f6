//! The OTLP/gRPC door: `TraceService/Export`, and `grpc.health.v1.Health/Check`.
//!
//! Promise: the body's frames are read by hand, so that a message that came in one HTTP/2 frame goes to the log without a copy;
//! each bad input gets the code that OTLP asks for, which is not always the one that gRPC libraries give.
//! On the wire: gRPC over HTTP/2; requests gzip, deflate or zstd; answers never compressed. An error is a trailers-only answer
//! with `grpc-status-details-bin`.
//! Not here: what is done with a request (`export`), which code goes with which reason (`refusal`), HTTP/2 itself (`listen`).
//! Kept by: `tests/bad_input.toml` (sent by `tests/it/catalogue`), `tests/it/grpc_table.rs`.

mod answer;
pub(crate) mod frame;
mod health;
pub(crate) mod timeout;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use crate::body::Pieces;
use crate::counters::Transport;
use crate::export::{Answer, Head, Intake};
use crate::inflate::{Coding, inflate};
use crate::refusal::{Refusal, excerpt};
use crate::reply::Reply;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const ENCODING: &str = "grpc-encoding";
/// What `grpc-accept-encoding` says.
const ENCODINGS: &str = "identity,gzip,deflate,zstd";

/// Answers one request.
pub(crate) async fn serve<B>(intake: &Intake, request: Request<B>) -> Response<Reply>
where
    B: Body<Data = Bytes> + Unpin,
{
    let since = Instant::now();
    let is_head = request.method() == Method::HEAD;
    intake.counters.request(Transport::Grpc);
    let outcome = match timeout::deadline(request.headers(), since, intake.config.request_timeout) {
        Err(malformed) => Err(malformed),
        Ok(deadline) => match timeout_at(deadline, route(intake, request, since, deadline)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Refusal::Deadline(deadline - since)),
        },
    };
    match outcome {
        Ok(Said::Kept(answer)) => {
            intake.counters.answered(Transport::Grpc, answer.rejected > 0, since.elapsed());
            answer::kept(answer)
        }
        Ok(Said::Health(message)) => answer::ok(message),
        Err(refusal) => {
            intake.counters.refused(Transport::Grpc, refusal.verdict().reason);
            let mut response = answer::refused(&refusal);
            if is_head {
                // Over HTTP/2 hyper would send it, and that is a protocol error.
                *response.body_mut() = Reply::default();
            }
            response
        }
    }
}

enum Said {
    Kept(Answer),
    Health(Bytes),
}

async fn route<B>(intake: &Intake, request: Request<B>, since: Instant, deadline: Instant) -> Result<Said, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    is_grpc(&request)?;
    let (head, body) = request.into_parts();
    let body = Pieces::of(body, intake.config.patience());
    match head.uri.path() {
        EXPORT => {
            let from = Head { transport: Transport::Grpc, since, deadline };
            export(intake, from, &head.headers, body).await.map(Said::Kept)
        }
        health::CHECK => health::check(intake, body).await.map(Said::Health),
        unknown => Err(Refusal::Unknown(excerpt(unknown.as_bytes()))),
    }
}

async fn export<B>(intake: &Intake, from: Head, headers: &HeaderMap, mut body: Pieces<B>) -> Result<Answer, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let admitted = intake.admit(from, headers)?;
    let coding = coding(headers)?;
    has_sound_metadata(headers)?;
    let max_bytes = intake.config.max_request_bytes;
    let (message, mut held) = frame::message(&mut body, max_bytes, &intake.in_flight).await?;
    intake.counters.body(Transport::Grpc, message.bytes.len());
    let request = match (message.compressed, coding) {
        (false, _) => message.bytes,
        (true, Coding::Identity) => return Err(Refusal::UnnamedCoding),
        (true, coding) => {
            inflate(coding, message.bytes, max_bytes, &intake.in_flight, &mut held, &intake.counters).await?
        }
    };
    intake.export(&admitted, request, held).await
}

/// gRPC-over-HTTP2 wants plain HTTP answers for what is not gRPC, lest it be taken for a gRPC answer.
fn is_grpc<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.version() != Version::HTTP_2 {
        return Err(Refusal::NotHttp2);
    }
    if request.method() != Method::POST {
        return Err(Refusal::Method(excerpt(request.method().as_str().as_bytes())));
    }
    let media = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let is_grpc = media.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
    let codec = if is_grpc { &media[16..] } else { media };
    match codec {
        [] | [b';', ..] if is_grpc => Ok(()),
        [b'+', codec @ ..] if is_grpc => match codec.split(|&byte| byte == b';').next() {
            Some(b"proto") => Ok(()),
            _ => Err(Refusal::Unknown(excerpt(media))),
        },
        _ => Err(Refusal::MediaType(excerpt(media))),
    }
}

fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let Some(name) = headers.get(ENCODING) else { return Ok(Coding::Identity) };
    let known = name.to_str().ok().and_then(Coding::named);
    known.ok_or_else(|| Refusal::UnknownCoding { header: ENCODING, value: excerpt(name.as_bytes()), takes: ENCODINGS })
}

/// Binary metadata must be base64; nothing here reads it, but a broken client should hear of it.
fn has_sound_metadata(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_base64 =
        |value: &[u8]| BASE64_STANDARD.decode(value).or_else(|_| BASE64_STANDARD_NO_PAD.decode(value)).is_ok();
    let sound = headers.iter().filter(|(name, _)| name.as_str().ends_with("-bin")).all(|(_, value)| {
        // Values of one name may be joined by commas.
        value.as_bytes().split(|&byte| byte == b',').all(|value| is_base64(value.trim_ascii()))
    });
    if sound { Ok(()) } else { Err(Refusal::Framing("binary metadata is not base64")) }
}
