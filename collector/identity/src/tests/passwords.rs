//! Passwords: what is right, what is wrong, and what a hash may not cost.

use crate::password::{BYTES_MAX, PasswordError, hash, is_hash, verify};

/// `htpasswd -bnBC 10 "" secret`, and the same in its other spellings.
const BCRYPT: &str = "$2b$10$7EqJtq98hPqEX7fNZaFWoOhi5rGEKHcLsQRBgUaqoLnhGdrpQ6L0e";

#[test]
fn a_password_is_the_one_that_was_hashed() {
    let kept = hash("correct horse").unwrap();
    assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
    assert!(verify("correct horse", Some(&kept)));
    assert!(!verify("correct horse ", Some(&kept)));
    assert!(!verify("", Some(&kept)));
    assert_ne!(kept, hash("correct horse").unwrap(), "each has a salt of its own");
    let theirs = bcrypt::hash("correct horse", 4).unwrap();
    assert!(verify("correct horse", Some(&theirs)));
    assert!(verify("correct horse", Some(&theirs.replacen("$2b$", "$2a$", 1))));
    assert!(!verify("wrong", Some(&theirs)));
    assert!(is_hash(&kept) && is_hash(&theirs) && is_hash(BCRYPT));
}

#[test]
fn an_empty_or_overlong_password_is_none() {
    assert_eq!(hash(""), Err(PasswordError::Length));
    assert_eq!(hash(&"x".repeat(BYTES_MAX + 1)), Err(PasswordError::Length));
    let kept = hash(&"x".repeat(BYTES_MAX)).unwrap();
    assert!(verify(&"x".repeat(BYTES_MAX), Some(&kept)));
    assert!(!verify(&"x".repeat(BYTES_MAX + 1), Some(&kept)));
}

#[test]
fn an_unknown_users_password_is_always_wrong() {
    assert!(!verify("", None));
    assert!(!verify("anything", None));
}

#[test]
fn a_hash_that_costs_too_much_or_is_none_is_refused_unread() {
    for odd in [
        "",
        "plain text",
        "$1$salt$hash",
        "$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=4096,t=4000000,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=4096,t=3,p=200$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        "$2b$31$7EqJtq98hPqEX7fNZaFWoOhi5rGEKHcLsQRBgUaqoLnhGdrpQ6L0e",
        "$2b$10$short",
        "$2b$xx$7EqJtq98hPqEX7fNZaFWoOhi5rGEKHcLsQRBgUaqoLnhGdrpQ6L0e",
    ] {
        assert!(!is_hash(odd), "{odd}");
        assert!(!verify("secret", Some(odd)), "{odd}");
    }
}
