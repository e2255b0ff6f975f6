//! `emberd user list | add | role | password`: who may log in with a password, where the application does not sign tokens itself.
//!
//! It works on the database beside a daemon that may be running. A password is read from the standard input, never from the command line,
//! which others can see.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use emberd_api::neighbours::FORGET;
use emberd_cache::Pattern;
use emberd_identity::password;
use emberd_store::Store;
use emberd_store::people::Profile;
use uuid::Uuid;

use super::Where;
use crate::config::Config;
use crate::world::World;

/// How long Redis may take to confirm that the others were told.
const TELLING_TIME_MAX: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List the profiles, and who of them has a password
    List(Where),
    /// Make a profile, where the table of profiles is emberd's own
    Add {
        /// The address to log in with
        email: String,
        /// What they are called
        #[arg(long)]
        name: Option<String>,
        /// admin, or any role of the application's
        #[arg(long, default_value = "member")]
        role: String,
        #[command(flatten)]
        place: Where,
    },
    /// Change the role of a profile, where the table of profiles is emberd's own; every emberd that shares the Redis hears of it at once
    Role {
        /// The profile's address
        email: String,
        /// admin, or any role of the application's
        role: String,
        #[command(flatten)]
        place: Where,
    },
    /// Set the password of a profile, read from the standard input: a password, or its argon2id or bcrypt hash
    Password {
        /// The profile's address
        email: String,
        /// Take the password away instead
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        place: Where,
    },
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (What::List(place) | What::Add { place, .. } | What::Role { place, .. } | What::Password { place, .. }) =
        &options.what;
    let config = match place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let store = Store::connect(config.store.room(&config.data_dir)).await?;
    store.check_schema().await.context("the database's tables are not this emberd's: run `emberd migrate up` first")?;
    let done = match &options.what {
        What::List(_) => list(&store).await,
        What::Add { email, name, role, .. } => add(&store, email, name.clone(), role).await,
        What::Role { email, role, .. } => set_role(&store, email, role, &config).await,
        What::Password { email, remove, .. } => set_password(&store, email, *remove).await,
    };
    store.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn list(store: &Store) -> anyhow::Result<()> {
    for (profile, has_password) in store.people().await? {
        let role = profile.role.as_deref().unwrap_or("member");
        let word = if has_password { "password" } else { "-" };
        println!("{}  {:<32}  {role:<10}  {word:<8}  {}", profile.id, profile.email, profile.name.unwrap_or_default());
    }
    Ok(())
}

async fn add(store: &Store, email: &str, name: Option<String>, role: &str) -> anyhow::Result<()> {
    let email = email.trim().to_lowercase();
    if !(1..=320).contains(&email.len()) {
        bail!("an address has 1 to 320 bytes");
    }
    let profile =
        Profile { id: Uuid::new_v4(), email: email.clone(), name, role: Some(role.to_owned()), department: None };
    let id = profile.id;
    if !store.make_profile(profile).await? {
        bail!("{email} has a profile already, or the table of profiles is the application's own: make it there");
    }
    println!("{id}  {email}");
    Ok(())
}

async fn set_role(store: &Store, email: &str, role: &str, config: &Config) -> anyhow::Result<()> {
    let email = email.trim().to_lowercase();
    let profile =
        store.profile_by_email(&email).await?.with_context(|| format!("no profile has the address {email}"))?;
    if !store.set_role(profile.id, role.to_owned()).await? {
        bail!("the table of profiles is the application's own: change the role there");
    }
    let caches = config.cache.room(config.identity.as_ref(), World::real().clock)?.caches;
    // By whatever a token names the user: which keys those are, nobody knows here.
    let all = Pattern::beginning(emberd_api::PROFILES, "");
    // Where there is no Redis, those on the same PostgreSQL hear of it from there.
    let is_told = store.others().voice().tell(FORGET, &[all.to_string()]).await.is_ok();
    if caches.tell(all, TELLING_TIME_MAX).await && is_told {
        println!("{email} is {role}");
    } else {
        println!(
            "{email} is {role}; not every emberd could be told: where the old role is kept, it counts for up to five minutes"
        );
    }
    Ok(())
}

async fn set_password(store: &Store, email: &str, remove: bool) -> anyhow::Result<()> {
    let email = email.trim().to_lowercase();
    let profile =
        store.profile_by_email(&email).await?.with_context(|| format!("no profile has the address {email}"))?;
    let hash = if remove { None } else { Some(read_hash()?) };
    store.set_password(profile.id, hash, World::real().clock.now()).await?;
    println!("{}", if remove { "the password is gone" } else { "the password is set" });
    Ok(())
}

fn read_hash() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("The password, then Enter and Ctrl-D (it is shown; pipe it in to hide it):");
    }
    let mut text = String::new();
    std::io::stdin()
        .take(2 * password::BYTES_MAX as u64)
        .read_to_string(&mut text)
        .context("the password is not UTF-8")?;
    let text = text.trim_end_matches(['\n', '\r']);
    if password::is_hash(text) {
        return Ok(text.to_owned());
    }
    Ok(password::hash(text)?)
}
