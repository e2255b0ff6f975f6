//! Each route and each refusal, over real HTTP, against real databases.

mod contract;
mod evaluations;
mod flags;
mod gate;
mod graph;
mod identity;
mod operations;
mod prompts;
mod proxy;
mod rules;
mod world;
