//! What an OTLP endpoint answers, as the forwarder reads it.

use std::time::Duration;

use emberd_consumers::forwarder::inside::{of_grpc, of_http, taken};
use emberd_model::UnixNanos;
use http::{HeaderValue, StatusCode};
use time::OffsetDateTime;
use time::macros::format_description;
use tonic::{Code, Status};

use super::{halves, head};

/// The longest wait that an endpoint may ask for, and the most that is kept of what it says.
const WAIT_MAX: Duration = Duration::from_secs(300);
const SAID_BYTES_MAX: usize = 1024;
/// 2026-11-21 00:00:00 UTC.
const NOW_SECONDS: u64 = 1_795_219_200;
const NOW: UnixNanos = UnixNanos(NOW_SECONDS * 1_000_000_000);

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let retry_info =
        b"\x08\x0e\x1a\x32\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x06\x0a\x04\x08\x03\x10\x05";
    let partial = b"\x0a\x06\x08\x03\x12\x02no";
    vec![
        [&[0, 14, 0, 0][..], retry_info].concat(),
        [&[0, 2, 120, 0][..], b"Unexpected <class 'RecursionError'>: maximum recursion depth exceeded"].concat(),
        [&[0, 8, 255, 0][..], b"SERVER: Received message larger than max (4299537 vs. 4194304)"].concat(),
        [&[1, 200, 0, 0][..], partial].concat(),
        [&[1, 53, 20, 0][..], b"3\xc3\xa9 busy"].concat(),
    ]
}

/// Any answer is read: its wait and what is kept of its words are bounded, and a wait is not asked for where nothing was said.
pub(super) fn answer(input: &[u8]) {
    let ([_, code, at, _], rest) = head::<4>(input);
    let (one, other) = halves(rest, at);
    let words = String::from_utf8_lossy(one);

    let status = Status::with_details(Code::from_i32(i32::from(code % 20)), &*words, other.to_vec().into());
    let read = of_grpc(&status);
    is_bounded(read.wait, &read.said);
    assert!(!other.is_empty() || read.wait.is_none());

    let status = StatusCode::from_u16(100 + u16::from(code) * 3).expect("three digits");
    let header = HeaderValue::from_bytes(one).ok();
    let read = of_http(status, header.as_ref(), other, NOW);
    is_bounded(read.wait, &read.said);
    assert!(header.is_some() || read.wait.is_none());
    let busy = [408, 425, 429].contains(&status.as_u16()) || (status.as_u16() >= 502 && status.as_u16() != 505);
    assert_eq!(read.class == "busy", busy, "{status}");

    let (_, said) = taken(rest);
    assert!(said.len() <= SAID_BYTES_MAX);
}

fn is_bounded(wait: Option<Duration>, said: &str) {
    assert!(wait.is_none_or(|wait| wait <= WAIT_MAX), "{wait:?}");
    assert!(said.len() <= SAID_BYTES_MAX, "{} bytes", said.len());
}

pub(super) fn retry_after_seeds() -> Vec<Vec<u8>> {
    [
        "7",
        " 120 ",
        "99999999999999999999999",
        "Sat, 21 Nov 2026 00:00:30 GMT",
        "Fri, 20 Nov 2026 23:59:59 GMT",
        "-1",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// `Retry-After` is seconds or a date of HTTP's form, each bounded; anything else says nothing.
pub(super) fn retry_after(input: &[u8]) {
    let wait = |value: &[u8]| {
        let header = HeaderValue::from_bytes(value).ok()?;
        of_http(StatusCode::SERVICE_UNAVAILABLE, Some(&header), b"", NOW).wait
    };
    let found = wait(input);
    assert!(found.is_none_or(|wait| wait <= WAIT_MAX));
    let text = str::from_utf8(input).unwrap_or_default().trim_matches([' ', '\t']);
    let is_header = HeaderValue::from_bytes(input).is_ok();
    if is_header && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.bytes().fold(0_u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(1_000));
        assert_eq!(found, Some(Duration::from_secs(seconds).min(WAIT_MAX)), "{text:?}");
    } else if found.is_some() {
        assert!(text.ends_with("GMT") && text.len() >= 29, "{text:?} is no date");
    }
    // Any second from 1970 to 2106, as a server would write it.
    let seconds = u32::from_le_bytes(head::<4>(input).0);
    let date = OffsetDateTime::from_unix_timestamp(seconds.into()).expect("within 136 years");
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let date = date.format(&form).expect("a date can be written");
    let until = Duration::from_secs(u64::from(seconds).saturating_sub(NOW_SECONDS));
    assert_eq!(wait(date.as_bytes()), Some(until.min(WAIT_MAX)), "{date}");
}
