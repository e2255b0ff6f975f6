//! The doors from outside: real sockets, real protocols, real log where it matters.

mod books;
mod bounds;
mod client;
mod disk;
mod durability;
mod export;
mod fixtures;
mod grpc_table;
mod house;
mod http_table;
mod keys;
mod shelf;
mod stopping;
