//! Who there is: profiles, their passwords, and tokens that count no more.
//!
//! Promise: a profile is made and changed only where the table of profiles is emberd's own; nothing here changes another's.
//! Kept by: `tests::people`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use crate::Moment;
use crate::error::{Error, Source};
use crate::fault::Fault;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// A row of `profiles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Primary key.
    pub id: Uuid,
    /// In lower case where emberd made it.
    pub email: String,
    /// What they are called.
    pub name: Option<String>,
    /// In the application's words.
    pub role: Option<String>,
    /// Where they work.
    pub department: Option<String>,
}

/// From the indexes over emberd's own table alone: this names no column that is not in them.
const POSTGRES: &str =
    "SELECT p.id, p.email::text, p.name::text, p.role::text, p.department::text FROM public.profiles p";
/// Another's table has an id and an email; the rest is taken as it comes. A whole row is in no index.
const POSTGRES_ANYHOW: &str =
    "SELECT p.id, p.email::text, to_jsonb(p) ->> 'name', to_jsonb(p) ->> 'role', to_jsonb(p) ->> 'department'
     FROM public.profiles p";
const SQLITE: &str = "SELECT p.id, p.email, p.name, p.role, p.department FROM public.profiles p";
pub(crate) const BY_ID: &str = "WHERE p.id = $1";
pub(crate) const BY_EMAIL: &str = "WHERE p.email = $1 ORDER BY p.id LIMIT 1";

fn read(line: &Line) -> Result<Profile, Fault> {
    Ok(Profile {
        id: line.id(0)?,
        email: line.text(1)?,
        name: line.maybe_text(2)?,
        role: line.maybe_text(3)?,
        department: line.maybe_text(4)?,
    })
}

/// Whether another's table has no such column.
fn is_missing_column(source: &Source) -> bool {
    let database = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.and_then(|error| error.code()).is_some_and(|code| code == "42703")
}

impl Store {
    /// The statement that reads profiles, with all columns or with those that are sure.
    pub(crate) fn profiles(&self, which: &str, anyhow: bool) -> String {
        match (self.kind(), anyhow) {
            // Left to itself it takes the primary key's index, and then the row.
            ("sqlite", _) if which == BY_ID => format!("{SQLITE} INDEXED BY idx_profiles_id {which}"),
            ("sqlite", _) => format!("{SQLITE} {which}"),
            (_, false) => format!("{POSTGRES} {which}"),
            (_, true) => format!("{POSTGRES_ANYHOW} {which}"),
        }
    }

    async fn profile_lines(&self, which: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        if !self.lacks_columns.load(Ordering::Relaxed) {
            match self.lines(&self.profiles(which, false), binds).await {
                Err(Fault::Refused { source }) if is_missing_column(&source) => {
                    self.lacks_columns.store(true, Ordering::Relaxed);
                }
                read => return read,
            }
        }
        self.lines(&self.profiles(which, true), binds).await
    }

    /// The profile of this id.
    pub async fn profile(&self, id: Uuid) -> Result<Option<Profile>, Error> {
        let found = self.profile_lines(BY_ID, &binds![id]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// The profile of this address, written as it stands in the table.
    pub async fn profile_by_email(&self, email: &str) -> Result<Option<Profile>, Error> {
        let found = self.profile_lines(BY_EMAIL, &binds![email]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// The first thousand profiles by address, and whether each has a password.
    pub async fn people(&self) -> Result<Vec<(Profile, bool)>, Error> {
        let with = "SELECT profile FROM emberd.passwords";
        let keyed: Vec<Uuid> =
            self.lines(with, &[]).await?.iter().map(|line| line.id(0)).collect::<Result<_, Fault>>()?;
        let lines = self.profile_lines("ORDER BY p.email, p.id LIMIT 1000", &[]).await?;
        let one = |line: &Line| {
            let profile = read(line)?;
            let has_password = keyed.contains(&profile.id);
            Ok((profile, has_password))
        };
        Ok(lines.iter().map(one).collect::<Result<_, Fault>>()?)
    }

    /// Makes a profile, where the table is emberd's and neither id nor address is taken; false where it made none.
    pub async fn make_profile(&self, profile: Profile) -> Result<bool, Error> {
        Ok(self.run(MakeProfile(profile)).await?)
    }

    /// Changes a profile's role, where the table is emberd's own; false where it is another's, or has no such profile.
    pub async fn set_role(&self, profile: Uuid, role: String) -> Result<bool, Error> {
        Ok(self.run(SetRole { profile, role }).await?)
    }

    /// The hash of a profile's password.
    pub async fn password(&self, profile: Uuid) -> Result<Option<String>, Error> {
        let found = self.lines("SELECT hash FROM emberd.passwords WHERE profile = $1", &binds![profile]).await?;
        Ok(found.first().map(|line| line.text(0)).transpose()?)
    }

    /// Keeps the hash of a profile's password, or takes it away; false if there is no such profile.
    pub async fn set_password(&self, profile: Uuid, hash: Option<String>, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(SetPassword { profile, hash, at: now.micros() }).await?)
    }

    /// Lets a token count no more, by its digest; `until` is when it ends by itself, and its row goes.
    pub async fn revoke(&self, digest: [u8; 32], until: UnixNanos, now: UnixNanos) -> Result<(), Error> {
        Ok(self.run(Revoke { digest, until: until.micros(), now: now.micros() }).await?)
    }

    /// The digests of tokens that count no more and have not ended by themselves.
    pub async fn revoked(&self, now: UnixNanos) -> Result<Vec<[u8; 32]>, Error> {
        let found = self.lines("SELECT digest FROM emberd.revoked WHERE until > $1", &binds![now.micros()]).await?;
        let digest = |line: &Line| {
            let digest = line.blob(0)?;
            digest.try_into().map_err(|_| Fault::damaged("a token's digest", format!("{} bytes", digest.len())))
        };
        Ok(found.iter().map(digest).collect::<Result<_, Fault>>()?)
    }
}

/// Whether the table of profiles is emberd's own.
async fn is_ours<T: Tx>(tx: &mut T) -> Result<bool, Fault> {
    let owns = "SELECT 1 FROM emberd.made WHERE name = 'table profiles'";
    Ok(tx.is_sqlite() || !tx.query(owns, &[]).await?.is_empty())
}

struct SetRole {
    profile: Uuid,
    role: String,
}

impl Work for SetRole {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        if !is_ours(tx).await? {
            return Ok(false);
        }
        let sql = "UPDATE public.profiles SET role = $2 WHERE id = $1";
        Ok(tx.execute(sql, &binds![self.profile, &self.role]).await? == 1)
    }
}

struct MakeProfile(Profile);

impl Work for MakeProfile {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        if !is_ours(tx).await? {
            return Ok(false);
        }
        let Profile { id, email, name, role, department } = &self.0;
        // On SQLite the index over addresses covers a login and so is not unique.
        let sql = "INSERT INTO public.profiles (id, email, name, role, department)
             SELECT $1::uuid, $2::text, $3::text, coalesce($4::text, 'member'), $5::text
             WHERE NOT EXISTS (SELECT 1 FROM public.profiles WHERE email = $2) ON CONFLICT DO NOTHING";
        let binds = binds![*id, email, name.as_deref(), role.as_deref(), department.as_deref()];
        Ok(tx.execute(sql, &binds).await? == 1)
    }
}

struct SetPassword {
    profile: Uuid,
    hash: Option<String>,
    at: i64,
}

impl Work for SetPassword {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let Some(hash) = &self.hash else {
            let there = tx.query("SELECT 1 FROM public.profiles WHERE id = $1", &binds![self.profile]).await?;
            tx.execute("DELETE FROM emberd.passwords WHERE profile = $1", &binds![self.profile]).await?;
            return Ok(!there.is_empty());
        };
        let sql = "INSERT INTO emberd.passwords (profile, hash, changed_at)
             SELECT id, $2::text, $3::bigint FROM public.profiles WHERE id = $1
             ON CONFLICT (profile) DO UPDATE SET hash = excluded.hash, changed_at = excluded.changed_at";
        Ok(tx.execute(sql, &binds![self.profile, hash, self.at]).await? == 1)
    }
}

struct Revoke {
    digest: [u8; 32],
    until: i64,
    now: i64,
}

impl Work for Revoke {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        tx.execute("DELETE FROM emberd.revoked WHERE until <= $1", &binds![self.now]).await?;
        let sql = "INSERT INTO emberd.revoked (digest, until) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
        tx.execute(sql, &binds![&self.digest[..], self.until]).await?;
        Ok(())
    }
}

/// A call of the API: a row of `api_usage_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// A profile.
    pub user: Option<Uuid>,
    /// The HTTP method.
    pub method: String,
    /// Without the query, which may hold what is nobody's business.
    pub path: String,
    /// The answer's.
    pub status: u16,
    /// How long the answer took.
    pub latency: Duration,
    /// When it was given.
    pub at: UnixNanos,
}

impl Store {
    /// Writes down calls of the API.
    pub async fn put_usage(&self, calls: Vec<Used>) -> Result<(), Error> {
        Ok(self.run(PutUsage(calls)).await?)
    }
}

struct PutUsage(Vec<Used>);

impl Work for PutUsage {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let row = |used: &Used| -> Vec<Bind<'static>> {
            let ms = i64::try_from(used.latency.as_millis()).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
            let (method, path) = (used.method.clone(), used.path.clone());
            binds![Uuid::new_v4(), used.user, method, path, i64::from(used.status), ms, Moment::from(used.at)].into()
        };
        let rows: Vec<Vec<Bind<'_>>> = self.0.iter().map(row).collect();
        let sql = "INSERT INTO public.api_usage_logs (id, user_id, method, path, status, latency_ms, created_at)
             SELECT id_, user_, method_, path_, status_, ms_, at_ FROM {rows} WHERE true";
        tx.each(sql, &["id_", "user_", "method_", "path_", "status_", "ms_", "at_"], &rows).await?;
        Ok(())
    }
}

impl Store {
    /// The last calls of the API, newest first.
    pub async fn usage(&self, limit: u32) -> Result<Vec<Used>, Error> {
        let sql = "SELECT user_id, method, path, status, latency_ms, created_at FROM public.api_usage_logs
             ORDER BY created_at DESC, id DESC LIMIT $1";
        let read = |line: &Line| -> Result<Used, Fault> {
            let number = |at| line.int(at).map(|number| u64::try_from(number).unwrap_or(0));
            Ok(Used {
                user: line.maybe_id(0)?,
                method: line.text(1)?,
                path: line.text(2)?,
                status: u16::try_from(number(3)?).unwrap_or(0),
                latency: Duration::from_millis(number(4)?),
                at: UnixNanos(u64::try_from(line.moment(5)?.micros()).unwrap_or(0).saturating_mul(1_000)),
            })
        };
        let lines = self.lines(sql, &binds![i64::from(limit)]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }
}
