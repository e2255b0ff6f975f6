//! What an OTLP endpoint's answer means for what was sent.
//!
//! The code alone does not say: Phoenix answers UNKNOWN for a span that its decoder cannot bear, RESOURCE_EXHAUSTED for one too
//! large and, in some versions, when it is busy. Errs towards keeping: only an answer that can concern nothing but the spans'
//! content is [`Kind::Refused`].
//! Not here: what is done about it (`courier.rs`).

use std::fmt;
use std::time::Duration;

use emberd_model::UnixNanos;
use http::{HeaderValue, StatusCode};
use prost::Message;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tonic::Code;

/// The longest wait that an endpoint may ask for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The most that is kept of what an endpoint says.
const SAID_BYTES_MAX: usize = 1024;

/// What kind of failure an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not now: send it again.
    Busy,
    /// No connection, or it broke; whether it was taken is not known.
    Unreachable,
    /// No answer in time; whether it was taken is not known.
    TimedOut,
    /// The key is missing, wrong or revoked. Nothing is wrong with the spans.
    Unauthorized,
    /// Nobody takes spans at this address. Nothing is wrong with the spans.
    Misdirected,
    /// Too many bytes at once.
    TooLarge,
    /// The endpoint broke on it. It may be ill, or a span may be to blame.
    Broken,
    /// Something in these spans will never be taken.
    Refused,
}

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// How long the endpoint asks to be left alone, within its bound.
    pub(super) wait: Option<Duration>,
    /// The code and the beginning of what it said.
    pub(super) said: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, code: impl fmt::Display, said: impl fmt::Display) -> Self {
        let mut said = format!("{code}: {said}");
        said.truncate(said.floor_char_boundary(SAID_BYTES_MAX));
        Self { kind, wait: None, said }
    }

    /// Its word in the metrics.
    pub(super) fn class(&self) -> &'static str {
        match self.kind {
            Kind::Busy => "busy",
            Kind::Unreachable => "unreachable",
            Kind::TimedOut => "timed_out",
            Kind::Unauthorized => "unauthorized",
            Kind::Misdirected => "misdirected",
            Kind::TooLarge => "too_large",
            Kind::Broken => "broken",
            Kind::Refused => "refused",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

/// A success, as OTLP has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Spans that the endpoint says it did not take; which, it does not say.
    pub(super) rejected: u64,
    /// What it said about them, or a warning.
    pub(super) said: String,
}

/// Reads the body of a success. A body that is no `ExportTraceServiceResponse` says nothing.
pub(super) fn taken(body: &[u8]) -> Taken {
    let response = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse::decode(body);
    let Some(partial) = response.unwrap_or_default().partial_success else { return Taken::default() };
    let mut said = partial.error_message;
    said.truncate(said.floor_char_boundary(SAID_BYTES_MAX));
    Taken { rejected: partial.rejected_spans.try_into().unwrap_or(0), said }
}

/// Reads a gRPC status.
pub(super) fn of_grpc(status: &tonic::Status) -> Failure {
    let code = status.code();
    let local = std::error::Error::source(status);
    let mut failure = Failure::new(grpc_kind(code, status.message(), local.is_some()), code, status.message());
    if let Some(source) = local {
        failure.said = format!("{}: {}", failure.said, innermost(source));
        failure.said.truncate(failure.said.floor_char_boundary(SAID_BYTES_MAX));
    }
    failure.wait = retry_info(status.details());
    failure
}

/// A status with a source was made on this side, of a connection that failed.
fn grpc_kind(code: Code, said: &str, made_here: bool) -> Kind {
    match code {
        _ if made_here => Kind::Unreachable,
        Code::ResourceExhausted | Code::OutOfRange if is_about_size(said) => Kind::TooLarge,
        Code::Unauthenticated | Code::PermissionDenied => Kind::Unauthorized,
        Code::Unimplemented | Code::NotFound => Kind::Misdirected,
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => Kind::Refused,
        // Phoenix answers so when its decoder raised: see docs/decisions/0006-forwarding.md.
        Code::Unknown if said.starts_with("Unexpected <class") => Kind::Refused,
        Code::Unknown | Code::Internal => Kind::Broken,
        Code::DeadlineExceeded => Kind::TimedOut,
        Code::Ok
        | Code::Cancelled
        | Code::Aborted
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unavailable
        | Code::DataLoss => Kind::Busy,
    }
}

fn is_about_size(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["larger than max", "too large", "exceeds the limit", "message size", "message length"]
        .iter()
        .any(|words| said.contains(words))
}

/// Reads an HTTP answer that is not 200.
pub(super) fn of_http(status: StatusCode, retry_after: Option<&HeaderValue>, body: &[u8], now: UnixNanos) -> Failure {
    let kind = match status.as_u16() {
        413 => Kind::TooLarge,
        401 | 403 | 407 => Kind::Unauthorized,
        200..=399 | 404 | 405 | 406 | 410 | 415 | 421 | 426 | 501 | 505 => Kind::Misdirected,
        408 | 425 | 429 | 502.. => Kind::Busy,
        500 => Kind::Broken,
        _ => Kind::Refused,
    };
    let said = String::from_utf8_lossy(&body[..body.len().min(SAID_BYTES_MAX)]);
    let wait = retry_after.and_then(|value| value.to_str().ok()).and_then(|value| wait(value, now));
    Failure { wait, ..Failure::new(kind, status, said.trim()) }
}

const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Reads `Retry-After`: seconds or a date; anything else says nothing.
fn wait(value: &str, now: UnixNanos) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(WAIT_MAX));
    }
    let date = PrimitiveDateTime::parse(value, HTTP_DATE).ok()?.assume_utc();
    let nanos = u64::try_from(date.unix_timestamp_nanos()).unwrap_or(0);
    Some(Duration::from_nanos(nanos.saturating_sub(now.0)).min(WAIT_MAX))
}

/// `google.rpc.Status`, as far as it is read here.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<RpcDetail>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RpcDetail {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<RetryDelay>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct RetryDelay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(delay.seconds).unwrap_or(0), u32::try_from(delay.nanos).unwrap_or(0));
    Some(Duration::new(seconds, nanos.min(999_999_999)).min(WAIT_MAX))
}

/// The error at the bottom: it names the cause.
pub(super) fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 00:00:00 UTC.
    const NOW: UnixNanos = UnixNanos(1_795_219_200_000_000_000);

    #[test]
    fn a_status_says_whose_fault_it_is() {
        for (code, said, kind) in [
            (Code::Unavailable, "Server is at capacity", Kind::Busy),
            (Code::ResourceExhausted, "at capacity", Kind::Busy),
            (Code::ResourceExhausted, "SERVER: Received message larger than max (4299537 vs. 4194304)", Kind::TooLarge),
            (Code::ResourceExhausted, "CLIENT: Decompressed message larger than max", Kind::TooLarge),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes, the limit is 4",
                Kind::TooLarge,
            ),
            (Code::Unauthenticated, "", Kind::Unauthorized),
            (Code::PermissionDenied, "Viewers cannot", Kind::Unauthorized),
            (Code::InvalidArgument, "bad", Kind::Refused),
            (Code::Unknown, "Unexpected <class 'RecursionError'>: ...", Kind::Refused),
            (Code::Unknown, "oops", Kind::Broken),
            (Code::Internal, "oops", Kind::Broken),
            (Code::Unimplemented, "", Kind::Misdirected),
            (Code::DataLoss, "", Kind::Busy),
        ] {
            assert_eq!(grpc_kind(code, said, false), kind, "{code} {said}");
            assert_eq!(grpc_kind(code, said, true), Kind::Unreachable);
        }
        for (status, kind) in [
            (429, Kind::Busy),
            (503, Kind::Busy),
            (507, Kind::Busy),
            (500, Kind::Broken),
            (400, Kind::Refused),
            (422, Kind::Refused),
            (413, Kind::TooLarge),
            (401, Kind::Unauthorized),
            (403, Kind::Unauthorized),
            (404, Kind::Misdirected),
            (405, Kind::Misdirected),
            (302, Kind::Misdirected),
        ] {
            assert_eq!(of_http(StatusCode::from_u16(status).unwrap(), None, b"", NOW).kind, kind, "{status}");
        }
    }

    /// Seconds and dates are honoured, within five minutes; what is neither says nothing.
    #[test]
    fn retry_after_is_read_and_bounded() {
        let seconds = Duration::from_secs;
        for (value, wait) in [
            ("30", Some(seconds(30))),
            (" 7 ", Some(seconds(7))),
            ("999999999", Some(seconds(300))),
            ("99999999999999999999999", Some(seconds(300))),
            ("Sat, 21 Nov 2026 00:00:10 GMT", Some(seconds(10))),
            ("Sat, 20 Nov 2027 00:00:00 GMT", Some(seconds(300))),
            ("Fri, 20 Nov 2026 00:00:00 GMT", Some(seconds(0))),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            let header = HeaderValue::from_str(value).unwrap();
            assert_eq!(of_http(StatusCode::SERVICE_UNAVAILABLE, Some(&header), b"", NOW).wait, wait, "{value}");
        }
    }

    #[test]
    fn retry_info_is_read_and_bounded() {
        for (seconds, nanos, wait) in [
            (3, 500_000_000, Some(Duration::from_millis(3_500))),
            (-3, -1, Some(Duration::ZERO)),
            (1_000_000_000_000, 0, Some(Duration::from_secs(300))),
        ] {
            let info = RetryInfo { retry_delay: Some(RetryDelay { seconds, nanos }) };
            let detail =
                RpcDetail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
            let details = RpcStatus { details: vec![detail] }.encode_to_vec();
            let status = tonic::Status::with_details(Code::Unavailable, "busy", details.into());
            assert_eq!(of_grpc(&status).wait, wait);
        }
        assert_eq!(retry_info(b"noise"), None);
    }

    #[test]
    fn a_success_may_be_partial() {
        use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
        let body = |rejected_spans, error_message: &str| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!(taken(&body(3, "no")), Taken { rejected: 3, said: "no".into() });
        assert_eq!(taken(&body(-3, "no")).rejected, 0);
        assert_eq!(taken(&body(1, &"é".repeat(10_000))).said.len(), SAID_BYTES_MAX);
        assert_eq!(taken(b""), Taken::default());
        assert_eq!(taken(b"noise"), Taken::default());
    }
}
