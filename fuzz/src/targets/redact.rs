//! Redaction of whatever passes the walk.

use emberd_intake::redact::{Action, HashKey, Redact, Rule, Says};
use emberd_model::wire::{self, Limits};

use super::head;

fn rules(by: u8) -> Redact {
    let of = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let action = |nr: u8| match nr % 3 {
        0 => Action::Mask,
        1 => Action::Drop,
        _ => Action::Hash(HashKey::new(b"sixteen bytes or more").expect("long enough")),
    };
    let rule = |name: &str, attributes: &[&str], find: &[&str], patterns: &[&str], action| {
        let (attributes, find, patterns) = (of(attributes), of(find), of(patterns));
        Rule::new(Says { name: name.into(), attributes, find, patterns, action }).expect("a rule")
    };
    // Attributes are not hashed whole: that is a new value each time.
    let by_name = if by & 1 == 0 { Action::Mask } else { Action::Drop };
    let found = ["email", "credit_card", "phone", "iban", "api_key", "bearer", "jwt", "private_key", "us_ssn", "ipv4"];
    let all = vec![
        rule("named", &["llm.**.content", "metadata.*", "**.a"], &[], &[], by_name),
        rule("found", &[], &found, &[], action(by >> 1)),
        rule("odd", &[], &[], &[r"\w\]", "re", "[0-9]{2}", r"\[.?\["], action(by >> 3)),
    ];
    Redact::new(all).expect("rules").expect("some")
}

/// What comes out is well-formed, holds the same spans with the same ids, and comes out the same if it goes in again; what holds nothing
/// to be found stays as it came.
pub(super) fn redact(input: &[u8]) {
    let ([by, ..], request) = head::<4>(input);
    let limits = Limits::default();
    let request = &wire::without_rejected(request, &limits);
    let Ok(checked) = wire::check(request, &limits) else { return };
    let rules = rules(by);
    let Some(once) = rules.request(request, &limits).expect("what the walk takes can be redacted").body else { return };
    assert!(once != *request);
    let again = wire::check(&once, &limits).expect("what comes out is well-formed");
    assert_eq!((again.spans, again.rejected), (checked.spans, 0));
    let ids = |bytes: &[u8]| -> Vec<_> {
        wire::spans(bytes).map(|found| (found.span.trace_id, found.span.span_id, found.span.parent_span_id)).collect()
    };
    assert_eq!(ids(&once), ids(request));
    let twice = rules.request(&once, &limits).expect("and a second time").body;
    assert!(
        twice.is_none(),
        "{:?} became {:?}",
        String::from_utf8_lossy(&once),
        twice.map(|it| String::from_utf8_lossy(&it).into_owned())
    );
}

/// Real exports, and the texts that rules look for.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut all = crate::seeds::headed_requests();
    let texts = [
        r#"{"a": [1, {"metadata": {"x": "me@there.example"}}], "n": 4111111111111111}"#,
        r#"["{\"llm.0.content\": \"\u0034111 1111 1111 1111\"}", "[redacted:odd]"]"#,
        "call +49 30 901820 or Bearer abcDEF123456.xyz, DE89 3704 0044 0532 0130 00",
    ];
    all.extend(texts.map(|text| {
        let value = [&[0x0a, text.len() as u8][..], text.as_bytes()].concat();
        let pair = [b"\x0a\x08metadata\x12", &[value.len() as u8][..], &value].concat();
        let span = [b"\x0a\x10aaaaaaaaaaaaaaaa\x12\x08bbbbbbbb\x4a", &[pair.len() as u8][..], &pair].concat();
        let put = |inner: Vec<u8>, key: u8| {
            let mut out = vec![key];
            let mut length = inner.len();
            while length >= 0x80 {
                out.push(length as u8 | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend(inner);
            out
        };
        [vec![0; 4], put(put(put(span, 0x12), 0x12), 0x0a)].concat()
    }));
    all
}
