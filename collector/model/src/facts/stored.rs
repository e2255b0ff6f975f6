//! Facts of one root or call, and the bytes in which a trace's state holds them.
//!
//! In memory: flags (a byte), print (4 bytes), start (8 bytes, little endian), end minus start (zigzag), for a call its emitter
//! (8 bytes), then fields until the end: a tag byte and a text (length, bytes) or a number (varint). Equal facts have equal bytes.
//! Not here: how they lie on disk (`trace/stored.rs`), what a span names (`words`, of which a trace keeps only the first of each).

use std::borrow::Cow;
use std::ops::Range;

use crate::UnixNanos;
use crate::cost::Usage;
use crate::varint::{self, Cursor};

/// The texts that spans say; the number is the tag in facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Text {
    Model,
    RequestModel,
    Provider,
    ResponseId,
    FinishReason,
    Error,
    PromptRef,
    /// Names a prompt for all spans of the resource; second to what a span names.
    ResourcePrompt,
    PromptVersion,
    Session,
    User,
    /// What the application put into `metadata`: mostly a JSON object.
    Metadata,
    /// A JSON array of texts.
    Tags,
    Service,
    Environment,
    /// A JSON array of `{name, arguments}`.
    ToolCalls,
    Input,
    Output,
}

impl Text {
    pub(crate) const ALL: [Self; 18] = [
        Self::Model,
        Self::RequestModel,
        Self::Provider,
        Self::ResponseId,
        Self::FinishReason,
        Self::Error,
        Self::PromptRef,
        Self::ResourcePrompt,
        Self::PromptVersion,
        Self::Session,
        Self::User,
        Self::Metadata,
        Self::Tags,
        Self::Service,
        Self::Environment,
        Self::ToolCalls,
        Self::Input,
        Self::Output,
    ];

    /// Those that each root and call has of its own: they are its facts.
    pub(crate) const OF_FACTS: [Self; 7] = [
        Self::Model,
        Self::RequestModel,
        Self::Provider,
        Self::ResponseId,
        Self::FinishReason,
        Self::Error,
        Self::ToolCalls,
    ];

    /// Those of which a trace has one: what the first span says that says it. Their order is that on disk.
    pub(crate) const OF_TRACE: [Self; 11] = [
        Self::PromptRef,
        Self::ResourcePrompt,
        Self::PromptVersion,
        Self::Session,
        Self::User,
        Self::Metadata,
        Self::Tags,
        Self::Service,
        Self::Environment,
        Self::Input,
        Self::Output,
    ];

    /// Its place in [`Text::OF_FACTS`]; none if it is no fact.
    const fn fact(self) -> Option<usize> {
        match self {
            Self::ToolCalls => Some(6),
            _ if (self as usize) < 6 => Some(self as usize),
            _ => None,
        }
    }

    /// Its place in [`Text::OF_TRACE`]; of a fact, the end of it.
    pub(crate) const fn word(self) -> usize {
        match self {
            Self::Input => 9,
            Self::Output => 10,
            _ if self.fact().is_none() => self as usize - Self::PromptRef as usize,
            _ => Self::OF_TRACE.len(),
        }
    }

    /// The most bytes that are kept of it. All facts together fit the 24 KiB that roots have in a state.
    pub(crate) const fn bytes_max(self) -> usize {
        match self {
            Self::Input | Self::Output | Self::Metadata => 4096,
            Self::ToolCalls => 2048,
            _ => 1024,
        }
    }
}

/// Yes-or-no facts; the number is a bit on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// It is an LLM call.
    Call = 1,
    /// Its status is ERROR.
    Failed = 1 << 1,
    /// It failed for want of time.
    TimedOut = 1 << 2,
    /// Whether it streamed is known.
    StreamingKnown = 1 << 3,
    /// It streamed.
    Streaming = 1 << 4,
}

/// What made a span, in short: two instrumentations that see one call differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Emitter {
    /// Hash of the scope's name.
    pub(crate) scope: u32,
    /// Hash of the span's name.
    pub(crate) name: u32,
}

impl Emitter {
    pub(crate) fn of(scope: &str, name: &str) -> Self {
        Self { scope: fnv(scope), name: fnv(name) }
    }

    pub(crate) fn bytes(self) -> [u8; 8] {
        (u64::from(self.scope) | u64::from(self.name) << 32).to_le_bytes()
    }

    pub(crate) fn take(cursor: &mut Cursor<'_>) -> Option<Self> {
        let bytes = u64::from_le_bytes(cursor.array()?);
        Some(Self { scope: bytes as u32, name: (bytes >> 32) as u32 })
    }
}

/// FNV-1a: the same in every process and version, unlike the standard library's hashers.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What one root or call says of itself; its texts borrow from where they were read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) flags: u8,
    pub(crate) start: UnixNanos,
    pub(crate) end: UnixNanos,
    pub(crate) emitter: Emitter,
    /// Of what it names, so that two spans of one id are told apart by that too; 0 if it is not known.
    pub(crate) print: u32,
    pub(crate) first_token_nanos: Option<u64>,
    pub(crate) usage: Usage,
    texts: [Option<Cow<'a, str>>; Text::OF_FACTS.len()],
}

/// The next text; none if it is not one that is ever put: no text with a NUL is.
pub(crate) fn take_text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let bytes = cursor.bytes()?;
    let text = simdutf8::basic::from_utf8(bytes).ok()?;
    memchr::memchr(0, bytes).is_none().then_some(text)
}

/// Tags below this are texts.
const FIRST_COUNT_TAG: u8 = 32;
const FIRST_TOKEN_TAG: u8 = 64;
/// Where the print stands in facts' bytes.
const PRINT: Range<usize> = 1..5;

/// Whether two spans' facts, not the same bytes, contradict each other: they do not where one's print alone is not known.
pub(crate) fn contradict(one: &[u8], other: &[u8]) -> bool {
    let (Some((one, one_rest)), Some((other, other_rest))) =
        (one.split_at_checked(PRINT.end), other.split_at_checked(PRINT.end))
    else {
        return true;
    };
    let is_known = one[PRINT] != [0; 4] && other[PRINT] != [0; 4];
    is_known || one[0] != other[0] || one_rest != other_rest
}

impl<'a> Facts<'a> {
    /// Facts of a span of which nothing but its times is known yet.
    pub(crate) fn at(start: UnixNanos, end: UnixNanos) -> Self {
        Self { start, end, ..Self::default() }
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    pub(crate) fn set(&mut self, flag: Flag, is_so: bool) {
        self.flags = if is_so { self.flags | flag as u8 } else { self.flags & !(flag as u8) };
    }

    /// One of [`Text::OF_FACTS`]; others are none.
    pub(crate) fn text(&self, text: Text) -> Option<&str> {
        self.texts.get(text.fact()?)?.as_deref()
    }

    /// Those of [`Text::OF_FACTS`] that were borrowed and not made: all of decoded facts.
    pub(crate) fn borrowed_texts(&self) -> [Option<&'a str>; Text::OF_FACTS.len()] {
        std::array::from_fn(|at| match self.texts[at] {
            Some(Cow::Borrowed(text)) => Some(text),
            _ => None,
        })
    }

    /// Sets one of [`Text::OF_FACTS`].
    pub(crate) fn set_text(&mut self, text: Text, value: Option<Cow<'a, str>>) {
        if let Some(slot) = text.fact().and_then(|at| self.texts.get_mut(at)) {
            *slot = value;
        }
    }

    /// Takes over a text that it does not have.
    pub(crate) fn borrow_text(&mut self, text: Text, from: &Self) {
        if let Some(at) = text.fact()
            && self.texts[at].is_none()
        {
            self.texts[at].clone_from(&from.texts[at]);
        }
    }

    /// Length in time; 0 if it ended before it began.
    pub(crate) fn nanos(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.flags);
        out.extend_from_slice(&self.print.to_le_bytes());
        out.extend_from_slice(&self.start.0.to_le_bytes());
        varint::put_signed(out, self.end.0.wrapping_sub(self.start.0) as i64);
        if self.has(Flag::Call) {
            out.extend_from_slice(&self.emitter.bytes());
        }
        for (text, value) in Text::OF_FACTS.into_iter().zip(&self.texts) {
            if let Some(value) = value {
                out.push(text as u8);
                varint::put_bytes(out, value.as_bytes());
            }
        }
        for (count, tag) in self.counts().into_iter().zip(FIRST_COUNT_TAG..) {
            if let Some(count) = count {
                out.push(tag);
                varint::put(out, count as u64);
            }
        }
        if let Some(nanos) = self.first_token_nanos {
            out.push(FIRST_TOKEN_TAG);
            varint::put(out, nanos);
        }
    }

    /// When a span began and ended, out of its facts' bytes: to order them before they are read.
    pub(crate) fn times(bytes: &[u8]) -> Option<(UnixNanos, UnixNanos)> {
        let mut cursor = Cursor(bytes.get(PRINT.end..)?);
        let start = u64::from_le_bytes(cursor.array()?);
        Some((UnixNanos(start), UnixNanos(start.wrapping_add(cursor.signed()? as u64))))
    }

    /// Whether facts' bytes are those of a call.
    pub(crate) fn are_of_call(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|flags| flags & Flag::Call as u8 != 0)
    }

    /// Reads [`Facts::encode`]'s bytes; none if they are something else.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let mut facts = Self { flags: cursor.byte()?, print: u32::from_le_bytes(cursor.array()?), ..Self::default() };
        facts.start = UnixNanos(u64::from_le_bytes(cursor.array()?));
        facts.end = UnixNanos(facts.start.0.wrapping_add(cursor.signed()? as u64));
        if facts.has(Flag::Call) {
            facts.emitter = Emitter::take(&mut cursor)?;
        }
        facts.take_fields(cursor, |_, _| None)?;
        Some(facts)
    }

    /// Reads fields until the end; texts that are no facts go to `other`, which says whether they may be there.
    pub(crate) fn take_fields(
        &mut self,
        mut cursor: Cursor<'a>,
        mut other: impl FnMut(Text, &'a str) -> Option<()>,
    ) -> Option<()> {
        while !cursor.is_at_end() {
            let tag = cursor.byte()?;
            if let Some(&text) = Text::ALL.get(usize::from(tag)) {
                let value = take_text(&mut cursor)?;
                match text.fact() {
                    Some(at) => self.texts[at] = Some(Cow::Borrowed(value)),
                    None => other(text, value)?,
                }
            } else if tag == FIRST_TOKEN_TAG {
                self.first_token_nanos = Some(cursor.number()?);
            } else {
                let count = i64::try_from(cursor.number()?).ok()?;
                *self.counts_mut().into_iter().nth(usize::from(tag.checked_sub(FIRST_COUNT_TAG)?))? = Some(count);
            }
        }
        Some(())
    }

    pub(crate) fn counts(&self) -> [Option<i64>; 8] {
        let Usage { prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output } =
            self.usage;
        [prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output]
    }

    pub(crate) fn counts_mut(&mut self) -> [&mut Option<i64>; 8] {
        let Usage { prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output } =
            &mut self.usage;
        [prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output]
    }
}
