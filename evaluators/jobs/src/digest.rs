//! By what an answer is found again.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use emberd_store::jobs::ItemKey;

/// Digest of these parts, each with its length, so that no border can move.
fn of(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// What anybody who asks the same may use: evaluator (name, version, configuration), endpoint, and the body with model, parameters and
/// messages.
pub(crate) fn shared(evaluator: &str, endpoint: &str, body: &[u8]) -> Vec<u8> {
    of(&[b"shared", evaluator.as_bytes(), endpoint.as_bytes(), body])
}

/// What only this item uses, until it is tried again by request: a run's output, an answer without a verdict.
pub(crate) fn own(item: ItemKey, retried: u32, body: &[u8]) -> Vec<u8> {
    let place = [item.nr.to_le_bytes(), item.step.to_le_bytes()].concat();
    of(&[b"own", item.job.as_bytes(), &place, &retried.to_le_bytes(), body])
}

/// The mark that a job was tried again for the `n`-th time.
pub(crate) fn retried(job: Uuid, n: u32) -> Vec<u8> {
    of(&[b"retried", job.as_bytes(), &n.to_le_bytes()])
}
