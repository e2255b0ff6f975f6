//! `google.rpc.Status` and the details that OTLP names: the error bodies of both doors.
//!
//! On the wire: protobuf, as gRPC's `grpc-status-details-bin` and as the body of OTLP/HTTP's errors; or its JSON form.
//! Not here: which status goes with which reason (`refusal`).

use std::time::Duration;

use prost::Message;

use crate::refusal::{Code, Refusal};

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
/// A request has no field names of its own to blame: it is one message.
const FIELD: &str = "ExportTraceServiceRequest";

/// The encoded status of a refusal.
pub(crate) fn protobuf(refusal: &Refusal) -> Vec<u8> {
    let verdict = refusal.verdict();
    let message = refusal.to_string();
    let mut details = Vec::new();
    if let Some(after) = verdict.retry {
        let delay = Delay { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() as i32 };
        let info = RetryInfo { retry_delay: Some(delay) };
        details.push(Any { type_url: RETRY_INFO.into(), value: info.encode_to_vec() });
    }
    if verdict.code == Code::InvalidArgument {
        let violation = FieldViolation { field: FIELD.into(), description: message.clone() };
        let bad = BadRequest { field_violations: vec![violation] };
        details.push(Any { type_url: BAD_REQUEST.into(), value: bad.encode_to_vec() });
    }
    Status { code: verdict.code as i32, message, details }.encode_to_vec()
}

/// The same, in protobuf's JSON form.
pub(crate) fn json(refusal: &Refusal) -> Vec<u8> {
    let verdict = refusal.verdict();
    let message = refusal.to_string();
    let mut details = Vec::new();
    if let Some(after) = verdict.retry {
        details.push(serde_json::json!({"@type": RETRY_INFO, "retryDelay": seconds(after)}));
    }
    if verdict.code == Code::InvalidArgument {
        let violations = [serde_json::json!({"field": FIELD, "description": message})];
        details.push(serde_json::json!({"@type": BAD_REQUEST, "fieldViolations": violations}));
    }
    serde_json::json!({"code": verdict.code as i32, "message": message, "details": details}).to_string().into_bytes()
}

fn seconds(delay: Duration) -> String {
    match delay.subsec_millis() {
        0 => format!("{}s", delay.as_secs()),
        millis => format!("{}.{millis:03}s", delay.as_secs()),
    }
}
