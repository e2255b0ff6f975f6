//! Each route and each refusal, over real HTTP, against real databases.

mod evaluations;
mod gate;
mod operations;
mod prompts;
mod rules;
mod world;
