//! Who calls: tokens that an application signed, the bridge token, passwords; and what a role may do.
//!
//! Promise: a token is believed only if a key that the configuration pinned to one algorithm signed it, it is in time, and its issuer
//! and audience are the configured ones; nothing that stands in the token chooses the key's algorithm or where a key comes from. A
//! refusal never says why to the caller, only to the log.
//! On the wire: JWS compact (RFC 7515, RFC 7519) with HS256, RS256 or ES256 (RFC 7518); keys as JWKS (RFC 7517); passwords as argon2id
//! (PHC string) or bcrypt.
//! Not here: HTTP routes, the profiles' table, which route asks for which permission.
//! Kept by: `tests::forged` (the catalogue of forged and odd tokens), `tests::bridge`, `tests::passwords`, `tests::jwks`.
//!
//! - [`token`] takes a token apart, [`key`] checks its signature, [`claims`] what it says, [`verifier`] puts them together;
//! - [`jwks`] fetches public keys; [`bridge`] makes the bridge token; [`password`] checks and makes hashes;
//! - [`role`] says which permissions a role has, [`caller`] who calls.

pub mod bridge;
pub mod caller;
pub mod claims;
pub mod jwks;
mod key;
pub mod password;
pub mod role;
mod strict;
mod token;
pub mod verifier;

#[cfg(test)]
mod tests;

pub use caller::{Caller, User};
pub use claims::{Claims, TokenKind};
pub use key::{KeyError, Secret};
pub use role::{Permission, Permissions};
pub use verifier::{Refused, Verifier};
