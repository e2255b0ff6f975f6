//! From a token to what it says, if it is to be believed.

use std::sync::Arc;
use std::time::Duration;

use emberd_model::UnixNanos;

use crate::claims::{Claims, Party, Rules};
use crate::jwks::Jwks;
use crate::key::Secret;
use crate::token::{Algorithm, Token};

/// A token that counts for longer than this is refused, whatever it says.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a token is not believed: for the log, not for its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no token of the known form.
    #[error("not a token: {0}")]
    Malformed(&'static str),
    /// No key is there for what it says it was signed with.
    #[error("signed with a key that is not known")]
    UnknownKey,
    /// The key did not make this signature.
    #[error("the signature is wrong")]
    Signature,
    /// A claim is missing or not what is asked for.
    #[error("the claim {0} is missing or wrong")]
    Claim(&'static str),
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not yet valid")]
    Early,
    /// It counts for longer than is allowed.
    #[error("valid for longer than is allowed")]
    TooLong,
}

/// What tokens are taken.
#[derive(Debug)]
pub struct Verifier {
    /// Shared with the application.
    pub secret: Option<Secret>,
    /// The application's public keys.
    pub jwks: Option<Arc<Jwks>>,
    /// Issuer and audience of the application's session tokens.
    pub session: Option<Party>,
    /// Issuer and audience of the bridge token, which only the shared secret signs.
    pub bridge: Party,
    /// Whether a token of the shared secret without issuer and audience is taken.
    pub accept_plain: bool,
    /// The longest lifetime.
    pub lifetime_max: Duration,
}

impl Verifier {
    /// Believes a token, or says why not. Where it names a public key that is not known, the keys are fetched anew, at most once a minute.
    ///
    /// # Errors
    /// [`Refused`], for the log.
    pub async fn verify(&self, token: &str, now: UnixNanos) -> Result<Claims, Refused> {
        match self.check(token, now) {
            Err(Refused::UnknownKey) => match &self.jwks {
                Some(jwks) if jwks.refetch(now).await => self.check(token, now),
                _ => Err(Refused::UnknownKey),
            },
            answer => answer,
        }
    }

    /// The same with the keys that are there.
    ///
    /// # Errors
    /// [`Refused`], for the log.
    pub fn check(&self, token: &str, now: UnixNanos) -> Result<Claims, Refused> {
        let token = Token::parse(token)?;
        let now = i64::try_from(now.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let lifetime_max = i64::try_from(self.lifetime_max.as_secs()).unwrap_or(i64::MAX);
        let session = self.session.as_ref();
        let rules = match self.signer(&token)? {
            Signer::Secret => Rules { session, bridge: Some(&self.bridge), plain: self.accept_plain, lifetime_max },
            Signer::PublicKey => Rules { session, bridge: None, plain: false, lifetime_max },
        };
        Claims::read(&token.payload, &rules, now)
    }

    /// Which key signed it. The token's own word for the algorithm is only held against the key's: a public key never checks an HMAC.
    fn signer(&self, token: &Token<'_>) -> Result<Signer, Refused> {
        let keys = self.jwks.as_ref().map(|jwks| jwks.keys()).unwrap_or_default();
        if let Some(kid) = &token.kid
            && let Some(named) = keys.iter().find(|key| key.kid.as_ref() == Some(kid))
        {
            return if named.signed(token) { Ok(Signer::PublicKey) } else { Err(Refused::Signature) };
        }
        if token.algorithm == Algorithm::Hs256 {
            let secret = self.secret.as_ref().ok_or(Refused::UnknownKey)?;
            return if secret.signed(token) { Ok(Signer::Secret) } else { Err(Refused::Signature) };
        }
        if token.kid.is_some() || keys.is_empty() {
            return Err(Refused::UnknownKey);
        }
        // Who names no key may mean any.
        if keys.iter().any(|key| key.signed(token)) { Ok(Signer::PublicKey) } else { Err(Refused::Signature) }
    }
}

enum Signer {
    Secret,
    PublicKey,
}
