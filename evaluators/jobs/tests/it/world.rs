//! A database with a prompt, a dataset and an engine on it; gone after the test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use emberd_evaluators_hosts::Hosts;
use emberd_evaluators_jobs::{Config, Endpoint as EndpointConfig, Engine, Handle, Secret};
use emberd_model::{Clock, UnixNanos};
use emberd_store::jobs::{DatasetType, Evaluation, NewDataset, ResultFilter, StoredResult, Viewer};
use emberd_store::library::NewPrompt;
use emberd_store::{Config as StoreConfig, Store};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::endpoint::{Endpoint, prices};

/// The local administrator.
pub(crate) const ADMIN: Viewer = Viewer { user: Uuid::nil(), is_admin: true };

/// The machine's clock.
pub(crate) struct Wall;

impl Clock for Wall {
    fn now(&self) -> UnixNanos {
        #[allow(clippy::disallowed_methods, reason = "the tests' wiring: children and databases live in real time")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        UnixNanos(now.as_nanos() as u64)
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) url: String,
    pub(crate) dir: TempDir,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) prompt: Uuid,
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    static TLS: Once = Once::new();
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) async fn open(url: &str, dir: PathBuf) -> Store {
    Store::connect(StoreConfig { url: url.to_owned(), max_connections: 16, data_dir: dir }).await.unwrap()
}

pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    runtime().block_on(async { test(World::new("sqlite".to_owned()).await).await });
}

/// The server's URL, where there is one.
pub(crate) fn server() -> Option<String> {
    let server = std::env::var("EMBERD_TEST_POSTGRES").ok();
    if server.is_none() {
        eprintln!("EMBERD_TEST_POSTGRES is not set: PostgreSQL is left out");
    }
    server
}

pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let Some(server) = server() else { return };
    let options: sqlx::postgres::PgConnectOptions = server.parse().unwrap();
    let name = format!("emberd_jobs_{}", Uuid::new_v4().simple());
    let url = options.clone().database(&name).to_url_lossy().to_string();
    let admin = async |sql: String| {
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    };
    let runtime = runtime();
    runtime.block_on(admin(format!("CREATE DATABASE {name}")));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async { test(World::new(url).await).await });
    }));
    runtime.block_on(admin(format!("DROP DATABASE {name} WITH (FORCE)")));
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $test() { crate::world::on_sqlite(super::$test); })+
        }
        mod postgres {
            $(#[test] fn $test() { crate::world::on_postgres(super::$test); })+
        }
    };
}
pub(crate) use on_both;

/// An engine that runs, and stops when it is dropped.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

impl Running {
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub(crate) fn config(endpoint: &str) -> Config {
    let mut to = EndpointConfig::new(endpoint, Some(Secret("sk-test".to_owned())));
    to.concurrency_max = 16;
    to.deadline = Duration::from_secs(20);
    Config {
        endpoints: vec![to],
        judge_model: Some("judge".to_owned()),
        prices: prices(),
        lease: Duration::from_secs(20),
        poll: Duration::from_millis(100),
        backoff: Duration::from_millis(50),
        ..Config::default()
    }
}

pub(crate) fn engine(config: Config, store: Store, dir: &std::path::Path) -> Engine {
    let hosts = Arc::new(Hosts::new(BTreeMap::new(), dir).unwrap());
    Engine::new(config, store, Arc::new(Wall), hosts).unwrap()
}

pub(crate) fn start(config: Config, store: Store, dir: &std::path::Path) -> Running {
    let engine = engine(config, store, dir);
    let handle = engine.handle();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let token = stop.clone();
    tasks.spawn(async move { engine.run(token).await });
    Running { handle, stop, tasks }
}

impl World {
    pub(crate) async fn new(url: String) -> Self {
        let dir = TempDir::new().unwrap();
        let store = open(&url, dir.path().to_owned()).await;
        store.migrate_up().await.unwrap();
        let new = NewPrompt { title: "faq".to_owned(), content: "Answer: {{input}}".to_owned(), created_by: None };
        let prompt = store.create_prompt(new, Wall.now()).await.unwrap().id;
        Self { store, url, dir, endpoint: Endpoint::start().await, prompt }
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.endpoint.url())
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(self.config())
    }

    pub(crate) fn start_with(&self, config: Config) -> Running {
        start(config, self.store.clone(), self.dir.path())
    }

    pub(crate) async fn dataset(&self, kind: DatasetType, examples: &[Value]) -> Uuid {
        let new = NewDataset {
            name: "examples".to_owned(),
            description: None,
            kind,
            data: serde_json::value::to_raw_value(examples).unwrap(),
            metadata: json!({}),
            is_public: false,
            created_by: ADMIN.user,
        };
        self.store.create_dataset(new, Wall.now()).await.unwrap().unwrap()
    }

    pub(crate) fn request(&self, dataset: Uuid, config: Value) -> Value {
        json!({"promptId": self.prompt, "datasetId": dataset, "name": "nightly", "config": config})
    }

    pub(crate) async fn create(&self, handle: &Handle, dataset: Uuid, config: Value) -> Uuid {
        let created = handle.create(&self.request(dataset, config), None, ADMIN).await;
        created.unwrap_or_else(|error| panic!("{error:?}")).id
    }

    /// Waits until a job is over.
    pub(crate) async fn over(&self, job: Uuid) -> Evaluation {
        self.over_within(job, Duration::from_secs(150)).await
    }

    pub(crate) async fn over_within(&self, job: Uuid, within: Duration) -> Evaluation {
        let begun = Instant::now();
        loop {
            // The database may be away just now.
            if let Ok(Some(row)) = self.store.evaluation(job).await
                && row.completed_at.is_some()
            {
                return row;
            }
            if begun.elapsed() > within {
                panic!("not over: {:?} {:?}", self.store.progress(job).await, self.store.job(job).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn results(&self, job: Uuid) -> Vec<StoredResult> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.store.results(job, &ResultFilter::default(), cursor.as_deref(), 10_000).await.unwrap();
            all.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// Calls that are reserved and not settled: (nr, step, call).
    pub(crate) async fn unsettled(&self) -> Vec<(i64, i64, i64)> {
        use sqlx::Row as _;
        let sql = |table: &str| format!("SELECT nr, step, call FROM {table} WHERE spent IS NULL");
        if self.store.kind() == "sqlite" {
            let path = format!("sqlite:{}", self.dir.path().join("emberd.db").display());
            let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
            let rows = sqlx::query(AssertSqlSafe(sql("emberd_job_calls"))).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let rows = sqlx::query(AssertSqlSafe(sql("emberd.job_calls"))).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
        }
    }

    /// Runs SQL that no part of the store offers.
    pub(crate) async fn sql(&self, sql: &str) {
        if self.store.kind() == "sqlite" {
            let path = format!("sqlite:{}", self.dir.path().join("emberd.db").display());
            let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    }

    /// Calls that are still set aside are settled.
    pub(crate) async fn settle(&self) {
        while self.store.release_stale(1_000, Wall.now()).await.unwrap() > 0 {}
    }

    pub(crate) async fn spent(&self, job: Uuid) -> i64 {
        let job = self.store.job(job).await.unwrap().unwrap();
        assert_eq!(job.reserved.0, 0, "money is still set aside");
        job.spent.0
    }
}

/// Examples of which every third is right.
pub(crate) fn examples(count: usize) -> Vec<Value> {
    let example = |nr: usize| {
        let output = if nr.is_multiple_of(3) { format!("right {nr}") } else { format!("wrong {nr}") };
        json!({"id": format!("e{nr}"), "input": format!("question {nr}"), "output": output, "reference": format!("right {nr}")})
    };
    (0..count).map(example).collect()
}

pub(crate) fn class(result: &StoredResult) -> Option<&str> {
    result.scored.outcome.as_ref().err().map(|failure| failure.class.as_str())
}
