//! OTLP/JSON row by row: what is taken for what, and what is an error, and where.

use emberd_model::json::{Error, to_protobuf};
use emberd_model::wire::{Limits, check};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

fn taken(json: &str) -> ExportTraceServiceRequest {
    let converted = to_protobuf(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    ExportTraceServiceRequest::decode(&converted[..]).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn wrong(json: &[u8]) -> Error {
    match to_protobuf(json) {
        Ok(_) => panic!("taken: {}", String::from_utf8_lossy(json)),
        Err(error) => error,
    }
}

/// A request with one span of these members.
fn span_json(members: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#)
}

fn span(members: &str) -> Span {
    let mut request = taken(&span_json(members));
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

fn wrong_span(members: &str) -> String {
    wrong(span_json(members).as_bytes()).what
}

fn value_json(value: &str) -> String {
    format!(r#""attributes":[{{"key":"k","value":{value}}}]"#)
}

fn value(json: &str) -> Option<Value> {
    span(&value_json(json)).attributes.remove(0).value.and_then(|value| value.value)
}

#[test]
fn nothing_in_many_ways() {
    for json in [
        "{}",
        " \r\n\t{ } ",
        r#"{"resourceSpans":[]}"#,
        r#"{"resourceSpans":null}"#,
        r#"{"resource_spans":[{"scope_spans":5}]}"#,
        r#"{"unknown":{"a":[1,2,{"b":null}]},"resourceSpans":[]}"#,
    ] {
        assert_eq!(taken(json), ExportTraceServiceRequest::default(), "{json}");
        assert_eq!(to_protobuf(json.as_bytes()).unwrap(), b"");
    }
}

#[test]
fn what_is_not_json_is_an_error_with_its_place() {
    for (json, what, line, column) in [
        (&b""[..], "unexpected end", 1, 1),
        (b"  \n ", "unexpected end", 2, 2),
        (b"not json", "expected a value", 1, 1),
        (b"null", "the request: expected an object, found null", 1, 1),
        (b"[]", "the request: expected an object, found a list", 1, 1),
        (b"\"{}\"", "the request: expected an object, found a string", 1, 1),
        (b"{", "unexpected end", 1, 2),
        (b"{}}", "trailing characters", 1, 3),
        (b"{} {}", "trailing characters", 1, 4),
        (b"{}\0", "trailing characters", 1, 3),
        (b"\xef\xbb\xbf{}", "byte order mark", 1, 1),
        (b"\xff\xfe{\0}\0", "not UTF-8", 1, 1),
        (b"{\0}\0", "expected a key", 1, 2),
        (b"{\"a\":\"\xff\"}", "not UTF-8", 1, 7),
        (b"{\"a\":\"\xc3\xa9\",\n \"\xc3\xa9\": +1}", "expected a value", 2, 7),
        (b"{\"a\" 1}", "expected a colon", 1, 6),
        (b"{\"a\":1,}", "expected a key", 1, 8),
        (b"{\"a\":1 \"b\":2}", "expected a comma or the end of the object", 1, 8),
        (b"{\"a\":[1 2]}", "expected a comma or the end of the list", 1, 9),
        (b"{\"a\":[1,]}", "expected a value", 1, 9),
        (b"{\"a\":[,1]}", "expected a value", 1, 7),
        (b"{,}", "expected a key", 1, 2),
        (b"{a:1}", "expected a key", 1, 2),
        (b"{'a':1}", "expected a key", 1, 2),
        (b"{\"a\":01}", "not a number", 1, 6),
        (b"{\"a\":1.}", "not a number", 1, 6),
        (b"{\"a\":-}", "not a number", 1, 6),
        (b"{\"a\":NaN}", "expected a value", 1, 6),
        (b"{\"a\":tru}", "expected a value", 1, 6),
        (b"{\"a\":truely}", "expected a comma or the end of the object", 1, 10),
        (b"{\"a\":nul", "expected a value", 1, 6),
        (b"{\"a\":\"b", "unexpected end", 1, 8),
        (b"{\"a\":\"b\\", "unexpected end", 1, 8),
        (b"{\"a\":\"\n\"}", "control character in a string", 1, 7),
        (b"{\"a\":\"\\x\"}", "unknown escape", 1, 7),
        (b"{\"a\":\"\\u12\"}", "expected four hex digits", 1, 7),
        (b"{\"a\":\"\\u12g4\"}", "expected four hex digits", 1, 7),
        (b"{\"a\":\"\\u+123\"}", "expected four hex digits", 1, 7),
        (b"{\"a\":\"\\ud800\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":\"\\ud800x\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":\"\\ud800\\u0041\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":\"\\ud800\\ue000\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":\"\\udc00\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":\"\\ud800\\ud800\"}", "half of a surrogate pair", 1, 7),
        (b"{\"a\":1 /* no */}", "expected a comma or the end of the object", 1, 8),
    ] {
        let expected = Error { what: what.to_owned(), line, column };
        assert_eq!(wrong(json), expected, "{}", String::from_utf8_lossy(json));
    }
    let whole = span_json(r#""name":"n","startTimeUnixNano":"12""#);
    for length in 0..whole.len() {
        wrong(&whole.as_bytes()[..length]);
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"unknown":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    assert_eq!(taken(&nested("[", "]", 63)), ExportTraceServiceRequest::default());
    assert_eq!(taken(&nested("{\"a\":", "}", 63)), ExportTraceServiceRequest::default());
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for depth in [64, 10_000, 1_000_000] {
            assert_eq!(wrong(nested(open, close, depth).as_bytes()).what, "nested deeper than 64");
        }
        assert_eq!(
            wrong(format!(r#"{{"unknown":{}"#, open.repeat(1_000_000)).as_bytes()).what,
            "nested deeper than 64"
        );
    }
    let arrays = |depth: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        span_json(&value_json(&format!("{open}{{}}{close}")))
    };
    assert_eq!(check(&to_protobuf(arrays(17).as_bytes()).unwrap(), &Limits::default()).unwrap().rejected, 1, "no ids");
    assert_eq!(wrong(arrays(19).as_bytes()).what, "nested deeper than 64");
}

/// Ids are hex; their length is the walk's affair, so that it costs one span and not the request.
#[test]
fn ids_are_hex_of_any_length() {
    let decoded = span(r#""traceId":"938E78615ac854eae7e7384d1d4195e6","spanId":"0e959c7000e97294""#);
    assert_eq!(
        decoded.trace_id,
        [0x93, 0x8e, 0x78, 0x61, 0x5a, 0xc8, 0x54, 0xea, 0xe7, 0xe7, 0x38, 0x4d, 0x1d, 0x41, 0x95, 0xe6]
    );
    assert_eq!(decoded.span_id, [0x0e, 0x95, 0x9c, 0x70, 0x00, 0xe9, 0x72, 0x94]);
    for (id, length) in [("", 0), ("ab", 1), ("AbCdEf", 3), ("0011223344556677889900112233445566", 17)] {
        let id = format!(r#""traceId":"{id}""#);
        assert_eq!(span(&id).trace_id.len(), length);
        let converted = to_protobuf(span_json(&id).as_bytes()).unwrap();
        assert_eq!(
            check(&converted, &Limits::default()).unwrap().reasons,
            [format!("span 0: trace id is {length} bytes long")]
        );
    }
    for (members, what) in [
        (r#""traceId":"abc""#, "traceId: odd number of hex digits"),
        (r#""traceId":"0xab""#, "traceId: not hex"),
        (r#""spanId":"zz""#, "spanId: not hex"),
        (r#""spanId":"+1""#, "spanId: not hex"),
        (r#""parentSpanId":"éé""#, "parentSpanId: not hex"),
        (r#""traceId":"k454YVrIVOrn5zhNHUGV5g==""#, "traceId: not hex"),
        (r#""links":[{"traceId":"x"}]"#, "traceId: odd number of hex digits"),
        (r#""traceId":12"#, "traceId: expected a string, found a number"),
    ] {
        assert_eq!(wrong_span(members), what);
    }
}

#[test]
fn numbers_of_64_bits_are_exact() {
    for (number, expected) in [
        ("1795220047129141548", 1_795_220_047_129_141_548),
        ("\"1795220047129141548\"", 1_795_220_047_129_141_548),
        ("18446744073709551615", u64::MAX),
        ("\"18446744073709551615\"", u64::MAX),
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("1.0", 1),
        ("1e3", 1_000),
        ("\"1e3\"", 1_000),
        ("-0", 0),
        ("0", 0),
        ("\"\\u0031\"", 1),
    ] {
        assert_eq!(span(&format!(r#""startTimeUnixNano":{number}"#)).start_time_unix_nano, expected, "{number}");
    }
    for (number, what) in [
        ("-1", "out of range"),
        ("\"-1\"", "out of range"),
        ("18446744073709551616", "out of range"),
        ("1e400", "out of range"),
        ("\"1e400\"", "out of range"),
        ("0.5", "not a whole number"),
        ("\"\"", "not a number"),
        ("\" 1\"", "not a number"),
        ("\"0x10\"", "not a number"),
        ("\"NaN\"", "not a number"),
        ("true", "expected a number, found true or false"),
        ("{}", "expected a number, found an object"),
    ] {
        assert_eq!(wrong_span(&format!(r#""endTimeUnixNano":{number}"#)), format!("endTimeUnixNano: {what}"));
    }
    let digits = "9".repeat(1_000_000);
    assert_eq!(wrong_span(&format!(r#""endTimeUnixNano":{digits}"#)), "endTimeUnixNano: out of range");
    for (number, expected) in
        [("-9223372036854775808", i64::MIN), ("\"9223372036854775807\"", i64::MAX), ("-1e2", -100)]
    {
        assert_eq!(value(&format!(r#"{{"intValue":{number}}}"#)), Some(Value::IntValue(expected)));
    }
    for (members, what) in [
        (value_json(r#"{"intValue":9223372036854775808}"#), "intValue: out of range"),
        (value_json(r#"{"intValue":"1.5"}"#), "intValue: not a whole number"),
        (r#""droppedAttributesCount":4294967296"#.to_owned(), "droppedAttributesCount: out of range"),
        (r#""droppedLinksCount":-1"#.to_owned(), "droppedLinksCount: out of range"),
        (r#""flags":4294967296"#.to_owned(), "flags: out of range"),
    ] {
        assert_eq!(wrong_span(&members), what);
    }
    assert_eq!(span(r#""droppedEventsCount":"4294967295","flags":"257""#).flags, 257);
}

/// OTLP: "values of enum fields MUST be encoded as integer values".
#[test]
fn enums_are_integers() {
    assert_eq!(span(r#""kind":2,"status":{"code":2}"#).kind, 2);
    assert_eq!(span(r#""kind":99"#).kind, 99);
    assert_eq!(span(r#""kind":-1"#).kind, -1);
    assert_eq!(span(r#""kind":3.0"#).kind, 3);
    for (members, what) in [
        (r#""kind":"SPAN_KIND_SERVER""#, "kind: expected a number, found a string"),
        (r#""kind":"2""#, "kind: expected a number, found a string"),
        (r#""status":{"code":"STATUS_CODE_OK"}"#, "code: expected a number, found a string"),
        (r#""kind":2147483648"#, "kind: out of range"),
        (r#""kind":1.5"#, "kind: not a whole number"),
    ] {
        assert_eq!(wrong_span(members), what);
    }
}

#[test]
fn values_are_what_their_name_says() {
    let bytes = |bytes: &[u8]| Some(Value::BytesValue(bytes.to_vec()));
    for (json, expected) in [
        ("{}", None),
        ("null", None),
        (r#"{"stringValue":null}"#, None),
        (r#"{"unknownValue":1}"#, None),
        (r#"{"stringValue":""}"#, Some(Value::StringValue(String::new()))),
        (r#"{"stringValue":"a\u0000b\/\ud83d\ude42\n"}"#, Some(Value::StringValue("a\0b/\u{1f642}\n".to_owned()))),
        (r#"{"boolValue":false}"#, Some(Value::BoolValue(false))),
        (r#"{"intValue":0}"#, Some(Value::IntValue(0))),
        (r#"{"doubleValue":0}"#, Some(Value::DoubleValue(0.0))),
        (r#"{"doubleValue":1}"#, Some(Value::DoubleValue(1.0))),
        (r#"{"doubleValue":"-1.5e3"}"#, Some(Value::DoubleValue(-1500.0))),
        (r#"{"doubleValue":"Infinity"}"#, Some(Value::DoubleValue(f64::INFINITY))),
        (r#"{"doubleValue":"-Infinity"}"#, Some(Value::DoubleValue(f64::NEG_INFINITY))),
        (r#"{"doubleValue":1e-400}"#, Some(Value::DoubleValue(0.0))),
        (r#"{"bytesValue":""}"#, bytes(b"")),
        (r#"{"bytesValue":"+/8="}"#, bytes(b"\xfb\xff")),
        (r#"{"bytesValue":"+/8"}"#, bytes(b"\xfb\xff")),
        (r#"{"bytesValue":"-_8="}"#, bytes(b"\xfb\xff")),
        (r#"{"bytesValue":"-_8"}"#, bytes(b"\xfb\xff")),
        (r#"{"bytesValue":"+\/8="}"#, bytes(b"\xfb\xff")),
        (r#"{"string\u0056alue":"escaped name"}"#, Some(Value::StringValue("escaped name".to_owned()))),
        (r#"{"arrayValue":{}}"#, Some(Value::ArrayValue(Default::default()))),
        (r#"{"kvlistValue":{"values":[]}}"#, Some(Value::KvlistValue(Default::default()))),
    ] {
        assert_eq!(value(json), expected, "{json}");
    }
    assert!(matches!(value(r#"{"doubleValue":"NaN"}"#), Some(Value::DoubleValue(double)) if double.is_nan()));
    for (json, what) in [
        (r#"{"stringValue":"a","intValue":1}"#, "intValue beside another value"),
        (r#"{"boolValue":false,"stringValue":""}"#, "stringValue beside another value"),
        (r#"{"stringValue":5}"#, "stringValue: expected a string, found a number"),
        (r#"{"boolValue":"true"}"#, "boolValue: expected true or false, found a string"),
        (r#"{"boolValue":0}"#, "boolValue: expected true or false, found a number"),
        (r#"{"doubleValue":"inf"}"#, "doubleValue: not a number"),
        (r#"{"doubleValue":1e400}"#, "doubleValue: out of range"),
        (r#"{"doubleValue":NaN}"#, "expected a value"),
        (r#"{"arrayValue":[]}"#, "arrayValue: expected an object, found a list"),
        (r#"{"arrayValue":{"values":{}}}"#, "values: expected a list, found an object"),
        (r#"{"arrayValue":{"values":[null]}}"#, "values: expected an object, found null"),
        (r#"{"stringValue":"\ud800"}"#, "half of a surrogate pair"),
        ("\"text\"", "value: expected an object, found a string"),
        ("[]", "value: expected an object, found a list"),
    ] {
        assert_eq!(wrong_span(&value_json(json)), what, "{json}");
    }
    for text in ["a", "ab=c", "a===", "\u{e9}\u{e9}", "a b=", "ab==\\n"] {
        let value = value_json(&format!(r#"{{"bytesValue":"{text}"}}"#));
        assert_eq!(wrong_span(&value), "bytesValue: not base64");
    }
}

/// Names are lowerCamelCase, exactly.
#[test]
fn other_names_are_passed_over() {
    let unknown = r#""trace_id":"zz","Name":5,"NAME":{},"start_time_unix_nano":"x","span_kind":"SERVER","":[]"#;
    assert_eq!(span(unknown), Span::default());
}

/// Of a name that comes twice the last counts: it replaces, also where protobuf would merge or append.
#[test]
fn the_last_of_a_repeated_name_counts() {
    assert_eq!(span(r#""name":"first","name":"last""#).name, "last");
    assert_eq!(
        span(r#""name":"first","kind":3,"name":"last","kind":0"#),
        Span { name: "last".to_owned(), ..Span::default() }
    );
    assert_eq!(span(r#""name":"first","name":null"#).name, "");
    assert_eq!(span(r#""status":{"message":"first"},"status":{"code":1}"#).status.unwrap().message, "");
    let repeated =
        span(r#""name":"a","attributes":[{"key":"a"},{"key":"b"}],"kind":1,"attributes":[{"key":"c"}],"name":"b""#);
    assert_eq!(repeated.attributes.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), ["c"]);
    assert_eq!((&repeated.name[..], repeated.kind), ("b", 1));
    assert_eq!(value(r#"{"stringValue":"a","stringValue":"b"}"#), Some(Value::StringValue("b".to_owned())));
    assert_eq!(value(r#"{"stringValue":"a","stringValue":null,"intValue":1}"#), Some(Value::IntValue(1)));
    let request = taken(r#"{"resourceSpans":[{"schemaUrl":"first"}],"resourceSpans":[{},{}]}"#);
    assert_eq!(request.resource_spans, vec![Default::default(); 2]);
}

/// Work and memory grow with the text and with nothing else.
#[test]
fn repetition_is_only_length() {
    let spans = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#, "{},".repeat(1_000_000));
    let converted = to_protobuf(spans.as_bytes()).unwrap();
    assert!(converted.len() < spans.len());
    let long = format!(r#""attributes":[{}{{}}],"#, "{},".repeat(100_000));
    let names = r#""name":"n","kind":1,"#.repeat(100_000);
    assert_eq!(span(&format!("{names}{long}{names}{long}{names}\"kind\":5")).kind, 5);
}
