//! Each route and each refusal, over real HTTP, against real databases.

mod analytics;
mod contract;
mod cursors;
mod evaluations;
mod flags;
mod gate;
mod graph;
mod identity;
mod once;
mod operations;
mod prompts;
mod proxy;
mod rows;
mod rules;
mod world;
