//! From a request's token to its caller: the token checked (`emberd-identity`), its user found in the profiles or made there.
//!
//! Promise: a user is who the token says, with the role it says, or the profile's where it says none; a token that was revoked is
//! refused within [`REVOKED_EVERY`] on every emberd. What a login reads is kept in memory and, sealed, in Redis; a profile that is used
//! is read anew each [`REFRESH`], and none counts for longer than [`AGE_MAX`] after it was read: a role that another changed in the
//! table counts after that at the latest. Hashes of passwords are kept nowhere.
//! Not here: what the caller may (`gate.rs`), the login by password (`auth.rs`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use emberd_cache::{Limits, Loading, Source, Value};
use emberd_identity::bridge::{self, Bridge};
use emberd_identity::{Claims, Permissions, Refused, User, Verifier};
use emberd_model::UnixNanos;
use emberd_store::Store;
use emberd_store::people::Profile;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Caching;
use crate::refusal::Refusal;

/// The cache of profiles, as whoever changes one names it.
pub const PROFILES: &str = "profiles";
/// After this a profile that is used is read anew, while what was read still counts.
const REFRESH: Duration = Duration::from_secs(60);
/// After this nothing that was read of a user counts, however often it is used.
const AGE_MAX: Duration = Duration::from_secs(300);
/// A profile takes some hundred bytes.
const PROFILES_BYTES_MAX: usize = 16 << 20;
/// No profile takes more in Redis; its address has 320 characters at most where emberd made it.
const PROFILE_BYTES_MAX: usize = 16 << 10;
/// How often it is asked which tokens were revoked.
const REVOKED_EVERY: Duration = Duration::from_secs(2);

/// How tokens become users.
#[derive(Debug)]
pub struct Identity {
    /// Checks them.
    pub verifier: Verifier,
    /// Makes the bridge token, where there is a shared secret.
    pub bridge: Option<Bridge>,
    /// Roles whose users are administrators.
    pub admin_roles: Vec<String>,
}

/// Who is known, and what of it was looked up already.
pub(crate) struct Sessions {
    identity: watch::Sender<Arc<Identity>>,
    profiles: Arc<Loading<Known, Unread>>,
    revoked: Mutex<Arc<HashSet<[u8; 32]>>>,
}

/// A profile that was read.
#[derive(Clone)]
struct Known(Arc<Profile>);

/// Why none was.
#[derive(Debug)]
pub(crate) enum Unread {
    /// There is none.
    None,
    Failed(emberd_store::Error),
}

impl From<&Unread> for Refusal {
    fn from(unread: &Unread) -> Self {
        match unread {
            Unread::None => Self::Unknown,
            Unread::Failed(error) => error.into(),
        }
    }
}

/// A profile's form in Redis. Whoever changes it changes [`emberd_cache::wire::SCHEMA`].
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    id: Uuid,
    email: String,
    name: Option<String>,
    role: Option<String>,
    department: Option<String>,
}

impl Value for Known {
    fn bytes(&self) -> usize {
        let Profile { email, name, role, department, .. } = &*self.0;
        let texts = [Some(email), name.as_ref(), role.as_ref(), department.as_ref()];
        size_of::<Profile>() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Profile { id, email, name, role, department } = (*self.0).clone();
        // A struct of texts becomes JSON, and a Vec takes it.
        let _ = serde_json::to_writer(out, &Wire { id, email, name, role, department });
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let Wire { id, email, name, role, department } = serde_json::from_slice(bytes).ok()?;
        Some(Self(Arc::new(Profile { id, email, name, role, department })))
    }
}

/// A token that a request showed.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl<'a> Shown<'a> {
    /// The one in `Authorization`; none if there is none, or more than one.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(one), None) = (all.next(), all.next()) else { return None };
        let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(Self(token.trim_start_matches(' ')))
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        bytes
    }
}

/// Why a token makes nobody a user.
#[derive(Debug)]
pub(crate) enum Stranger {
    /// The token is not believed.
    Refused(Refused),
    /// It was revoked.
    Revoked,
    /// Who it names cannot be looked up now.
    Unavailable(Arc<Unread>),
}

impl Sessions {
    pub(crate) fn new(identity: Identity, caching: &Caching) -> Self {
        let limits = Limits {
            entries: caching.users,
            bytes: PROFILES_BYTES_MAX,
            idle: if caching.users == 0 { Duration::ZERO } else { AGE_MAX },
            age_max: AGE_MAX,
            refresh: REFRESH,
            far: AGE_MAX,
            far_bytes_max: PROFILE_BYTES_MAX,
            keeps_old: false,
            // Who may write to Redis must not be able to make himself an administrator.
            only_sealed: true,
        };
        let profiles = Loading::new(caching.caches.add(PROFILES, limits));
        Self { identity: watch::Sender::new(Arc::new(identity)), profiles, revoked: Mutex::default() }
    }

    /// From now on tokens are checked by this; what was read of profiles still counts.
    pub(crate) fn set(&self, identity: Identity) {
        self.identity.send_replace(Arc::new(identity));
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// How many profiles were found in a cache, and how many not.
    pub(crate) fn hits(&self) -> (u64, u64) {
        let [near, far, misses] = self.profiles.cache().counts();
        (near + far, misses)
    }

    /// Whom a token names.
    pub(crate) async fn user(&self, store: &Store, shown: &Shown<'_>, now: UnixNanos) -> Result<Arc<User>, Stranger> {
        Ok(self.user_from(store, shown, now).await?.0)
    }

    /// The same, with where its profile was found.
    pub(crate) async fn user_from(
        &self,
        store: &Store,
        shown: &Shown<'_>,
        now: UnixNanos,
    ) -> Result<(Arc<User>, Source), Stranger> {
        let claims = self.identity().verifier.verify(shown.0, now).await.map_err(Stranger::Refused)?;
        if self.revoked().contains(&shown.digest()) {
            return Err(Stranger::Revoked);
        }
        let (profile, source) = self.profile(store, &claims).await.map_err(Stranger::Unavailable)?;
        Ok((Arc::new(self.as_user(claims.subject.clone(), &profile, Some(&claims))), source))
    }

    /// A profile's user, with what a token says above what the profile does.
    pub(crate) fn as_user(&self, subject: String, profile: &Profile, claims: Option<&Claims>) -> User {
        let said = |claim: fn(&Claims) -> &Option<String>| claims.and_then(|claims| claim(claims).clone());
        let role = said(|claims| &claims.role).or_else(|| profile.role.clone()).unwrap_or_else(|| "member".into());
        let granted = Permissions::of_role(self.identity().admin_roles.contains(&role));
        let asked = claims.and_then(|claims| claims.permissions.as_deref()).map(Permissions::named);
        User {
            id: profile.id,
            subject,
            email: said(|claims| &claims.email).or_else(|| Some(profile.email.clone())),
            name: said(|claims| &claims.name).or_else(|| profile.name.clone()),
            // A token may say that its bearer may less than the role, never more.
            permissions: asked.map_or(granted, |asked| granted.and(asked)),
            role,
            department: said(|claims| &claims.department).or_else(|| profile.department.clone()),
        }
    }

    async fn profile(&self, store: &Store, claims: &Claims) -> Result<(Arc<Profile>, Source), Arc<Unread>> {
        let key = format!("user {}\0{}", claims.subject, claims.email.as_deref().unwrap_or_default());
        let (store, claims) = (store.clone(), claims.clone());
        let read = move || async move {
            let read = look_up(&store, &claims).await;
            read.map(|profile| Known(Arc::new(profile))).map_err(Unread::Failed)
        };
        let (Known(profile), source) = self.profiles.get(&key, read).await?;
        Ok((profile, source))
    }

    /// The profile of an address, as it stands in the table.
    pub(crate) async fn profile_by_email(
        &self,
        store: &Store,
        email: &str,
    ) -> Result<Option<(Arc<Profile>, Source)>, Refusal> {
        let key = format!("email {email}");
        let (store, email) = (store.clone(), email.to_owned());
        let read = move || async move {
            let profile = store.profile_by_email(&email).await.map_err(Unread::Failed)?;
            profile.map(|profile| Known(Arc::new(profile))).ok_or(Unread::None)
        };
        match self.profiles.get(&key, read).await {
            Ok((Known(profile), source)) => Ok(Some((profile, source))),
            Err(unread) => match &*unread {
                Unread::None => Ok(None),
                failed => Err(failed.into()),
            },
        }
    }

    /// A bridge token for this user; none where there is no shared secret.
    pub(crate) fn bridge_token(&self, user: &User, now: UnixNanos) -> Option<bridge::Token> {
        self.identity().bridge.as_ref().map(|bridge| bridge.token(user, now))
    }

    /// When a token that counts now ends by itself.
    pub(crate) fn ends(&self, shown: &Shown<'_>, now: UnixNanos) -> Option<UnixNanos> {
        let claims = self.identity().verifier.check(shown.0, now).ok()?;
        Some(UnixNanos(u64::try_from(claims.expires_at).ok()?.saturating_mul(1_000_000_000)))
    }

    /// Refuses a token from now on.
    pub(crate) fn forget(&self, digest: [u8; 32]) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut revoked).insert(digest);
    }

    /// Whether a token was ended before its time.
    pub(crate) fn is_ended(&self, shown: &Shown<'_>) -> bool {
        let revoked = self.revoked();
        !revoked.is_empty() && revoked.contains(&shown.digest())
    }

    fn revoked(&self) -> Arc<HashSet<[u8; 32]>> {
        Arc::clone(&self.revoked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Learns which tokens were revoked, and fetches public keys, until `stop`.
    pub(crate) async fn run(&self, store: &Store, now: impl Fn() -> UnixNanos + Sync, stop: &CancellationToken) {
        let learn = async {
            while !stop.is_cancelled() {
                match store.revoked(now()).await {
                    Ok(all) => {
                        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) =
                            Arc::new(all.into_iter().collect());
                    }
                    Err(error) => tracing::debug!(%error, "revoked tokens could not be read: those known are kept"),
                }
                let _ = tokio::time::timeout(REVOKED_EVERY, stop.cancelled()).await;
            }
        };
        let fetch = async {
            let mut changes = self.identity.subscribe();
            while !stop.is_cancelled() {
                let identity = Arc::clone(&changes.borrow_and_update());
                let keys = async {
                    match &identity.verifier.jwks {
                        Some(jwks) => jwks.run(&now, stop.clone()).await,
                        None => stop.cancelled().await,
                    }
                };
                tokio::select! {
                    () = keys => (),
                    _ = changes.changed() => (),
                }
            }
        };
        tokio::join!(learn, fetch);
    }
}

/// The profile of a token's user: by its subject where that is a UUID, else by its address; made where there is none and the table is
/// emberd's. Where it is another's and has none, the user is known all the same, and can own nothing.
async fn look_up(store: &Store, claims: &Claims) -> Result<Profile, emberd_store::Error> {
    let id = Uuid::parse_str(&claims.subject).ok();
    if let Some(id) = id
        && let Some(profile) = store.profile(id).await?
    {
        return Ok(profile);
    }
    if let Some(email) = &claims.email
        && let Some(profile) = store.profile_by_email(email).await?
    {
        return Ok(profile);
    }
    let id =
        id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("emberd:user:{}", claims.subject).as_bytes()));
    if let Some(profile) = store.profile(id).await? {
        return Ok(profile);
    }
    let profile = Profile {
        id,
        email: claims.email.clone().unwrap_or_else(|| claims.subject.clone()),
        name: claims.name.clone(),
        role: claims.role.clone(),
        department: claims.department.clone(),
    };
    if !store.make_profile(profile.clone()).await? {
        tracing::debug!(%id, "a user has no profile, and none is made in another's table");
    }
    Ok(profile)
}
