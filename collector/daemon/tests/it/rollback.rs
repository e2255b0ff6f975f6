//! `emberd rollback`: beside a daemon that runs and without one, on both databases, told to a real receiver; and the way back, on which
//! every span that was acknowledged is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, Row};

use super::client::Client;
use super::library::{Kind, Library};
use super::process::{Emberd, wait_for};
use super::sink::{self, Sink};

/// Whom a rollback tells: keeps each body, and answers as it is told to.
struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<Value>>>,
    fails: Arc<Mutex<bool>>,
}

impl Receiver {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=hush", listener.local_addr().unwrap());
        let (heard, fails) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let (told, broken) = (heard.clone(), fails.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                told.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                let status = if *broken.lock().unwrap() { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { url, heard, fails }
    }

    fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn rollback(library: &Library, arguments: &[&str]) -> Output {
    library.home.command(&[&["rollback"], arguments].concat()).output().unwrap()
}

async fn send(emberd: &Emberd, traces: std::ops::Range<u64>) {
    let mut client = Client::connect(emberd).await;
    for trace in traces {
        client.send_grpc(sink::request(None, vec![sink::span(trace, 0), sink::span(trace, 1)])).await.unwrap();
    }
}

/// emberd's tables that are there.
async fn tables(library: &Library, kind: Kind) -> BTreeSet<String> {
    match kind {
        Kind::Sqlite => {
            let url = format!("sqlite:{}", library.home.path().join("emberd.db").display());
            let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
            let rows =
                db.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").await;
            rows.unwrap().iter().map(|row| row.get(0)).collect()
        }
        Kind::Postgres => {
            let mut db = PgConnection::connect(&library.url).await.unwrap();
            let query = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'emberd')";
            db.fetch_all(query).await.unwrap().iter().map(|row| row.get(0)).collect()
        }
    }
}

/// The application's tables, as they were before emberd.
async fn make_before(library: &Library) {
    let mut db = PgConnection::connect(&library.url).await.unwrap();
    let before = "CREATE TABLE public.profiles (id uuid PRIMARY KEY, email text, name text, role text, department text);
        INSERT INTO public.profiles VALUES ('00000000-0000-0000-0000-00000000000a', 'ada@example.com', 'Ada', 'admin', 'R');
        CREATE TABLE public.prompts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text NOT NULL, content text,
            created_by uuid REFERENCES public.profiles (id), created_at timestamptz NOT NULL DEFAULT now());
        INSERT INTO public.prompts (title) VALUES ('theirs');";
    sqlx::raw_sql(before).execute(&mut db).await.unwrap();
}

async fn theirs(library: &Library) -> (i64, i64) {
    let mut db = PgConnection::connect(&library.url).await.unwrap();
    let query = "SELECT (SELECT count(*) FROM public.prompts), (SELECT count(*) FROM public.profiles)";
    let row = db.fetch_one(query).await.unwrap();
    (row.get(0), row.get(1))
}

/// One word to Redis, as it stands on the wire.
fn redis(url: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://").split('/').next().unwrap()).unwrap();
    write!(stream, "{command}\r\nQUIT\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_loses_no_span_and_can_be_taken_back() {
    for kind in Kind::ALL {
        let mut library = Library::new(kind).await;
        let (receiver, sink) = (Receiver::new(), Sink::new());
        sink.is_forwarded_to_by(&mut library.home);
        library.home.set("EMBERD_ROLLBACK_WEBHOOK", &receiver.url);
        let url = std::env::var("EMBERD_TEST_REDIS").unwrap_or_default();
        let prefix = uuid::Uuid::new_v4().simple().to_string();
        if kind == Kind::Postgres {
            make_before(&library).await;
            library.home.set("REDIS_URL", &url).set("EMBERD_CACHE_PREFIX", &prefix);
            redis(&url, &format!("SET {prefix}:1:phoenix:x y"));
        }
        let before = if kind == Kind::Postgres { tables(&library, kind).await } else { BTreeSet::new() };
        let emberd = library.home.start();
        send(&emberd, 0..20).await;
        emberd.recorded().await;
        assert_eq!(library.traces().await.len(), 20);
        let full = tables(&library, kind).await;

        let dry = rollback(&library, &["--dry-run"]);
        assert!(dry.status.success() && said(&dry).contains("take the tables back"), "{}", said(&dry));
        let unasked = rollback(&library, &[]);
        assert_eq!(unasked.status.code(), Some(64), "{}", said(&unasked));
        assert_eq!(tables(&library, kind).await, full, "who does not say yes changes nothing");
        assert_eq!(receiver.heard().len(), 0);

        // The webhook fails: all else is done, and the command says that it is to be given again.
        *receiver.fails.lock().unwrap() = true;
        let done = rollback(&library, &["--yes"]);
        assert!(done.status.code() == Some(1) && said(&done).contains("was not told"), "{}", said(&done));
        assert!(!said(&done).contains("hush"), "{}", said(&done));
        *receiver.fails.lock().unwrap() = false;
        assert_eq!(tables(&library, kind).await, before, "what was there before emberd stays, and nothing else");
        let done = rollback(&library, &["--yes"]);
        assert!(done.status.success(), "{}", said(&done));
        let heard = receiver.heard();
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[1]["event"], "phoenix_rollback");
        let timestamp = heard[1]["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z') && timestamp.len() == "2026-01-01T00:00:00Z".len(), "{timestamp}");
        if kind == Kind::Postgres {
            assert_eq!(theirs(&library).await, (1, 1));
            let left = redis(&url, &format!("EXISTS {prefix}:1:phoenix:x"));
            assert!(left.starts_with(":0"), "{left}");
        }

        // The daemon that runs: the parts are not there, spans are kept and forwarded as ever.
        for path in ["/api/evaluations", "/api/traces", "/api/experiments"] {
            let answer = reqwest::get(format!("{}{path}", emberd.api())).await.unwrap();
            assert_eq!(answer.status(), 404, "{kind:?} {path}");
        }
        send(&emberd, 20..30).await;
        wait_for("what came after the rollback is forwarded", || (sink.taken_times("29/1") > 0).then_some(()));
        let head = |status: Value| status["log"]["head"].as_u64().unwrap();
        assert_eq!(head(emberd.get("/api/status").await), 60);
        emberd.kill();

        // So is one that starts later, and one may give the command without any.
        let emberd = library.home.start();
        send(&emberd, 30..35).await;
        wait_for("forwarded after a restart", || (sink.taken_times("34/1") > 0).then_some(()));
        assert_eq!(reqwest::get(format!("{}/api/evaluations", emberd.api())).await.unwrap().status(), 404);
        assert_eq!(tables(&library, kind).await, before, "a start makes no tables again");
        library.home.ledger_is_right();
        assert!(emberd.terminate().success());
        let again = rollback(&library, &["--yes"]);
        assert!(again.status.success() && said(&again).contains("no emberd runs here"), "{}", said(&again));
        assert_eq!(receiver.heard().len(), 3);

        // Back: everything that the log holds is recorded, what came meanwhile included, each trace once.
        let up = library.home.command(&["migrate", "up"]).output().unwrap();
        assert!(up.status.success() && said(&up).contains("rolled back no more"), "{}", said(&up));
        let emberd = library.home.start();
        emberd.recorded().await;
        let traces = library.traces().await;
        let ids: BTreeSet<&str> = traces.iter().map(|row| row["phoenix_trace_id"].as_str().unwrap()).collect();
        assert_eq!((traces.len(), ids.len()), (35, 35), "{kind:?}");
        assert!(traces.iter().all(|row| row["metadata"]["spans"] == 2), "{traces:?}");
        emberd.sums_are_right(&library.home).await;
        assert!(emberd.terminate().success());
    }
}
