//! The databases that emberd writes, read as a dashboard would: by SQL, by the names of the contract.

use std::collections::BTreeMap;

use emberd_model::sketch::Sketch;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::process::Home;

/// Which database an emberd keeps its tables in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

/// The URL of the server that `make test` starts.
pub fn postgres_server() -> String {
    std::env::var("EMBERD_TEST_POSTGRES").expect("set EMBERD_TEST_POSTGRES, or run make test")
}

/// A library of its own for one test.
pub struct Library {
    pub home: Home,
    kind: Kind,
    pub url: String,
}

impl Library {
    /// An empty database; emberd migrates it when it starts.
    pub async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => {
                let mut home = Home::new();
                home.set("EMBERD_STORE_URL", "sqlite");
                Self { home, kind, url: String::new() }
            }
            Kind::Postgres => Self::on(&postgres_server()).await,
        }
    }

    /// An empty database on this PostgreSQL server.
    pub async fn on(server: &str) -> Self {
        let name = format!("it_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        let mut home = Home::new();
        home.set("EMBERD_STORE_URL", &url);
        Self { home, kind: Kind::Postgres, url }
    }

    /// Where another emberd runs on the same PostgreSQL.
    pub fn another_home(&self) -> Home {
        assert_eq!(self.kind, Kind::Postgres, "a file has one emberd");
        let mut home = Home::new();
        home.set("EMBERD_STORE_URL", &self.url);
        home
    }

    /// Lets emberd find this library's PostgreSQL (again).
    pub fn point_home_at_database(&mut self) {
        self.home.set("EMBERD_STORE_URL", &self.url);
    }

    /// One JSON text per row of `query`, which selects exactly one text column.
    async fn texts(&self, query: &str) -> Vec<String> {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let options = SqliteConnectOptions::new().filename(self.home.path().join("emberd.db")).read_only(true);
                let mut db = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::query_scalar(query).fetch_all(&mut db).await.unwrap()
            }
            Kind::Postgres => {
                let mut db = PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(query).fetch_all(&mut db).await.unwrap()
            }
        }
    }

    async fn objects(&self, columns: &str, tail: &str) -> Vec<Value> {
        let query = match self.kind {
            Kind::Sqlite => {
                let pairs: Vec<_> = columns.split(", ").map(|c| format!("'{c}', {c}")).collect();
                format!("SELECT json_object({}) FROM {tail}", pairs.join(", "))
            }
            Kind::Postgres => format!("SELECT to_jsonb(r)::text FROM (SELECT {columns} FROM {tail}) r"),
        };
        let rows = self.texts(&query).await;
        rows.iter().map(|text| opened(serde_json::from_str(text).unwrap())).collect()
    }

    /// Every row of prompt_traces, by trace id; on SQLite the JSON columns are opened.
    pub async fn traces(&self) -> Vec<Value> {
        let columns = "id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, \
                       metadata, created_at, user_id";
        self.objects(columns, "prompt_traces ORDER BY phoenix_trace_id").await
    }

    /// What the outside oracle compares of each row of prompt_traces; a part of the row, as there may be hundreds of thousands.
    pub async fn rows(&self) -> Vec<Value> {
        let columns = "trace, prompt_id, ms, prompt_tokens, completion_tokens, total_tokens, status, spans, llm_calls, llm_time_ms, \
                       created_at";
        let tail = "(SELECT phoenix_trace_id AS trace, prompt_id, execution_time_ms AS ms, status, created_at,
                tokens_used ->> 'prompt' AS prompt_tokens, tokens_used ->> 'completion' AS completion_tokens,
                tokens_used ->> 'total' AS total_tokens, metadata ->> 'spans' AS spans,
                metadata ->> 'llm_calls' AS llm_calls, metadata ->> 'llm_time_ms' AS llm_time_ms
            FROM prompt_traces) AS brief";
        self.objects(columns, tail).await
    }

    /// Every row of prompt_performance_summary.
    pub async fn summaries(&self) -> Vec<Value> {
        let columns = "prompt_id, prompt_title, total_traces, avg_latency, median_latency, p95_latency, success_rate, avg_tokens, \
                       last_used_at";
        self.objects(columns, "prompt_performance_summary").await
    }

    /// Traces that name one of these prompts and do not belong to it yet.
    pub async fn waiting_for(&self, titles: impl Iterator<Item = &str>) -> u64 {
        let titles: Vec<_> = titles.map(|title| format!("'{title}'")).collect();
        if titles.is_empty() {
            return 0;
        }
        let tail = format!(
            "(SELECT count(*) AS n FROM prompt_traces WHERE prompt_id = '00000000-0000-0000-0000-000000000000'
                AND metadata ->> 'prompt_ref' IN ({})) AS waiting",
            titles.join(", ")
        );
        self.objects("n", &tail).await[0]["n"].as_u64().unwrap()
    }

    /// Every rollup, over all its writers: the sums, and the sketch's bytes.
    pub async fn rollups(&self) -> Vec<Value> {
        let sums = [
            "success",
            "error",
            "timeout",
            "latency_sum_ms",
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "llm_time_ms",
        ];
        let hex = if self.kind == Kind::Sqlite { "lower(hex(sketch))" } else { "encode(sketch, 'hex')" };
        let table = if self.kind == Kind::Sqlite { "emberd_rollups" } else { "emberd.rollups" };
        let tail = format!(
            "(SELECT prompt_id, resolution, bucket, {}, {hex} AS sketch FROM {table}) AS r
             ORDER BY prompt_id, resolution, bucket",
            sums.join(", ")
        );
        let columns = format!("prompt_id, resolution, bucket, {}, sketch", sums.join(", "));
        let mut rollups: BTreeMap<String, (Value, Sketch)> = BTreeMap::new();
        for row in self.objects(&columns, &tail).await {
            let sketch = Sketch::decode(&unhex(row["sketch"].as_str().unwrap())).unwrap();
            let key = format!("{} {} {}", row["prompt_id"], row["resolution"], row["bucket"]);
            match rollups.get_mut(&key) {
                None => drop(rollups.insert(key, (row, sketch))),
                Some((sum, known)) => {
                    known.merge(&sketch);
                    for column in sums {
                        sum[column] = (sum[column].as_i64().unwrap() + row[column].as_i64().unwrap()).into();
                    }
                }
            }
        }
        let told = |(mut row, sketch): (Value, Sketch)| {
            row["sketch"] = format!("{:02x?}", sketch.encode()).into();
            row
        };
        rollups.into_values().map(told).filter(|row| sums.iter().any(|sum| row[sum] != 0)).collect()
    }

    /// An empty database in place of this one, with the same prompts.
    pub async fn emptied(&mut self) {
        let prompts = self.objects("id, title, content, created_at", "prompts ORDER BY id").await;
        match self.kind {
            Kind::Sqlite => {
                for file in ["emberd.db", "emberd.db-wal", "emberd.db-shm"] {
                    let _ = std::fs::remove_file(self.home.path().join(file));
                }
            }
            Kind::Postgres => {
                let name = format!("it_{}", uuid::Uuid::new_v4().simple());
                let server = postgres_server();
                let mut connection = PgConnection::connect(&server).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
                self.url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
                self.point_home_at_database();
            }
        }
        let migrated = self.home.command(&["migrate", "up"]).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        for prompt in prompts {
            let text = |column: &str| prompt[column].as_str().unwrap().replace('\'', "''");
            let (id, title, content, at) = (text("id"), text("title"), text("content"), text("created_at"));
            let insert = format!(
                "INSERT INTO prompts (id, title, content, created_at) VALUES ('{id}', '{title}', '{content}', '{at}')
                 ON CONFLICT DO NOTHING"
            );
            self.execute(&insert).await;
        }
    }

    pub async fn execute(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let options = SqliteConnectOptions::new().filename(self.home.path().join("emberd.db"));
                let mut db = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
            }
            Kind::Postgres => {
                let mut db = PgConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
            }
        }
    }

    /// Every row of prompt_performance_metrics, without its id and creation time.
    pub async fn metrics(&self) -> Vec<Value> {
        let columns = "prompt_id, metric_type, value, timestamp, aggregation_window";
        let tail = "prompt_performance_metrics ORDER BY prompt_id, aggregation_window, timestamp, metric_type";
        self.objects(columns, tail).await
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// JSON kept as text becomes JSON again.
fn opened(mut row: Value) -> Value {
    for column in ["tokens_used", "metadata"] {
        if let Some(Value::String(text)) = row.get(column) {
            row[column] = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        }
    }
    row
}
