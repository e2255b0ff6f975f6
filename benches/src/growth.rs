//! How the cost of a span grows: with connections, spans a request, bytes a span, the size of the log, the number of prompts, and the pace.
//!
//! Every figure of emberd's stands beside the bare server's under the same load in the same run. "CPU" is what the process used from
//! when it answered first until nothing was pending, over the spans acknowledged.

use anyhow::{Context, ensure};
use clap::Args;

use crate::load::Load;
use crate::server::{How, Pinned, Programs, data, log_bytes, ready};
use crate::table;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only tables whose name contains this: connections, spans, bytes, log, prompts, pace
    #[arg(long, default_value = "")]
    only: String,
    /// How large the log becomes, in GiB
    #[arg(long, default_value_t = 10)]
    log_gib: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 3.0, only: String::new(), log_gib: 10 }
    }
}

/// What a load came to.
#[derive(Clone, Copy)]
struct Cost {
    spans_per_s: f64,
    cpu_us_per_span: f64,
    p50_ms: f64,
    p99_ms: f64,
    bytes_per_span: f64,
}

type Table = fn(&Bench, &Options) -> anyhow::Result<()>;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let bench = Bench { programs: Programs::find()?, load: Load::usual(options.seconds) };
    let tables: [(&str, Table); 6] = [
        ("connections", Bench::connections),
        ("spans", Bench::spans),
        ("bytes", Bench::bytes),
        ("log", Bench::log),
        ("prompts", Bench::prompts),
        ("pace", Bench::pace),
    ];
    for (name, table) in tables.into_iter().filter(|(name, _)| name.contains(&options.only)) {
        eprintln!("growth: {name}");
        table(&bench, options).with_context(|| name.to_owned())?;
    }
    Ok(())
}

struct Bench {
    programs: Programs,
    load: Load,
}

const HEAD: [&str; 6] = ["", "spans/s", "CPU µs/span", "bare server's", "x floor", "p50 / p99 ms"];

impl Bench {
    fn connections(&self, _: &Options) -> anyhow::Result<()> {
        let loads = [1, 2, 10, 100, 1_000].map(|connections| {
            let in_flight = (16 / connections).max(1);
            (format!("{connections} x {in_flight} in flight"), Load { connections, in_flight, ..self.load.clone() })
        });
        self.beside_the_floor("Connections (100 spans of 1.7 kB a request)", &loads)
    }

    fn spans(&self, _: &Options) -> anyhow::Result<()> {
        let loads = [1, 10, 100, 1_000].map(|spans| (format!("{spans}"), Load { spans, ..self.load.clone() }));
        self.beside_the_floor("Spans a request (2 connections x 8 in flight)", &loads)
    }

    fn bytes(&self, _: &Options) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for text in [20, 500, 1_500, 5_000, 10_000, 20_000] {
            // Requests of about as many bytes, so that only what a span adds is seen.
            let load = Load { text, spans: (170_000 / (text as u64 + 200)).max(8), ..self.load.clone() };
            let (floor, ours) = (self.floor(&load)?, self.emberd(&load, How::DURABLE)?);
            let each = |cost: Cost| cost.cpu_us_per_span * 1e3 / cost.bytes_per_span;
            rows.push(vec![
                format!("{:.0}", ours.bytes_per_span),
                format!("{:.0}", ours.spans_per_s),
                format!("{:.2}", ours.cpu_us_per_span),
                format!("{:.3}", each(ours)),
                format!("{:.3}", each(floor)),
                format!("{:.2}", each(ours) / each(floor)),
            ]);
        }
        let head = ["bytes a span", "spans/s", "CPU µs/span", "CPU ns/byte", "bare server's", "x floor"];
        table::print("Bytes a span (requests of about 170 kB)", &head, &rows);
        Ok(())
    }

    /// One emberd whose log grows; what is measured is a short load at each size.
    fn log(&self, options: &Options) -> anyhow::Result<()> {
        let floor = self.floor(&self.load)?;
        let dir = data()?;
        let server = self.programs.emberd(How::DURABLE, dir.path())?;
        ready()?;
        let mut rows = Vec::new();
        let mut acked = 0;
        for gib in [0, 1, options.log_gib / 2, options.log_gib] {
            let missing = (gib << 30).saturating_sub(log_bytes(dir.path())?);
            if missing > 0 {
                let total = Some(missing / 1_750);
                acked += spans_of(&Programs::load(&Load { total, seconds: 600.0, ..self.load.clone() })?)?;
            }
            let bytes = log_bytes(dir.path())?;
            let (cost, spans) = measured(&server, &self.load, How::DURABLE, acked)?;
            acked += spans;
            rows.push(row(&format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)), cost, floor));
        }
        table::print("Size of the log (100 spans of 1.7 kB a request)", &HEAD, &rows);
        Ok(())
    }

    fn prompts(&self, _: &Options) -> anyhow::Result<()> {
        let loads = [10, 1_000, 100_000].map(|prompts| (prompts.to_string(), Load { prompts, ..self.load.clone() }));
        self.beside_the_floor("Prompts that traces name: durable intake", &loads)?;
        let floor = self.floor(&self.load)?;
        let mut rows = Vec::new();
        for (name, load) in &loads {
            rows.push(row(name, self.emberd(load, How { forward: false, ..How::WHOLE })?, floor));
        }
        table::print("Prompts that traces name: recorded on SQLite as well", &HEAD, &rows);
        Ok(())
    }

    /// Requests of one span at a pace, each alone, beside as many in flight as there can be.
    fn pace(&self, _: &Options) -> anyhow::Result<()> {
        let lone = Load { connections: 1, in_flight: 1, spans: 1, ..self.load.clone() };
        let mut rows = Vec::new();
        for rate in [Some(10.0), Some(100.0), Some(1_000.0), None] {
            let load = Load { rate, ..lone.clone() };
            let name = rate.map_or("one after the other".to_owned(), |rate| format!("{rate} requests/s"));
            rows.push(row(&name, self.emberd(&load, How::DURABLE)?, self.floor(&load)?));
        }
        let load = Load { spans: 1, ..self.load.clone() };
        rows.push(row("16 in flight", self.emberd(&load, How::DURABLE)?, self.floor(&load)?));
        table::print("Pace: requests of one span (idle CPU not taken off)", &HEAD, &rows);
        Ok(())
    }

    fn beside_the_floor(&self, title: &str, loads: &[(String, Load)]) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for (name, load) in loads {
            let floor = self.floor(load)?;
            rows.push(row(name, self.emberd(load, How::DURABLE)?, floor));
        }
        table::print(title, &HEAD, &rows);
        Ok(())
    }

    fn floor(&self, load: &Load) -> anyhow::Result<Cost> {
        let server = self.programs.floor()?;
        let report = Programs::load(load)?;
        cost(&report, server.cpu()?)
    }

    fn emberd(&self, load: &Load, how: How) -> anyhow::Result<Cost> {
        let dir = data()?;
        let _sink = how.forward.then(|| self.programs.sink()).transpose()?;
        let server = self.programs.emberd(how, dir.path())?;
        ready()?;
        Ok(measured(&server, load, how, 0)?.0)
    }
}

/// What a load costs a server that has `before` spans already, and how many it took.
fn measured(server: &Pinned, load: &Load, how: How, before: u64) -> anyhow::Result<(Cost, u64)> {
    let at_first = server.cpu()?;
    let report = Programs::load(load)?;
    let spans = spans_of(&report)?;
    how.drained(before + spans)?;
    Ok((cost(&report, server.cpu()? - at_first)?, spans))
}

fn spans_of(report: &serde_json::Value) -> anyhow::Result<u64> {
    report["spans_acked"].as_u64().context("no spans_acked")
}

fn cost(report: &serde_json::Value, cpu: f64) -> anyhow::Result<Cost> {
    let spans = spans_of(report)?;
    ensure!(spans > 0, "nothing was acknowledged");
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    Ok(Cost {
        spans_per_s: number("spans_per_s"),
        cpu_us_per_span: cpu * 1e6 / spans as f64,
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
        bytes_per_span: number("bytes_per_span"),
    })
}

fn row(name: &str, ours: Cost, floor: Cost) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.0}", ours.spans_per_s),
        format!("{:.2}", ours.cpu_us_per_span),
        format!("{:.2}", floor.cpu_us_per_span),
        format!("{:.2}", ours.cpu_us_per_span / floor.cpu_us_per_span),
        format!("{:.1} / {:.1}", ours.p50_ms, ours.p99_ms),
    ]
}
