//! The databases that emberd writes, read as a dashboard would: by SQL, by the names of the contract.

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
    url: String,
}

impl Library {
    /// An empty database; emberd migrates it when it starts.
    pub async fn new(kind: Kind) -> Self {
        let mut home = Home::new();
        let url = match kind {
            Kind::Sqlite => String::new(),
            Kind::Postgres => {
                let name = format!("it_{}", uuid::Uuid::new_v4().simple());
                let mut server = PgConnection::connect(&postgres_server()).await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
                    .execute(&mut server)
                    .await
                    .unwrap();
                let url = format!("{}/{name}", postgres_server().rsplit_once('/').unwrap().0);
                url
            }
        };
        home.set("EMBERD_STORE_URL", if url.is_empty() { "sqlite" } else { &url });
        Self { home, kind, url }
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

    /// Every row of prompt_performance_metrics, without its id and creation time.
    pub async fn metrics(&self) -> Vec<Value> {
        let columns = "prompt_id, metric_type, value, timestamp, aggregation_window";
        let tail = "prompt_performance_metrics ORDER BY prompt_id, aggregation_window, timestamp, metric_type";
        self.objects(columns, tail).await
    }
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
