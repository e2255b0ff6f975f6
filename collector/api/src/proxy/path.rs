//! Where in Phoenix a request goes: a path that cannot lead anywhere else, and who may go there.
//!
//! Promise: what is sent is made of segments that were checked both as they came and decoded: none is empty, `.` or `..`, none holds a
//! separator, a second encoding or a control character. Nothing of the request names the host.

use axum::http::Method;
use emberd_identity::{Caller, Permission};

use crate::permission::may;
use crate::refusal::Refusal;

const PATH_BYTES_MAX: usize = 4_096;
const SEGMENTS_MAX: usize = 16;

/// A path below Phoenix's root, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    raw: String,
    decoded: Vec<String>,
}

impl Sought {
    /// Reads what stands behind `/api/phoenix/`, undecoded.
    pub(crate) fn parse(raw: &str) -> Result<Self, Refusal> {
        let wrong = || Refusal::invalid("path", "not a path of Phoenix's API");
        if raw.len() > PATH_BYTES_MAX {
            return Err(wrong());
        }
        let decoded: Vec<String> = raw
            .split('/')
            .map(segment)
            .collect::<Option<_>>()
            .filter(|all: &Vec<_>| all.len() <= SEGMENTS_MAX)
            .ok_or_else(wrong)?;
        Ok(Self { raw: raw.to_owned(), decoded })
    }

    /// As it goes into the URL.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Whether this caller may do this there.
    pub(crate) fn allowed(&self, method: &Method, caller: &Caller) -> Result<(), Refusal> {
        match rule(method, &self.decoded.iter().map(String::as_str).collect::<Vec<_>>()) {
            Some(permission) if may(caller, Some(permission)) => Ok(()),
            Some(_) => Err(Refusal::Forbidden),
            None if matches!(*method, Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE) => {
                Err(Refusal::Forbidden)
            }
            None => Err(Refusal::Method),
        }
    }
}

/// A segment decoded; none if it could be read in another way than it looks.
fn segment(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (hex, after) = rest.split_at_checked(2)?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push((digit(hex[0])? * 16 + digit(hex[1])?) as u8);
                rest = after;
            }
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'='
            | b':'
            | b','
            | b'+'
            | b'!'
            | b'*' => {
                bytes.push(byte);
            }
            _ => return None,
        }
    }
    let decoded = String::from_utf8(bytes).ok()?;
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | '%' | ';' | '?' | '#' | '@');
    let is_plain = !decoded.is_empty() && decoded != "." && decoded != ".." && !decoded.contains(is_odd);
    is_plain.then_some(decoded)
}

/// What is asked for doing this there; none: nobody may, by this way. Phoenix knows no owners, so what changes another's things is the
/// administrator's; people and keys are Phoenix's own business, and its models are paid for by whom it does not know.
fn rule(method: &Method, path: &[&str]) -> Option<Permission> {
    use Permission::{Administer, ReadEvaluations, ReadTraces, WriteOwn};
    const CLOSED: [&str; 7] =
        ["users", "user", "system", "secrets", "chat", "agent_sessions", "custom_model_providers"];
    const EVALUATION: [&str; 5] =
        ["datasets", "dataset_labels", "experiments", "experiment_evaluations", "annotation_configs"];
    match (method.as_str(), path) {
        ("GET", ["healthz" | "readyz" | "arize_phoenix_version"]) => Some(ReadTraces),
        (_, ["v1", first, ..]) if CLOSED.contains(first) => None,
        ("GET", ["v1", first, ..]) if EVALUATION.contains(first) => Some(ReadEvaluations),
        ("GET", ["v1", _, ..]) => Some(ReadTraces),
        (
            "POST",
            [
                "v1",
                "span_annotations"
                | "trace_annotations"
                | "session_annotations"
                | "document_annotations"
                | "span_notes"
                | "trace_notes"
                | "session_notes"
                | "experiment_evaluations",
            ],
        ) => Some(WriteOwn),
        ("POST", ["v1", "datasets", "upload"] | ["v1", "datasets", _, "experiments"]) => Some(WriteOwn),
        ("POST", ["v1", "experiments", _, "runs"]) => Some(WriteOwn),
        ("POST" | "PUT" | "PATCH" | "DELETE", ["v1", _, ..]) => Some(Administer),
        // A query may be a mutation: the administrator's.
        ("POST", ["graphql"]) => Some(Administer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_nowhere_else() {
        for good in [
            "v1/projects",
            "v1/datasets/RGF0YXNldDox=/examples",
            "v1/projects/my%20project/spans",
            "healthz",
            "v1/spans/a.b",
        ] {
            assert_eq!(Sought::parse(good).unwrap().raw(), good);
        }
        for bad in [
            "",
            "/",
            "v1//projects",
            "v1/",
            "/v1",
            "../admin",
            "v1/../users",
            "v1/%2e%2e/users",
            "v1/%2e./x",
            "v1/.%2E/x",
            "v1/..%2fusers",
            "v1/a%2fb",
            "v1/%252e%252e/x",
            "v1/..\\x",
            "v1/%5c..%5cx",
            "v1/;/../x",
            "v1/a;b",
            "v1/%00",
            "v1/a%0d%0ab",
            "v1/%c0%ae%c0%ae/x",
            "v1/%ff",
            "v1/%2",
            "v1/%zz",
            "v1/%",
            "http://169.254.169.254/",
            "//evil",
            "@evil",
            "v1/@evil",
            "\\\\evil",
            "v1/a b",
            "v1/é",
            "v1/{x}",
        ] {
            assert!(Sought::parse(bad).is_err(), "{bad}");
        }
        assert!(Sought::parse(&format!("v1/{}", "a".repeat(5_000))).is_err());
        assert!(Sought::parse(&["a"; 17].join("/")).is_err());
    }

    #[test]
    fn who_may_go_where() {
        use Permission::{Administer, ReadEvaluations, ReadTraces, WriteOwn};
        for (method, path, expected) in [
            ("GET", "v1/projects", Some(ReadTraces)),
            ("GET", "v1/projects/a/spans", Some(ReadTraces)),
            ("GET", "v1/datasets/x/examples", Some(ReadEvaluations)),
            ("GET", "v1/experiments/x/json", Some(ReadEvaluations)),
            ("POST", "v1/span_annotations", Some(WriteOwn)),
            ("POST", "v1/datasets/upload", Some(WriteOwn)),
            ("POST", "v1/projects", Some(Administer)),
            ("DELETE", "v1/projects/x", Some(Administer)),
            ("DELETE", "v1/spans/x", Some(Administer)),
            ("PUT", "v1/annotation_configs/x", Some(Administer)),
            ("POST", "graphql", Some(Administer)),
            ("GET", "graphql", None),
            ("GET", "v1/users", None),
            ("POST", "v1/users", None),
            ("GET", "v1/user/api_keys", None),
            ("POST", "v1/system/api_keys", None),
            ("PUT", "v1/secrets", None),
            ("POST", "v1/chat/completions", None),
            ("POST", "auth/login", None),
            ("GET", "oauth2/google/login", None),
            ("GET", "assets/index.js", None),
            ("POST", "v1/traces", Some(Administer)),
        ] {
            let path: Vec<_> = path.split('/').collect();
            assert_eq!(rule(&method.parse().unwrap(), &path), expected, "{method} {path:?}");
        }
    }
}
