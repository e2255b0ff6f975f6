//! The archive as others read it: DuckDB and pyarrow see each accepted span once, with the values that it came with, wherever emberd was killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use emberd_log::{RealDisk, inspect};
use emberd_model::{Batch, Offset};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::client::{Client, Transport};
use super::fixtures;
use super::library::{Kind, Library};
use super::made::Made;
use super::process::{Emberd, Home, wait_for};

/// Python with duckdb and pyarrow.
fn python() -> PathBuf {
    let cache = std::env::var_os("EMBERD_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd"));
    let python = cache.join("readers/bin/python");
    assert!(python.exists(), "no {}; run make setup", python.display());
    python
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Runs an `emberd archive` command, which must succeed.
fn archive(home: &Home, arguments: &[&str]) -> Value {
    let output = home.command(&[&["archive"], arguments, &["--json"]].concat()).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A random moment's pause, and the number that follows it.
fn pause(seed: &mut u64) -> Duration {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis(100 + (*seed >> 33) % 900)
}

/// Connections that send at once.
const SENDERS: usize = 4;

/// Sends made traces over several connections, from the `next`th up to the `last`th, for as long as emberd takes them.
async fn load(emberd: &Emberd, next: &Arc<AtomicU64>, last: u64) -> JoinSet<Result<(), String>> {
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (mut client, next) = (Client::connect(emberd).await, next.clone());
        senders.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= last {
                    return Ok(());
                }
                for body in Made::new(number).requests {
                    client.send_grpc(body).await?;
                }
            }
        });
    }
    senders
}

/// Killed at random moments under load, then left to finish and compacted beside it: both readers see every accepted span once, and its
/// values are those of a prost decode of the log. `EMBERD_TEST_ARCHIVE_KILLS` and `.._TRACES` (about three spans each) for more than the usual few.
#[tokio::test(flavor = "multi_thread")]
async fn what_readers_see_is_the_log() {
    let (kills, traces) = (number("EMBERD_TEST_ARCHIVE_KILLS", 6), number("EMBERD_TEST_ARCHIVE_TRACES", 3_000));
    let mut home = Library::new(Kind::Sqlite).await.home;
    home.set("EMBERD_ARCHIVE_EVERY", "1s");
    let (mut seed, next) = (42, Arc::new(AtomicU64::new(0)));
    for cycle in 0..kills {
        let emberd = home.start();
        if cycle == 0 {
            let mut client = Client::connect(&emberd).await;
            for export in fixtures::all().iter().flat_map(|fixture| &fixture.requests) {
                client.send(Transport::Grpc, export).await.unwrap();
            }
        }
        let mut senders = load(&emberd, &next, traces * (cycle + 1) / (kills + 1)).await;
        tokio::time::sleep(pause(&mut seed)).await;
        emberd.kill();
        while senders.join_next().await.is_some() {}
    }
    let emberd = home.start();
    for sent in load(&emberd, &next, traces).await.join_all().await {
        sent.unwrap();
    }
    let accepted = emberd.get("/api/status").await["ledger"]["accepted_spans"].as_u64().unwrap();
    // Of a million spans, the most may still be on their way: for as long as there are more each time, there is patience.
    let mut archived = 0;
    while archived < accepted {
        archived = wait_for("more to be archived", || {
            let told = archive(&home, &["list"]);
            let spans: u64 = told["days"].as_array().unwrap().iter().map(|day| day["spans"].as_u64().unwrap()).sum();
            (spans > archived).then_some(spans)
        });
    }
    assert_eq!(archived, accepted);
    let compacted = archive(&home, &["compact"]);
    // How many files the kills have left, and how large, is chance: whether they are worth merging is another test's.
    assert!(compacted["files_before"].as_u64() >= compacted["files_after"].as_u64(), "{compacted}");
    let verified = archive(&home, &["verify"]);
    assert_eq!(verified["spans"].as_u64(), Some(accepted), "{verified}");
    home.ledger_is_right();
    assert!(emberd.terminate().success());
    let bytes = compare(&home, &home.path().join("archive"), accepted);
    let figures = [
        ("kills", kills.into()),
        ("spans", accepted.into()),
        ("bytes", bytes.into()),
        ("lost", 0.into()),
        ("doubled", 0.into()),
    ];
    super::figure("F18", &figures);
}

/// An S3 server, whose bucket is a directory.
struct Bucket {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Bucket {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("spans")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::run(dir.path(), port);
        Self { dir, port, child }
    }

    fn run(dir: &Path, port: u16) -> Child {
        let program = std::env::var_os("EMBERD_TEST_S3_SERVER").expect("set EMBERD_TEST_S3_SERVER, or run make test");
        let mut server = Command::new(program);
        server.args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"]).arg(dir);
        server.envs([("ROOT_ACCESS_KEY", "emberd"), ("ROOT_SECRET_KEY", "emberd-secret")]);
        let child = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the S3 server", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        child
    }

    fn killed_and_started_again(&mut self, pause: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(pause);
        self.child = Self::run(self.dir.path(), self.port);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bucket's server is killed and comes back, again and again, while spans are archived there: nothing is lost, nothing doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_server_dies_loses_nothing() {
    let mut bucket = Bucket::start();
    let mut home = Library::new(Kind::Sqlite).await.home;
    std::fs::write(home.path().join("s3.key"), "emberd-secret").unwrap();
    std::fs::set_permissions(home.path().join("s3.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    home.configure(&format!(
        "[archive]\nurl = \"s3://spans/prod\"\nendpoint = \"http://127.0.0.1:{}\"\naccess_key_id = \"emberd\"\n\
         secret_access_key_file = \"s3.key\"\nevery = \"1s\"\n",
        bucket.port
    ));
    home.set("EMBERD_RECORDER_ROOT_WAIT", "2s");
    let emberd = home.start();
    let mut client = Client::connect(&emberd).await;
    let mut seed = 7;
    for round in 0..6_u64 {
        for body in (round * 200..(round + 1) * 200).flat_map(|number| Made::new(number).requests) {
            client.send_grpc(body).await.unwrap();
        }
        tokio::time::sleep(pause(&mut seed)).await;
        bucket.killed_and_started_again(pause(&mut seed));
    }
    let accepted = emberd.get("/api/status").await["ledger"]["accepted_spans"].as_u64().unwrap();
    wait_for("all to be archived", || {
        let told = archive(&home, &["list"]);
        let spans: u64 = told["days"].as_array().unwrap().iter().map(|day| day["spans"].as_u64().unwrap()).sum();
        (spans == accepted).then_some(())
    });
    archive(&home, &["compact"]);
    assert_eq!(archive(&home, &["verify"])["spans"].as_u64(), Some(accepted));
    home.ledger_is_right();
    assert!(emberd.terminate().success());
    compare(&home, &bucket.dir.path().join("spans/prod"), accepted);
}

/// Every row that DuckDB reads in `root`, held against the log; the archive's bytes.
fn compare(home: &Home, root: &Path, accepted: u64) -> u64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/read.py");
    let mut reading = Command::new(python()).arg(script).arg(root).stdout(Stdio::piped()).spawn().unwrap();
    let mut rows = BufReader::new(reading.stdout.take().unwrap()).lines();
    let mut next_row = || -> Value { serde_json::from_str(&rows.next().unwrap().unwrap()).unwrap() };
    let mut seen = 0;
    let each = |_: &inspect::Found, batch: Batch| {
        for expected in expected(&batch) {
            let mut row = next_row();
            let given = pick(&mut row, &expected);
            assert_eq!(given, expected, "of span {seen}");
            seen += 1;
        }
    };
    inspect::batches(&RealDisk, &home.path().join("log"), Offset(0), each, |_| true).unwrap();
    let last = next_row();
    assert_eq!(
        (seen, &last["pyarrow"]["rows"], &last["pyarrow"]["offsets"]),
        (accepted, &json!(accepted), &json!(accepted))
    );
    assert!(reading.wait().unwrap().success());
    let days =
        root.read_dir().unwrap().map(|day| day.unwrap().path()).filter(|day| day.to_str().unwrap().contains("date="));
    let files = days.flat_map(|day| day.read_dir().unwrap()).map(|file| file.unwrap().metadata().unwrap().len());
    files.sum()
}

/// Of a row, what is compared: texts of attributes are opened.
fn pick(row: &mut Value, expected: &Value) -> Value {
    let open = |map: &mut Value| {
        for (_, text) in map.as_object_mut().unwrap() {
            *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
        }
    };
    open(&mut row["attributes"]);
    open(&mut row["resource"]);
    row["events"].as_array_mut().unwrap().iter_mut().for_each(|event| open(&mut event["attributes"]));
    row["links"].as_array_mut().unwrap().iter_mut().for_each(|link| open(&mut link["attributes"]));
    let keys = expected.as_object().unwrap().keys();
    keys.map(|key| (key.clone(), row[key].clone())).collect::<Map<_, _>>().into()
}

/// What the rows of a batch must say, by prost's decoding and the documents alone.
fn expected(batch: &Batch) -> Vec<Value> {
    let request = ExportTraceServiceRequest::decode(batch.body.clone()).unwrap();
    let mut rows = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.unwrap_or_default();
            for span in of_scope.spans {
                let mut row = of_span(&span, &resource);
                row["scope"] = if scope.name.is_empty() { Value::Null } else { scope.name.clone().into() };
                row["received_at"] = batch.received_at.0.into();
                row["log_offset"] = (batch.offset.0 + rows.len() as u64).into();
                rows.push(row);
            }
        }
    }
    rows
}

fn of_span(span: &Span, resource: &Resource) -> Value {
    let status = span.status.clone().unwrap_or_default();
    let text = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    let attribute = |key: &str| {
        let found = resource.attributes.iter().find(|pair| pair.key == key)?;
        match &found.value.as_ref()?.value {
            Some(Any::StringValue(text)) => Some(text.clone()),
            _ => None,
        }
    };
    let events = span.events.iter().map(|event| {
        json!({ "time": event.time_unix_nano, "name": event.name, "attributes": map(&event.attributes),
                "dropped": event.dropped_attributes_count })
    });
    let links = span.links.iter().map(|link| {
        json!({ "trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id), "trace_state": link.trace_state,
                "attributes": map(&link.attributes), "flags": link.flags, "dropped_attributes": link.dropped_attributes_count })
    });
    let statuses = ["unset", "ok", "error"];
    let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    json!({
        "trace_id": hex(&span.trace_id), "span_id": hex(&span.span_id),
        "parent_span_id": text(&hex(&span.parent_span_id)),
        "name": span.name, "kind": (kinds[span.kind as usize]),
        "start_time": span.start_time_unix_nano, "end_time": span.end_time_unix_nano,
        "status": (statuses[status.code as usize]), "status_message": text(&status.message),
        "project": attribute("openinference.project.name").unwrap_or_else(|| "default".to_owned()),
        "service": attribute("service.name").map_or(Value::Null, Value::from),
        "attributes": map(&span.attributes), "resource": map(&resource.attributes),
        "events": events.collect::<Vec<_>>(), "links": links.collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes by key; of a key that comes again, the first.
fn map(attributes: &[KeyValue]) -> Value {
    let mut map = BTreeMap::new();
    for pair in attributes {
        map.entry(pair.key.clone()).or_insert_with(|| any(pair.value.as_ref()));
    }
    map.into_iter().collect::<Map<_, _>>().into()
}

/// A value as docs/archive.md says.
fn any(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => text.clone().into(),
        Some(Any::BoolValue(is)) => (*is).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) if number.is_finite() => (*number).into(),
        Some(Any::DoubleValue(number)) => {
            let word = if number.is_nan() {
                "NaN"
            } else if *number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            json!({ "$double": word })
        }
        Some(Any::BytesValue(bytes)) => {
            use base64::Engine as _;
            json!({ "$bytes": base64::engine::general_purpose::STANDARD.encode(bytes) })
        }
        Some(Any::ArrayValue(array)) => array.values.iter().map(|value| any(Some(value))).collect(),
        Some(Any::KvlistValue(list)) => {
            let key = |key: &str| if key.starts_with('$') { format!("${key}") } else { key.to_owned() };
            list.values.iter().map(|pair| (key(&pair.key), any(pair.value.as_ref()))).collect::<Map<_, _>>().into()
        }
        Some(other) => panic!("{other:?}"),
    }
}

/// The questions in docs/archive.md are answered as they stand there, by DuckDB, over an archive of this test's.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_s_questions_are_answered() {
    let home = Library::new(Kind::Sqlite).await.home;
    let emberd = home.start();
    let mut client = Client::connect(&emberd).await;
    for export in fixtures::all().iter().flat_map(|fixture| &fixture.requests) {
        client.send(Transport::Grpc, export).await.unwrap();
    }
    for body in (0..50).flat_map(|number| Made::new(number).requests) {
        client.send_grpc(body).await.unwrap();
    }
    assert!(emberd.terminate().success());
    let root = home.path().join("archive");
    let documented =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/archive.md")).unwrap();
    let questions: Vec<&str> =
        documented.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(questions.len(), 5);
    let trace = hex(&Made::new(7).trace);
    for question in questions {
        let question = question.replace("archive/**", root.join("**").to_str().unwrap());
        let question = question.replace("4bf92f3577b34da6a3ce929d0e0e4736", &trace);
        let ask = "import duckdb, sys\nprint(len(duckdb.sql(sys.argv[1]).fetchall()))";
        let output = Command::new(python()).args(["-c", ask, &question]).output().unwrap();
        let (rows, said) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(rows.trim().parse::<u64>().is_ok_and(|rows| rows > 0), "{question}{rows}{said}");
    }
}
