//! Two emberds over one PostgreSQL and one Redis, which is killed, stalled and brought back under requests: none of them fails or waits for
//! it, and what is changed on one counts on the other.
//!
//! Phoenix's place is taken by a server that counts what it is asked: what is proven here is that it was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use emberd_identity::bridge::Bridge;
use emberd_identity::claims::Party;
use emberd_identity::{Permissions, Secret, User};
use emberd_model::UnixNanos;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::app::secret_file;
use super::library::{Kind, Library};
use super::process::{Emberd, Home, PATIENCE};

const SECRET: &str = "a secret of more than thirty-two bytes";
const EMAIL: &str = "grace@example.com";
const PASSWORD: &str = "correct horse";
/// Far above what a look-up may wait, for a machine that has other things to do; a request that waited for a silent Redis would take
/// a second, for so long the connection in the background goes on hoping.
const WAIT_MAX: Duration = Duration::from_millis(800);

/// A Redis of one's own.
struct Redis {
    dir: tempfile::TempDir,
}

impl Redis {
    fn services(&self, what: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/services"));
        command.arg(what).arg(self.dir.path());
        command
    }

    /// Starts it, or starts it again on the same port; gives its URL.
    fn up(&self) -> String {
        let started = self.services("redis").output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        String::from_utf8(started.stdout).unwrap().trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap();
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(pid.trim()).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.services("stop").stdout(Stdio::null()).status();
    }
}

/// Answers everything with 200, and counts.
async fn behind(running: &mut JoinSet<()>) -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&asked);
    running.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 11\r\n\r\n{\"data\":[]}";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

fn token(nth: u128) -> String {
    signed(SECRET, nth)
}

/// A token that this secret signs, of an administrator.
pub fn signed(secret: &str, nth: u128) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let party = Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() };
    let id = Uuid::from_u128(0xada_0000 + nth);
    let user = User {
        id,
        subject: id.to_string(),
        email: Some(format!("{nth}@example.com")),
        name: None,
        role: "admin".into(),
        department: None,
        permissions: Permissions::of_role(true),
    };
    Bridge::new(Secret::new(secret).unwrap(), party, "p".into(), "c".into()).token(&user, UnixNanos(now)).text
}

/// Callers that never stop.
struct Callers {
    client: reqwest::Client,
    tokens: Vec<String>,
    urls: Vec<String>,
}

impl Callers {
    /// Requests while something happens: all of them succeed, and none waits.
    async fn call(self: &Arc<Self>, what: &str, happens: impl Future<Output = ()>) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for task in 0..6_usize {
            let (this, stop) = (Arc::clone(self), Arc::clone(&stop));
            all.spawn(async move {
                let (mut times, mut nth) = (Vec::new(), task);
                while !stop.load(Ordering::SeqCst) {
                    nth += 7;
                    let path = match nth % 3 {
                        0 => "/api/prompts".to_owned(),
                        // In memory after the first time.
                        1 => format!("/api/phoenix/v1/projects?cursor={}", nth % 50),
                        // Nowhere: each is a look-up in Redis.
                        _ => format!("/api/phoenix/v1/projects?cursor=x{nth}"),
                    };
                    let url = format!("{}{path}", this.urls[nth % this.urls.len()]);
                    let began = Instant::now();
                    let request = this.client.get(&url).bearer_auth(&this.tokens[nth % this.tokens.len()]);
                    let answer = request.send().await.unwrap();
                    let status = answer.status();
                    let text = answer.text().await.unwrap();
                    times.push(began.elapsed());
                    assert_eq!(status, 200, "{url}: {text}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                times
            });
        }
        happens.await;
        stop.store(true, Ordering::SeqCst);
        let mut times = Vec::new();
        while let Some(done) = all.join_next().await {
            times.extend(done.unwrap());
        }
        times.sort();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        let longest = times[times.len() - 1];
        println!("{what}: {} requests, p50 {:?}, p99 {:?}, longest {longest:?}", times.len(), at(0.5), at(0.99));
        assert!(times.len() > 50, "{what}: only {} requests", times.len());
        assert!(longest < WAIT_MAX, "{what}: one took {longest:?}");
    }
}

async fn redis_of(emberd: &Emberd, token: &str) -> Value {
    let health = reqwest::Client::new().get(format!("{}/api/phoenix/health", emberd.api())).bearer_auth(token);
    let health: Value = health.send().await.unwrap().json().await.unwrap();
    health["cache"]["stats"]["redis"].clone()
}

async fn until_redis(emberds: &[&Emberd], token: &str, state: &str) {
    let began = Instant::now();
    for emberd in emberds {
        while redis_of(emberd, token).await["state"] != state {
            assert!(began.elapsed() < PATIENCE, "Redis does not become {state}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An answer of the proxy: from where it came.
async fn proxied(emberd: &Emberd, token: &str, path: &str) -> String {
    let url = format!("{}/api/phoenix/v1/{path}", emberd.api());
    let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.headers()["x-emberd-cache"].to_str().unwrap().to_owned()
}

async fn log_in(emberd: &Emberd) -> Value {
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let login = reqwest::Client::new().post(format!("{}/api/auth/phoenix", emberd.api())).json(&body);
    login.send().await.unwrap().json().await.unwrap()
}

fn user(home: &Home, arguments: &[&str], stdin: Option<&str>) {
    use std::io::Write as _;
    let mut command = home.command(&[&["user"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    if let Some(text) = stdin {
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{arguments:?}");
}

/// Two kept answers to one question, and a write on one.
async fn a_write_on_one_counts_on_the_other(one: &Emberd, two: &Emberd, token: &str) {
    let written = reqwest::Client::new().post(format!("{}/api/phoenix/v1/span_annotations", one.api()));
    assert_eq!(written.bearer_auth(token).json(&json!({ "data": [] })).send().await.unwrap().status(), 200);
    let began = Instant::now();
    while proxied(two, token, "datasets").await != "miss" {
        assert!(began.elapsed() < Duration::from_secs(5), "the other one has not heard of the write");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A role that is changed counts, though what the login read is kept.
async fn a_role_counts_everywhere_at_once(home: &Home, one: &Emberd, two: &Emberd) {
    user(home, &["add", EMAIL], None);
    user(home, &["password", EMAIL], Some(PASSWORD));
    for emberd in [one, two] {
        let [first, second] = [log_in(emberd).await, log_in(emberd).await];
        assert_eq!((&first["user"]["role"], &second["user"]["role"]), (&json!("member"), &json!("member")), "{second}");
        assert_eq!(second["performance"]["cacheHits"], 1, "{second}");
    }
    user(home, &["role", EMAIL, "admin"], None);
    for emberd in [one, two] {
        let began = Instant::now();
        while log_in(emberd).await["user"]["role"] != "admin" {
            assert!(began.elapsed() < Duration::from_secs(5), "the old role still counts");
        }
    }
}

/// Without a Redis, emberds on one PostgreSQL forget together all the same.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_redis_the_database_tells_what_to_forget() {
    let mut running = JoinSet::new();
    let (phoenix, _) = behind(&mut running).await;
    let mut library = Library::new(Kind::Postgres).await;
    let mut other = library.another_home();
    for home in [&mut library.home, &mut other] {
        let secret = secret_file(home, "jwt-secret", SECRET);
        home.set("EMBERD_IDENTITY_JWT_SECRET_FILE", &secret).set("EMBERD_PHOENIX_URL", &phoenix);
    }
    let (one, two) = (library.home.start(), other.start());
    let admin = token(0);
    assert_eq!(redis_of(&one, &admin).await["state"], "absent");
    // Until both listen: what was said before is not heard.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(proxied(&two, &admin, "datasets").await, "miss");
    assert_eq!(proxied(&two, &admin, "datasets").await, "hit");
    a_write_on_one_counts_on_the_other(&one, &two, &admin).await;
    a_role_counts_everywhere_at_once(&library.home, &one, &two).await;
    for emberd in [one, two] {
        assert!(emberd.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_stalled_and_returned_costs_no_request_and_no_truth() {
    let mut running = JoinSet::new();
    let redis = Redis { dir: tempfile::Builder::new().prefix("emberd-it-redis-").tempdir().unwrap() };
    let (url, (phoenix, asked)) = (redis.up(), behind(&mut running).await);
    let mut library = Library::new(Kind::Postgres).await;
    let database = library.url.clone();
    let mut other = Home::new();
    for home in [&mut library.home, &mut other] {
        let secret = secret_file(home, "jwt-secret", SECRET);
        let redis = secret_file(home, "redis-url", &url);
        home.set("EMBERD_STORE_URL", &database)
            .set("EMBERD_IDENTITY_JWT_SECRET_FILE", &secret)
            .set("EMBERD_CACHE_REDIS_URL_FILE", &redis)
            .set("EMBERD_API_RATE", "1000000")
            .set("EMBERD_API_BURST", "1000000")
            .set("EMBERD_PHOENIX_URL", &phoenix);
    }
    let (one, two) = (library.home.start(), other.start());
    let admin = token(0);
    until_redis(&[&one, &two], &admin, "up").await;

    // What one was told the other knows, until something is written on either.
    let written = redis_of(&one, &admin).await["written"].as_u64();
    assert_eq!(proxied(&one, &admin, "datasets").await, "miss");
    let (before, began) = (asked.load(Ordering::SeqCst), Instant::now());
    while redis_of(&one, &admin).await["written"].as_u64() <= written {
        assert!(began.elapsed() < PATIENCE, "the answer is not written to Redis");
    }
    assert_eq!(proxied(&two, &admin, "datasets").await, "hit");
    assert_eq!(asked.load(Ordering::SeqCst), before, "the other one's answer was taken");
    a_write_on_one_counts_on_the_other(&one, &two, &admin).await;

    let callers = Arc::new(Callers {
        client: reqwest::Client::new(),
        tokens: (0..100).map(token).collect(),
        urls: vec![one.api(), two.api()],
    });
    let pause = || tokio::time::sleep(Duration::from_millis(2_500));
    callers.call("up", pause()).await;
    callers
        .call("stalled", async {
            redis.signal("STOP");
            until_redis(&[&one, &two], &admin, "down").await;
            pause().await;
        })
        .await;
    callers
        .call("returning", async {
            redis.signal("CONT");
            until_redis(&[&one, &two], &admin, "up").await;
        })
        .await;
    callers
        .call("killed", async {
            redis.signal("KILL");
            until_redis(&[&one, &two], &admin, "down").await;
            pause().await;
        })
        .await;
    callers
        .call("started again", async {
            redis.up();
            until_redis(&[&one, &two], &admin, "up").await;
            pause().await;
        })
        .await;

    a_role_counts_everywhere_at_once(&library.home, &one, &two).await;
    let stats = redis_of(&two, &admin).await;
    println!("redis, as the second emberd tells of it: {stats}");
    assert!(stats["connections"].as_u64() > Some(1) && stats["calls"]["answered"].as_u64() > Some(50), "{stats}");
    for emberd in [one, two] {
        assert!(!emberd.said().contains(SECRET) && !emberd.said().contains(PASSWORD));
        assert!(emberd.terminate().success());
    }
}

/// Where the Redis's address is wrong, that is told before anything runs, and without the password in it.
#[test]
fn a_wrong_address_is_told_without_its_password() {
    let mut home = Home::new();
    home.set("REDIS_URL", "http://:hush@h");
    let output = home.command(&["check-config"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("[cache] redis_url") && !said.contains("hush"), "{said}");
}
