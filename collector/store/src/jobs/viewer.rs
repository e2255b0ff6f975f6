//! Who asks: what they may see and change stands in the queries, on both databases as PostgreSQL's policies say it.

use uuid::Uuid;

/// A caller whose identity was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// The profile.
    pub user: Uuid,
    /// Sees and changes everything.
    pub is_admin: bool,
}

impl Viewer {
    /// Whose rows they may change: none for everyone's.
    pub(crate) fn own(self) -> Option<Uuid> {
        (!self.is_admin).then_some(self.user)
    }
}

/// The caller, `$1`, may see the row: it is public or theirs; `$1` is null for those who see all.
pub(super) const SEEN: &str = "($1::uuid IS NULL OR is_public OR created_by = $1)";
/// The caller, `$1`, may change the row.
pub(super) const OWN: &str = "($1::uuid IS NULL OR created_by = $1)";
