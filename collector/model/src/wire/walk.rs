//! The walk from the request down to its spans: counts them, decides which are rejected, and remembers where those lie.

use std::ops::Range;

use super::keys::{request, resource_spans, scope_spans};
use super::message::{self, Fault, Notes, pass};
use super::read::Reader;
use super::{Checked, Limits, Malformed};
use crate::Flags;

/// Reasons that are kept; the client is told, and needs no more to find its mistake.
const REASONS_MAX: usize = 8;

pub(super) struct Walk<'l> {
    limits: &'l Limits,
    checked: Checked,
    /// Spans met so far, kept and rejected.
    index: u32,
    cuts: Vec<Cut>,
}

/// Where something rejected lies: one or more whole fields, neighbours in one message.
pub(super) struct Cut {
    pub(super) place: Range<usize>,
    level: Level,
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Resource,
    Scope,
    Span,
}

/// How things stood before a `ResourceSpans` or `ScopeSpans`, all of whose spans fall if its resource or scope cannot
/// be kept.
struct Before {
    index: u32,
    spans: u32,
    flags: Flags,
    cuts: usize,
}

impl<'l> Walk<'l> {
    /// Walks a request; gives what was found, and in order where that lies which is rejected.
    pub(super) fn over(request: &[u8], limits: &'l Limits) -> Result<(Checked, Vec<Cut>), Malformed> {
        let mut walk = Self { limits, checked: Checked::default(), index: 0, cuts: Vec::new() };
        let mut reader = Reader::new(request);
        while !reader.is_done() {
            let field = reader.at;
            match reader.key()? {
                request::RESOURCE_SPANS => walk.resource_spans(reader.message()?, field)?,
                key => pass(&mut reader, key, request::KNOWN)?,
            }
        }
        Ok((walk.checked, walk.cuts))
    }

    fn resource_spans(&mut self, mut reader: Reader<'_>, place: usize) -> Result<(), Malformed> {
        let before = self.before();
        let mut notes = Notes::new(self.limits);
        while !reader.is_done() {
            let field = reader.at;
            match reader.key()? {
                resource_spans::RESOURCE => message::resource(reader.message()?, &mut notes)?,
                resource_spans::SCOPE_SPANS => self.scope_spans(reader.message()?, field)?,
                resource_spans::SCHEMA_URL => notes.text("schema url of the resource", reader.payload()?),
                key => pass(&mut reader, key, resource_spans::KNOWN)?,
            }
        }
        self.close(&before, Cut { place: place..reader.at, level: Level::Resource }, &notes)
    }

    fn scope_spans(&mut self, mut reader: Reader<'_>, place: usize) -> Result<(), Malformed> {
        let before = self.before();
        let mut notes = Notes::new(self.limits);
        while !reader.is_done() {
            let field = reader.at;
            match reader.key()? {
                scope_spans::SPANS => self.span(reader.message()?, field)?,
                scope_spans::SCOPE => message::scope(reader.message()?, &mut notes)?,
                scope_spans::SCHEMA_URL => notes.text("schema url of the scope", reader.payload()?),
                key => pass(&mut reader, key, scope_spans::KNOWN)?,
            }
        }
        self.close(&before, Cut { place: place..reader.at, level: Level::Scope }, &notes)
    }

    #[inline]
    fn span(&mut self, span: Reader<'_>, place: usize) -> Result<(), Malformed> {
        let mut notes = Notes::new(self.limits);
        message::span(span, &mut notes)?;
        if self.checked.spans >= self.limits.spans_max {
            notes.blame(Fault::TooMany { spans_max: self.limits.spans_max });
        }
        let index = self.index;
        self.index = index.saturating_add(1);
        match notes.fault {
            None => {
                self.checked.spans += 1;
                self.flag(&notes);
            }
            Some(fault) => {
                self.reject(index, 1, fault);
                self.cut(Cut { place: place..span.bytes.len(), level: Level::Span });
            }
        }
        Ok(())
    }

    fn flag(&mut self, notes: &Notes) {
        if notes.mend {
            self.checked.flags = self.checked.flags.and(Flags::MEND);
        }
    }

    fn before(&self) -> Before {
        Before { index: self.index, spans: self.checked.spans, flags: self.checked.flags, cuts: self.cuts.len() }
    }

    /// The end of a `ResourceSpans` or `ScopeSpans`: only now all of its resource or scope is known, for fields come in
    /// any order.
    fn close(&mut self, before: &Before, whole: Cut, notes: &Notes) -> Result<(), Malformed> {
        let kept = self.checked.spans - before.spans;
        match notes.fault {
            None if kept > 0 => {
                self.flag(notes);
                return Ok(());
            }
            None if self.index == before.index => return Ok(()),
            // There is no span to reject, and yet the request cannot go on as it is.
            Some(_) if self.index == before.index => {
                let what = "text that is not UTF-8, or too deep a value, beside no span";
                return Err(Malformed { what, at: whole.place.start });
            }
            Some(fault) => self.reject(before.index, kept, fault),
            None => {}
        }
        // Nothing is left in it, so that it goes as a whole.
        self.checked.spans = before.spans;
        self.checked.flags = before.flags;
        self.cuts.truncate(before.cuts);
        self.cut(whole);
        Ok(())
    }

    #[cold]
    fn reject(&mut self, first: u32, count: u32, fault: Fault) {
        self.checked.rejected = self.checked.rejected.saturating_add(count);
        if self.checked.reasons.len() < REASONS_MAX {
            let last = self.index.saturating_sub(1);
            let whose = if first == last { format!("span {first}") } else { format!("spans {first} to {last}") };
            self.checked.reasons.push(format!("{whose}: {fault}"));
        }
    }

    /// Neighbours are joined, so that a request of nothing but empty spans does not take many times its size here.
    fn cut(&mut self, cut: Cut) {
        match self.cuts.last_mut() {
            Some(last) if last.place.end == cut.place.start && last.level == cut.level => {
                last.place.end = cut.place.end
            }
            _ => self.cuts.push(cut),
        }
    }
}
