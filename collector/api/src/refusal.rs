//! What a caller hears instead of an answer: `{error, details?, retryAfter?}`.

use std::time::Duration;

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
    /// 401: there is no such address with this password.
    WrongPassword,
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
    /// 422: the idempotency key came before with another body.
    OtherBody,
    /// 413: the body is larger than this many bytes.
    TooLarge(usize),
    /// 415: the body must be JSON, and say so.
    MediaType,
    /// 415: the body must be of a dataset's formats, and say which.
    Format,
    /// 421: the request is meant for another host.
    Host,
    /// 429: after that time.
    TooOften(Duration),
    /// 500: someone has to look.
    Broken(&'static str),
    /// 502: whoever it was asked of answers what cannot be passed on.
    BadGateway(&'static str),
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
            Self::Unknown | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Origin => StatusCode::FORBIDDEN,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::OtherBody => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType | Self::Format => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn error(&self) -> String {
        match self {
            Self::Invalid(_) => "Validation failed".into(),
            Self::NotJson(why) => format!("not JSON: {why}"),
            Self::Unknown => "a token is needed".into(),
            Self::WrongPassword => "Invalid credentials".into(),
            Self::Forbidden => "not allowed".into(),
            Self::Origin => "not allowed for pages of this origin".into(),
            Self::Missing(what) => format!("no such {what}"),
            Self::Method => "no such method here".into(),
            Self::Conflict(why) | Self::Broken(why) | Self::BadGateway(why) | Self::Unavailable(why) => (*why).into(),
            Self::OtherBody => "the idempotency key came before with another body".into(),
            Self::TooLarge(bytes) => format!("larger than {bytes} bytes"),
            Self::MediaType => "content-type must be application/json".into(),
            Self::Format => "content-type must be application/json, application/x-ndjson, text/csv or application/vnd.apache.parquet".into(),
            Self::Host => "meant for another host".into(),
            Self::TooOften(_) => "Rate limit exceeded".into(),
            Self::TimedOut => "took too long".into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.told()
    }
}

impl Refusal {
    /// As the caller hears it.
    pub(crate) fn told(&self) -> Response {
        let mut body = serde_json::json!({ "error": self.error() });
        if let Self::Invalid(details) = self {
            body["details"] = serde_json::json!(details);
        }
        let retry_after = match self {
            Self::Unavailable(_) => Some(RETRY_AFTER_SECONDS),
            Self::TooOften(wait) => Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            body["retryAfter"] = seconds.into();
        }
        let mut response = (self.status(), Json(body)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Self::Unknown = self {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The database's trouble is logged here, where it is handled, and told without its details.
impl From<emberd_store::Error> for Refusal {
    fn from(error: emberd_store::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&emberd_store::Error> for Refusal {
    fn from(error: &emberd_store::Error) -> Self {
        match error {
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
