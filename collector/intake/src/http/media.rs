//! Media types: which form a request has, and so its answer.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::counters::Transport;
use crate::refusal::{Refusal, excerpt};

/// The two encodings of OTLP/HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

impl Form {
    /// The form that `content-type` names.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (media, parameters) = value.split_once(';').unwrap_or((value, ""));
        let is = |form: Self| media.trim().eq_ignore_ascii_case(form.media_type());
        if is(Self::Protobuf) {
            return Some(Self::Protobuf);
        }
        // JSON is UTF-8, whatever else a parameter may promise.
        let charset =
            parameters.split(';').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
                name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
            });
        let is_utf8 =
            charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8"));
        (is(Self::Json) && is_utf8).then_some(Self::Json)
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    pub(super) fn transport(self) -> Transport {
        match self {
            Self::Protobuf => Transport::HttpProtobuf,
            Self::Json => Transport::HttpJson,
        }
    }
}

pub(super) fn unknown(headers: &HeaderMap) -> Refusal {
    Refusal::MediaType(headers.get(CONTENT_TYPE).map(|value| excerpt(value.as_bytes())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Media types are compared as HTTP says: without regard to case, parameters aside.
    #[test]
    fn media_types_are_read_as_http_says() {
        let cases: &[(&str, Option<Form>)] = &[
            ("application/x-protobuf", Some(Form::Protobuf)),
            ("Application/X-Protobuf", Some(Form::Protobuf)),
            ("application/x-protobuf; x=y", Some(Form::Protobuf)),
            ("application/json", Some(Form::Json)),
            ("APPLICATION/JSON ; charset=UTF-8", Some(Form::Json)),
            ("application/json; charset=\"utf-8\"; v=1", Some(Form::Json)),
            ("application/json; charset=utf-16", None),
            ("application/jsonx", None),
            ("text/plain", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            assert_eq!(Form::of(&headers), *expected, "{text:?}");
        }
        assert_eq!(Form::of(&HeaderMap::new()), None);
    }
}
