//! Each route and each refusal, over real HTTP, against real databases.

mod gate;
mod operations;
mod prompts;
mod world;
