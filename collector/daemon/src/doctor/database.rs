//! The database: there, new enough, its tables as this emberd writes them, and all that it must do allowed.

use std::path::Path;
use std::time::Duration;

use emberd_model::UnixNanos;
use emberd_store::error::MigrateError;
use emberd_store::examine::{self, SERVER_OLDEST};
use emberd_store::migrate::Step;

use super::{Finding, Patient, QUESTION, bytes, told};
use crate::config::Database;

const DATABASE: &str = "database";
const TABLES: &str = "tables";
/// How long the pages of an SQLite file are looked over.
const LOOK: Duration = Duration::from_secs(3);
/// Servers' clocks that differ by more make ages and windows wrong.
const SKEW_MAX: Duration = Duration::from_secs(2);

pub(super) async fn look(patient: Patient) -> Vec<Finding> {
    match &patient.config.store.database {
        Database::Sqlite(path) => sqlite(path).await,
        Database::Postgres(url) => postgres(&patient, url.reveal()).await,
    }
}

async fn sqlite(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    if !path.exists() {
        return vec![Finding::ok(DATABASE, format!("SQLite, {shown}: made at the first start"))];
    }
    let file = match examine::file(path, LOOK).await {
        Ok(file) => file,
        Err(error) => {
            let advice =
                "see who may read it, and whether it is an SQLite file; a copy is in your backup (docs/backup.md)";
            return vec![Finding::failed(DATABASE, format!("SQLite, {shown}: {}", told(&error)), advice)];
        }
    };
    let mut findings = vec![match file.journal.as_str() {
        "wal" => Finding::ok(DATABASE, format!("SQLite, {shown}, {}, write-ahead log", bytes(file.bytes))),
        other => Finding::ok(
            DATABASE,
            format!("SQLite, {shown}, {}, journal {other}: wal from the first start", bytes(file.bytes)),
        ),
    }];
    findings.push(match file.damage.as_deref() {
        None => Finding::ok("database pages", format!("no fault in what was looked at within {} s", LOOK.as_secs())),
        Some([]) => Finding::ok("database pages", "quick_check: no fault"),
        Some(faults) => {
            let advice = "stop emberd and restore the database from a backup; the log brings back what it still holds";
            Finding::failed("database pages", faults.join("; ").chars().take(300).collect::<String>(), advice)
        }
    });
    findings.push(tables(file.steps));
    findings
}

async fn postgres(patient: &Patient, url: &str) -> Vec<Finding> {
    let before = patient.clock.now();
    let asked = tokio::time::timeout(QUESTION, examine::server(url)).await;
    let after = patient.clock.now();
    let server = match asked {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            let advice = "see that the server runs, and that [store] url names its host, user and database";
            return vec![Finding::failed(DATABASE, format!("PostgreSQL: {}", told(&error)), advice)];
        }
        Err(_) => {
            let advice = "see that [store] url names a host that can be reached from here";
            return vec![Finding::failed(DATABASE, format!("PostgreSQL: no answer within {QUESTION:?}"), advice)];
        }
    };
    let (used, most) = server.connections;
    let found = format!("PostgreSQL {}, {used} of {most} connections in use", server.version);
    let wanted = i64::from(patient.config.store.max_connections);
    let mut findings = vec![if server.number < SERVER_OLDEST {
        Finding::failed(DATABASE, found, "emberd needs PostgreSQL 15 or later: upgrade the server")
    } else if wanted > most {
        let advice = format!("[store] max_connections is {wanted}: lower it, or raise the server's");
        Finding::warning(DATABASE, found, advice)
    } else {
        Finding::ok(DATABASE, found)
    }];
    findings.push(match &server.lacking[..] {
        [] => Finding::ok("rights", "may make and write its tables"),
        lacking => {
            let advice = "grant it to emberd's role, or run `emberd migrate up` once as one who may";
            Finding::failed("rights", format!("may not {}", lacking.join("; may not ")), advice)
        }
    });
    findings.push(match server.takes_roles {
        Some(true) => Finding::ok("row level security", "users are read for as the role authenticated"),
        Some(false) => Finding::warning(
            "row level security",
            "emberd may not act as the role authenticated",
            "GRANT authenticated TO emberd's role: until then the rules in emberd's own statements are the only ones",
        ),
        None => Finding::ok("row level security", "no role authenticated yet: `emberd migrate up` makes it, if it may"),
    });
    findings.push(tables(server.steps));
    findings.push(skew("clock of the database", server.now, before, after));
    findings
}

/// How another clock stands against this machine's, read between two moments here.
pub(super) fn skew(check: &str, other: UnixNanos, before: UnixNanos, after: UnixNanos) -> Finding {
    let early = before.0.saturating_sub(other.0);
    let late = other.0.saturating_sub(after.0);
    let (by, word) = if early > late { (early, "behind") } else { (late, "ahead of") };
    let by = Duration::from_nanos(by);
    if by <= SKEW_MAX {
        return Finding::ok(check, format!("within {} s of this machine's", SKEW_MAX.as_secs()));
    }
    let found = format!("{:.1} s {word} this machine's", by.as_secs_f64());
    Finding::warning(check, found, "let both machines set their clocks by NTP (chronyc tracking, timedatectl)")
}

fn tables(steps: Result<Vec<Step>, MigrateError>) -> Finding {
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => {
            let advice = "the database was brought up by another emberd: run that version, or restore a backup";
            return Finding::failed(TABLES, told(&error), advice);
        }
    };
    let pending = steps.iter().filter(|step| !step.applied).count();
    let last = steps.iter().map(|step| step.version).max().unwrap_or(0);
    match pending {
        0 => Finding::ok(TABLES, format!("at step {last}, the newest")),
        all if all == steps.len() => Finding::ok(TABLES, "none yet: they are made at the first start"),
        some => Finding::warning(
            TABLES,
            format!("{some} of {} steps are not applied", steps.len()),
            "the next start applies them; or run `emberd migrate up` now, after a backup",
        ),
    }
}
