use http::HeaderValue;

use super::*;

const TWO: &str = r#"
[[key]]
name = "playground"
key = "secret-1"
project = "default"

[[key]]
name = "agents"
sha256 = "2937ffc5e1e3ff5cc6d0f2ab2a1e9f01a1c3bb3d4ddfd2ba2d8d3ce51efbd68f"
rate = 10
"#;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// A key is found wherever clients put it; none, a wrong one, or two that differ are not let in.
#[test]
fn keys_are_found_where_clients_put_them() {
    let keys = Keys::parse(TWO).unwrap();
    let taken: &[&[(&'static str, &str)]] = &[
        &[("authorization", "Bearer secret-1")],
        &[("authorization", "bearer  secret-1 ")],
        &[("api_key", "secret-1")],
        &[("x-api-key", "secret-1")],
        &[("api_key", "secret-1"), ("authorization", "Bearer secret-1")],
    ];
    for pairs in taken {
        let (number, key) = keys.check(&headers(pairs)).unwrap();
        assert_eq!((number, key.name.as_str()), (1, "playground"), "{pairs:?}");
    }
    let refused: &[&[(&'static str, &str)]] = &[
        &[("authorization", "Bearer secret-2")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic secret-1")],
        &[("authorization", "secret-1")],
        &[("authorization", "Bearer secret-1"), ("authorization", "Bearer secret-2")],
        &[("authorization", "Bearer secret-1"), ("api_key", "secret-2")],
        &[("x-api-key", "")],
    ];
    for pairs in refused {
        assert!(matches!(keys.check(&headers(pairs)), Err(Refusal::WrongKey)), "{pairs:?}");
    }
    assert!(matches!(keys.check(&HeaderMap::new()), Err(Refusal::NoKey)));
}

/// A digest in the file stands for its key.
#[test]
fn digests_stand_for_keys() {
    let hex: String = Sha256::digest("secret-3").iter().map(|byte| format!("{byte:02X}")).collect();
    let keys = Keys::parse(&format!("[[key]]\nname = \"x\"\nsha256 = \"{hex}\"")).unwrap();
    assert!(keys.check(&headers(&[("api_key", "secret-3")])).is_ok());
    assert!(keys.check(&headers(&[("api_key", &hex)])).is_err(), "the digest itself is not a key");
}

/// A file that cannot mean what it says is refused at the start.
#[test]
fn bad_files_are_refused() {
    let cases = [
        ("", "there is no [[key]]"),
        ("[[key]]\nname = \"x\"", "give either sha256 or key"),
        ("[[key]]\nname = \"x\"\nkey = \"a\"\nsha256 = \"b\"", "give either sha256 or key"),
        ("[[key]]\nname = \"x\"\nkey = \"  \"", "the key is empty"),
        ("[[key]]\nname = \"x\"\nsha256 = \"abc\"", "64 hex digits"),
        ("[[key]]\nname = \"x\"\nkey = \"a\"\nrate = 0", "line 4"),
        ("[[key]]\nname = \"x\"\nkey = \"a\"\nrates = 1", "rates"),
        ("[[key]]\nname = \"x\"\nkey = \"a\"\n[[key]]\nname = \"y\"\nkey = \"a\"", "twice"),
        ("[[key]]\nname = \"x\"\nkey = \"a\"\n[[key]]\nname = \"x\"\nkey = \"b\"", "twice"),
    ];
    for (text, expected) in cases {
        let message = Keys::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text:?}: {message}");
    }
}

/// A key may send a second's worth at once, then its rate; a request larger than that is taken and paid off afterwards.
#[test]
fn a_key_keeps_its_pace() {
    let pace = Pace::of(NonZeroU32::new(10).unwrap());
    let start = Instant::now() + Duration::from_secs(100);
    let after = |millis| start + Duration::from_millis(millis);
    assert_eq!(pace.debt(start), Duration::ZERO);
    pace.spend(10, start);
    assert_eq!(pace.debt(start), Duration::ZERO, "a second's worth at once");
    pace.spend(50, start);
    assert_eq!(pace.debt(start), Duration::from_secs(5), "more is a debt");
    assert_eq!(pace.debt(after(4_900)), Duration::from_millis(100));
    assert_eq!(pace.debt(after(5_000)), Duration::ZERO);
    pace.spend(10, after(60_000));
    assert_eq!(pace.debt(after(60_000)), Duration::ZERO, "a minute of silence saves up one second, no more");
    pace.spend(1, after(60_000));
    assert_eq!(pace.debt(after(60_000)), Duration::from_millis(100));
}
