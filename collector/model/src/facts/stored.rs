//! Facts of one span, and the bytes in which a trace's state keeps them.
//!
//! On disk: flags (varint), start (8 bytes, little endian), end minus start (zigzag), for a call its emitter (8 bytes), then
//! fields until the end: a tag byte and a text (length, bytes) or a number (varint). Equal facts have equal bytes.
//! A span that is neither root nor call has only the text fields: its bytes say what it names, not when.

use crate::UnixNanos;
use crate::cost::Usage;
use crate::varint::{self, Cursor};

/// The texts that facts may hold; the number is the tag on disk.
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

    /// The most bytes that are kept of it. All of them, and the numbers, fit the 32 KiB that roots have in a state.
    pub(crate) fn bytes_max(self) -> usize {
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
    /// Its input is JSON, not what a person wrote.
    InputIsJson = 1 << 5,
    /// Its output is JSON, not what a person reads.
    OutputIsJson = 1 << 6,
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
}

/// FNV-1a: the same in every process and version, unlike the standard library's hashers.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What one span says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    flags: u8,
    pub(crate) start: UnixNanos,
    pub(crate) end: UnixNanos,
    pub(crate) emitter: Emitter,
    pub(crate) first_token_nanos: Option<u64>,
    pub(crate) usage: Usage,
    texts: [Option<Box<str>>; Text::ALL.len()],
}

/// The next text; none if it is not one that is ever put: no text with a NUL is.
pub(crate) fn take_text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    str::from_utf8(cursor.bytes()?).ok().filter(|text| !text.contains('\0'))
}

/// Tags below this are texts.
const FIRST_COUNT_TAG: u8 = 32;
const FIRST_TOKEN_TAG: u8 = 64;

impl Facts {
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

    pub(crate) fn text(&self, text: Text) -> Option<&str> {
        self.texts[text as usize].as_deref()
    }

    pub(crate) fn set_text(&mut self, text: Text, value: Option<Box<str>>) {
        self.texts[text as usize] = value;
    }

    pub(crate) fn take_text(&mut self, text: Text) -> Option<Box<str>> {
        self.texts[text as usize].take()
    }

    /// Length in time; 0 if it ended before it began.
    pub(crate) fn nanos(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// The bytes of a root or call.
    pub(crate) fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(256);
        varint::put(&mut out, u64::from(self.flags));
        out.extend_from_slice(&self.start.0.to_le_bytes());
        varint::put_signed(&mut out, self.end.0.wrapping_sub(self.start.0) as i64);
        if self.has(Flag::Call) {
            out.extend_from_slice(&self.emitter.scope.to_le_bytes());
            out.extend_from_slice(&self.emitter.name.to_le_bytes());
        }
        self.put_texts(&mut out);
        for (count, tag) in self.counts().into_iter().zip(FIRST_COUNT_TAG..) {
            if let Some(count) = count {
                out.push(tag);
                varint::put(&mut out, count as u64);
            }
        }
        if let Some(nanos) = self.first_token_nanos {
            out.push(FIRST_TOKEN_TAG);
            varint::put(&mut out, nanos);
        }
        out.into_boxed_slice()
    }

    /// The bytes of what it names, without who it is and when.
    pub(crate) fn encode_names(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(128);
        self.put_texts(&mut out);
        out.into_boxed_slice()
    }

    /// Reads [`Facts::encode`]'s bytes; none if they are something else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let mut facts = Self { flags: u8::try_from(cursor.number()?).ok()?, ..Self::default() };
        facts.start = UnixNanos(u64::from_le_bytes(cursor.array()?));
        facts.end = UnixNanos(facts.start.0.wrapping_add(cursor.signed()? as u64));
        if facts.has(Flag::Call) {
            facts.emitter.scope = u32::from_le_bytes(cursor.array()?);
            facts.emitter.name = u32::from_le_bytes(cursor.array()?);
        }
        facts.take_fields(cursor)?;
        Some(facts)
    }

    /// Reads [`Facts::encode_names`]'s bytes; none if they are something else.
    pub(crate) fn decode_names(bytes: &[u8]) -> Option<Self> {
        let mut facts = Self::default();
        facts.take_fields(Cursor(bytes))?;
        Some(facts)
    }

    fn put_texts(&self, out: &mut Vec<u8>) {
        for text in Text::ALL {
            if let Some(value) = self.text(text) {
                out.push(text as u8);
                varint::put_bytes(out, value.as_bytes());
            }
        }
    }

    fn take_fields(&mut self, mut cursor: Cursor<'_>) -> Option<()> {
        while !cursor.is_at_end() {
            let tag = cursor.byte()?;
            if let Some(&text) = Text::ALL.get(usize::from(tag)) {
                self.set_text(text, Some(take_text(&mut cursor)?.into()));
            } else if tag == FIRST_TOKEN_TAG {
                self.first_token_nanos = Some(cursor.number()?);
            } else {
                let count = i64::try_from(cursor.number()?).ok()?;
                *self.counts_mut().into_iter().nth(usize::from(tag.checked_sub(FIRST_COUNT_TAG)?))? = Some(count);
            }
        }
        Some(())
    }

    fn counts(&self) -> [Option<i64>; 8] {
        let Usage { prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output } =
            self.usage;
        [prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output]
    }

    fn counts_mut(&mut self) -> [&mut Option<i64>; 8] {
        let Usage { prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output } =
            &mut self.usage;
        [prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output]
    }
}
