//! A prompt library's own kind of client against the real binary: Node, jsonwebtoken, fetch and an Apollo gateway (`tests/app/suite.cjs`),
//! with a real Phoenix behind that asks for keys, and socket.io-client (`tests/app/sockets.cjs`); on SQLite, and on PostgreSQL and Redis.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use emberd_phoenix::process::{Phoenix, Ports};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::library::{Kind, Library};
use super::phoenix::venv;
use super::process::{Emberd, Home};

const SECRET: &str = "a secret of more than thirty-two bytes";
const ADMIN_SECRET: &str = "the-first-administrator-of-this-phoenix-1";
const ISSUER: &str = "https://app.example";
const AUDIENCE: &str = "emberd";
const EMAIL: &str = "grace@example.com";
const PASSWORD: &str = "correct horse";

pub fn modules() -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd");
    let modules = std::env::var_os("EMBERD_CACHE").map_or_else(cache, PathBuf::from).join("node/node_modules");
    assert!(modules.join("@apollo/gateway").exists(), "no @apollo/gateway in {}; run make setup", modules.display());
    modules
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/app").join(script)).env("NODE_PATH", modules());
    command
}

/// A Phoenix that asks for keys, and two keys for it.
async fn phoenix_with_keys(dir: &Path) -> (Phoenix, [String; 2]) {
    let auth = [
        ("PHOENIX_ENABLE_AUTH", "true"),
        ("PHOENIX_SECRET", "thirty-two-bytes-that-sign-everything-2"),
        ("PHOENIX_ADMIN_SECRET", ADMIN_SECRET),
    ];
    let mut phoenix = Phoenix::start_with(&venv(), dir, Ports::free().unwrap(), &auth).unwrap();
    phoenix.ready(Duration::from_secs(120)).await.unwrap();
    let mut keys = Vec::new();
    for name in ["admin", "member"] {
        let made = reqwest::Client::new()
            .post(format!("{}/v1/system/api_keys", phoenix.url()))
            .bearer_auth(ADMIN_SECRET)
            .json(&json!({ "data": { "name": name } }));
        let made: Value = made.send().await.unwrap().json().await.unwrap();
        keys.push(made["data"]["key"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned());
    }
    (phoenix, keys.try_into().unwrap())
}

/// Serves one file to whoever asks; gives its URL.
async fn serve(file: PathBuf, running: &mut JoinSet<()>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    running.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = std::fs::read(&file).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    });
    url
}

pub fn secret_file(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Gives a profile a password, by the command line.
fn with_password(home: &Home) {
    let added = home.command(&["user", "add", EMAIL, "--name", "Grace"]).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let mut command = home.command(&["user", "password", EMAIL]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let listed = home.command(&["user", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().any(|line| line.contains(EMAIL) && line.contains("password")), "{listed}");
}

/// Makes this emberd ask for tokens.
fn with_identity(home: &mut Home) {
    let secret = secret_file(home, "jwt-secret", SECRET);
    home.set("EMBERD_IDENTITY_JWT_SECRET_FILE", &secret)
        .set("EMBERD_IDENTITY_ISSUER", ISSUER)
        .set("EMBERD_IDENTITY_AUDIENCE", AUDIENCE);
}

/// Runs a script with all that its client needs; gives what it printed.
fn run(script: &mut Command, emberd: &Emberd, of: &str) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = script
        .env("API", emberd.api())
        .env("OTLP", emberd.http())
        .env("SECRET", SECRET)
        .env("ISSUER", ISSUER)
        .env("AUDIENCE", AUDIENCE)
        .output()
        .unwrap();
    let (told, wrong) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{of}:\n{told}{wrong}\n{}", emberd.said());
    // Nothing of a token, a key or a password is in the log.
    for secret in [SECRET, PASSWORD, ADMIN_SECRET, "eyJ"] {
        assert!(!emberd.said().contains(secret), "{secret} is in the log");
    }
    told
}

/// Dashboards' sockets hear of evaluations and traces, of this emberd and of another on the same database.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_hear_what_happens() {
    for kind in Kind::ALL {
        let mut library = Library::new(kind).await;
        let mut beside = (kind == Kind::Postgres).then(|| library.another_home());
        with_identity(&mut library.home);
        let emberd = library.home.start();
        let other = beside.as_mut().map(|home| {
            with_identity(home);
            home.start()
        });
        let mut script = node("sockets.cjs");
        if let Some(other) = &other {
            script.env("OTHER", other.api()).env("OTHER_OTLP", other.http());
        }
        let told = tokio::task::block_in_place(|| run(&mut script, &emberd, &format!("{kind:?}")));
        assert_eq!(told.lines().count(), 8, "{told}");
        emberd.terminate();
        if let Some(other) = other {
            other.terminate();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_client_works() {
    // For the tests' own HTTP clients; whoever comes second finds it done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shared = tempfile::tempdir().unwrap();
    let made = node("keys.cjs").arg(shared.path()).status().expect("node is needed: run make setup");
    assert!(made.success());
    let mut running = JoinSet::new();
    let jwks = serve(shared.path().join("jwks.json"), &mut running).await;
    let (phoenix, [admin, member]) = phoenix_with_keys(&shared.path().join("phoenix")).await;
    tokio::task::block_in_place(|| super::doctor::tells_keys_apart(&phoenix, &admin));
    let mut left = Vec::new();
    for kind in Kind::ALL {
        let mut library = Library::new(kind).await;
        let home = &mut library.home;
        let (admin, member) =
            (secret_file(home, "phoenix-admin", &admin), secret_file(home, "phoenix-member", &member));
        with_identity(home);
        home.set("EMBERD_IDENTITY_JWKS_URL", &jwks)
            .set("EMBERD_PHOENIX_URL", &phoenix.url())
            .set("EMBERD_PHOENIX_API_KEY_FILE", &admin)
            .set("EMBERD_PHOENIX_MEMBER_API_KEY_FILE", &member);
        let mut suite = node("suite.cjs");
        if kind == Kind::Postgres {
            let redis = std::env::var("EMBERD_TEST_REDIS").expect("set EMBERD_TEST_REDIS, or run make test");
            home.set("REDIS_URL", &redis).set("EMBERD_CACHE_PREFIX", &uuid::Uuid::new_v4().simple().to_string());
            suite.env("REDIS", redis);
        }
        let emberd = home.start();
        with_password(home);
        suite.env("KEYS", shared.path()).env("EMAIL", EMAIL).env("PASSWORD", PASSWORD);
        let told = tokio::task::block_in_place(|| run(&mut suite, &emberd, &format!("{kind:?}")));
        assert_eq!(told.lines().count(), 8, "{told}");
        left.push((library, emberd));
    }
    // Phoenix dies under both.
    phoenix.kill().await.unwrap();
    for (_library, emberd) in left {
        let told = tokio::task::block_in_place(|| run(&mut node("phoenix_gone.cjs"), &emberd, "without Phoenix"));
        assert_eq!(told.lines().count(), 3, "{told}");
        emberd.terminate();
    }
}
