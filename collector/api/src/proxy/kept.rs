//! Answers of Phoenix that are kept for a while: the same question is not asked twice, and an old answer is better than none.
//!
//! Promise: so many answers as configured, of [`ANSWER_BYTES_MAX`] each and [`BYTES_MAX`] together at most, least used first to go; one counts
//! as fresh for so long since it was last asked for, as configured, but never longer than [`AGE_MAX`]; an old one stays in memory for when
//! Phoenix does not answer. What comes from Redis is no more than an answer of Phoenix's could be.
//! In Redis: `count u8 | name length u8, name, value length u16 LE, value, .. | body`: good answers only.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use emberd_cache::{Cache, Limits, Value};

use super::{ANSWER_HEADERS, ANSWERS};
use crate::Caching;

pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
const BYTES_MAX: usize = 64 << 20;
/// Headers beside the body.
const HEADERS_BYTES_MAX: usize = 8 << 10;
/// However often it is asked for.
const AGE_MAX: Duration = Duration::from_secs(3_600);
/// Another emberd's answer counts for longer than one's own does without use: an hour where that is five minutes.
const FAR_TIMES: u32 = 12;

/// What an answer is kept under: what was asked, as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Whose key Phoenix saw: what one role may read is not another's.
    pub(crate) role: &'static str,
    /// Path and query.
    pub(crate) target: String,
    /// What the caller takes.
    pub(crate) accept: String,
}

impl Question {
    /// The role first. No header has a line break in it, and no URL.
    pub(crate) fn key(&self) -> String {
        format!("{}\n{}\n{}", self.role, self.accept, self.target)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept(pub(crate) Arc<Answer>);

/// The answers, each of which counts for so long after each use.
pub(crate) fn answers(time: Duration, caching: &Caching) -> Arc<Cache<Kept>> {
    let limits = Limits {
        entries: caching.answers,
        bytes: BYTES_MAX,
        idle: time,
        age_max: AGE_MAX,
        far: (time * FAR_TIMES).min(AGE_MAX),
        far_bytes_max: ANSWER_BYTES_MAX + HEADERS_BYTES_MAX,
        keeps_old: true,
        ..Limits::default()
    };
    caching.caches.add(ANSWERS, limits)
}

impl Value for Kept {
    fn bytes(&self) -> usize {
        let headers: usize = self.0.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        size_of::<Answer>() + headers + self.0.body.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Lengths that do not fit belong to headers that are not passed on, or are far too long to be kept.
        let fits = |name: &HeaderName, value: &HeaderValue| {
            Some((u8::try_from(name.as_str().len()).ok()?, u16::try_from(value.len()).ok()?))
        };
        let headers: Vec<_> = self
            .0
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name, value, fits(name, value)?)))
            .take(255)
            .collect();
        out.push(headers.len() as u8);
        for (name, value, (name_length, value_length)) in headers {
            out.push(name_length);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(&value_length.to_le_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        out.extend_from_slice(&self.0.body);
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut headers = HeaderMap::new();
        for _ in 0..take::<1>(&mut bytes)?[0] {
            let [length] = take::<1>(&mut bytes)?;
            let name = HeaderName::from_lowercase(split(&mut bytes, length.into())?).ok()?;
            let length = u16::from_le_bytes(take::<2>(&mut bytes)?);
            let value = HeaderValue::from_bytes(split(&mut bytes, length.into())?).ok()?;
            // Whoever wrote it: no cookie comes back this way.
            if !ANSWER_HEADERS.contains(&name) {
                return None;
            }
            headers.append(name, value);
        }
        let is_short = bytes.len() <= ANSWER_BYTES_MAX;
        let body = Bytes::copy_from_slice(bytes);
        is_short.then(|| Self(Arc::new(Answer { status: StatusCode::OK, headers, body })))
    }
}

fn split<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    split(bytes, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &str)], body: &[u8]) -> Kept {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Kept(Arc::new(Answer { status: StatusCode::OK, headers: all, body: Bytes::copy_from_slice(body) }))
    }

    fn bytes(kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        kept.write(&mut bytes);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        for kept in [
            answer(&[("content-type", "application/json"), ("etag", "\"x\"")], b"{}"),
            answer(&[], b""),
            answer(&[("etag", "")], &[0xff; 1_000]),
        ] {
            let Kept(read) = Kept::read(&bytes(&kept)).unwrap();
            assert_eq!((&read.headers, &read.body, read.status), (&kept.0.headers, &kept.0.body, StatusCode::OK));
        }
    }

    #[test]
    fn what_phoenix_could_not_have_said_is_none() {
        assert!(Kept::read(&bytes(&answer(&[("set-cookie", "a=b")], b"{}"))).is_none());
        assert!(Kept::read(b"\x01\x04ETag\x01\x00x").is_none(), "not a name as they are written here");
        assert!(Kept::read(b"\x01\x04etag\x02\x00\r\nbody").is_none());
        assert!(Kept::read(b"\x02\x04etag\x01\x00x").is_none());
        assert!(Kept::read(b"").is_none());
        let mut long = vec![0];
        long.resize(ANSWER_BYTES_MAX + 2, b'x');
        assert!(Kept::read(&long).is_none());
        assert!(Kept::read(&long[..ANSWER_BYTES_MAX + 1]).is_some());
    }

    #[test]
    fn what_one_role_is_told_has_another_key() {
        let key = |role, accept: &str, target: &str| {
            Question { role, accept: accept.to_owned(), target: target.to_owned() }.key()
        };
        assert_ne!(key("admin", "", "/v1"), key("member", "", "/v1"));
        assert_ne!(key("member", "a", "/v1"), key("member", "", "a/v1"));
    }
}
