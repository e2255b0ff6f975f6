//! `emberd dataset`: examples in and out of the database, as files or to and from Phoenix.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use emberd_evaluators_datasets::{self as datasets, Type};
use emberd_phoenix::Client;
use emberd_phoenix::datasets::Item;
use serde_json::{Value, json};

use super::Where;
use super::remote::{Remote, text};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Import a file: JSON, JSONL, CSV or Parquet
    Import {
        #[command(flatten)]
        place: Where,
        /// The file; its ending says the format
        file: PathBuf,
        /// What it shall be called; the file's name without its ending otherwise
        #[arg(long)]
        name: Option<String>,
        /// qa_pairs, completions, classifications or custom; custom otherwise
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// For everyone to see
        #[arg(long)]
        public: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Export to a file: JSON, JSONL, CSV or Parquet
    Export {
        #[command(flatten)]
        place: Where,
        /// The dataset: its id or name
        dataset: String,
        /// The file; its ending says the format
        file: PathBuf,
    },
    /// List the datasets
    List {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a dataset of a prompt's latest traces
    FromTraces {
        #[command(flatten)]
        place: Where,
        /// The prompt's id
        prompt: String,
        /// What it shall be called
        #[arg(long)]
        name: String,
        /// How many traces
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a dataset to Phoenix, under its name: the one in which evaluations of it are shown
    Push {
        #[command(flatten)]
        place: Where,
        /// The dataset: its id or name
        dataset: String,
    },
    /// Take a dataset over from Phoenix
    Pull {
        #[command(flatten)]
        place: Where,
        /// Its name in Phoenix
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match &options.what {
        What::Import { place, .. }
        | What::Export { place, .. }
        | What::List { place, .. }
        | What::FromTraces { place, .. }
        | What::Push { place, .. }
        | What::Pull { place, .. } => place,
    };
    let config = match place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let remote = Remote::of(&config)?;
    match &options.what {
        What::Import { file, name, kind, public, json, .. } => {
            let row = import(&remote, file, name.as_deref(), kind.as_deref(), *public).await?;
            tell(&row, *json);
        }
        What::Export { dataset, file, .. } => export(&remote, dataset, file).await?,
        What::List { json, .. } => list(&remote, *json).await?,
        What::FromTraces { prompt, name, limit, json, .. } => {
            let body = json!({ "name": name, "traces": { "promptId": prompt, "limit": limit } });
            tell(&remote.post("/api/datasets/from-traces", &body).await?, *json);
        }
        What::Push { dataset, .. } => push(&remote, &config.phoenix.client()?, dataset).await?,
        What::Pull { name, json, .. } => tell(&pull(&remote, &config.phoenix.client()?, name).await?, *json),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(row: &Value, json: bool) {
    match json {
        true => println!("{row:#}"),
        false => println!("{}  {} examples  {}", text(&row["id"]), row["examples"], text(&row["name"])),
    }
}

/// Phoenix's copy of it becomes what ours is: examples keep their ids, those that are gone leave the new version. It is the one that jobs
/// on this dataset are told in.
async fn push(remote: &Remote, phoenix: &Client, named: &str) -> anyhow::Result<()> {
    let row = find(remote, named).await?;
    let (id, name) = (text(&row["id"]), text(&row["name"]));
    let kind = Type::ALL
        .into_iter()
        .find(|kind| kind.name() == text(&row["type"]))
        .context("a type that emberd does not know")?;
    let rows = remote.all(&format!("/api/datasets/{id}/examples"), &[], usize::MAX).await?;
    let examples = datasets::validate(kind, &rows, 10).map_err(|faults| anyhow!("{faults}"))?;
    let item = |example| {
        let shape = datasets::phoenix::to_phoenix(kind, example);
        Item { id: shape.id, input: shape.input, output: shape.output, metadata: shape.metadata }
    };
    let items: Vec<Item> = examples.iter().map(item).collect();
    let (name, done) = phoenix.upload_own_dataset(&id, name, &items).await?;
    println!("{name}: {} examples in Phoenix, dataset {}, version {}", items.len(), done.dataset_id, done.version_id);
    Ok(())
}

/// The newest version of Phoenix's dataset of that name, as a dataset of ours.
async fn pull(remote: &Remote, phoenix: &Client, name: &str) -> anyhow::Result<Value> {
    let found = phoenix.dataset_by_name(name).await?.with_context(|| format!("Phoenix has no dataset {name:?}"))?;
    let mut rows = Vec::new();
    for stored in phoenix.dataset_examples(&found.id, None).await?.examples {
        let Item { id, input, output, metadata } = stored.item;
        let shape = datasets::phoenix::Shape { id, input, output, metadata };
        let example = datasets::phoenix::from_phoenix(Type::Custom, shape)
            .map_err(|wrong| anyhow!("an example of {name:?} is none of emberd's: {wrong:?}"))?;
        rows.push(Value::Object(Type::Custom.row(&example)));
    }
    let body = json!({ "name": name, "description": found.description, "type": "custom", "data": rows });
    remote.post("/api/datasets", &body).await
}

/// The dataset of this id or name, or what this file holds.
pub(super) async fn find_or_import(remote: &Remote, named: &str) -> anyhow::Result<Value> {
    let file = Path::new(named);
    if !file.is_file() {
        return find(remote, named).await;
    }
    let row = import(remote, file, None, None, false).await?;
    eprintln!("imported {named}: {} examples, dataset {}", row["examples"], text(&row["id"]));
    Ok(row)
}

async fn find(remote: &Remote, named: &str) -> anyhow::Result<Value> {
    let rows = remote.all("/api/datasets", &[], 100_000).await?;
    // Newest first: of several with one name the last import is meant.
    let found = rows.into_iter().find(|row| row["id"] == named || row["name"] == named);
    found.with_context(|| format!("there is no dataset with the id or name {named:?}, and no such file"))
}

/// The media type by which a format is sent and asked for.
fn media_type(file: &Path) -> anyhow::Result<&'static str> {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
    Ok(match ending.as_str() {
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "csv" => "text/csv",
        "parquet" => "application/vnd.apache.parquet",
        _ => bail!("{}: the ending must be json, jsonl, csv or parquet", file.display()),
    })
}

async fn import(
    remote: &Remote,
    file: &Path,
    name: Option<&str>,
    kind: Option<&str>,
    public: bool,
) -> anyhow::Result<Value> {
    let media_type = media_type(file)?;
    let bytes = tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("dataset");
    let mut query = vec![("name", name.unwrap_or(stem).to_owned()), ("isPublic", public.to_string())];
    query.extend(kind.map(|kind| ("type", kind.to_owned())));
    remote.upload("/api/datasets/upload", &query, media_type, bytes).await
}

async fn export(remote: &Remote, dataset: &str, file: &Path) -> anyhow::Result<()> {
    let media_type = media_type(file)?;
    let id = find(remote, dataset).await?["id"].clone();
    let bytes = remote.download(&format!("/api/datasets/{}/export", text(&id)), media_type).await?;
    tokio::fs::write(file, &bytes).await.with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}: {} bytes", file.display(), bytes.len());
    Ok(())
}

async fn list(remote: &Remote, json: bool) -> anyhow::Result<()> {
    let rows = remote.all("/api/datasets", &[], 100_000).await?;
    if json {
        println!("{:#}", Value::Array(rows));
        return Ok(());
    }
    for row in &rows {
        let (id, kind) = (text(&row["id"]), text(&row["type"]));
        println!("{id}  {kind:<15} {:>8} examples  {}", row["examples"], text(&row["name"]));
    }
    if rows.is_empty() {
        println!("no datasets; `emberd dataset import FILE` makes one");
    }
    Ok(())
}
