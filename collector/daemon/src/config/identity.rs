//! `[identity]`: who may call the API, and by which tokens.

use std::time::Duration;

use reqwest::Url;

use super::reader::Reader;
use super::secret::Secret;

/// `[identity]`, where it names a key that tokens are checked with.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Shared with the application: HS256.
    pub secret: Option<Secret>,
    /// Where the application's public keys are: RS256, ES256.
    pub jwks_url: Option<Url>,
    /// `iss` of the application's session tokens.
    pub issuer: Option<String>,
    /// `aud` of the application's session tokens.
    pub audience: Option<String>,
    /// Whether tokens of the shared secret without issuer and audience are taken.
    pub accept_plain: bool,
    /// No token counts for longer.
    pub lifetime_max: Duration,
    /// Roles whose users are administrators.
    pub admin_roles: Vec<String>,
    /// `iss` of the bridge token.
    pub bridge_issuer: String,
    /// `aud` of the bridge token.
    pub bridge_audience: String,
    /// `provider` in the bridge token.
    pub provider: String,
    /// `metadata.company` in the bridge token.
    pub company: String,
}

/// Reads `[identity]`; none where no key is named, and every caller is the local administrator.
pub(super) fn identity(reader: &mut Reader) -> Option<Identity> {
    let mut section = reader.section("identity");
    let identity = Identity {
        secret: section.secret("jwt_secret_file", "SHARED_JWT_SECRET"),
        jwks_url: section.value::<Option<Url>>("jwks_url", None),
        issuer: section.value::<Option<String>>("issuer", None),
        audience: section.value::<Option<String>>("audience", None),
        accept_plain: section.value("accept_plain", false),
        lifetime_max: section.value("token_lifetime_max", emberd_identity::verifier::LIFETIME_MAX),
        admin_roles: section.value("admin_roles", vec!["admin".to_owned()]),
        bridge_issuer: section.value("bridge_issuer", "sambatv-prompt-library".to_owned()),
        bridge_audience: section.value("bridge_audience", "phoenix-service".to_owned()),
        provider: section.value("provider", "sambatv".to_owned()),
        company: section.value("company", "SambaTV".to_owned()),
    };
    if let Some(secret) = &identity.secret
        && let Err(error) = emberd_identity::Secret::new(secret.reveal())
    {
        section.fault("jwt_secret_file", error.to_string());
    }
    section.check(
        "audience",
        identity.issuer.is_some() == identity.audience.is_some(),
        "issuer and audience of session tokens are checked together: set both or neither",
    );
    section.check(
        "issuer",
        identity.jwks_url.is_none() || identity.issuer.is_some() || section_has_fault(&identity),
        "public keys sign session tokens: their issuer and audience must be set",
    );
    section.finish();
    (identity.secret.is_some() || identity.jwks_url.is_some()).then_some(identity)
}

/// Whether only one of the two is set, which is told already.
fn section_has_fault(identity: &Identity) -> bool {
    identity.issuer.is_some() != identity.audience.is_some()
}
