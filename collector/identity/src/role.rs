//! What a role may do. The names are the bridge token's (spec/3, Identity).

/// What a route asks of its caller, and a token grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// See traces and what is computed from them.
    ReadTraces,
    /// See evaluations, datasets and what came of them.
    ReadEvaluations,
    /// Make and change things of one's own.
    WriteOwn,
    /// Delete things of one's own.
    DeleteOwn,
    /// Make and change everyone's things.
    WriteAll,
    /// Delete everyone's things.
    DeleteAll,
    /// See and do what an operator does.
    Administer,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ReadTraces,
        Self::ReadEvaluations,
        Self::WriteAll,
        Self::DeleteAll,
        Self::Administer,
        Self::WriteOwn,
        Self::DeleteOwn,
    ];

    /// Its name in a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadTraces => "read:traces",
            Self::ReadEvaluations => "read:evaluations",
            Self::WriteOwn => "write:own",
            Self::DeleteOwn => "delete:own",
            Self::WriteAll => "write:all",
            Self::DeleteAll => "delete:all",
            Self::Administer => "admin:all",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// These.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |bits, permission| bits | permission.bit()))
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&Permission::ALL)
    }

    /// What a role has where nothing else is said: reading for all; an administrator everyone's things, everyone else their own.
    #[must_use]
    pub fn of_role(is_admin: bool) -> Self {
        use Permission::{Administer, DeleteAll, DeleteOwn, ReadEvaluations, ReadTraces, WriteAll, WriteOwn};
        if is_admin {
            Self::of(&[ReadTraces, ReadEvaluations, WriteAll, DeleteAll, Administer])
        } else {
            Self::of(&[ReadTraces, ReadEvaluations, WriteOwn, DeleteOwn])
        }
    }

    /// Those named; a name that is not known grants nothing.
    #[must_use]
    pub fn named<S: AsRef<str>>(names: &[S]) -> Self {
        let known = names.iter().filter_map(|name| Permission::ALL.into_iter().find(|one| one.name() == name.as_ref()));
        Self(known.fold(0, |bits, permission| bits | permission.bit()))
    }

    /// What both allow; where that is everyone's things, one's own are not named beside it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |permission: &Permission| self.allow(*permission) && other.allow(*permission);
        let mut bits = Permission::ALL.iter().filter(|one| both(one)).fold(0, |bits, one| bits | one.bit());
        for (all, own) in [(Permission::WriteAll, Permission::WriteOwn), (Permission::DeleteAll, Permission::DeleteOwn)]
        {
            if bits & all.bit() != 0 {
                bits &= !own.bit();
            }
        }
        Self(bits)
    }

    /// Whether what asks for `permission` may be done: who may everyone's, may their own.
    #[must_use]
    pub fn allow(self, permission: Permission) -> bool {
        let wider = match permission {
            Permission::WriteOwn => Permission::WriteAll,
            Permission::DeleteOwn => Permission::DeleteAll,
            other => other,
        };
        self.0 & (permission.bit() | wider.bit()) != 0
    }

    /// Their names, in the token's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Permission::ALL.into_iter().filter(move |permission| self.0 & permission.bit() != 0).map(Permission::name)
    }
}
