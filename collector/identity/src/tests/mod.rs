//! What is believed and what is not, token by token.

mod bridge;
mod forged;
mod jwks;
mod passwords;
mod signing;
