//! Answers in OTLP/HTTP's form.

use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;

use super::{ENCODINGS, Form};
use crate::export::Answer;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::status;

/// The spans are durable, or can never be.
pub(super) fn kept(answer: Answer, form: Form) -> Response<Reply> {
    let body = match (form, answer.rejected) {
        (Form::Protobuf, 0) => Reply::default(),
        (Form::Json, 0) => Reply::of(&b"{}"[..]),
        (Form::Protobuf, rejected) => {
            let partial = ExportTracePartialSuccess { rejected_spans: rejected.into(), error_message: answer.message };
            Reply::of(ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec())
        }
        (Form::Json, rejected) => {
            // 64-bit numbers are strings in protobuf's JSON.
            let partial = serde_json::json!({"rejectedSpans": rejected.to_string(), "errorMessage": answer.message});
            Reply::of(serde_json::json!({"partialSuccess": partial}).to_string())
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    response
}

/// An error: a `google.rpc.Status`, and the headers that HTTP wants with its code.
pub(super) fn refused(refusal: &Refusal, form: Form) -> Response<Reply> {
    let verdict = refusal.verdict();
    let body = match form {
        Form::Protobuf => status::protobuf(refusal),
        Form::Json => status::json(refusal),
    };
    let mut response = Response::new(Reply::of(body));
    *response.status_mut() = verdict.http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    if let Some(after) = verdict.retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil() as u64));
    }
    let fixed = HeaderValue::from_static;
    match refusal {
        Refusal::Method(_) => drop(headers.insert(ALLOW, fixed("POST"))),
        Refusal::UnknownCoding { .. } => drop(headers.insert(ACCEPT_ENCODING, fixed(ENCODINGS))),
        Refusal::MediaType(_) => drop(headers.insert(ACCEPT, fixed("application/x-protobuf, application/json"))),
        Refusal::NoKey | Refusal::WrongKey => drop(headers.insert(WWW_AUTHENTICATE, fixed("Bearer"))),
        _ => {}
    }
    response
}

/// Whether what follows on an HTTP/1 connection is not to be trusted, or not wanted.
pub(super) fn is_last(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Stopping | Refusal::Stalled(_) | Refusal::Slow { .. } | Refusal::CutOff)
}
