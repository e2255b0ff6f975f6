//! What a plugin writes to its standard output and error: lines in emberd's log.
//!
//! Promise: a line is cut at 2 KiB; of a flood, a few lines are kept and the rest is counted; what is not UTF-8 is replaced. A plugin is
//! read at no more than 64 MiB a second: whoever writes more waits for itself, and takes no more than a small part of a core.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

const LINE_BYTES_MAX: usize = 2 << 10;
const LINES_PER_SECOND: u32 = 50;
const BYTES_PER_SECOND: usize = 64 << 20;

/// Reads a pipe to its end.
pub(super) async fn read(plugin: String, stream: &'static str, mut pipe: pipe::Receiver) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 64 << 10];
    let mut second = Second::new();
    while let Ok(bytes @ 1..) = pipe.read(&mut buffer).await {
        lines.take(&buffer[..bytes], |line| second.tell(&plugin, stream, &line));
        second.bytes += bytes;
        if second.bytes > BYTES_PER_SECOND {
            sleep_until(second.began + Duration::from_secs(1)).await;
        }
        second.turn(&plugin, stream);
    }
    lines.take(b"\n", |line| second.tell(&plugin, stream, &line));
    second.summary(&plugin, stream);
}

/// Bytes into lines.
#[derive(Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    cut: bool,
}

impl Lines {
    pub(crate) fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = LINE_BYTES_MAX - self.line.len();
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends && !self.line.is_empty() {
                let mut line = String::from_utf8_lossy(&self.line).into_owned();
                if self.cut {
                    line.push_str(" ...");
                }
                tell(line);
            }
            if ends {
                self.line.clear();
                self.cut = false;
            }
        }
    }
}

/// What was told and held back in the current second.
struct Second {
    began: Instant,
    bytes: usize,
    told: u32,
    held_back: u64,
}

impl Second {
    fn new() -> Self {
        Self { began: Instant::now(), bytes: 0, told: 0, held_back: 0 }
    }

    fn tell(&mut self, plugin: &str, stream: &str, line: &str) {
        if self.told < LINES_PER_SECOND {
            self.told += 1;
            tracing::info!(target: "emberd::plugin", plugin, stream, line);
        } else {
            self.held_back += 1;
        }
    }

    fn turn(&mut self, plugin: &str, stream: &str) {
        if self.began.elapsed() >= Duration::from_secs(1) {
            self.summary(plugin, stream);
            *self = Self::new();
        }
    }

    fn summary(&self, plugin: &str, stream: &str) {
        if self.held_back > 0 {
            tracing::warn!(target: "emberd::plugin", plugin, stream, lines = self.held_back, "lines were left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_joined_over_reads() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        for bytes in [&b"one\ntw"[..], b"o\n\n\xff\n", &[b'x'; 5000], b"\nlast\n"] {
            lines.take(bytes, |line| told.push(line));
        }
        assert_eq!(told[..3], ["one", "two", "\u{fffd}"]);
        assert_eq!(told[3], format!("{} ...", "x".repeat(LINE_BYTES_MAX)));
        assert_eq!(told[4], "last");
        assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn a_line_of_a_gibibyte_costs_a_line() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..(1 << 30) / piece.len() {
            lines.take(&piece, |line| told.push(line));
            assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX);
        }
        lines.take(b"\n", |line| told.push(line));
        assert_eq!(told.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX + 4]);
    }
}
