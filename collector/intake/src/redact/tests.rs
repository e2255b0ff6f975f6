//! Rules over requests: what they reach, and what they leave alone.

use emberd_model::wire::{self, Limits};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn says(name: &str, action: Action) -> Says {
    Says { name: name.into(), attributes: Vec::new(), find: Vec::new(), patterns: Vec::new(), action }
}

fn named(name: &str, attributes: &[&str], action: Action) -> Rule {
    let attributes = attributes.iter().map(|&name| name.into()).collect();
    Rule::new(Says { attributes, ..says(name, action) }).unwrap()
}

fn found(name: &str, find: &[&str], patterns: &[&str], action: Action) -> Rule {
    let of = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Rule::new(Says { find: of(find), patterns: of(patterns), ..says(name, action) }).unwrap()
}

fn hash() -> Action {
    Action::Hash(HashKey::new(b"0123456789abcdef").unwrap())
}

fn redact(rules: impl IntoIterator<Item = Rule>) -> Redact {
    Redact::new(rules.into_iter().collect()).unwrap().unwrap()
}

fn any(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    any(Any::StringValue(text.into()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn span(attributes: Vec<KeyValue>) -> Span {
    Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "chat".into(), attributes, ..Span::default() }
}

fn request(span: Span) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// What is left of a request, which must be the same when it goes in again.
fn after(rules: &Redact, request: &ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    let bytes = request.encode_to_vec();
    let once = rules.request(&bytes, &Limits::default()).unwrap().body.unwrap_or(bytes);
    let decoded = ExportTraceServiceRequest::decode(&once[..]).unwrap();
    let hashes = rules.rules.iter().any(|rule| rule.patterns.is_empty() && matches!(rule.action, Action::Hash(_)));
    let twice = rules.request(&once, &Limits::default()).unwrap().body;
    assert!(hashes || twice.is_none(), "it does not come to rest: {decoded:?}");
    decoded
}

/// What becomes of one attribute.
fn attribute(rules: &Redact, key: &str, value: AnyValue) -> Option<AnyValue> {
    let mut left = after(rules, &request(span(vec![pair(key, value)])));
    left.resource_spans[0].scope_spans[0].spans[0].attributes.pop().map(|pair| pair.value.unwrap())
}

/// What becomes of a text.
fn words(rules: &Redact, of: &str) -> String {
    match attribute(rules, "input.value", text(of)) {
        Some(AnyValue { value: Some(Any::StringValue(text)) }) => text,
        other => panic!("{other:?}"),
    }
}

/// Twenty places of a span, each with the text.
fn everywhere(secret: &str) -> ExportTraceServiceRequest {
    let json = serde_json::json!({ "a": [{ "b": secret }], "c": secret }).to_string();
    let list = any(Any::ArrayValue(ArrayValue { values: vec![text(secret)] }));
    let pairs =
        any(Any::KvlistValue(KeyValueList { values: vec![pair("inner", text(secret)), pair(secret, text("x"))] }));
    let attributes = |name: &str| vec![pair(name, text(secret))];
    let mut of_span = vec![
        pair("plain", text(secret)),
        pair("around", text(&format!("before {secret} after"))),
        pair("list", list),
        pair("pairs", pairs),
        pair("bytes", any(Any::BytesValue(secret.into()))),
        pair("broken", any(Any::BytesValue([b"\xff\xfe ", secret.as_bytes(), b" \xff"].concat()))),
        pair("metadata", text(&json)),
        pair("escaped", text(&serde_json::json!([json]).to_string())),
        pair("llm.input_messages.0.message.content", text(secret)),
    ];
    of_span.push(pair(secret, text("a name")));
    let mut one = request(Span {
        name: format!("call {secret}"),
        trace_state: format!("k={secret}"),
        status: Some(Status { message: secret.into(), code: 2 }),
        events: vec![Event { name: secret.into(), attributes: attributes("e"), ..Event::default() }],
        links: vec![Link { trace_state: secret.into(), attributes: attributes("l"), ..Link::default() }],
        ..span(of_span)
    });
    let resource = &mut one.resource_spans[0];
    resource.resource = Some(Resource { attributes: attributes("service.name"), ..Resource::default() });
    resource.schema_url = secret.into();
    resource.scope_spans[0].schema_url = secret.into();
    resource.scope_spans[0].scope = Some(InstrumentationScope {
        name: secret.into(),
        version: secret.into(),
        attributes: attributes("s"),
        ..InstrumentationScope::default()
    });
    one
}

fn holds(request: &ExportTraceServiceRequest, secret: &str) -> bool {
    memchr::memmem::find(&request.encode_to_vec(), secret.as_bytes()).is_some()
}

/// A pattern reaches every text of a request, and its ids stay.
#[test]
fn a_pattern_reaches_every_place() {
    let secret = "canary-7f3@mail.example";
    let request = everywhere(secret);
    for action in [Action::Mask, Action::Drop, hash()] {
        let left = after(&redact([found("email", &["email"], &[], action)]), &request);
        assert!(!holds(&left, "canary-7f3"), "{left:?}");
        let span = &left.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((&span.trace_id[..], &span.span_id[..]), (&[1; 16][..], &[2; 8][..]));
    }
}

/// What no rule finds stays as it came, byte for byte, and is not even copied.
#[test]
fn what_holds_nothing_stays() {
    let rules = redact([found("email", &["email"], &[], Action::Mask), named("key", &["**.api_key"], Action::Drop)]);
    let request = everywhere("nothing to be found").encode_to_vec();
    let redacted = rules.request(&request, &Limits::default()).unwrap();
    assert_eq!((redacted.body, redacted.counts), (None, vec![0, 0]));
}

/// However a name is split between dots, lists and JSON, its value is reached.
#[test]
fn a_name_is_reached_however_it_is_split() {
    let rules = redact([named("who", &["metadata.user.email", "llm.input_messages.*.message.content"], Action::Mask)]);
    let masked = "[redacted:who]";
    let kv = |key: &str, value| any(Any::KvlistValue(KeyValueList { values: vec![pair(key, value)] }));
    let list = |value| any(Any::ArrayValue(ArrayValue { values: vec![value] }));
    for (key, value) in [
        ("metadata.user.email", text("s3cret")),
        ("METADATA.User.Email", text("s3cret")),
        ("metadata.user.email.home", text("s3cret")),
        ("metadata.user", kv("email", text("s3cret"))),
        ("metadata", kv("user.email", text("s3cret"))),
        ("metadata", kv("user", kv("email", list(text("s3cret"))))),
        ("metadata", text(r#" {"a": 1, "user": {"email": "s3cret"}, "z": 2} "#)),
        ("metadata", text(r#"{"user": "{\"email\": \"s3cret\"}"}"#)),
        ("metadata", text(r#"{"user": {"\u0065mail": ["s3cret", {"x": "s3cret"}]}}"#)),
        ("metadata", text(r#"{"user": {"email": "s3cret, cut sh"#)),
        ("metadata", text(r#"{"user": {"email": {"x": ["s3cret", "cut sh"#)),
        ("elsewhere", text(r#"{"metadata": {"user": {"email": "s3cret"}}}"#)),
        ("llm.input_messages.3.message.content", text("s3cret")),
        ("llm.input_messages", text(r#"[{"message.content": "s3cret", "message.role": "user"}]"#)),
        ("llm.input_messages", list(kv("message", kv("content", text("s3cret"))))),
    ] {
        let left = after(&rules, &request(span(vec![pair(key, value.clone())])));
        assert!(!holds(&left, "s3cret") && holds(&left, masked), "{key} {value:?} became {left:?}");
    }
    for key in ["metadata.user.emails", "metadata.user", "user.email", "llm.input_messages.0.message.role"] {
        assert_eq!(attribute(&rules, key, text("kept")), Some(text("kept")), "{key}");
    }
}

/// JSON stays JSON: members go with their commas, numbers that are found become texts, and all else is copied as it is written.
#[test]
fn json_stays_json() {
    let rules = redact([named("gone", &["secret"], Action::Drop), found("card", &["credit_card"], &[], Action::Mask)]);
    for (before, expected) in [
        (r#"{"secret": 1}"#, "{}"),
        (r#"{"secret": 1, "b": 2}"#, r#"{ "b": 2}"#),
        (r#"{"a": 1.50, "secret": [1, "]"], "b": 1e400}"#, r#"{"a": 1.50, "b": 1e400}"#),
        (r#"[{"secret": {}}, {"x": {"secret": null}}]"#, r#"[{}, {"x": {}}]"#),
        (r#"{"n": 4111111111111111}"#, r#"{"n": "[redacted:card]"}"#),
        (r#"{"n": "4111\u00201111 1111-1111"}"#, r#"{"n": "[redacted:card]"}"#),
        (r#"{"a": "unchanged \u0041 \/"}"#, r#"{"a": "unchanged \u0041 \/"}"#),
        ("{\"secret\": 1}\n{\"a\": 1}", "{}\n{\"a\": 1}"),
        ("{not json} 4111111111111111", "{not json} [redacted:card]"),
    ] {
        assert_eq!(words(&rules, before), expected);
    }
}

/// Each ready-made pattern finds what it is for, beside anything, and leaves alone what only looks like it.
#[test]
fn ready_made_patterns() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("email", &["a.b+c@d-e.co.uk", "jörg@müller.de"], &["@home", "a@b", "1 @ 2.50"]),
        (
            "credit_card",
            &["4111111111111111", "4111 1111 1111 1111", "3782-822463-10005", "5555555555554444"],
            &["4111111111111112", "1234567890123456789012345", "0000 0000 0000 0000"],
        ),
        (
            "phone",
            &["+49 30 901820", "+1 (555) 010-9999", "(555) 010-9999", "555-010-9999"],
            &["2024-01-02", "12345678"],
        ),
        (
            "iban",
            &["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"],
            &["DE88370400440532013000", "ab12 is here"],
        ),
        (
            "api_key",
            &["sk-abcdefghijklmnop1234", "AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefghij0123"],
            &["sk-short", "task-abcdefghijklmnop1234x", "akia"],
        ),
        (
            "bearer",
            &["Bearer abcDEF123456.xyz", "authorization: basic dXNlcjpwYXNzd29yZA=="],
            &["a basic understanding"],
        ),
        ("jwt", &["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_d"], &["eyJ"]),
        (
            "private_key",
            &["-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
            &["-----BEGIN CERTIFICATE-----"],
        ),
        ("us_ssn", &["078-05-1120"], &["1078-05-11203"]),
        ("ipv4", &["192.168.0.1"], &["1.2.3", "999.1.1.1"]),
    ];
    assert_eq!(table.len(), super::presets::PRESETS.len());
    for (name, yes, no) in table {
        let rules = redact([found("it", &[name], &[], Action::Mask)]);
        for of in *yes {
            let left = words(&rules, &format!("say 12 {of}, and"));
            assert!(left.contains("[redacted:it]") && !left.contains(of), "{name}: {of} became {left:?}");
        }
        for of in *no {
            assert_eq!(words(&rules, of), **of, "{name}");
        }
    }
}

/// What is hashed stays equal to its equals, in whatever form it came, and says nothing else.
#[test]
fn hashes_still_join() {
    let rules = redact([named("user", &["user.id", "metadata.uid"], hash())]);
    let as_text = attribute(&rules, "user.id", text("42")).unwrap();
    assert_eq!(attribute(&rules, "user.id", any(Any::IntValue(42))).unwrap(), as_text);
    let Some(Any::StringValue(hex)) = &as_text.value else { panic!("{as_text:?}") };
    assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hex}");
    for json in [r#"{"uid":"42"}"#, r#"{"uid":42}"#] {
        assert_eq!(attribute(&rules, "metadata", text(json)).unwrap(), text(&format!(r#"{{"uid":"{hex}"}}"#)));
    }
    assert_ne!(attribute(&rules, "user.id", text("43")).unwrap(), as_text);
}

/// A rule with both looks for its patterns under its names, and nowhere else.
#[test]
fn names_bound_where_patterns_look() {
    let says = Says { attributes: vec!["input.value".into()], find: vec!["email".into()], ..says("in", Action::Mask) };
    let rules = redact([Rule::new(says).unwrap()]);
    assert_eq!(attribute(&rules, "input.value", text("to a@b.cd")), Some(text("to [redacted:in]")));
    assert_eq!(attribute(&rules, "output.value", text("to a@b.cd")), Some(text("to a@b.cd")));
}

/// Fields that OTLP does not know are not passed on, and a list's earlier pieces are looked at like its last.
#[test]
fn nothing_hides_in_the_wire_form() {
    let rules = redact([found("email", &["email"], &[], Action::Mask)]);
    let mut raw = span(Vec::new()).encode_to_vec();
    // Field 200, text; field 9, a pair whose value is set twice and whose key stands last.
    raw.extend(b"\xc2\x0c\x07u@x.com");
    raw.extend(b"\x4a\x18\x12\x09\x0a\x07v@x.com\x12\x08\x0a\x06w@x.co\x0a\x01k");
    let scope = [&[0x12, raw.len() as u8][..], &raw].concat();
    let resource = [&[0x12, scope.len() as u8][..], &scope].concat();
    let request = [&[0x0a, resource.len() as u8][..], &resource].concat();
    assert_eq!(wire::check(&request, &Limits::default()).unwrap().spans, 1);
    let left = rules.request(&request, &Limits::default()).unwrap().body.unwrap();
    assert!(memchr::memchr(b'@', &left).is_none(), "{:?}", String::from_utf8_lossy(&left));
    assert_eq!(wire::spans(&left).count(), 1);
}

/// What is nested too deep to be looked into does not get by.
#[test]
fn what_is_too_deep_is_masked() {
    let rules = redact([named("who", &["email"], Action::Mask)]);
    let deep = format!("{}{{\"email\":\"s3cret\"}}{}", "[".repeat(500), "]".repeat(500));
    let left = words(&rules, &deep);
    assert!(left.contains("[redacted:too_deep]") && !left.contains("s3cret"), "{left}");
    let mut nested = r#"{"email":"s3cret"}"#.to_owned();
    for _ in 0..10 {
        nested = serde_json::json!([nested]).to_string();
    }
    let left = words(&rules, &nested);
    assert!(left.contains("redacted:") && !left.contains("s3cret"), "{left}");
}

/// A rule that cannot be is refused with its key.
#[test]
fn bad_rules_are_told() {
    let of = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    for (says, key) in [
        (says("a", Action::Mask), ""),
        (Says { find: of(&["email"]), ..says("A b", Action::Mask) }, "name"),
        (Says { find: of(&["e-mail"]), ..says("a", Action::Mask) }, "find"),
        (Says { patterns: of(&["("]), ..says("a", Action::Mask) }, "patterns"),
        (Says { patterns: of(&["x*"]), ..says("a", Action::Mask) }, "patterns"),
        (Says { patterns: of(&[r"(\w{1000}){1000}"]), ..says("a", Action::Mask) }, "patterns"),
        (Says { attributes: of(&[""]), ..says("a", Action::Mask) }, "attributes"),
    ] {
        let bad = Rule::new(says.clone()).unwrap_err();
        assert!(bad.iter().any(|bad| bad.key == key), "{says:?}: {bad:?}");
    }
    assert!(HashKey::new(b"too short").is_none());
}

/// Patterns that find themselves in what stands in their place, and in each other's.
fn awkward() -> Redact {
    redact([
        found("re", &[], &["red", r"\w+\]", "ac.{0,3}t"], Action::Mask),
        found("h1", &[], &[r"[0-9]{2}", "q.*q"], hash()),
        found("drop", &[], &["zz"], Action::Drop),
        named("named", &["k.*.v", "**.w"], Action::Mask),
    ])
}

fn json_texts() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[redac0-9q\\]\\[z ]{0,12}".prop_map(serde_json::Value::from),
        proptest::num::i32::ANY.prop_map(Into::into)
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::vec(("[kvw]{1,2}", inner.clone()), 0..4)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            inner.prop_map(|inner| inner.to_string().into()),
        ]
    });
    (value, 0..4_usize).prop_map(|(value, cut)| {
        let text = value.to_string();
        let end = (0..=text.len().saturating_sub(cut)).rev().find(|&end| text.is_char_boundary(end));
        text[..end.unwrap_or(0)].to_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// What came out comes out the same if it goes in again, and is a request with the same spans.
    #[test]
    fn it_comes_to_rest(texts in prop::collection::vec(prop_oneof!["\\PC{0,24}", "[redact:1\\]\\[0-9q ]{0,24}", json_texts()], 1..4)) {
        let pairs = texts.iter().enumerate().map(|(nr, of)| pair(["k", "k.x", "a"][nr % 3], text(of))).collect();
        let mut request = request(span(pairs));
        request.resource_spans[0].scope_spans[0].spans[0].name = texts[0].clone();
        after(&awkward(), &request);
    }

    /// JSON that goes in comes out as JSON.
    #[test]
    fn whole_json_stays_whole(of in json_texts()) {
        let rules = redact([named("named", &["k.*.v", "**.w", "v"], Action::Drop), found("p", &["credit_card"], &["[0-9]{2}"], Action::Mask)]);
        let is_list = of.starts_with(['{', '[']);
        if is_list && let Some(AnyValue { value: Some(Any::StringValue(left)) }) = attribute(&rules, "k", text(&of)) {
            let (before, now) = (serde_json::from_str::<serde_json::Value>(&of), serde_json::from_str::<serde_json::Value>(&left));
            prop_assert!(before.is_err() || now.is_ok(), "{of} became {left}");
        }
    }

    /// A secret is reached in whatever it is wrapped: lists, pairs, JSON, JSON in JSON.
    #[test]
    fn no_wrapping_hides_a_secret(wraps in prop::collection::vec(0..6_u8, 0..9), cut in 0..2_usize) {
        let secret = "who-9f2@hidden.example";
        let mut value = text(&secret[..secret.len()]);
        for wrap in wraps {
            value = match (wrap, &value.value) {
                (0, _) => any(Any::ArrayValue(ArrayValue { values: vec![text("x"), value] })),
                (1, _) => any(Any::KvlistValue(KeyValueList { values: vec![pair("k", value)] })),
                (2, Some(Any::StringValue(inner))) => text(&serde_json::json!({ "k": inner, "n": 1 }).to_string()),
                (3, Some(Any::StringValue(inner))) => text(&serde_json::json!([1, inner]).to_string()),
                (4, Some(Any::StringValue(inner))) => any(Any::BytesValue(inner.clone().into_bytes())),
                (5, Some(Any::StringValue(inner))) => text(&format!("\"{}\"", inner.replace('\\', "\\\\").replace('"', "\\\"").replace('@', "\\u0040"))),
                _ => value,
            };
        }
        if let Some(AnyValue { value: Some(Any::StringValue(inner)) }) = (cut == 1).then_some(&value) {
            value = text(&inner[..inner.len() - usize::from(inner.ends_with(['}', ']', '"']))]);
        }
        let left = after(&redact([found("email", &["email"], &[], Action::Mask)]), &request(span(vec![pair("a", value)])));
        prop_assert!(!holds(&left, "hidden.example"), "{left:?}");
    }
}
