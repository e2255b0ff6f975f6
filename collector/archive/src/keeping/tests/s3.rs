//! A bucket of a real server as a place: the one whose program is at `EMBERD_TEST_S3_SERVER` (`.ci/with-services` says where).

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{Archive, Catalogue, Error, Place, PlaceError, S3, S3Settings, verify};
use super::{LOG, Row, contract, decoded, parts, row};

/// Longer than a start takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, its directory, and the port that it always comes back on.
struct Server {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts one with the bucket `spans`.
    fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program = std::env::var_os("EMBERD_TEST_S3_SERVER").map(PathBuf::from);
        let program = program.expect("set EMBERD_TEST_S3_SERVER, or run make test");
        let dir = tempfile::tempdir().expect("a directory");
        // A bucket is a directory to this server.
        std::fs::create_dir_all(dir.path().join("spans")).expect("it can be made");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let server = Self { program, dir, port, child: Mutex::new(None) };
        server.run();
        server
    }

    fn run(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let mut server = Command::new(&self.program);
        server.args(["--quiet", "--port", &format!("127.0.0.1:{}", self.port), "posix"]).arg(self.dir.path());
        server.envs([("ROOT_ACCESS_KEY", "emberd"), ("ROOT_SECRET_KEY", "emberd-secret")]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *child = Some(server.spawn().expect("the server starts"));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            keys: Some(("emberd".to_owned(), "emberd-secret".to_owned())),
            allow_http: true,
            request_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(40),
            ..S3Settings::default()
        }
    }

    fn place(&self, prefix: &str) -> Arc<dyn Place> {
        Arc::new(S3::new("spans", prefix, self.settings()).expect("settings that can be used"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn a_bucket_keeps_the_contract() {
    let server = Server::start();
    contract::keep(server.place("")).await;
    contract::keep(server.place("prod/a=b")).await;
    contract::live(server.place("prod")).await;
    let unconditional = S3Settings { conditional: false, ..server.settings() };
    contract::keep(Arc::new(S3::new("spans", "plain", unconditional).expect("settings that can be used"))).await;
    let large = Bytes::from(vec![7; 12 << 20]);
    let place = server.place("large");
    place.put("x", large.clone()).await.expect("it is made");
    assert_eq!(place.get("x", large.len() as u64).await.expect("it is there"), large);
}

#[tokio::test]
async fn an_error_says_what_to_do() {
    let server = Server::start();
    let put = |bucket: &'static str, settings: S3Settings| async move {
        let place = S3::new(bucket, "", settings).expect("settings that can be used");
        place.put("x", Bytes::from_static(b"1")).await.expect_err("it cannot be done").to_string()
    };
    let bucket = put("nothing", server.settings()).await;
    assert!(bucket.contains("no such bucket"), "{bucket}");
    let keys = S3Settings { keys: Some(("emberd".into(), "wrong-wrong".into())), ..server.settings() };
    let keys = put("spans", keys).await;
    assert!(keys.contains("the keys need") && !keys.contains("wrong-wrong"), "{keys}");
    server.kill();
    let brief = S3Settings { call_timeout: Duration::from_millis(700), ..server.settings() };
    let away = put("spans", brief).await;
    assert!(away.contains("is it up") || away.contains("look at the endpoint"), "{away}");
}

/// The server is killed and comes back, and the archiver's process ends anywhere in a call, again and again: no span is lost or
/// doubled, for readers of the manifest and of file names alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_and_doubles_nothing() {
    const KILLS: usize = 12;
    let server = Server::start();
    let (kills, commits, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (mut cursor, mut failures, mut opened) = (0, 0, 0);
    let place = server.place("prod");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0..KILLS {
                // Each time within what follows two commits: somewhere in the third one.
                let (from, began) = (commits.load(SeqCst), Instant::now());
                while commits.load(SeqCst) < from + 2 && began.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_micros(200));
                }
                std::thread::sleep(Duration::from_micros(1_700 * (nth as u64 % 9)));
                server.kill();
                kills.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(10 * (nth as u64 % 3)));
                server.run();
            }
            done.store(true, SeqCst);
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut archive: Option<Archive> = None;
                let began = Instant::now();
                while !done.load(SeqCst) || cursor < 200 {
                    assert!(began.elapsed() < 3 * PATIENCE, "it does not get on");
                    let Some(open) = archive.as_mut() else {
                        match Archive::open(place.clone(), LOG).await {
                            Ok(new) => {
                                // A commit whose answer was lost, or that went on without its process, counts.
                                let found = new.cursor().unwrap_or(0);
                                assert!(found == cursor || found == cursor + 7, "{found} after {cursor}");
                                cursor = found;
                                opened += 1;
                                archive = Some(new);
                            }
                            Err(error) => {
                                assert!(matches!(error, Error::Place(_)), "{error}");
                                failures += 1;
                            }
                        }
                        continue;
                    };
                    let to = cursor + 7;
                    let commit = open.commit(cursor, to, parts(cursor, to), format!("up to {to}"));
                    // Now and then the process ends within the call.
                    let time = if cursor % 5 == 0 && opened % 4 != 3 { 3 + cursor % 11 } else { 60_000 };
                    match tokio::time::timeout(Duration::from_millis(time), commit).await {
                        Ok(Ok(())) => {
                            cursor = to;
                            commits.fetch_add(1, SeqCst);
                        }
                        Ok(Err(error)) => {
                            assert!(matches!(error, Error::Place(_)), "{error}");
                            failures += 1;
                            archive = None;
                        }
                        Err(_) => archive = None,
                    }
                }
            });
        });
    });
    let archive = Archive::open(place.clone(), LOG).await.expect("the server is there");
    let cursor = archive.cursor().expect("something was committed");
    let due: Vec<Row> = (0..cursor).map(row).collect();
    assert_eq!(contract::seen(&*place).await, due, "by file names");
    let mut counted = Vec::new();
    for kept in Catalogue::read(&*place).await.expect("it can be read").files() {
        counted.extend(decoded(&place.get(&kept.file.name, 1 << 20).await.expect("it is there")));
    }
    counted.sort_unstable();
    assert_eq!(counted, due, "by the manifest");
    assert_eq!(archive.book(), format!("up to {cursor}"));
    let report = verify(&*place, |_, _| {}).await.expect("it can be read");
    assert!(report.is_right(), "{report:?}");
    eprintln!("{} kills, {opened} openings, {failures} calls that failed, {cursor} spans", kills.load(SeqCst));
    assert_eq!(kills.load(SeqCst), KILLS);
    let missing = place.get("x", 1).await;
    assert!(matches!(missing, Err(PlaceError::Missing { .. })), "{missing:?}");
}
