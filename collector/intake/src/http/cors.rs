//! CORS: which browser pages may send, and the answer to their preflight.
//!
//! Promise: no page may send unless its origin is configured. A request that is no page's is not concerned.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::refusal::{Refusal, excerpt};
use crate::reply::Reply;

/// The origins whose pages may send.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin such as \"https://app.example.com\", nor \"*\"")]
pub struct BadOrigin(pub String);

impl Origins {
    /// Origins such as `https://app.example.com`, or `*` for all.
    pub fn parse<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, BadOrigin> {
        let mut parsed = Self::default();
        for origin in origins {
            match origin.split_once("://") {
                None if origin == "*" => parsed.any = true,
                Some((scheme, host))
                    if matches!(scheme, "http" | "https")
                        && !host.is_empty()
                        && !host.contains(['/', ' ', '*', ',']) =>
                {
                    parsed.listed.push(origin.to_ascii_lowercase());
                }
                _ => return Err(BadOrigin(origin.to_owned())),
            }
        }
        Ok(parsed)
    }

    /// The origin that a request names, if it may send.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let is_listed = |listed: &String| origin.as_bytes().eq_ignore_ascii_case(listed.as_bytes());
        (self.any || self.listed.iter().any(is_listed)).then(|| origin.clone())
    }
}

pub(super) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

pub(super) fn not_allowed(headers: &HeaderMap) -> Refusal {
    Refusal::Origin(headers.get(ORIGIN).map(|origin| excerpt(origin.as_bytes())).unwrap_or_default())
}

/// Lets the page send, with whatever headers it wants: its origin was configured, so it is trusted.
pub(super) fn preflight(origin: &HeaderValue, asked: &HeaderMap) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    allow(origin, headers);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

/// Lets the page read the answer.
pub(super) fn allow(origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    headers.insert(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be an origin is an error at the start, not a page that is turned away for no reason that anyone sees.
    #[test]
    fn origins_are_scheme_and_host() {
        assert!(Origins::parse(["https://app.example.com", "http://localhost:3000", "*"]).is_ok());
        for bad in ["app.example.com", "https://", "https://app.example.com/", "ftp://x", "https://*.example.com", ""] {
            assert_eq!(Origins::parse([bad]).unwrap_err(), BadOrigin(bad.to_owned()));
        }
    }
}
