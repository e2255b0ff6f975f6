//! Parquet, read in a process of its own.
//!
//! Promise: whatever a file holds, it costs an error and nothing else. The `parquet` crate is not written for hostile bytes: it panics
//! on some and asks for gigabytes on others, which ends a program that aborts on panic. The process is the program itself under another
//! command ([`child`]); its address space and its time are bounded, and it dies with whoever waits for it. Rows come back as they are
//! read, and are checked on this side as any others are ([why](../../../docs/decisions/0012-parquet-apart.md)).
//! On the wire: to the process, [`Asked`] on a line, then the file; back, a [`Said`] on each line, the last of them an ending.
//! Not here: how many files are read at once (who calls); the other formats, whose readers are our own and are fuzzed.
//! Kept by: `tests/apart.rs`, and the daemon's `tests/parquet.rs`.

pub mod child;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::example::Example;
use crate::import::{Error, Format, Import, RowSink, Rows, Source, row_too_large};

/// How the process ends when the reader has panicked.
const PANICKED: u8 = 3;

/// Where files are read.
#[derive(Clone, Debug, Default)]
pub enum Reader {
    /// Everything in this process: in tests, and where all files are one's own.
    #[default]
    Here,
    /// Parquet in a process of its own, the rest here.
    Apart(Apart),
}

impl Reader {
    /// The examples of a file, each with an id. It blocks; where a process reads, for [`Apart::deadline`] at most.
    pub fn import(&self, file: Bytes, how: &Import) -> Result<Vec<Example>, Error> {
        match self {
            Self::Apart(apart) if how.format == Format::Parquet => apart.import(&file, how),
            Self::Here | Self::Apart(_) => crate::import::import(Source::Bytes(file), how),
        }
    }
}

/// A process for one file.
#[derive(Clone, Debug)]
pub struct Apart {
    /// The program.
    pub program: PathBuf,
    /// What makes it call [`child::run`].
    pub arguments: Vec<OsString>,
    /// Address space that it may take beyond what it starts with and the file itself.
    pub memory_bytes: u64,
    /// How long it may take.
    pub deadline: Duration,
}

/// What the process is asked, before the file.
#[derive(Serialize, Deserialize)]
struct Asked {
    how: Import,
    file_bytes: u64,
    memory_bytes: u64,
    seconds: u64,
}

/// What it says.
#[derive(Serialize, Deserialize)]
enum Said {
    /// A row, and how many bytes it counts for.
    Row(u64, Value),
    /// Those were all.
    End,
    /// No more rows: something is wrong here.
    Unreadable { place: String, what: String },
    /// The columns are wrong.
    Columns(String),
    /// A bound is reached.
    TooLarge { what: String, max: u64 },
}

impl Apart {
    /// This program under another command: as it was when it was started, also when its file has been replaced since.
    #[must_use]
    pub fn this_program(command: &str) -> Self {
        let (memory_bytes, deadline) = (512 << 20, Duration::from_secs(25));
        Self { program: "/proc/self/exe".into(), arguments: vec![command.into()], memory_bytes, deadline }
    }

    fn import(&self, file: &[u8], how: &Import) -> Result<Vec<Example>, Error> {
        let mut rows = Rows::begin(how, file.len() as u64)?;
        let mut child = self.start()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("a process without its pipes"))?;
        let (reading, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| self.feed(stdin, file, how));
            let minded = scope.spawn(move || mind(child, &ended, self.deadline));
            let heard = hear(stdout, &mut rows);
            drop(reading);
            let (late, status) = minded.join().map_err(|_| io::Error::other("its thread died"))?;
            if heard? { Ok(()) } else { Err(self.died(rows.seen() + 1, late, status?)) }
        })?;
        rows.finish()
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
    }

    /// Writes all that the process needs, as far as it reads.
    fn feed(&self, mut stdin: impl Write, file: &[u8], how: &Import) {
        let (memory_bytes, seconds) = (self.memory_bytes, self.deadline.as_secs());
        let asked = Asked { how: how.clone(), file_bytes: file.len() as u64, memory_bytes, seconds };
        let written = serde_json::to_writer(&mut stdin, &asked).map_err(io::Error::from);
        // One that has died, or has seen enough of the file, tells it in its own way.
        let _ = written.and_then(|()| stdin.write_all(b"\n")).and_then(|()| stdin.write_all(file));
    }

    /// What is wrong with a file at which the process died.
    fn died(&self, row: usize, late: bool, status: ExitStatus) -> Error {
        let what = match (late, status.code(), status.signal()) {
            (true, ..) => format!("takes longer than {} s to read", self.deadline.as_secs()),
            (false, Some(code), _) if code == i32::from(PANICKED) => "the file's Parquet is malformed".to_owned(),
            // Rust's end, and the C library's, where memory is refused.
            (false, None, Some(6)) => format!("asks for more than {} MiB of memory", self.memory_bytes >> 20),
            _ => format!("its reader ended: {status}"),
        };
        Error::Unreadable { place: format!("row {row}"), what }
    }
}

/// Waits until nobody listens to it any more, or it is too late, and ends it: whether it was late, and how it ended.
fn mind(mut child: Child, ended: &mpsc::Receiver<()>, deadline: Duration) -> (bool, io::Result<ExitStatus>) {
    let late = ended.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout);
    // One that closed its end by dying has its status already, and keeps it.
    let _ = child.kill();
    (late, child.wait())
}

/// Takes rows in until the ending: whether there was one.
fn hear(stdout: impl Read, rows: &mut Rows<'_>) -> Result<bool, Error> {
    // No byte of a row takes more than six as JSON, which is what a control character takes.
    let line_max = rows.limits.row_bytes.saturating_mul(6).saturating_add(4 << 10);
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stdout).take(line_max).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return if read as u64 == line_max { Err(row_too_large(rows.limits)) } else { Ok(false) };
        }
        match serde_json::from_slice(&line) {
            Ok(Said::Row(bytes, row)) => rows.row(None, bytes, row)?,
            Ok(Said::End) => return Ok(true),
            Ok(Said::Unreadable { place, what }) => return Err(Error::Unreadable { place, what }),
            Ok(Said::Columns(what)) => return Err(Error::Columns { what }),
            Ok(Said::TooLarge { what, max }) => return Err(Error::TooLarge { what: what.into(), max }),
            Err(_) => {
                let (place, what) = (format!("row {}", rows.seen() + 1), "is nested too deep".to_owned());
                return Err(Error::Unreadable { place, what });
            }
        }
    }
}
