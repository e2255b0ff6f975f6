//! Other collectors, where `EMBERD_PEERS` names a folder that holds their binaries: `otelcol` (with otlp, nop and file_storage built in)
//! and `rotel-bin`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::server::{Pinned, SERVER};

/// A collector in one configuration.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Whether it sends on what it takes.
    pub(crate) forwards: bool,
    program: PathBuf,
    arguments: fn(&Path) -> anyhow::Result<Vec<String>>,
}

impl Peer {
    /// Those whose binaries are there.
    pub(crate) fn installed() -> Vec<Self> {
        let Some(folder) = std::env::var_os("EMBERD_PEERS").map(PathBuf::from) else { return Vec::new() };
        let peer =
            |name, binary: &str, forwards, arguments| Self { name, forwards, program: folder.join(binary), arguments };
        let all: [Self; 4] = [
            peer("OpenTelemetry Collector, drops", "otelcol", false, |dir| otelcol(dir, "nop", "")),
            peer("OpenTelemetry Collector, disk queue, forwards", "otelcol", true, |dir| otelcol(dir, "otlp", "false")),
            peer("OpenTelemetry Collector, the same with fsync", "otelcol", true, |dir| otelcol(dir, "otlp", "true")),
            peer("Rotel, drops", "rotel-bin", false, |_| Ok(rotel())),
        ];
        all.into_iter().filter(|peer| peer.program.exists()).collect()
    }

    pub(crate) fn start(&self, dir: &Path) -> anyhow::Result<Pinned> {
        let arguments = (self.arguments)(dir)?;
        Pinned::start(0, &self.program, |command| command.args(arguments))
    }

    /// Waits until it has nothing left to do: until it uses no CPU for a second.
    pub(crate) fn drained(&self, server: &Pinned) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let before = server.cpu()?;
            std::thread::sleep(Duration::from_secs(1));
            if server.cpu()? - before < 0.02 {
                return Ok(());
            }
            ensure!(since.elapsed() < Duration::from_secs(300), "still busy after five minutes");
        }
    }
}

fn rotel() -> Vec<String> {
    ["start", "--otlp-grpc-endpoint", SERVER, "--otlp-http-endpoint", "127.0.0.1:24318", "--exporter", "blackhole"]
        .map(str::to_owned)
        .to_vec()
}

/// Its configuration, written into `dir`; `fsync` empty: no queue on the disk.
fn otelcol(dir: &Path, exporter: &str, fsync: &str) -> anyhow::Result<Vec<String>> {
    let storage = format!(
        "extensions: {{file_storage: {{directory: {}/queue, create_directory: true, fsync: {fsync}}}}}\n",
        dir.display()
    );
    let queue = "sending_queue: {enabled: true, storage: file_storage, sizer: requests, queue_size: 5000, \
                 num_consumers: 4, block_on_overflow: true}";
    let exporters = match exporter {
        "nop" => "nop: {}".to_owned(),
        _ => format!("otlp: {{endpoint: \"127.0.0.1:25317\", tls: {{insecure: true}}, compression: none, {queue}}}"),
    };
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{SERVER}\", max_recv_msg_size_mib: 64}}}}}}}}\n\
         exporters: {{{exporters}}}\n{}\
         service:\n  extensions: [{}]\n  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}\n\
         \x20 pipelines: {{traces: {{receivers: [otlp], exporters: [{exporter}]}}}}\n",
        if fsync.is_empty() { "" } else { &storage },
        if fsync.is_empty() { "" } else { "file_storage" },
    );
    let file = dir.join("otelcol.yaml");
    std::fs::write(&file, text)?;
    Ok(vec!["--config".to_owned(), file.display().to_string()])
}
