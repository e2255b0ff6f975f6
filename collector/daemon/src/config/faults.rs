//! What is wrong with a configuration, and where: all of it at once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the file: its name as it was given, and the line, counted from 1; line 0 is the file as a whole.
    File(Arc<str>, usize),
    /// In the environment, under this name.
    Variable(Arc<str>),
    /// Nowhere: it is the default.
    Default,
}

impl Place {
    /// The file as a whole.
    pub(super) fn whole(file: &Path) -> Self {
        Self::File(file.display().to_string().into(), 0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, 0) => f.write_str(name),
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong, or that deserves a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// Where it stands.
    pub place: Place,
    /// Which key, as `[log] budget`; empty where it is about the whole file.
    pub key: String,
    /// What is wrong with it, and what would be right. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, message } = self;
        if key.is_empty() { write!(f, "{place}: {message}") } else { write!(f, "{place}: {key}: {message}") }
    }
}

/// Everything that is wrong, in the order of the file, then of the environment; at least one.
///
/// Shown one per line. The program exits with 78 (`EX_CONFIG`) on it, before any port is bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Errors(pub Vec<Fault>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn near<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A third of the letters may differ: more, and the answer would be a guess about another word.
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped, replaced or swapped with their neighbour to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.to_lowercase().chars().take(128).collect();
    let to: Vec<char> = to.to_lowercase().chars().take(128).collect();
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i.max(j)
            } else {
                let same = from[i - 1] == to[j - 1];
                let mut least =
                    (rows[i - 1][j - 1] + usize::from(!same)).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[from.len()][to.len()]
}
