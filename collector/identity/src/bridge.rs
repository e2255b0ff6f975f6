//! The bridge token: what emberd signs for a user, as the application would itself.
//!
//! Its claims, names and lifetime are the specification's (spec/3, Identity). A token is made once and given again until a minute before
//! it ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use emberd_model::UnixNanos;
use serde::Serialize;

use crate::caller::User;
use crate::claims::Party;
use crate::key::Secret;

/// How long one counts.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// One that ends sooner is made anew.
const LEFT_MIN: Duration = Duration::from_secs(60);
/// Tokens kept; beyond it, the ended ones go, and then all.
const KEPT_MAX: usize = 10_000;

/// Makes bridge tokens.
#[derive(Debug)]
pub struct Bridge {
    secret: Secret,
    party: Party,
    /// `provider` in the token.
    provider: String,
    /// `metadata.company` in the token.
    company: String,
    kept: Mutex<HashMap<String, Token>>,
}

/// A token, and until when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// In the compact form.
    pub text: String,
    /// In seconds since 1970.
    pub expires_at: u64,
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a str,
    email: Option<&'a str>,
    name: Option<&'a str>,
    role: &'a str,
    provider: &'a str,
    permissions: Vec<&'static str>,
    metadata: Metadata<'a>,
    iat: u64,
    exp: u64,
    aud: &'a str,
    iss: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    company: &'a str,
    department: Option<&'a str>,
}

impl Bridge {
    /// A maker of tokens for this party.
    #[must_use]
    pub fn new(secret: Secret, party: Party, provider: String, company: String) -> Self {
        Self { secret, party, provider, company, kept: Mutex::default() }
    }

    /// A token for this user.
    pub fn token(&self, user: &User, now: UnixNanos) -> Token {
        let now = now.0 / 1_000_000_000;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // All that stands in the token is in the key, so that a changed role is not told by an old token.
        let key = format!("{user:?}");
        if let Some(token) = kept.get(&key)
            && token.expires_at > now + LEFT_MIN.as_secs()
        {
            return token.clone();
        }
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, token| token.expires_at > now + LEFT_MIN.as_secs());
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
        }
        let token = self.make(user, now);
        kept.insert(key, token.clone());
        token
    }

    fn make(&self, user: &User, now: u64) -> Token {
        let expires_at = now + LIFETIME.as_secs();
        let payload = Payload {
            sub: &user.subject,
            email: user.email.as_deref(),
            name: user.name.as_deref(),
            role: &user.role,
            provider: &self.provider,
            permissions: user.permissions.names().collect(),
            metadata: Metadata { company: &self.company, department: user.department.as_deref() },
            iat: now,
            exp: expires_at,
            aud: &self.party.audience,
            iss: &self.party.issuer,
        };
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        // Texts and numbers: there is nothing that could not be written.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).unwrap_or_default());
        let signed = format!("{header}.{payload}");
        let signature = URL_SAFE_NO_PAD.encode(self.secret.sign(signed.as_bytes()));
        Token { text: format!("{signed}.{signature}"), expires_at }
    }
}

#[cfg(test)]
impl Bridge {
    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}
