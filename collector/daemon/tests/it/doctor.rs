//! `emberd doctor` against the real things: what is well, what is not, and a daemon beside which it looks.

use std::os::unix::fs::PermissionsExt;

use emberd_phoenix::process::Phoenix;
use serde_json::Value;

use super::app::secret_file;
use super::library::{Kind, Library};
use super::process::{Emberd, Home};

/// What it found, and its exit code.
struct Seen {
    code: i32,
    checks: Vec<Value>,
}

impl Seen {
    fn of(home: &Home) -> Self {
        let done = home.command(&["doctor", "--json"]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        let seen = Self { code: done.status.code().unwrap(), checks: told["checks"].as_array().unwrap().clone() };
        // Whoever reads only the exit code or the sum is told the same.
        assert_eq!(seen.code == 1, told["state"] == "failed", "{told:#}");
        for check in &seen.checks {
            assert_eq!(check["state"] == "ok", check["do"].is_null(), "what is not well has an advice: {check}");
        }
        seen
    }

    /// How this is, and what was found.
    fn says(&self, check: &str) -> (&str, &str) {
        let found = self.checks.iter().find(|found| found["check"] == check);
        let found = found.unwrap_or_else(|| panic!("no {check} in {:#}", Value::from(self.checks.clone())));
        (found["state"].as_str().unwrap(), found["found"].as_str().unwrap())
    }

    fn is(&self, check: &str, state: &str, part: &str) {
        let (is, found) = self.says(check);
        assert!(is == state && found.contains(part), "{check} is {is}: {found}; expected {state}: {part}");
    }
}

fn port(url: &str) -> &str {
    url.trim_end_matches("/v1/traces").trim_start_matches("http://")
}

fn hold_ports(home: &mut Home, emberd: &Emberd) {
    home.set("EMBERD_INTAKE_GRPC", port(&emberd.grpc()));
    home.set("EMBERD_INTAKE_HTTP", port(&emberd.http()));
    home.set("EMBERD_API_LISTEN", port(&emberd.api()));
}

/// On each database: before the first start, beside a running daemon, whose ports count as its own, and which it does not disturb.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_emberd_is_found_well() {
    for kind in Kind::ALL {
        let mut library = Library::new(kind).await;
        // Reachable by nobody, and told: what Phoenix's absence means when nothing is forwarded.
        library.home.set("EMBERD_PHOENIX_URL", "http://127.0.0.1:9");
        let before = Seen::of(&library.home);
        assert_eq!(before.code, 0, "{:#?}", before.checks);
        before.is("port grpc", "ok", "a free one");
        before.is("phoenix", "warning", "cannot be reached");
        before.is("phoenix otlp", "ok", "nothing is forwarded");
        before.is("disk speed", before.says("disk speed").0, "p99");
        before.is("clock", "ok", "20");
        assert!(!library.home.path().join("emberd.db").exists(), "looking makes nothing");

        let emberd = library.home.start();
        hold_ports(&mut library.home, &emberd);
        let beside = Seen::of(&library.home);
        assert_eq!(beside.code, 0, "{:#?}", beside.checks);
        for check in ["port grpc", "port http", "port api"] {
            beside.is(check, "ok", &format!("held by this emberd (pid {})", emberd.pid()));
        }
        beside.is("tables", "ok", "the newest");
        match kind {
            Kind::Sqlite => beside.is("database pages", "ok", "quick_check"),
            Kind::Postgres => {
                beside.is("database", "ok", "PostgreSQL");
                beside.is("rights", "ok", "may make");
                beside.is("clock of the database", "ok", "");
            }
        }
        let left: Vec<_> =
            std::fs::read_dir(library.home.path()).unwrap().flatten().map(|file| file.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("doctor")), "{left:?}");
        emberd.sums_are_right(&library.home).await;
    }
}

/// A port that somebody else holds, a Phoenix and a database that are not there, a program that is not installed: each is named, and
/// the table for people says the same.
#[test]
fn what_is_missing_is_named() {
    let mut home = Home::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    home.set("EMBERD_INTAKE_HTTP", &other.local_addr().unwrap().to_string())
        .set("EMBERD_PHOENIX_URL", "http://127.0.0.1:9")
        .set("EMBERD_PHOENIX_OTLP", "http://127.0.0.1:9")
        .set("EMBERD_STORE_URL", "postgres://nobody:hunter2@127.0.0.1:9/none")
        .set("EMBERD_CACHE_REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")
        .set("EMBERD_LLM_BASE_URL", "http://127.0.0.1:9/v1");
    home.configure("[plugins.own]\ncommand = [\"no-such-program\"]\n[plugins.far]\naddress = \"127.0.0.1:9\"\n");
    let seen = Seen::of(&home);
    assert_eq!(seen.code, 1);
    seen.is("port http", "failed", &format!("(pid {})", std::process::id()));
    seen.is("phoenix", "failed", "127.0.0.1:9");
    seen.is("phoenix otlp", "failed", "127.0.0.1:9");
    seen.is("database", "failed", "PostgreSQL");
    seen.is("redis", "warning", "127.0.0.1:9");
    seen.is("models", "failed", "127.0.0.1:9");
    seen.is("plugin own", "failed", "no-such-program");
    seen.is("plugin far", "failed", "127.0.0.1:9");
    let people = home.command(&["doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&people.stdout).into_owned();
    assert_eq!(people.status.code(), Some(1), "{text}");
    assert!(text.contains("FAILED   database ") && text.contains("-> "), "{text}");
    let all = text + &String::from_utf8_lossy(&people.stderr) + &format!("{:?}", seen.checks);
    assert!(!all.contains("hunter2"), "{all}");
}

/// A data directory that cannot be made or is no directory, and a log that others can read.
#[test]
fn a_bad_place_is_named() {
    let home = Home::new();
    let file = home.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let at = |dir: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_emberd"));
        command.args(["doctor", "--json", "--data-dir"]).arg(dir);
        let done = command.env("EMBERD_PHOENIX_URL", "http://127.0.0.1:9").output().unwrap();
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        let checks = told["checks"].as_array().unwrap();
        let place = checks.iter().find(|check| check["check"] == "data directory").unwrap();
        (place["state"].as_str().unwrap().to_owned(), place["found"].as_str().unwrap().to_owned())
    };
    for (dir, part) in [(file.clone(), "not a directory"), (home.path().join("a/b"), "parent")] {
        let (state, found) = at(&dir);
        assert!(state == "failed" && found.contains(part), "{state}: {found}");
    }
    // On a file system that takes no writes; root may write wherever modes forbid it.
    let (state, found) = at(std::path::Path::new("/proc/sys"));
    assert!(state == "failed" && found.contains("cannot be written"), "{state}: {found}");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (state, found) = at(home.path());
    assert!(state == "warning" && found.contains("755"), "{state}: {found}");
}

/// A Phoenix that asks for keys: a good one may read and write and its port takes spans, a wrong one is told for each of the three.
pub fn tells_keys_apart(phoenix: &Phoenix, good: &str) {
    let mut home = Home::new();
    home.set("EMBERD_PHOENIX_URL", &phoenix.url()).set("EMBERD_PHOENIX_OTLP", &phoenix.otlp());
    for (key, code, state, may, takes) in
        [(good, 0, "ok", "may", "takes spans"), ("wrong", 1, "failed", "not taken", "authentication credentials")]
    {
        let file = secret_file(&home, "key", key);
        let seen = Seen::of(home.set("EMBERD_PHOENIX_API_KEY_FILE", &file));
        assert_eq!(seen.code, code, "{:#?}", seen.checks);
        seen.is("phoenix", "ok", emberd_phoenix::process::VERSION);
        seen.is("phoenix reading", state, may);
        seen.is("phoenix writing", state, may);
        let (is, found) = seen.says("phoenix otlp");
        assert!(is == state && found.to_lowercase().contains(&takes.to_lowercase()), "{is}: {found}");
    }
}
