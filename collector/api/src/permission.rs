//! What a route asks of its caller, and as whom the database is asked for it.

use emberd_identity::{Caller, Permission};
use emberd_store::jobs::Viewer;
use uuid::Uuid;

/// What a route asks: a permission, or nothing: whoever reaches the port may ask.
pub(crate) type Asked = Option<Permission>;

/// Asks for nothing.
pub(crate) const NOTHING: Asked = None;

pub(crate) fn may(caller: &Caller, asked: Asked) -> bool {
    asked.is_none_or(|permission| caller.may(permission))
}

/// As whom the database is asked; nobody's rights are those of a user that does not exist.
pub(crate) fn viewer(caller: &Caller) -> Viewer {
    match caller {
        Caller::LocalAdministrator => Viewer { user: Uuid::nil(), is_admin: true },
        Caller::User(user) => Viewer { user: user.id, is_admin: caller.may(Permission::Administer) },
        Caller::Nobody => Viewer { user: Uuid::max(), is_admin: false },
    }
}

/// The caller's name in the access log.
pub(crate) fn name(caller: &Caller) -> String {
    match caller {
        Caller::LocalAdministrator => "local administrator".into(),
        Caller::User(user) => user.id.to_string(),
        Caller::Nobody => "nobody".into(),
    }
}
