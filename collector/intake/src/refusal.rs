//! Every reason for which a door says no, and what the client hears: one table for both doors.
//!
//! Promise: a code that OTLP calls retryable goes out if and only if the same request can succeed later. A new reason does not
//! compile until someone has decided what clients hear.
//! On the wire: gRPC's code or HTTP's status, and the delay as RetryInfo or `retry-after`; `status` writes the body.
//! Kept by: `tests/bad_input.toml` (sent by `tests/it/catalogue`), `tests/it/durability.rs`.

use std::time::Duration;

use emberd_log::AppendError;
use emberd_model::{json, wire};
use http::StatusCode;

/// gRPC's status codes, as far as they are used here; also the `code` of a `google.rpc.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed request: {0}")]
    Malformed(#[from] wire::Malformed),
    #[error("malformed OTLP/JSON: {0}")]
    NotJson(#[from] json::Error),
    #[error("malformed request: {0}")]
    Framing(&'static str),
    #[error("cannot inflate the {coding} body: {problem}")]
    Undecodable { coding: &'static str, problem: String },
    #[error("request has more than {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
    #[error("unknown {header} {value:?}; this door takes {takes}")]
    UnknownCoding { header: &'static str, value: String, takes: &'static str },
    #[error("message is marked as compressed, but grpc-encoding does not say how")]
    UnnamedCoding,
    #[error("no such service, method or path: {0}")]
    Unknown(String),
    #[error("no service of this name: {0}")]
    UnknownHealth(String),
    #[error("{0} is not a method for this path; use POST")]
    Method(String),
    #[error("content-type {0:?} is not one that this door takes")]
    MediaType(String),
    #[error("this port speaks OTLP/gRPC over HTTP/2; OTLP/HTTP has a port of its own")]
    NotHttp2,
    #[error("page {0:?} may not send: it is not among the configured origins")]
    Origin(String),
    #[error("an ingest key is asked for, as `authorization: Bearer`, `api_key` or `x-api-key`")]
    NoKey,
    #[error("the ingest key is not a known one")]
    WrongKey,
    #[error("ingest key {key} sends more than its {rate} spans a second")]
    Rate { key: String, rate: u32, retry: Duration },
    #[error("disk budget is full: {used_bytes} of {budget_bytes} bytes")]
    BudgetFull { used_bytes: u64, budget_bytes: u64 },
    #[error("too many bytes in flight: {held_bytes} of {total_bytes}")]
    Crowded { held_bytes: usize, total_bytes: usize },
    #[error("emberd is stopping")]
    Stopping,
    #[error("the log cannot write")]
    Disk,
    #[error("not done within {0:?}; what was sent may be kept")]
    Deadline(Duration),
    #[error("nothing more of the request came for {0:?}")]
    Stalled(Duration),
    #[error("only {bytes} bytes of the request came within {within:?}")]
    Slow { bytes: usize, within: Duration },
    #[error("the request broke off")]
    CutOff,
}

/// What goes with a reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) reason: Reason,
    pub(crate) code: Code,
    pub(crate) http: StatusCode,
    /// When to come again; none: never with this request.
    pub(crate) retry: Option<Duration>,
}

macro_rules! reasons {
    ($($reason:ident = $text:literal: $what:literal,)+) => {
        /// A refusal as the counters know it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $(#[doc = $what] $reason,)+ }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];

            /// The label in metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$reason => $text,)+ }
            }
        }
    };
}

reasons! {
    Malformed = "malformed": "Not an export request, whoever reads it.",
    TooLarge = "too_large": "Larger than a request may be.",
    Coding = "coding": "Compressed in a way that is not known here.",
    Unknown = "unknown": "A service, method, path or media type that is not served.",
    Key = "key": "Without a known ingest key, or from a page that may not send.",
    Rate = "rate": "More spans than its key may send.",
    Budget = "budget": "The log's disk budget is full.",
    Crowded = "crowded": "Too many bytes in flight.",
    Stopping = "stopping": "The doors or the log are stopping.",
    Disk = "disk": "The log cannot write.",
    Deadline = "deadline": "Not done in the time that the client or the config gives.",
    CutOff = "cut_off": "The body broke off, stalled, or was too slow.",
}

const SOON: Duration = Duration::from_secs(1);
/// A full disk drains in segments, a restart takes a moment.
const LATER: Duration = Duration::from_secs(5);

impl Refusal {
    pub(crate) fn verdict(&self) -> Verdict {
        use StatusCode as Http;
        let never = |reason, code, http| Verdict { reason, code, http, retry: None };
        let again = |reason, code, http, after| Verdict { reason, code, http, retry: Some(after) };
        match self {
            Self::Malformed(_) | Self::NotJson(_) | Self::Framing(_) | Self::Undecodable { .. } => {
                never(Reason::Malformed, Code::InvalidArgument, Http::BAD_REQUEST)
            }
            Self::TooLarge { .. } => never(Reason::TooLarge, Code::ResourceExhausted, Http::PAYLOAD_TOO_LARGE),
            Self::UnknownCoding { .. } => never(Reason::Coding, Code::Unimplemented, Http::UNSUPPORTED_MEDIA_TYPE),
            Self::UnnamedCoding => never(Reason::Coding, Code::Internal, Http::BAD_REQUEST),
            Self::Unknown(_) => never(Reason::Unknown, Code::Unimplemented, Http::NOT_FOUND),
            Self::UnknownHealth(_) => never(Reason::Unknown, Code::NotFound, Http::NOT_FOUND),
            Self::Method(_) => never(Reason::Unknown, Code::Unimplemented, Http::METHOD_NOT_ALLOWED),
            Self::MediaType(_) => never(Reason::Unknown, Code::Unimplemented, Http::UNSUPPORTED_MEDIA_TYPE),
            Self::NotHttp2 => never(Reason::Unknown, Code::Unimplemented, Http::HTTP_VERSION_NOT_SUPPORTED),
            Self::Origin(_) => never(Reason::Key, Code::Unauthenticated, Http::FORBIDDEN),
            Self::NoKey | Self::WrongKey => never(Reason::Key, Code::Unauthenticated, Http::UNAUTHORIZED),
            Self::Rate { retry, .. } => {
                again(Reason::Rate, Code::ResourceExhausted, Http::TOO_MANY_REQUESTS, (*retry).max(SOON))
            }
            Self::BudgetFull { .. } => again(Reason::Budget, Code::ResourceExhausted, Http::TOO_MANY_REQUESTS, LATER),
            Self::Crowded { .. } => again(Reason::Crowded, Code::Unavailable, Http::SERVICE_UNAVAILABLE, SOON),
            Self::Stopping => again(Reason::Stopping, Code::Unavailable, Http::SERVICE_UNAVAILABLE, LATER),
            Self::Disk => again(Reason::Disk, Code::Unavailable, Http::SERVICE_UNAVAILABLE, LATER),
            Self::Deadline(_) => again(Reason::Deadline, Code::DeadlineExceeded, Http::SERVICE_UNAVAILABLE, SOON),
            // Not 408: OTLP clients take it for final, and a slow network is not.
            Self::Stalled(_) | Self::Slow { .. } => {
                again(Reason::CutOff, Code::Unavailable, Http::SERVICE_UNAVAILABLE, SOON)
            }
            Self::CutOff => never(Reason::CutOff, Code::Cancelled, Http::BAD_REQUEST),
        }
    }
}

/// What a client sent, for a message: cut short, as it comes back in a header.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const BYTES_MAX: usize = 100;
    String::from_utf8_lossy(&text[..text.len().min(BYTES_MAX)]).into_owned()
}

impl From<&AppendError> for Refusal {
    fn from(error: &AppendError) -> Self {
        match *error {
            AppendError::BudgetFull { used_bytes, budget_bytes } => Self::BudgetFull { used_bytes, budget_bytes },
            AppendError::Stopping => Self::Stopping,
            AppendError::TooLarge { max_bytes, .. } => Self::TooLarge { max_bytes: max_bytes as usize },
            AppendError::Disk { .. } => Self::Disk,
        }
    }
}
