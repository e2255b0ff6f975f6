//! `/api/auth/phoenix`: a bridge token for whoever shows a session token or a password, and the end of a token.
//!
//! Promise: a wrong password and an unknown address take the same work and, at least, the same time ([`WRONG_TIME`]), and hear the same
//! words; tries are counted against the address they come from and against the account, each [`TRIES`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use emberd_cache::Source;
use emberd_identity::{User, password};
use emberd_store::people::Profile;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Parameters};
use crate::contract::{Body, Contract, Given};
use crate::gate::From;
use crate::limits::{Limits, Rate, Whose};
use crate::refusal::Refusal;
use crate::sessions::{Sessions, Shown, Stranger};

/// How long a wrong password takes to be told, at least.
const WRONG_TIME: Duration = Duration::from_millis(250);
/// Ten tries, and one more every ten seconds.
const TRIES: Rate = Rate { per_second: 0.1, burst: 10.0 };
/// Each check takes 19 MiB and a core for some ten milliseconds.
const CHECKS_MAX: usize = 2;
const EMAIL_CHARS_MAX: usize = 320;
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What logging in keeps.
pub(crate) struct Logins {
    tries: Limits,
    checks: Semaphore,
    good: AtomicU64,
    bad: AtomicU64,
}

impl Logins {
    pub(crate) fn new() -> Self {
        Self {
            tries: Limits::new(TRIES),
            checks: Semaphore::new(CHECKS_MAX),
            good: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        }
    }

    /// How many succeeded, and how many did not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed))
    }
}

/// What was taken for a login, in milliseconds, as the application's monitor shows it.
#[derive(Default)]
struct Performance {
    database: Duration,
    cache_hits: u64,
}

pub(crate) const LOGIN: Contract =
    Contract::new("A bridge token for an address and its password, or for a session token")
        .body(Body::Json("Credentials"))
        .answers(&[(200, Given::Json("Login"))])
        .refuses(&[400, 401, 409, 429, 503, 504]);

pub(crate) async fn login(
    State(shared): State<Arc<Shared>>,
    from: Option<axum::Extension<From>>,
    headers: HeaderMap,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    let began = Instant::now();
    let sessions = shared.gate.sessions.as_ref().ok_or(Refusal::Conflict(
        "no identity is configured: every caller is the local administrator and needs no token",
    ))?;
    let email = fields.maybe_text("email", EMAIL_CHARS_MAX);
    let password = fields.maybe_text("password", password::BYTES_MAX);
    let token = fields.maybe_text("token", TOKEN_BYTES_MAX);
    fields.finish()?;
    let mut performance = Performance::default();
    let outcome = match (email, password, token) {
        (Some(email), Some(password), None) => {
            let from = from.map(|from| Whose::stranger(from.0.0));
            by_password(&shared, sessions, from, &email, password, &mut performance).await
        }
        (None, None, token) => {
            let shown = token.as_deref().map(Shown).or_else(|| Shown::of(&headers)).ok_or(Refusal::Unknown)?;
            by_token(&shared, sessions, &shown, &mut performance).await
        }
        _ => Err(Refusal::invalid("", "expected `email` and `password`, or a session token")),
    };
    let counted = if outcome.is_ok() { &shared.logins.good } else { &shared.logins.bad };
    counted.fetch_add(1, Ordering::Relaxed);
    let user = outcome?;
    let token = sessions
        .bridge_token(&user, shared.clock.now())
        .ok_or(Refusal::Conflict("no shared secret is configured, with which a token could be signed"))?;
    let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 1e2;
    Ok(Json(json!({
        "token": token.text,
        "expires_at": time::OffsetDateTime::from_unix_timestamp(token.expires_at as i64).ok().map(emberd_store::Moment::from),
        "user": { "id": user.id, "email": user.email, "name": user.name, "role": user.role },
        "permissions": user.permissions.names().collect::<Vec<_>>(),
        "performance": {
            "totalTime": ms(began.elapsed()),
            "databaseTime": ms(performance.database),
            "cacheHits": performance.cache_hits,
        },
    })))
}

async fn by_token(
    shared: &Shared,
    sessions: &Sessions,
    shown: &Shown<'_>,
    performance: &mut Performance,
) -> Result<Arc<User>, Refusal> {
    let began = Instant::now();
    let found = sessions.user_from(&shared.store, shown, shared.clock.now()).await;
    let (user, source) = found.map_err(|stranger| match stranger {
        Stranger::Unavailable(error) => (&*error).into(),
        Stranger::Refused(_) | Stranger::Revoked => Refusal::Unknown,
    })?;
    match source {
        Source::Read => performance.database = began.elapsed(),
        Source::Near | Source::Far => performance.cache_hits += 1,
    }
    Ok(user)
}

async fn by_password(
    shared: &Shared,
    sessions: &Sessions,
    from: Option<Whose>,
    email: &str,
    password: String,
    performance: &mut Performance,
) -> Result<Arc<User>, Refusal> {
    let began = Instant::now();
    let email = email.trim().to_lowercase();
    let account = Whose::User(Uuid::new_v5(&Uuid::NAMESPACE_URL, email.as_bytes()));
    for whose in from.into_iter().chain([account]) {
        shared.logins.tries.take(whose).map_err(Refusal::TooOften)?;
    }
    let (profile, hash) = kept(shared, sessions, &email, performance).await?;
    let _turn = shared.logins.checks.acquire().await;
    let is_right = tokio::task::spawn_blocking(move || password::verify(&password, hash.as_deref()));
    match (is_right.await.unwrap_or(false), profile) {
        (true, Some(profile)) => Ok(Arc::new(sessions.as_user(profile.id.to_string(), &profile, None))),
        _ => {
            tokio::time::sleep_until(began + WRONG_TIME).await;
            Err(Refusal::WrongPassword)
        }
    }
}

/// What a login reads: the profile, which may be known already, and the hash of its password, which is in no cache.
async fn kept(
    shared: &Shared,
    sessions: &Sessions,
    email: &str,
    performance: &mut Performance,
) -> Result<(Option<Arc<Profile>>, Option<String>), Refusal> {
    let began = Instant::now();
    let found = sessions.profile_by_email(&shared.store, email).await?;
    let Some((profile, source)) = found else {
        performance.database = began.elapsed();
        return Ok((None, None));
    };
    let began = match source {
        Source::Read => began,
        Source::Near | Source::Far => {
            performance.cache_hits += 1;
            Instant::now()
        }
    };
    let hash = shared.store.password(profile.id).await?;
    performance.database = began.elapsed();
    Ok((Some(profile), hash))
}

pub(crate) const LOGOUT: Contract =
    Contract::new("Ends the token that the request shows, everywhere").answers(&[(204, Given::Nothing)]);

/// Ends the token that the request shows, everywhere.
pub(crate) async fn logout(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    asked: Parameters,
) -> Result<StatusCode, Refusal> {
    asked.finish()?;
    let (sessions, shown) = shared.gate.sessions.as_ref().zip(Shown::of(&headers)).ok_or(Refusal::Unknown)?;
    let now = shared.clock.now();
    let ends = sessions.ends(&shown, now).ok_or(Refusal::Unknown)?;
    shared.store.revoke(shown.digest(), ends, now).await?;
    sessions.forget(shown.digest());
    Ok(StatusCode::NO_CONTENT)
}
