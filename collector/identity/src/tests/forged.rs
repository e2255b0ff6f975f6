//! The catalogue of forged and odd tokens (rows 91 to 94 of the bad inputs), each with why it is not believed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::signing::{NOW, Pairs, SECRET, at, bridge, check, claims, hmac, hs256, session, token, verifier, with};
use crate::claims::Party;
use crate::{Refused, Secret, TokenKind};

#[test]
fn what_the_application_signs_is_believed() {
    let pairs = Pairs::new();
    let verifier = verifier(Some(&pairs.jwks()));
    for token in [
        hs256(&claims()),
        pairs.rs256(r#"{"alg":"RS256","kid":"rsa-1","typ":"JWT"}"#, &claims()),
        pairs.rs256(r#"{"alg":"RS256"}"#, &claims()),
        pairs.es256(r#"{"alg":"ES256","kid":"ec-1","typ":"at+jwt"}"#, &claims()),
        // Where a header says that keys are elsewhere, nobody looks.
        pairs.es256(
            r#"{"alg":"ES256","kid":"ec-1","jku":"https://evil.example/jwks","x5u":"https://evil.example"}"#,
            &claims(),
        ),
        hs256(&with(claims(), json!({ "aud": ["other", "emberd"] }))),
        hs256(&with(claims(), json!({ "iat": null, "email": null, "name": null, "role": null }))),
        // Clocks may be half a minute apart.
        hs256(&with(claims(), json!({ "exp": NOW - 29, "nbf": NOW + 29, "iat": NOW + 29 }))),
    ] {
        let claims = check(&verifier, &token).unwrap_or_else(|refused| panic!("{refused}: {token}"));
        assert_eq!(
            (claims.kind, claims.subject.as_str()),
            (TokenKind::Session, "7b0f2f5e-6d0d-4c5d-9a53-0d6c1f5b2a11")
        );
    }
    let found = check(
        &verifier,
        &hs256(&with(claims(), json!({ "permissions": ["read:traces", "x"], "metadata": {"department": "ML"} }))),
    )
    .unwrap();
    assert_eq!(found.email.as_deref(), Some("ada@example.com"));
    assert_eq!(found.permissions, Some(vec!["read:traces".to_owned(), "x".to_owned()]));
    assert_eq!(found.department.as_deref(), Some("ML"));
}

#[test]
fn an_algorithm_is_the_keys_and_never_the_headers() {
    let pairs = Pairs::new();
    let jwks = pairs.jwks();
    let verifier = verifier(Some(&jwks));
    let (n, e) = pairs.rsa_parts();
    // An attacker knows the public key in every form, and signs an HMAC with it.
    let jwk = jwks["keys"][0].to_string();
    let spaced = format!("{jwk}\n");
    let base64 = STANDARD.encode(&n);
    for secret in [&n[..], &e, jwk.as_bytes(), spaced.as_bytes(), base64.as_bytes(), BASE64.encode(&n).as_bytes()] {
        for header in [r#"{"alg":"HS256","kid":"rsa-1"}"#, r#"{"alg":"HS256"}"#] {
            let forged = token(header, &claims().to_string(), |signed| hmac(secret, signed));
            assert_eq!(check(&verifier, &forged), Err(Refused::Signature), "{header}");
        }
    }
    // The right secret does not make a public key's token, nor one key's signature another's.
    let payload = claims().to_string();
    for (header, expected) in [
        (r#"{"alg":"HS256","kid":"rsa-1"}"#, Refused::Signature),
        (r#"{"alg":"RS256","kid":"rsa-1"}"#, Refused::Signature),
        (r#"{"alg":"RS256"}"#, Refused::Signature),
        (r#"{"alg":"ES256","kid":"rsa-1"}"#, Refused::Signature),
    ] {
        let forged = token(header, &payload, |signed| hmac(SECRET.as_bytes(), signed));
        assert_eq!(check(&verifier, &forged), Err(expected), "{header}");
    }
    let crossed = pairs.es256(r#"{"alg":"ES256","kid":"rsa-1"}"#, &claims());
    assert_eq!(check(&verifier, &crossed), Err(Refused::Signature));
}

#[test]
fn a_header_is_plain_or_refused() {
    let verifier = verifier(None);
    let payload = claims().to_string();
    let sign = |signed: &[u8]| hmac(SECRET.as_bytes(), signed);
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"nOnE"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","typ":"JWE"}"#,
        r#"{"alg":"HS256","kid":17}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "{",
        "",
    ] {
        let refused = check(&verifier, &token(header, &payload, sign));
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{header}: {refused:?}");
    }
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(4_000));
    assert!(matches!(check(&verifier, &token(&long, &payload, sign)), Err(Refused::Malformed(_))));
    // A kid that would be a path or a statement elsewhere is a name that nobody has.
    for kid in ["../../dev/null", "' OR 1=1 --", "rsa-1\\u0000"] {
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
        assert!(check(&verifier, &token(&header, &payload, sign)).is_err(), "{kid}");
    }
}

#[test]
fn a_text_that_is_no_token_is_refused() {
    let verifier = verifier(None);
    let good = hs256(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut nested = String::new();
    nested.push_str(&token(r#"{"alg":"HS256","cty":"JWT"}"#, &good, |signed| hmac(SECRET.as_bytes(), signed)));
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}.x"),
        format!("{good}.a.b"),
        format!(" {good}"),
        format!("{good}="),
        good.replace('.', "-"),
        format!("{signed}.{}", STANDARD.encode([255, 254, 253])),
        format!("{}.{signature}", &signed[..signed.len() - 1]),
        format!("Bearer {good}"),
        nested,
        "x".repeat(1 << 20),
        format!("{good}{}", "A".repeat(8 << 10)),
    ] {
        assert!(check(&verifier, &text).is_err(), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn every_claim_is_what_it_must_be() {
    let verifier = verifier(None);
    let day = 24 * 60 * 60;
    for (changes, expected) in [
        (json!({ "exp": null }), Refused::Claim("exp")),
        (json!({ "exp": (NOW + 60).to_string() }), Refused::Claim("exp")),
        (json!({ "exp": 1e300 }), Refused::Claim("exp")),
        (json!({ "exp": -1 }), Refused::Claim("exp")),
        (json!({ "exp": u64::MAX }), Refused::Claim("exp")),
        (json!({ "exp": [NOW + 60] }), Refused::Claim("exp")),
        (json!({ "exp": NOW - 30 }), Refused::Expired),
        (json!({ "exp": NOW - day }), Refused::Expired),
        (json!({ "nbf": NOW + 31 }), Refused::Early),
        (json!({ "nbf": "soon" }), Refused::Claim("nbf")),
        (json!({ "iat": NOW + 31 }), Refused::Early),
        (json!({ "iat": true }), Refused::Claim("iat")),
        (json!({ "exp": NOW + day + 60 }), Refused::TooLong),
        (json!({ "exp": NOW + day + 60, "iat": null }), Refused::TooLong),
        // An old token does not become shorter by growing older.
        (json!({ "iat": NOW - 2 * day, "exp": NOW + 60 }), Refused::TooLong),
        (json!({ "iss": null }), Refused::Claim("iss")),
        (json!({ "iss": "https://app.example/" }), Refused::Claim("iss")),
        (json!({ "iss": ["https://app.example"] }), Refused::Claim("iss")),
        (json!({ "aud": null }), Refused::Claim("aud")),
        (json!({ "aud": "other" }), Refused::Claim("aud")),
        (json!({ "aud": [] }), Refused::Claim("aud")),
        (json!({ "aud": [17, "emberd"] }), Refused::Claim("aud")),
        // One's issuer with another's audience is neither.
        (json!({ "iss": "sambatv-prompt-library" }), Refused::Claim("aud")),
        (json!({ "aud": "phoenix-service" }), Refused::Claim("aud")),
        (json!({ "iss": null, "aud": null }), Refused::Claim("iss")),
        (json!({ "sub": null }), Refused::Claim("sub")),
        (json!({ "sub": "" }), Refused::Claim("sub")),
        (json!({ "sub": 17 }), Refused::Claim("sub")),
        (json!({ "sub": "x".repeat(257) }), Refused::Claim("sub")),
        (json!({ "sub": "a\u{0}b" }), Refused::Claim("sub")),
        (json!({ "email": ["a@b"] }), Refused::Claim("email")),
        (json!({ "role": ["admin"] }), Refused::Claim("role")),
        (json!({ "permissions": "admin:all" }), Refused::Claim("permissions")),
        (json!({ "permissions": [["admin:all"]] }), Refused::Claim("permissions")),
    ] {
        assert_eq!(check(&verifier, &hs256(&with(claims(), changes.clone()))), Err(expected), "{changes}");
    }
    let twice = claims().to_string().replacen('{', r#"{"sub":"someone else","#, 1);
    let twice = token(r#"{"alg":"HS256"}"#, &twice, |signed| hmac(SECRET.as_bytes(), signed));
    assert!(matches!(check(&verifier, &twice), Err(Refused::Malformed(_))));
}

#[test]
fn a_plain_token_counts_only_where_it_is_taken() {
    let plain = json!({ "sub": "ada", "email": "ada@example.com", "name": "Ada", "exp": NOW + 3600 });
    let mut verifier = verifier(None);
    assert_eq!(check(&verifier, &hs256(&plain)), Err(Refused::Claim("iss")));
    verifier.accept_plain = true;
    assert_eq!(check(&verifier, &hs256(&plain)).unwrap().kind, TokenKind::Plain);
    // Plain is without both: with one of them, it must be the right one.
    for changes in [json!({ "iss": "other" }), json!({ "aud": "emberd" })] {
        assert!(check(&verifier, &hs256(&with(plain.clone(), changes))).is_err());
    }
    // A public key signs sessions alone.
    let pairs = Pairs::new();
    let mut verifier = super::signing::verifier(Some(&pairs.jwks()));
    verifier.accept_plain = true;
    let header = r#"{"alg":"RS256","kid":"rsa-1"}"#;
    assert_eq!(check(&verifier, &pairs.rs256(header, &plain)), Err(Refused::Claim("iss")));
    let Party { issuer, audience } = bridge();
    let bridge = with(claims(), json!({ "iss": issuer, "aud": audience }));
    assert_eq!(check(&verifier, &pairs.rs256(header, &bridge)), Err(Refused::Claim("iss")));
    assert_eq!(check(&verifier, &hs256(&bridge)).unwrap().kind, TokenKind::Bridge);
}

#[test]
fn what_is_not_configured_is_not_taken() {
    let pairs = Pairs::new();
    let mut verifier = verifier(Some(&pairs.jwks()));
    verifier.secret = None;
    assert_eq!(check(&verifier, &hs256(&claims())), Err(Refused::UnknownKey));
    verifier.session = None;
    assert_eq!(check(&verifier, &pairs.rs256(r#"{"alg":"RS256"}"#, &claims())), Err(Refused::Claim("iss")));
    verifier.jwks = None;
    verifier.session = Some(session());
    assert_eq!(check(&verifier, &pairs.rs256(r#"{"alg":"RS256"}"#, &claims())), Err(Refused::UnknownKey));
    assert!(Secret::new("short").is_err());
    assert!(!format!("{verifier:?} {:?}", Secret::new(SECRET)).contains("shared secret of"));
}

proptest! {
    /// Whatever is done to a token's text, it is not believed as something else, and nothing breaks off.
    #[test]
    fn a_changed_token_is_never_believed(at_byte in 0_usize..400, byte in any::<u8>()) {
        let good = hs256(&claims());
        let mut bytes = good.clone().into_bytes();
        let place = at_byte % bytes.len();
        bytes[place] = byte;
        let verifier = verifier(None);
        if let Ok(text) = String::from_utf8(bytes) {
            // The last character of a part may have unused bits; those are refused too.
            prop_assert_eq!(verifier.check(&text, at(NOW)).is_ok(), text == good);
        }
    }

    #[test]
    fn no_text_breaks_it(text in "\\PC{0,200}", claims in any::<Vec<u8>>()) {
        let verifier = verifier(None);
        let _ = check(&verifier, &text);
        let payload = String::from_utf8_lossy(&claims).into_owned();
        let _ = check(&verifier, &token(r#"{"alg":"HS256"}"#, &payload, |signed| hmac(SECRET.as_bytes(), signed)));
        let _: Option<Value> = None;
    }
}
