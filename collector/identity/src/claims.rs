//! What a token says, read strictly.

use serde_json::Value;

use crate::strict::Object;
use crate::token::BYTES_MAX;
use crate::verifier::Refused;

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 30;
const SUBJECT_BYTES_MAX: usize = 256;
const EMAIL_BYTES_MAX: usize = 320;
const NAME_BYTES_MAX: usize = 500;
const PERMISSIONS_MAX: usize = 64;

/// What kind of token it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The application's session.
    Session,
    /// The bridge token, by emberd or by the application.
    Bridge,
    /// One without issuer and audience.
    Plain,
}

/// What a believed token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Which of the tokens.
    pub kind: TokenKind,
    /// Who, as the application names its users; never empty.
    pub subject: String,
    /// Their address, in lower case.
    pub email: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// Their role, in the application's words.
    pub role: Option<String>,
    /// What they may, where the token says it.
    pub permissions: Option<Vec<String>>,
    /// Where they work.
    pub department: Option<String>,
    /// The token's own id.
    pub id: Option<String>,
    /// When it was made, in seconds since 1970, where it says so.
    pub issued_at: Option<i64>,
    /// Until when it counts, in seconds since 1970.
    pub expires_at: i64,
}

/// Issuer and audience that are taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// `iss`.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
}

/// Which tokens are taken, and how long one may count.
pub(crate) struct Rules<'a> {
    pub(crate) session: Option<&'a Party>,
    pub(crate) bridge: Option<&'a Party>,
    pub(crate) plain: bool,
    pub(crate) lifetime_max: i64,
}

impl Claims {
    /// Reads what was signed; `now` in seconds since 1970.
    pub(crate) fn read(payload: &[u8], rules: &Rules<'_>, now: i64) -> Result<Self, Refused> {
        let mut object = Object::parse(payload).ok_or(Refused::Malformed("the claims are no JSON object"))?;
        let bad = |name: &'static str| move |()| Refused::Claim(name);
        let expires_at = object.seconds("exp").map_err(bad("exp"))?.ok_or(Refused::Claim("exp"))?;
        let not_before = object.seconds("nbf").map_err(bad("nbf"))?;
        let issued_at = object.seconds("iat").map_err(bad("iat"))?;
        let kind = kind(&mut object, rules)?;
        let permissions = match object.take("permissions") {
            None | Some(Value::Null) => None,
            Some(Value::Array(all)) if all.len() <= PERMISSIONS_MAX => {
                let texts = all.into_iter().map(|one| if let Value::String(one) = one { Some(one) } else { None });
                Some(texts.collect::<Option<Vec<_>>>().ok_or(Refused::Claim("permissions"))?)
            }
            Some(_) => return Err(Refused::Claim("permissions")),
        };
        let metadata = object.take("metadata");
        let department = metadata.as_ref().and_then(|metadata| metadata.get("department")?.as_str());
        let claims = Self {
            kind,
            subject: object.text("sub", SUBJECT_BYTES_MAX).map_err(bad("sub"))?.ok_or(Refused::Claim("sub"))?,
            email: object.text("email", EMAIL_BYTES_MAX).map_err(bad("email"))?.map(|email| email.to_lowercase()),
            name: object.text("name", NAME_BYTES_MAX).map_err(bad("name"))?,
            role: object.text("role", NAME_BYTES_MAX).map_err(bad("role"))?,
            permissions,
            department: department.map(str::to_owned),
            id: object.text("jti", BYTES_MAX).map_err(bad("jti"))?,
            issued_at,
            expires_at,
        };
        if expires_at.saturating_add(LEEWAY) <= now {
            return Err(Refused::Expired);
        }
        let is_early = |time: Option<i64>| time.is_some_and(|time| time > now.saturating_add(LEEWAY));
        if is_early(not_before) || is_early(issued_at) {
            return Err(Refused::Early);
        }
        let began = issued_at.unwrap_or(now).min(now);
        if expires_at.saturating_sub(began) > rules.lifetime_max.saturating_add(LEEWAY) {
            return Err(Refused::TooLong);
        }
        Ok(claims)
    }
}

fn kind(object: &mut Object, rules: &Rules<'_>) -> Result<TokenKind, Refused> {
    if !object.has("iss") && !object.has("aud") && rules.plain {
        return Ok(TokenKind::Plain);
    }
    let issuer = object.text("iss", SUBJECT_BYTES_MAX).ok().flatten().ok_or(Refused::Claim("iss"))?;
    let audiences = match object.take("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => {
            let texts = all.into_iter().map(|one| if let Value::String(one) = one { Some(one) } else { None });
            texts.collect::<Option<Vec<_>>>().ok_or(Refused::Claim("aud"))?
        }
        _ => return Err(Refused::Claim("aud")),
    };
    let is = |party: &Party| party.issuer == issuer && audiences.contains(&party.audience);
    match (rules.bridge, rules.session) {
        (Some(bridge), _) if is(bridge) => Ok(TokenKind::Bridge),
        (_, Some(session)) if is(session) => Ok(TokenKind::Session),
        (bridge, session) => {
            let known = [bridge, session].into_iter().flatten().any(|party| party.issuer == issuer);
            Err(Refused::Claim(if known { "aud" } else { "iss" }))
        }
    }
}
