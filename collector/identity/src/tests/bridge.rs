//! The bridge token, held against the specification's words.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use uuid::Uuid;

use super::signing::{NOW, SECRET, at, bridge, check, verifier};
use crate::bridge::Bridge;
use crate::{Permissions, Secret, TokenKind, User};

fn user(role: &str) -> User {
    User {
        id: Uuid::from_u128(7),
        subject: "ada".into(),
        email: Some("ada@example.com".into()),
        name: Some("Ada".into()),
        role: role.into(),
        department: Some("Research".into()),
        permissions: Permissions::of_role(role == "admin"),
    }
}

fn maker() -> Bridge {
    Bridge::new(Secret::new(SECRET).unwrap(), bridge(), "sambatv".into(), "SambaTV".into())
}

fn payload(token: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn it_says_what_the_specification_says() {
    let token = maker().token(&user("member"), at(NOW));
    assert_eq!(
        payload(&token.text),
        json!({
            "sub": "ada", "email": "ada@example.com", "name": "Ada", "role": "member", "provider": "sambatv",
            "permissions": ["read:traces", "read:evaluations", "write:own", "delete:own"],
            "metadata": { "company": "SambaTV", "department": "Research" },
            "iat": NOW, "exp": NOW + 3600, "aud": "phoenix-service", "iss": "sambatv-prompt-library",
        })
    );
    let admin = maker().token(&user("admin"), at(NOW));
    assert_eq!(
        payload(&admin.text)["permissions"],
        json!(["read:traces", "read:evaluations", "write:all", "delete:all", "admin:all"])
    );
    let claims = check(&verifier(None), &token.text).unwrap();
    assert_eq!((claims.kind, claims.subject.as_str()), (TokenKind::Bridge, "ada"));
    assert_eq!(claims.department.as_deref(), Some("Research"));
}

#[test]
fn it_is_given_again_until_a_minute_before_its_end() {
    let maker = maker();
    let first = maker.token(&user("member"), at(NOW));
    assert_eq!(first.expires_at, NOW as u64 + 3600);
    assert_eq!(maker.token(&user("member"), at(NOW + 3539)), first);
    let second = maker.token(&user("member"), at(NOW + 3540));
    assert_eq!(second.expires_at, NOW as u64 + 3540 + 3600);
    // Another role is another token at once.
    assert_ne!(maker.token(&user("admin"), at(NOW + 3541)), second);
}

#[test]
fn however_many_users_there_are_not_all_tokens_are_kept() {
    let maker = maker();
    for n in 0..10_050_u32 {
        let mut one = user("member");
        one.subject = n.to_string();
        maker.token(&one, at(NOW));
    }
    assert!(maker.kept() <= 10_000);
}
