//! How a trace went, and what it failed of.

use super::Status;
use super::calls::Call;
use crate::facts::{Facts, Flag, Text};

/// A trace fails if its root does, or, where there is no root, if an LLM call failed that was not retried with success: a child
/// that failed and was recovered from is no failure. It timed out if what failed it did: the root, or that call.
pub(super) fn of(root: Option<&Facts<'_>>, calls: &[Call<'_>]) -> (Status, Option<String>) {
    if root.is_some_and(|root| !root.has(Flag::Failed)) {
        return (Status::Success, None);
    }
    let blamed = calls.iter().rev().find(|call| call.failed() && !was_retried(call, calls)).map(|call| &call.facts);
    if root.is_none() && blamed.is_none() {
        return (Status::Success, None);
    }
    let told = [root, blamed];
    let told = || told.into_iter().flatten();
    let status = if told().any(|facts| facts.has(Flag::TimedOut)) { Status::Timeout } else { Status::Error };
    (status, told().find_map(|facts| facts.text(Text::Error)).map(str::to_owned))
}

/// A later call of the same caller, or to the same model, succeeded.
fn was_retried(failed: &Call<'_>, calls: &[Call<'_>]) -> bool {
    calls.iter().any(|call| {
        !call.failed()
            && call.facts.start >= failed.facts.end
            && (call.parent == failed.parent || call.request_model() == failed.request_model())
    })
}
