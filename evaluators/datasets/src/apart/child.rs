//! The process that reads: what stands behind the hidden command.
//!
//! Promise: it takes its bounds on itself before it reads a byte of the file; a panic is its end, with a code of its own, whether panics
//! unwind in this build or abort.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::Value;

use super::{Asked, PANICKED, Said};
use crate::columns::{Binding, Cells};
use crate::import::{Error, Limits, RowSink, row_too_large};
use crate::parquet_in;

/// Bytes of what stands before the file.
const ASKED_BYTES_MAX: u64 = 1 << 20;

/// Reads what standard input holds and says on standard output what is in it: the exit code.
#[must_use]
pub fn run() -> u8 {
    std::panic::set_hook(Box::new(|_| {
        #[allow(clippy::disallowed_methods, reason = "nothing is open but two pipes, and what is in them is void")]
        std::process::exit(PANICKED.into())
    }));
    match read() {
        Ok(()) => 0,
        // Nobody listens any more, or nobody asked.
        Err(_) => 1,
    }
}

fn read() -> io::Result<()> {
    // Whoever has died before this has closed both pipes, which ends it just as well.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut stdin = BufReader::with_capacity(64 << 10, io::stdin().lock());
    let mut line = Vec::new();
    (&mut stdin).take(ASKED_BYTES_MAX).read_until(b'\n', &mut line)?;
    let asked: Asked = serde_json::from_slice(&line)?;
    confine(&asked)?;
    let mut file = Vec::with_capacity(usize::try_from(asked.file_bytes).map_err(io::Error::other)?);
    stdin.take(asked.file_bytes).read_to_end(&mut file)?;

    let binding = asked.how.columns.bind(asked.how.r#type, Cells::Typed).map_err(io::Error::other)?;
    let out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut teller = Teller { binding, limits: asked.how.limits, out };
    let ending = match parquet_in::read(Bytes::from(file), &mut teller) {
        Ok(()) => Said::End,
        Err(Error::Unreadable { place, what }) => Said::Unreadable { place, what },
        Err(Error::Columns { what }) => Said::Columns(what),
        Err(Error::TooLarge { what, max }) => Said::TooLarge { what: what.into_owned(), max },
        Err(Error::Io(error)) => return Err(error),
        // Rows are judged by who asked.
        Err(Error::Faults(_)) => return Err(io::Error::other("faults")),
    };
    teller.say(&ending)?;
    teller.out.flush()
}

/// No more memory than it has, the file and what it was given; a little more time than who waits has; no core dump.
fn confine(asked: &Asked) -> io::Result<()> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let now = pages * rustix::param::page_size() as u64;
    let space = now.saturating_add(asked.file_bytes).saturating_add(asked.memory_bytes);
    let limits = [
        (Resource::As, space),
        (Resource::Cpu, asked.seconds.saturating_add(5)),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, wanted) in limits {
        let most = rustix::process::getrlimit(resource).maximum.map_or(wanted, |own| own.min(wanted));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Says rows as they come.
struct Teller<'a, W> {
    binding: Binding<'a>,
    limits: Limits,
    out: W,
}

impl<W: Write> Teller<'_, W> {
    fn say(&mut self, said: &Said) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, said)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> RowSink for Teller<'_, W> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn binding(&self) -> &Binding<'_> {
        &self.binding
    }

    fn row(&mut self, _line: Option<u64>, bytes: u64, value: Value) -> Result<(), Error> {
        if bytes > self.limits.row_bytes {
            return Err(row_too_large(self.limits));
        }
        Ok(self.say(&Said::Row(bytes, value))?)
    }
}
