//! The doors from outside: real sockets, real protocols, real log where it matters.

#![allow(clippy::unwrap_used, reason = "in a test that is how one fails")]

mod books;
mod bounds;
mod catalogue;
mod client;
mod disk;
mod durability;
mod export;
mod fixtures;
mod floods;
mod grpc_table;
mod house;
mod http_table;
mod incidents;
mod keys;
mod shelf;
mod slow;
mod stopping;
