//! Keys, each pinned to one algorithm when it is loaded.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use crate::token::{Algorithm, Token};

/// The shortest secret: as long as what HS256 makes of it (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The shared secret is too short to withstand guessing.
    #[error("the shared secret has {bytes} bytes: HS256 asks for {SECRET_BYTES_MIN} at least")]
    ShortSecret {
        /// How many it has.
        bytes: usize,
    },
}

/// The secret that the application and emberd share.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// # Errors
    /// A secret of fewer than 32 bytes.
    pub fn new(secret: &str) -> Result<Self, KeyError> {
        match secret.len() {
            bytes if bytes < SECRET_BYTES_MIN => Err(KeyError::ShortSecret { bytes }),
            _ => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))),
        }
    }

    pub(crate) fn sign(&self, what: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, what)
    }

    /// In constant time.
    pub(crate) fn signed(&self, token: &Token<'_>) -> bool {
        token.algorithm == Algorithm::Hs256 && hmac::verify(&self.0, token.signed, &token.signature).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// A public key.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    pub(crate) kid: Option<String>,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { point: Vec<u8> },
}

/// A member of a JWKS, of which the public parts are read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    use_: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublicKey {
    /// The keys of a JWKS that can check a signature of a known kind; why each other one was left out.
    pub(crate) fn set(jwks: &[u8]) -> Result<(Vec<Self>, Vec<&'static str>), &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(jwks).map_err(|_| "not a JSON object with `keys`")?;
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for jwk in set.keys {
            let key = Jwk::deserialize(jwk).map_err(|_| "no key").and_then(|jwk| Self::of(&jwk));
            match key {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(why),
            }
        }
        Ok((keys, left_out))
    }

    fn of(jwk: &Jwk) -> Result<Self, &'static str> {
        if jwk.use_.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("not for signatures");
        }
        let part = |part: &Option<String>| {
            part.as_deref().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).ok_or("a part is missing")
        };
        let of = match (jwk.kty.as_str(), jwk.alg.as_deref(), jwk.crv.as_deref()) {
            ("RSA", None | Some("RS256"), _) => {
                let n: Vec<u8> = part(&jwk.n)?.into_iter().skip_while(|byte| *byte == 0).collect();
                if !RSA_BYTES.contains(&n.len()) {
                    return Err("an RSA key of fewer than 2048 bits, or more than 8192");
                }
                Of::Rsa { n, e: part(&jwk.e)? }
            }
            ("EC", None | Some("ES256"), Some("P-256")) => {
                let (x, y) = (part(&jwk.x)?, part(&jwk.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return Err("a point that is not of P-256");
                }
                Of::P256 { point: [&[4], &x[..], &y[..]].concat() }
            }
            _ => return Err("a kind or algorithm that is not taken"),
        };
        Ok(Self { kid: jwk.kid.clone(), of })
    }

    pub(crate) fn signed(&self, token: &Token<'_>) -> bool {
        match (&self.of, token.algorithm) {
            (Of::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, token.signed, &token.signature)
                .is_ok(),
            (Of::P256 { point }, Algorithm::Es256) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(token.signed, &token.signature).is_ok()
            }
            _ => false,
        }
    }
}
