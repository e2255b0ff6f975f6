//! The contract with evaluators that run outside of emberd: `emberd/evaluator/v1/evaluator.proto`, and its Rust.
//!
//! [`evaluator::v1`] is generated and checked in; `tests/generated.rs` writes it and holds it against the `.proto`. Other languages
//! generate their own from the same file.
//!
//! Not here: what the fields mean for emberd (`emberd-evaluators-kit`, module `wire`), who starts and watches plugins.

/// Evaluators.
pub mod evaluator {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    #[rustfmt::skip]
    pub mod v1 {
        include!("generated/emberd.evaluator.v1.rs");
    }
}
