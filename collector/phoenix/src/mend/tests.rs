//! Each rule alone, and what holds for all of them together.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValueList;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};
use proptest::prelude::*;

use super::*;

fn holding(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(holding(value)), ..KeyValue::default() }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn pairs(values: Vec<KeyValue>) -> Value {
    Value::KvlistValue(KeyValueList { values })
}

fn span(attributes: Vec<KeyValue>) -> Span {
    Span { trace_id: vec![7; 16], span_id: vec![9; 8], name: "call".to_owned(), attributes, ..Span::default() }
}

fn request(resource: Vec<KeyValue>, spans: Vec<Span>) -> Bytes {
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

fn decoded(body: &Bytes) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&body[..]).unwrap()
}

/// The only span of a request that holds one, mended, and what was marked.
fn mended_span(span: Span) -> (Span, Vec<(What, String)>) {
    let once = mend(&request(vec![], vec![span])).unwrap();
    let twice = mend(&once.body).unwrap();
    assert!(!twice.changed, "mending is not idempotent: {:?}", twice.marks);
    assert_eq!(twice.body, once.body);
    let mut tree = decoded(&once.body);
    let span = tree.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
    (span, once.marks.into_iter().map(|mark| (mark.what, mark.place)).collect())
}

/// The attributes after mending; the last of a repeated key wins, as in Phoenix.
fn mended(attributes: Vec<KeyValue>) -> (BTreeMap<String, Value>, Vec<(What, String)>) {
    let (span, marks) = mended_span(span(attributes));
    let value = |attribute: KeyValue| Some((attribute.key, attribute.value?.value?));
    (span.attributes.into_iter().filter_map(value).collect(), marks)
}

/// What is fine goes out as the very bytes that came in.
#[test]
fn what_is_in_order_is_not_touched() {
    let plain = vec![
        pair("openinference.span.kind", text("LLM")),
        pair("llm.token_count.prompt", Value::IntValue(1_000_000_000)),
        pair("metadata", text(r#"{"user":"é","n":123456789012345678}"#)),
        pair("numbers.0.list", Value::DoubleValue(f64::NAN)),
        pair("gen_ai.request.model", text("gpt-4o")),
    ];
    let request = request(vec![pair(PROJECT, text("shop"))], vec![span(plain)]);
    let mended = mend(&request).unwrap();
    assert!(!mended.changed && mended.marks.is_empty());
    assert_eq!(mended.body.as_ptr(), request.as_ptr());
}

/// Phoenix's JSON writer does not take bytes, wherever they lie: it drops the span.
#[test]
fn bytes_become_base64_wherever_they_lie() {
    let bytes = || Value::BytesValue(vec![0, 255, 1]);
    let list = Value::ArrayValue(ArrayValue { values: vec![holding(bytes()), holding(text("x"))] });
    let (values, marks) = mended(vec![
        pair("payload", bytes()),
        pair("list", list),
        pair("deep", pairs(vec![pair("er", pairs(vec![pair("est", bytes())]))])),
    ]);
    assert_eq!(values["payload"], text("AP8B"));
    assert!(matches!(&values["list"], Value::ArrayValue(list) if list.values[0] == holding(text("AP8B"))));
    assert_eq!(marks.iter().map(|(what, _)| *what).collect::<Vec<_>>(), [What::Bytes; 3]);
    assert_eq!(marks[2].1, "deep.er.est");

    let event = Event { name: "e".to_owned(), attributes: vec![pair("raw", bytes())], ..Event::default() };
    let (span, marks) = mended_span(Span { events: vec![event], ..span(vec![]) });
    assert_eq!(span.events[0].attributes[0].value, Some(holding(text("AP8B"))));
    assert_eq!(marks, [(What::Bytes, "raw".to_owned())]);
}

/// PostgreSQL stores no NUL: in no key, name, message, event or value.
#[test]
fn no_nul_is_left_anywhere() {
    let event = Event { name: "e\0".to_owned(), attributes: vec![pair("k\0", text("v\0"))], ..Event::default() };
    let (span, _) = mended_span(Span {
        name: "na\0me".to_owned(),
        status: Some(Status { message: "\0".to_owned(), code: 2 }),
        events: vec![event],
        ..span(vec![
            pair("k\0ey", text("va\0lue")),
            pair("list", Value::ArrayValue(ArrayValue { values: vec![holding(pairs(vec![pair("a\0", text("\0"))]))] })),
        ])
    });
    assert_eq!(span.name, "na\u{fffd}me");
    assert_eq!(span.attributes[0], pair("k\u{fffd}ey", text("va\u{fffd}lue")));
    assert!(!format!("{span:?}").contains("\\0"), "{span:?}");
}

/// A kind that is no text is kept as text beside the one that took its place, and is no way around the rule for NULs.
#[test]
fn no_nul_is_left_in_an_original() {
    let list = Value::ArrayValue(ArrayValue { values: vec![holding(text("a\0b"))] });
    let pairs = pairs(vec![pair("k\0", text("v\0"))]);
    for (kind, original) in [(list, "a\u{fffd}b"), (pairs, "k\u{fffd}=v\u{fffd}")] {
        let (values, marks) = mended(vec![pair("openinference.span.kind", kind)]);
        assert_eq!(values["openinference.span.kind"], text("UNKNOWN"));
        assert_eq!(values["emberd.original.openinference.span.kind"], text(original));
        assert!(marks.contains(&(What::Nul, "emberd.original.openinference.span.kind".to_owned())), "{marks:?}");
    }
}

/// The list of changes says which, and is bounded.
#[test]
fn the_span_says_what_was_changed() {
    let (values, _) = mended(vec![pair("payload", Value::BytesValue(vec![1]))]);
    let list = ArrayValue { values: vec![holding(text("bytes: payload"))] };
    assert_eq!(values[MENDED], Value::ArrayValue(list));

    let many = (0..100).map(|index| pair(&format!("k{index}"), Value::BytesValue(vec![1]))).collect();
    let (values, marks) = mended(many);
    assert_eq!(marks.len(), 100);
    let Value::ArrayValue(list) = &values[MENDED] else { panic!() };
    assert_eq!(list.values.len(), LISTED_MAX + 1);
    assert_eq!(list.values[LISTED_MAX], holding(text("and 68 more")));
}

/// Counts are kept in 32 bits, and so is the sum of prompt and completion; the original stays beside.
#[test]
fn token_counts_beyond_32_bits_are_clamped_and_kept() {
    for (big, original) in [
        (Value::IntValue(1 << 62), (1_i64 << 62).to_string()),
        (text("99999999999999999999999999999999999999999999999999"), "9".repeat(50)),
        (Value::DoubleValue(1e300), 1e300.to_string()),
        (Value::IntValue(3_000_000_000), "3000000000".to_owned()),
        (text(" 4_000_000_000 "), " 4_000_000_000 ".to_owned()),
    ] {
        let (values, marks) = mended(vec![pair("llm.token_count.prompt", big)]);
        assert_eq!(values["llm.token_count.prompt"], Value::IntValue(1_000_000_000));
        assert_eq!(values["emberd.original.llm.token_count.prompt"], text(&original));
        assert_eq!(marks, [(What::BigNumber, "llm.token_count.prompt".to_owned())]);
    }
    let (values, _) = mended(vec![pair("llm.token_count.total", Value::IntValue(i64::MIN))]);
    assert_eq!(values["llm.token_count.total"], Value::IntValue(-1_000_000_000));

    let count = pairs(vec![pair("token_count", pairs(vec![pair("completion", Value::IntValue(1 << 40))]))]);
    let (values, marks) = mended(vec![pair("llm", count)]);
    assert_eq!(marks[0].1, "llm.token_count.completion");
    assert!(format!("{:?}", values["llm"]).contains("1000000000"));

    for fine in [text("77"), Value::DoubleValue(f64::INFINITY), text("many"), Value::IntValue(-5), text("")] {
        let (values, marks) = mended(vec![pair("llm.token_count.prompt", fine.clone())]);
        assert_eq!((&values["llm.token_count.prompt"], marks.len()), (&fine, 0));
    }
}

/// A count that only Phoenix would derive is clamped before it does.
#[test]
fn a_count_under_its_current_name_is_clamped_too() {
    let (values, _) = mended(vec![
        pair("gen_ai.usage.input_tokens", Value::IntValue(1 << 62)),
        pair("gen_ai.usage.output_tokens", Value::IntValue(5)),
    ]);
    assert_eq!(values["llm.token_count.prompt"], Value::IntValue(1_000_000_000));
    assert_eq!(values["llm.token_count.total"], Value::IntValue(1_000_000_000));
    assert!(!values.contains_key("llm.token_count.completion"), "phoenix derives that one");
}

#[test]
fn a_key_nests_no_deeper_than_phoenix_can_write() {
    let key = |parts: usize| vec!["a"; parts].join(".");
    for parts in [300, 3_000, 34] {
        let (values, marks) = mended(vec![pair(&key(parts), Value::IntValue(1))]);
        let made = values.keys().find(|key| key.starts_with('a')).unwrap();
        assert_eq!(made.matches('.').count(), 32);
        assert_eq!(made.len(), key(parts).len());
        assert_eq!(marks[0].0, What::DeepKey);
        assert!(marks[0].1.len() <= 100);
    }
    assert_eq!(mended(vec![pair(&key(33), Value::IntValue(1))]).1, []);
}

/// Python calls `²` a digit and then cannot read it, nor a number of 5,000 digits: the rest of the request went with it.
#[test]
fn a_part_of_a_key_that_is_no_number_after_all() {
    for (key, made) in [
        ("a.².b".to_owned(), "a._².b".to_owned()),
        (format!("a.{}.b", "9".repeat(5_000)), format!("a._{}.b", "9".repeat(5_000))),
        ("³".to_owned(), "_³".to_owned()),
    ] {
        let (values, marks) = mended(vec![pair(&key, Value::IntValue(1))]);
        assert!(values.contains_key(&made));
        assert_eq!(marks[0].0, What::DigitKey);
    }
    assert_eq!(mended(vec![pair("llm.input_messages.0.message.role", text("user"))]).1, []);
}

/// One span kind that is no text makes Phoenix answer 500 to every listing of its project; one without a letter, its decoder
/// never comes back from.
#[test]
fn span_kinds_are_texts_with_letters_and_known_ones_are_spelled_so() {
    let list = Value::ArrayValue(ArrayValue { values: vec![holding(text("LLM")), holding(Value::IntValue(1))] });
    for (given, original) in [
        (Value::IntValue(5), "5"),
        (Value::BoolValue(true), "true"),
        (list, "LLM 1"),
        (pairs(vec![pair("a", Value::IntValue(1))]), "a=1"),
        (text("5"), "5"),
        (text("--"), "--"),
    ] {
        let (values, marks) = mended(vec![pair("openinference.span.kind", given)]);
        assert_eq!(values["openinference.span.kind"], text("UNKNOWN"));
        assert_eq!(values["emberd.original.openinference.span.kind"], text(original));
        assert_eq!(marks, [(What::Kind, "openinference.span.kind".to_owned())]);
    }
    for (given, made) in [("llm", "LLM"), (" Chain ", "CHAIN"), ("unknown", "UNKNOWN")] {
        assert_eq!(mended(vec![pair("openinference.span.kind", text(given))]).0["openinference.span.kind"], text(made));
    }
    let nested = pairs(vec![pair("span", pairs(vec![pair("kind", Value::IntValue(7))]))]);
    assert!(format!("{:?}", mended(vec![pair("openinference", nested)]).0).contains("StringValue(\"UNKNOWN\")"));
    for fine in ["LLM", "BANANA", "banana", "", "²", "x1"] {
        assert_eq!(mended(vec![pair("openinference.span.kind", text(fine))]).1, [], "{fine}");
    }
}

/// Phoenix parses these texts and stores what they say: it must be storable.
#[test]
fn json_in_a_text_is_made_safe() {
    for (given, made) in [
        (r#"{"a":"x\u0000y"}"#, r#"{"a":"x\ufffdy"}"#),
        (r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#),
        (r#"["\ud83d\ude00","\udc00\u0041"]"#, r#"["\ud83d\ude00","\ufffd\u0041"]"#),
    ] {
        assert_eq!(mended(vec![pair("metadata", text(given))]).0["metadata"], text(made));
    }
    for fine in [r#"{"a":"\\u0000"}"#, r#"{"a":"\u00e9"}"#, r"\u12", "\\", r#"{"a":"123456789012345678901234"}"#] {
        assert_eq!(mended(vec![pair("metadata", text(fine))]).0["metadata"], text(fine));
    }
    let deep = "[".repeat(300) + &"]".repeat(300);
    let big = format!("{{\"a\":{}}}", "9".repeat(100));
    for trap in [&deep, &big] {
        let (values, marks) = mended(vec![pair("retrieval.documents.0.document.metadata", text(trap))]);
        assert_eq!(values["retrieval.documents.0.document.metadata_text"], text(trap));
        assert_eq!(marks[0].0, What::JsonText);
        assert_eq!(mended(vec![pair("input.value", text(trap))]).1, [], "phoenix does not parse this one");
    }
}

/// Session ids and project names are keys of an index, which PostgreSQL bounds.
#[test]
fn what_phoenix_indexes_is_short_enough_and_stays_different() {
    let long = |end: &str| format!("{}{end}", "é".repeat(2_000));
    let session = |end| mended(vec![pair("session.id", text(&long(end)))]).0;
    let Value::StringValue(short) = &session("a")["session.id"] else { panic!() };
    assert!(short.len() <= 1_000 && short.starts_with("ééé"));
    assert_ne!(session("a")["session.id"], session("b")["session.id"]);
    assert_eq!(session("a")["emberd.original.session.id"], text(&long("a")));

    let project = |name: &str| {
        let mended = mend(&request(vec![pair(PROJECT, text(name))], vec![span(vec![])])).unwrap();
        assert!(!mend(&mended.body).unwrap().changed);
        let spans = emberd_model::wire::spans(&mended.body);
        (spans.map(|found| emberd_model::ledger::project_of(&found.resource).to_owned()).next().unwrap(), mended.marks)
    };
    assert_eq!(project("sh\0op").0, "sh\u{fffd}op");
    assert_eq!(project("").0, "default");
    let (name, marks) = project(&long("x"));
    assert!(name.len() <= 1_000);
    assert_eq!(marks[0].what, What::TooLong);
}

#[test]
fn spans_without_ids_are_left_out_and_named() {
    let bare = Span { trace_id: vec![], ..span(vec![]) };
    let short = Span { span_id: vec![1; 4], ..span(vec![]) };
    let mended = mend(&request(vec![], vec![bare, span(vec![]), short])).unwrap();
    assert_eq!(decoded(&mended.body).resource_spans[0].scope_spans[0].spans, [span(vec![])]);
    assert_eq!(mended.unforwardable.len(), 2);
    assert_eq!(mended.unforwardable[1].span, [1; 4]);
}

/// A span of an older OpenLLMetry, as captured: Phoenix alone shows its kind and model, and nothing else.
#[test]
fn what_phoenix_does_not_derive_is_added() {
    let (values, marks) = mended(vec![
        pair("gen_ai.system", text("openai")),
        pair("gen_ai.request.model", text("gpt-4o")),
        pair("llm.request.type", text("chat")),
        pair("gen_ai.prompt.0.role", text("system")),
        pair("gen_ai.prompt.0.content", text("be brief")),
        pair("gen_ai.prompt.1.role", text("user")),
        pair("gen_ai.prompt.1.content", text("weather?")),
        pair("gen_ai.completion.0.role", text("assistant")),
        pair("gen_ai.completion.0.content", text("sunny")),
        pair("gen_ai.completion.0.finish_reason", text("tool_call")),
        pair("gen_ai.completion.0.tool_calls.0.id", text("c1")),
        pair("gen_ai.completion.0.tool_calls.0.name", text("look")),
        pair("gen_ai.completion.0.tool_calls.0.arguments", text("{}")),
        pair("gen_ai.usage.prompt_tokens", Value::IntValue(11)),
        pair("gen_ai.usage.completion_tokens", Value::IntValue(7)),
        pair("llm.usage.total_tokens", Value::IntValue(18)),
        pair("gen_ai.usage.cache_read_input_tokens", Value::IntValue(3)),
        pair("traceloop.association.properties.session_id", text("s-1")),
        pair("traceloop.association.properties.user_id", text("u-1")),
    ]);
    for (key, value) in [
        ("llm.token_count.prompt", Value::IntValue(11)),
        ("llm.token_count.completion", Value::IntValue(7)),
        ("llm.token_count.total", Value::IntValue(18)),
        ("llm.token_count.prompt_details.cache_read", Value::IntValue(3)),
        ("llm.input_messages.1.message.role", text("user")),
        ("llm.input_messages.1.message.content", text("weather?")),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.name", text("look")),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments", text("{}")),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.id", text("c1")),
        ("llm.finish_reason", text("tool_call")),
        ("input.value", text("weather?")),
        ("input.mime_type", text("text/plain")),
        ("output.value", text("sunny")),
        ("session.id", text("s-1")),
        ("user.id", text("u-1")),
    ] {
        assert_eq!(values.get(key), Some(&value), "{key}");
    }
    for derived in ["openinference.span.kind", "llm.model_name", MENDED] {
        assert!(!values.contains_key(derived), "{derived} is phoenix's to add, or says nothing");
    }
    assert_eq!(marks, []);
}

#[test]
fn nothing_is_laid_over_what_is_there() {
    let given = vec![
        pair("openinference.span.kind", text("AGENT")),
        pair("llm.token_count.prompt", Value::IntValue(1)),
        pair("llm.input_messages.5.message.role", text("user")),
        pair("input.value", text("mine")),
        pair("session.id", text("mine")),
        pair("llm.request.type", text("chat")),
        pair("gen_ai.usage.prompt_tokens", Value::IntValue(11)),
        pair("gen_ai.prompt.0.content", text("other")),
        pair("gen_ai.conversation.id", text("other")),
        pair("traceloop.association.properties.session_id", text("other")),
    ];
    let (values, _) = mended(given.clone());
    for attribute in given {
        assert_eq!(values.get(&attribute.key), attribute.value.unwrap().value.as_ref());
    }
    assert!(!values.contains_key("llm.input_messages.0.message.content"));
}

#[test]
fn spans_of_frameworks_get_a_kind_and_their_texts() {
    let (values, _) = mended(vec![
        pair("traceloop.span.kind", text("workflow")),
        pair("traceloop.entity.input", text(r#"{"inputs":{}}"#)),
        pair("traceloop.entity.output", text("done")),
    ]);
    assert_eq!(values["openinference.span.kind"], text("CHAIN"));
    assert_eq!(
        (&values["input.mime_type"], &values["output.mime_type"]),
        (&text("application/json"), &text("text/plain"))
    );

    let (values, _) =
        mended(vec![pair("llm.request.type", text("embedding")), pair("gen_ai.response.model", text("ada"))]);
    assert_eq!(
        (&values["openinference.span.kind"], &values["embedding.model_name"]),
        (&text("EMBEDDING"), &text("ada"))
    );
}

/// Whether neither bytes nor a NUL are left in a value.
fn is_storable(value: &AnyValue) -> bool {
    match &value.value {
        Some(Value::BytesValue(_)) => false,
        Some(Value::StringValue(text)) => !text.contains('\0'),
        Some(Value::ArrayValue(list)) => list.values.iter().all(is_storable),
        Some(Value::KvlistValue(list)) => {
            list.values.iter().all(|pair| !pair.key.contains('\0') && pair.value.as_ref().is_none_or(is_storable))
        }
        _ => true,
    }
}

/// What a hostile client may put together.
fn hostile_attribute() -> impl Strategy<Value = KeyValue> {
    let piece = prop_oneof![
        Just("llm"),
        Just("token_count"),
        Just("prompt"),
        Just("gen_ai"),
        Just("usage"),
        Just("input_tokens"),
        Just("prompt_tokens"),
        Just("0"),
        Just("role"),
        Just("content"),
        Just("metadata"),
        Just("openinference"),
        Just("span"),
        Just("kind"),
        Just("session"),
        Just("id"),
        Just("traceloop"),
        Just("²"),
        Just("\0"),
        Just(""),
        Just("emberd"),
        Just("original"),
        Just("mended"),
        Just("tool"),
        Just("call"),
        Just("arguments"),
        Just("completion"),
        Just("99999999999999999999"),
        Just("entity"),
        Just("input"),
        Just("value"),
    ];
    let key = proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.join("."));
    let deep = (1_usize..60).prop_map(|dots| ".a".repeat(dots));
    let key = (key, proptest::option::weighted(0.1, deep)).prop_map(|(key, deep)| key + &deep.unwrap_or_default());
    let json = prop_oneof![
        Just(r#"{"a":"\u0000\\u0000\ud800"}"#.to_owned()),
        Just("[".repeat(100)),
        Just("12345678901234567890123".to_owned()),
        Just("x".repeat(3_000)),
        Just(" chain ".to_owned()),
        ".{0,8}",
        r"[\\u0d8def]{0,14}",
    ];
    let leaf = prop_oneof![
        json.prop_map(Value::StringValue),
        any::<i64>().prop_map(Value::IntValue),
        any::<f64>().prop_map(Value::DoubleValue),
        any::<bool>().prop_map(Value::BoolValue),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::BytesValue),
    ];
    let value = leaf.prop_recursive(3, 8, 3, |inner| {
        let some = inner.prop_map(holding);
        let entry = (prop_oneof![Just("kind"), Just("prompt"), Just("id"), Just("\0")], some.clone());
        let entry =
            entry.prop_map(|(key, value)| KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() });
        prop_oneof![
            proptest::collection::vec(some, 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            proptest::collection::vec(entry, 0..3).prop_map(pairs),
        ]
    });
    (key, proptest::option::weighted(0.95, value)).prop_map(|(key, value)| KeyValue {
        key,
        value: Some(AnyValue { value }),
        ..KeyValue::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes in: mending ends, changes nothing the second time, keeps every span and its ids, and leaves none of what
    /// Phoenix is known to drop.
    #[test]
    fn mending_is_idempotent_and_thorough(attributes in proptest::collection::vec(hostile_attribute(), 0..12)) {
        let (span, _) = mended_span(span(attributes));
        prop_assert_eq!((span.trace_id, span.span_id), (vec![7; 16], vec![9; 8]));
        for attribute in &span.attributes {
            prop_assert_eq!(key::mended(&attribute.key, &mut |_| ()), None);
            prop_assert!(!attribute.key.contains('\0') && attribute.value.as_ref().is_none_or(is_storable), "{:?}", attribute);
            if attribute.key == "openinference.span.kind" && attribute.value.as_ref().is_some_and(|any| any.value.is_some()) {
                prop_assert!(matches!(attribute.value.as_ref().unwrap().value, Some(Value::StringValue(_))));
            }
        }
    }

    /// Bytes that are no request are an error, never a panic.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = mend(&noise.into());
    }
}
