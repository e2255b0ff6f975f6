//! A token in the compact form, taken apart: nothing in it is believed yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::strict::Object;
use crate::verifier::Refused;

/// Longer ones are not looked at.
pub(crate) const BYTES_MAX: usize = 8 << 10;
/// Of a key's name.
const KID_BYTES_MAX: usize = 256;

/// What a signature is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// The parts of a token.
pub(crate) struct Token<'a> {
    /// What its header says it was signed with: held against the key's own, never used to choose.
    pub(crate) algorithm: Algorithm,
    /// Which key its header names.
    pub(crate) kid: Option<String>,
    /// What was signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > BYTES_MAX {
            return Err(Refused::Malformed("longer than 8 KiB"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Malformed("not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(Refused::Malformed("not three parts"))?;
        // An encrypted token has five parts, a nested one is a payload that is no object.
        if payload.contains('.') {
            return Err(Refused::Malformed("not three parts"));
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed("not base64url"));
        let mut header = Object::parse(&decode(header)?).ok_or(Refused::Malformed("the header is no JSON object"))?;
        let algorithm = header.text("alg", 16).ok().flatten().and_then(|name| Algorithm::parse(&name));
        let algorithm = algorithm.ok_or(Refused::Malformed("an algorithm that is not taken"))?;
        // Extensions that change what is signed, or that must be understood: none is (RFC 7515 section 4.1.11, RFC 7797).
        if header.has("crit") || header.has("b64") || header.has("zip") || header.has("enc") {
            return Err(Refused::Malformed("a header that is not understood"));
        }
        let kid = header.text("kid", KID_BYTES_MAX).map_err(|()| Refused::Malformed("a key's name that is none"))?;
        let kind = header.text("typ", 32).map_err(|()| Refused::Malformed("a type that is none"))?;
        if kind.is_some_and(|kind| !["JWT", "AT+JWT"].contains(&kind.to_ascii_uppercase().as_str())) {
            return Err(Refused::Malformed("a type that is not taken"));
        }
        let (signature, payload) = (decode(signature)?, decode(payload)?);
        Ok(Self { algorithm, kid, signed: signed.as_bytes(), signature, payload })
    }
}
