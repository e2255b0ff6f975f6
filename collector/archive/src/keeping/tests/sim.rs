//! A place in memory that fails when it is told to, in every way that a real one can.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::name::DataName;
use super::super::place::{Listed, Place, PlaceError};
use super::{Row, decoded};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It does nothing, and says so.
    Refused,
    /// It does it, and its answer is lost.
    Lost,
    /// It does half of it (of several files to remove, the first half), and its answer is lost.
    Half,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
    /// The process dies within it: half of a file lies under its hidden name; half of the files are removed.
    CrashWithin,
    /// The way there tried twice by itself: it does it, and of a new file it says that it is there already.
    Twice,
    /// Its answer is lost, and it takes effect after the next two calls. Of entries only.
    Late,
    /// The process dies, and it takes effect after the next two calls. Of entries only.
    CrashLate,
}

/// All ways.
pub(super) const HOWS: [How; 9] = [
    How::Refused,
    How::Lost,
    How::Half,
    How::CrashBefore,
    How::CrashAfter,
    How::CrashWithin,
    How::Twice,
    How::Late,
    How::CrashLate,
];

/// What must hold of the files that lie there, after every change of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    /// No span is seen twice.
    Once,
    /// None of the spans that counted when this law was given is missing.
    NoneLost,
    /// Nothing.
    Free,
}

#[derive(Debug)]
struct Inner {
    files: BTreeMap<String, Bytes>,
    calls: usize,
    faults: Vec<(usize, How)>,
    dead: bool,
    /// Entries that take effect later: after so many calls, under their name.
    late: Vec<(usize, String, Bytes)>,
    law: Law,
    owed: Vec<Row>,
}

/// The place.
#[derive(Debug)]
pub(super) struct Sim(Mutex<Inner>);

impl Sim {
    /// An empty place that fails at these calls.
    pub(super) fn new(faults: Vec<(usize, How)>) -> Self {
        let (files, late, owed) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self(Mutex::new(Inner { files, calls: 0, faults, dead: false, late, law: Law::Free, owed }))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.inner().calls
    }

    /// Whether the process is dead: nothing answers.
    pub(super) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// A new process begins.
    pub(super) fn revive(&self) {
        self.inner().dead = false;
    }

    /// No call fails from now on.
    pub(super) fn heal(&self) {
        self.inner().faults.clear();
    }

    /// What must hold from now on.
    pub(super) fn demand(&self, law: Law) {
        let mut inner = self.inner();
        inner.law = law;
        inner.owed = inner.seen();
        inner.owed.dedup();
    }

    /// What a reader sees that goes by file names: the spans, in order.
    pub(super) fn seen(&self) -> Vec<Row> {
        self.inner().seen()
    }

    /// All that lies there.
    pub(super) fn names(&self) -> Vec<String> {
        self.inner().files.keys().cloned().collect()
    }

    /// The same files in a place that never fails: for readers beside the writer.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::new(Vec::new());
        copy.inner().files = self.inner().files.clone();
        copy
    }

    /// Changes what lies there.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut BTreeMap<String, Bytes>)) {
        edit(&mut self.inner().files);
    }
}

impl Inner {
    fn seen(&self) -> Vec<Row> {
        let data = self.files.iter().filter(|(name, _)| DataName::parse(name).is_some());
        let mut rows: Vec<Row> = data.flat_map(|(_, file)| decoded(file)).collect();
        rows.sort_unstable();
        rows
    }

    /// Holds what lies there against the law.
    fn judge(&self) {
        let rows = if self.law == Law::Free { Vec::new() } else { self.seen() };
        match self.law {
            Law::Free => {}
            Law::Once => {
                let twice = rows.windows(2).find(|pair| pair[0] == pair[1]);
                assert_eq!(twice, None, "a span is seen twice: {:?}", self.files.keys());
            }
            Law::NoneLost => {
                let lost = self.owed.iter().find(|row| rows.binary_search(row).is_err());
                assert_eq!(lost, None, "a span is not seen: {:?}", self.files.keys());
            }
        }
    }

    /// Makes a call: how it fails, if it does; those that came late take effect before it.
    fn call(&mut self) -> Result<Option<How>, ()> {
        let call = self.calls;
        self.calls += 1;
        let (due, late): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(at, ..)| *at <= call);
        self.late = late;
        for (_, name, bytes) in due {
            self.files.entry(name).or_insert(bytes);
        }
        if self.dead {
            return Err(());
        }
        Ok(self.faults.iter().find(|(at, _)| *at == call).map(|(_, how)| *how))
    }
}

fn lost(name: &str) -> PlaceError {
    let source = "no answer".into();
    PlaceError::Failed { action: "do", name: name.to_owned(), advice: "try again", source }
}

impl Sim {
    fn read<T>(&self, name: &str, read: impl FnOnce(&Inner) -> Result<T, PlaceError>) -> Result<T, PlaceError> {
        let mut inner = self.inner();
        match inner.call() {
            Ok(None | Some(How::Twice)) => read(&inner),
            Ok(Some(how)) => {
                inner.dead = matches!(how, How::CrashBefore | How::CrashAfter | How::CrashWithin | How::CrashLate);
                Err(lost(name))
            }
            Err(()) => Err(lost(name)),
        }
    }

    /// A call that changes something: `whole` does it, `half` does half of it.
    fn write(
        &self,
        name: &str,
        whole: impl FnOnce(&mut Inner) -> Result<(), PlaceError>,
        half: impl FnOnce(&mut Inner),
        late: Option<Bytes>,
    ) -> Result<(), PlaceError> {
        let mut inner = self.inner();
        let how = inner.call().map_err(|()| lost(name))?;
        let mut answer = Err(lost(name));
        match (how, late) {
            (None, _) => answer = whole(&mut inner),
            (Some(How::Lost | How::CrashAfter), _) => drop(whole(&mut inner)),
            (Some(How::Twice), None) => answer = whole(&mut inner),
            (Some(How::Twice), Some(_)) => {
                answer = whole(&mut inner).and_then(|()| Err(PlaceError::Exists { name: name.to_owned() }));
            }
            (Some(How::Half | How::CrashWithin), _) => half(&mut inner),
            (Some(How::Late | How::CrashLate), Some(bytes)) => {
                let at = inner.calls + 2;
                inner.late.push((at, name.to_owned(), bytes));
            }
            (Some(_), _) => {}
        }
        inner.dead = matches!(how, Some(How::CrashBefore | How::CrashAfter | How::CrashWithin | How::CrashLate));
        inner.judge();
        answer
    }
}

/// The name that a file has while it is written.
fn hidden(name: &str) -> String {
    let (dir, last) = name.rsplit_once('/').unwrap_or(("", name));
    format!("{dir}/.{last}.tmp")
}

fn put_half(inner: &mut Inner, name: &str, bytes: &Bytes) {
    inner.files.insert(hidden(name), bytes.slice(..bytes.len() / 2));
}

impl Place for Sim {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        let again = bytes.clone();
        let whole = |inner: &mut Inner| {
            inner.files.insert(name.to_owned(), again);
            Ok(())
        };
        let done = self.write(name, whole, |inner| put_half(inner, name, &bytes), None);
        async { done }.boxed()
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        let (again, late) = (bytes.clone(), bytes.clone());
        let whole = |inner: &mut Inner| match inner.files.contains_key(name) {
            true => Err(PlaceError::Exists { name: name.to_owned() }),
            false => {
                inner.files.insert(name.to_owned(), again);
                Ok(())
            }
        };
        let done = self.write(name, whole, |inner| put_half(inner, name, &bytes), Some(late));
        async { done }.boxed()
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        let missing = || PlaceError::Missing { name: name.to_owned() };
        let found = self.read(name, |inner| inner.files.get(name).cloned().ok_or_else(missing));
        let found = found.and_then(|bytes| match bytes.len() as u64 <= bytes_max {
            true => Ok(bytes),
            false => Err(PlaceError::Long { name: name.to_owned(), bytes_max }),
        });
        async { found }.boxed()
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        let missing = || PlaceError::Missing { name: name.to_owned() };
        let found = self.read(name, |inner| inner.files.get(name).cloned().ok_or_else(missing));
        let cut = found.map(|bytes| {
            let end = (range.end as usize).min(bytes.len());
            bytes.slice((range.start as usize).min(end)..end)
        });
        async { cut }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>, PlaceError>> {
        let listed = self.read(prefix, |inner| {
            let below = inner.files.iter().filter(|(name, _)| name.starts_with(prefix));
            Ok(below.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 }).collect())
        });
        async { listed }.boxed()
    }

    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), PlaceError>> {
        let remove = |inner: &mut Inner, names: &[String]| {
            for name in names {
                inner.files.remove(name);
            }
        };
        let whole = |inner: &mut Inner| {
            remove(inner, names);
            Ok(())
        };
        let first = names.first().map_or("", String::as_str);
        let done = self.write(first, whole, |inner| remove(inner, &names[..names.len() / 2]), None);
        async { done }.boxed()
    }
}

#[tokio::test]
async fn the_place_of_the_tests_keeps_the_contract() {
    let place = std::sync::Arc::new(Sim::new(Vec::new()));
    super::contract::keep(place.clone()).await;
    super::contract::live(place).await;
}
