//! Who calls, and what they may do.

use emberd_store::jobs::Viewer;
use uuid::Uuid;

/// What a route asks of its caller. The names are the bridge token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Nothing: whoever reaches the port may ask.
    Nothing,
    /// See traces and what is computed from them.
    ReadTraces,
    /// See evaluations, datasets and what came of them.
    ReadEvaluations,
    /// Make things of one's own.
    WriteOwn,
    /// See and do what an operator does.
    Administer,
}

impl Permission {
    /// Its name in a token's claims; none where no claim is needed.
    pub(crate) fn claim(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::ReadTraces => Some("read:traces"),
            Self::ReadEvaluations => Some("read:evaluations"),
            Self::WriteOwn => Some("write:own"),
            Self::Administer => Some("admin:all"),
        }
    }
}

/// Who callers are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Everyone is the local administrator: only for a port that no other machine reaches.
    LocalAdministrator,
    /// Everyone must show a token. There is nothing yet that checks one, so that nobody is known and everything but
    /// `/healthz` and `/readyz` answers 401.
    Tokens,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The administrator of this machine.
    LocalAdministrator,
    /// Somebody who did not say.
    Nobody,
}

impl Caller {
    /// Whether the caller is known at all.
    pub(crate) fn is_known(self) -> bool {
        self != Self::Nobody
    }

    /// Whether the caller may do what asks for this permission.
    pub(crate) fn may(self, permission: Permission) -> bool {
        match self {
            Self::LocalAdministrator => true,
            Self::Nobody => permission.claim().is_none(),
        }
    }

    /// As whom the database is asked.
    pub(crate) fn viewer(self) -> Viewer {
        Viewer { user: Uuid::nil(), is_admin: self == Self::LocalAdministrator }
    }

    /// The caller's name in the access log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LocalAdministrator => "local administrator",
            Self::Nobody => "nobody",
        }
    }
}
