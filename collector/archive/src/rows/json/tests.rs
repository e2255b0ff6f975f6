use proptest::prelude::*;

use super::*;

fn of(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(value: &AnyValue) -> String {
    let mut out = Vec::new();
    put_value(&mut out, value).unwrap();
    String::from_utf8(out).unwrap()
}

/// What a reader of the archive sees.
#[test]
fn values_look_as_expected() {
    let list = |values| of(Value::ArrayValue(ArrayValue { values }));
    let pairs = |pairs: Vec<(&str, AnyValue)>| {
        let values = pairs.into_iter().map(|(key, value)| pair(key.to_owned(), value)).collect();
        of(Value::KvlistValue(KeyValueList { values }))
    };
    let one = || of(Value::IntValue(1));
    for (value, json) in [
        (AnyValue { value: None }, "null"),
        (of(Value::StringValue("a\"\\\n\u{1}é".into())), r#""a\"\\\n\u0001é""#),
        (of(Value::StringValue("1".into())), r#""1""#),
        (of(Value::BoolValue(true)), "true"),
        (one(), "1"),
        (of(Value::IntValue(i64::MIN)), "-9223372036854775808"),
        (of(Value::DoubleValue(1.0)), "1.0"),
        (of(Value::DoubleValue(-0.0)), "-0.0"),
        (of(Value::DoubleValue(1e300)), "1e300"),
        (of(Value::DoubleValue(f64::NAN)), r#"{"$double":"NaN"}"#),
        (of(Value::DoubleValue(f64::NEG_INFINITY)), r#"{"$double":"-Infinity"}"#),
        (of(Value::DoubleValue(f64::from_bits(0x7ff8_0000_0000_0001))), r#"{"$double":"7ff8000000000001"}"#),
        (of(Value::BytesValue(vec![0, 255])), r#"{"$bytes":"AP8="}"#),
        (list(vec![one(), of(Value::DoubleValue(0.5)), list(vec![])]), "[1,0.5,[]]"),
        (pairs(vec![("b", one()), ("a", one())]), r#"{"b":1,"a":1}"#),
        (pairs(vec![("$bytes", one())]), r#"{"$$bytes":1}"#),
        (pairs(vec![("a", one()), ("a", one())]), r#"{"$pairs":[["a",1],["a",1]]}"#),
        (pairs(vec![]), "{}"),
    ] {
        assert_eq!(text(&value), json);
        assert_eq!(text(&value_of(json).unwrap()), json);
    }
}

/// What was not written by `put_value` is refused, and nothing panics.
#[test]
fn other_texts_are_refused() {
    for json in
        ["", "{", "18446744073709551615", r#"{"$bytes":"*"}"#, r#"{"$double":"x"}"#, r#"{"$bytes":"","a":1}"#, "1 1"]
    {
        assert!(value_of(json).is_err(), "{json}");
    }
    assert!(value_of(&"[".repeat(10_000)).is_err());
}

fn values() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,40}".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|bool| Some(Value::BoolValue(bool))),
        any::<i64>().prop_map(|int| Some(Value::IntValue(int))),
        any::<u64>().prop_map(|bits| Some(Value::DoubleValue(f64::from_bits(bits)))),
        any::<f64>().prop_map(|double| Some(Value::DoubleValue(double))),
        any::<Vec<u8>>().prop_map(|bytes| Some(Value::BytesValue(bytes))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            prop::collection::vec(("[$a]{0,3}", inner), 0..6).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| pair(key, value)).collect();
                AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Each value reads back as it was: compared as bytes, for no NaN is equal to itself.
    #[test]
    fn values_survive_their_text(value in values()) {
        use prost::Message as _;
        let json = text(&value);
        prop_assert_eq!(value_of(&json).unwrap().encode_to_vec(), value.encode_to_vec(), "{}", json);
    }

    /// Texts are those of `serde_json`, but for controls that it writes shorter.
    #[test]
    fn texts_are_json(text in r#"([a-z ]{0,20}|["\\\x00-\x20\x7f\xa0é日🙂]){0,12}"#) {
        let mut out = Vec::new();
        put_text(&mut out, text.as_bytes());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
