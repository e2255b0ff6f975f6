//! Who calls.

use std::sync::Arc;

use uuid::Uuid;

use crate::role::{Permission, Permissions};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The administrator of this machine: whoever reaches a port that only this machine reaches, where no identity is configured.
    LocalAdministrator,
    /// A user whose token was believed.
    User(Arc<User>),
    /// Somebody who did not say, or was not believed.
    Nobody,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The profile.
    pub id: Uuid,
    /// As the application names them: the token's `sub`.
    pub subject: String,
    /// Their address.
    pub email: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// Their role, in the application's words.
    pub role: String,
    /// Where they work.
    pub department: Option<String>,
    /// What they may.
    pub permissions: Permissions,
}

impl Caller {
    /// Whether the caller is known at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::Nobody
    }

    /// Whether the caller may do what asks for this permission.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        match self {
            Self::LocalAdministrator => true,
            Self::User(user) => user.permissions.allow(permission),
            Self::Nobody => false,
        }
    }

    /// The profile; none for nobody, the reserved one for the local administrator.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::LocalAdministrator => Some(Uuid::nil()),
            Self::User(user) => Some(user.id),
            Self::Nobody => None,
        }
    }
}
