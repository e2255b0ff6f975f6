//! What a caller hears instead of an answer: `{error, details?, retryAfter?}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use emberd_store::error::CreatePromptError;
use serde::Serialize;

/// What is wrong with a request's query or body, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Detail {
    /// Which parameter or field.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 400: these parameters or fields are wrong, all of them.
    Invalid(Vec<Detail>),
    /// 400: the body is not JSON.
    NotJson(String),
    /// 401: the caller did not say who it is.
    Unknown,
    /// 403: the caller may not.
    Forbidden,
    /// 403: a page of this origin may not.
    Origin,
    /// 404: there is no such thing.
    Missing(&'static str),
    /// 405: the path has no such method.
    Method,
    /// 409: it cannot be done here.
    Conflict(&'static str),
    /// 413: the body is larger than this many bytes.
    TooLarge(usize),
    /// 415: the body must be JSON, and say so.
    MediaType,
    /// 415: the body must be of a dataset's formats, and say which.
    Format,
    /// 421: the request is meant for another host.
    Host,
    /// 500: someone has to look.
    Broken(&'static str),
    /// 503: later.
    Unavailable(&'static str),
    /// 504: it took too long.
    TimedOut,
}

/// How long a caller waits before it asks an unavailable database again, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

impl Refusal {
    /// One parameter or field is wrong.
    pub(crate) fn invalid(path: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Detail { path: path.into(), message: message.into() }])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::NotJson(_) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Origin => StatusCode::FORBIDDEN,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType | Self::Format => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn error(&self) -> String {
        match self {
            Self::Invalid(_) => "Validation failed".into(),
            Self::NotJson(why) => format!("not JSON: {why}"),
            Self::Unknown => "a token is needed".into(),
            Self::Forbidden => "not allowed".into(),
            Self::Origin => "not allowed for pages of this origin".into(),
            Self::Missing(what) => format!("no such {what}"),
            Self::Method => "no such method here".into(),
            Self::Conflict(why) | Self::Broken(why) | Self::Unavailable(why) => (*why).into(),
            Self::TooLarge(bytes) => format!("larger than {bytes} bytes"),
            Self::MediaType => "content-type must be application/json".into(),
            Self::Format => "content-type must be application/json, application/x-ndjson, text/csv or application/vnd.apache.parquet".into(),
            Self::Host => "meant for another host".into(),
            Self::TimedOut => "took too long".into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "error": self.error() });
        if let Self::Invalid(details) = &self {
            body["details"] = serde_json::json!(details);
        }
        if let Self::Unavailable(_) = self {
            body["retryAfter"] = RETRY_AFTER_SECONDS.into();
        }
        let mut response = (self.status(), Json(body)).into_response();
        match self {
            Self::Unavailable(_) => {
                drop(response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into()))
            }
            Self::Unknown => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => (),
        }
        response
    }
}

/// The database's trouble is logged here, where it is handled, and told without its details.
impl From<emberd_store::Error> for Refusal {
    fn from(error: emberd_store::Error) -> Self {
        match &error {
            emberd_store::Error::BadCursor => Self::invalid("cursor", "not a cursor of this list"),
            emberd_store::Error::Unavailable { source } => {
                tracing::warn!(error = %source, "the database is unavailable");
                Self::Unavailable("the database is unavailable")
            }
            emberd_store::Error::Refused { source } => {
                tracing::error!(error = %source, "the database refuses");
                Self::Broken("the database refuses")
            }
        }
    }
}

impl From<CreatePromptError> for Refusal {
    fn from(error: CreatePromptError) -> Self {
        match error {
            CreatePromptError::NotOurs => Self::Conflict("the prompts of this database are made by its owner"),
            CreatePromptError::NoSuchProfile => Self::Conflict("the caller has no profile"),
            CreatePromptError::Database(error) => error.into(),
        }
    }
}
