//! Tokens of any shape, signed by any key, as an application or an attacker would make them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use emberd_model::UnixNanos;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, signature};
use serde_json::{Value, json};

use crate::claims::Party;
use crate::jwks::Jwks;
use crate::verifier::LIFETIME_MAX;
use crate::{Claims, Refused, Secret, Verifier};

pub(super) const SECRET: &str = "a shared secret of more than thirty-two bytes";
/// 2026-11-21T02:00:00Z.
pub(super) const NOW: i64 = 1_795_226_400;
const RSA: &[u8] = include_bytes!("rsa.der");

pub(super) fn at(seconds: i64) -> UnixNanos {
    UnixNanos(seconds as u64 * 1_000_000_000)
}

pub(super) fn session() -> Party {
    Party { issuer: "https://app.example".into(), audience: "emberd".into() }
}

pub(super) fn bridge() -> Party {
    Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() }
}

/// Claims of a session that is in time.
pub(super) fn claims() -> Value {
    json!({
        "sub": "7b0f2f5e-6d0d-4c5d-9a53-0d6c1f5b2a11", "email": "Ada@Example.com", "name": "Ada", "role": "member",
        "iss": "https://app.example", "aud": "emberd", "iat": NOW - 10, "exp": NOW + 3600,
    })
}

pub(super) fn with(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        let members = claims.as_object_mut().unwrap();
        if value.is_null() { drop(members.remove(name)) } else { drop(members.insert(name.clone(), value.clone())) }
    }
    claims
}

pub(super) fn hmac(secret: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec()
}

/// A token of these very texts.
pub(super) fn token(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
    let signature = BASE64.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token of the shared secret.
pub(super) fn hs256(claims: &Value) -> String {
    token(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), |signed| hmac(SECRET.as_bytes(), signed))
}

/// The application's key pairs.
pub(super) struct Pairs {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Pairs {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { rsa: RsaKeyPair::from_der(RSA).unwrap(), ec }
    }

    pub(super) fn rsa_parts(&self) -> (Vec<u8>, Vec<u8>) {
        let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        (public.n, public.e)
    }

    pub(super) fn jwks(&self) -> Value {
        let (n, e) = self.rsa_parts();
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa-1", "alg": "RS256", "use": "sig", "n": BASE64.encode(n), "e": BASE64.encode(e) },
            { "kty": "EC", "kid": "ec-1", "crv": "P-256", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]) },
        ] })
    }

    pub(super) fn rs256(&self, header: &str, claims: &Value) -> String {
        token(header, &claims.to_string(), |signed| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).unwrap();
            signature
        })
    }

    pub(super) fn es256(&self, header: &str, claims: &Value) -> String {
        token(header, &claims.to_string(), |signed| {
            self.ec.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec()
        })
    }
}

/// A verifier of all kinds of tokens but the plain one.
pub(super) fn verifier(jwks: Option<&Value>) -> Verifier {
    Verifier {
        secret: Some(Secret::new(SECRET).unwrap()),
        jwks: jwks.map(|jwks| Arc::new(Jwks::holding(jwks.to_string().as_bytes()))),
        session: Some(session()),
        bridge: bridge(),
        accept_plain: false,
        lifetime_max: LIFETIME_MAX,
    }
}

pub(super) fn check(verifier: &Verifier, token: &str) -> Result<Claims, Refused> {
    verifier.check(token, at(NOW))
}
