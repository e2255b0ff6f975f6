//! `[reconcile]`: when emberd holds what it has written against what it was made of.

use std::time::Duration;

use super::reader::Reader;

const DAY: Duration = Duration::from_secs(86_400);

/// `[reconcile]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconcile {
    /// How often; zero: never by itself.
    pub every: Duration,
    /// Whether what differs is set right.
    pub fix: bool,
}

pub(super) fn reconcile(reader: &mut Reader) -> Reconcile {
    let mut section = reader.section("reconcile");
    let reconcile = Reconcile { every: section.value("every", DAY), fix: section.value("fix", true) };
    let is_sane = reconcile.every.is_zero() || (Duration::from_secs(60)..=30 * DAY).contains(&reconcile.every);
    section.check("every", is_sane, "must be from 1m to 30d, or \"0\"");
    section.finish();
    reconcile
}
