//! Passwords: checked against argon2id or bcrypt, made as argon2id.
//!
//! Promise: a check of an unknown user's password does the work of a known one's; a hash whose parameters would take a machine's memory or
//! minutes is refused unread. All of it blocks: call it where that is allowed.
//! Source: RFC 9106; the parameters are the second of the OWASP password storage cheat sheet.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};

/// Longer ones are not looked at: bcrypt reads 72 bytes, and nobody types more.
pub const BYTES_MAX: usize = 1024;
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const BCRYPT_COST_MAX: u32 = 14;
/// A hash that no password is known for, with the parameters of [`hash`].
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5cyBzYWx0IQ$S7dJnFZzCOZHjRLY0NfWkkm6q1K0b1YyVv0m2pXwQ5c";

/// Why a password cannot be kept or checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is empty or too long.
    #[error("a password has 1 to {BYTES_MAX} bytes")]
    Length,
    /// The hash is of no known kind, or costs more than is allowed.
    #[error("the stored hash is neither argon2id nor bcrypt within bounds")]
    Hash,
    /// There is no randomness.
    #[error("no salt could be made")]
    Salt,
}

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Makes a hash to keep.
///
/// # Errors
/// An empty or overlong password, or no randomness.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if !(1..=BYTES_MAX).contains(&password.len()) {
        return Err(PasswordError::Length);
    }
    let hash = argon2().ok_or(PasswordError::Salt)?.hash_password(password.as_bytes());
    Ok(hash.map_err(|_| PasswordError::Salt)?.to_string())
}

/// Whether a text is a hash that [`verify`] can check.
#[must_use]
pub fn is_hash(hash: &str) -> bool {
    is_argon2id(hash).is_some() || is_bcrypt(hash)
}

/// Whether the password is the one that was hashed; without a hash the work is done all the same.
#[must_use]
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    let password = if password.len() <= BYTES_MAX { password.as_bytes() } else { b"" };
    let is_right = match hash {
        Some(hash) if is_bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        Some(hash) => is_argon2id(hash).is_some_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        None => {
            let nobodys = PasswordHash::new(NOBODYS).ok();
            let _ = nobodys.map(|hash| Argon2::default().verify_password(password, &hash));
            false
        }
    };
    is_right && !password.is_empty()
}

fn is_argon2id(hash: &str) -> Option<PasswordHash> {
    let hash = PasswordHash::new(hash).ok().filter(|hash| hash.algorithm.as_str() == "argon2id")?;
    let params = Params::try_from(&hash).ok()?;
    let is_bounded = params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX && params.p_cost() <= LANES_MAX;
    is_bounded.then_some(hash)
}

fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.split('$');
    let (Some(""), Some("2a" | "2b" | "2x" | "2y"), Some(cost), Some(rest), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    rest.len() == 53 && cost.parse::<u32>().is_ok_and(|cost| (4..=BCRYPT_COST_MAX).contains(&cost))
}
