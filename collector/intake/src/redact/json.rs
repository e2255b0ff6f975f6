//! A text that is JSON: read in place, its texts and names handed on, what changed written anew, all else copied.
//!
//! Promise: JSON that goes in comes out as JSON. Where it stops being JSON, which is where somebody cut it short, what was read so far
//! counts; a value that a rule takes, and that does not end, is taken to the end of the text.

use std::borrow::Cow;
use std::ops::Range;

use emberd_model::wire::{Reword as _, Word};

use super::TOO_DEEP;
use super::words::Pass;

/// Lists in lists: what lies deeper is masked.
const DEPTH_MAX: u32 = 128;

/// Goes over `text`, which may be one JSON value or several in a row.
pub(super) fn reworded(text: &str, pass: &mut Pass<'_>) -> Word {
    let mut copy = Copy { text, at: 0, out: String::with_capacity(text.len()), pass };
    let stays = loop {
        copy.space();
        if copy.at == text.len() {
            break true;
        }
        let from = copy.at;
        match copy.value(0) {
            Ok(true) => {}
            Ok(false) => break false,
            Err(Cut) => {
                // What follows is text: it is searched as such.
                let rest = copy.at.max(from);
                copy.out.push_str(&text[rest..]);
                break true;
            }
        }
    };
    match stays {
        false => Word::Gone,
        true if copy.out == text => Word::Same,
        true => Word::To(copy.out),
    }
}

/// It is JSON no further; what stands before `at` is written.
struct Cut;

struct Copy<'t, 'p, 'r> {
    text: &'t str,
    at: usize,
    out: String,
    pass: &'p mut Pass<'r>,
}

impl<'t> Copy<'t, '_, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        let from = self.at;
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.out.push_str(&self.text[from..self.at]);
    }

    /// One value; whether it stays. What does not is cut out of what is written by whoever wrote around it.
    fn value(&mut self, depth: u32) -> Result<bool, Cut> {
        if let Some(rule) = self.pass.named() {
            return self.taken(rule);
        }
        match self.peek().ok_or(Cut)? {
            // An earlier replacement looks like a list, and is none: its words are not values that a name would take.
            b'[' if let Some(length) = self.pass.mark(&self.text[self.at..]) => {
                self.out.push_str(&self.text[self.at..self.at + length]);
                self.at += length;
                Ok(true)
            }
            b'{' | b'[' if depth >= DEPTH_MAX => {
                let (_, end) = self.skipped();
                self.out.push_str(&quoted(&format!("[redacted:{TOO_DEEP}]")));
                self.at = end;
                Ok(true)
            }
            b'{' => self.list(b'}', depth),
            b'[' => self.list(b']', depth),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.scalar(),
            _ => Err(Cut),
        }
    }

    /// A value that a rule takes whole.
    fn taken(&mut self, rule: usize) -> Result<bool, Cut> {
        let (place, end) = self.skipped();
        let raw = &self.text[place];
        let plain = if raw.starts_with('"') { unquoted(raw) } else { Cow::Borrowed(raw) };
        match self.pass.taken(rule, plain.as_bytes()) {
            Word::Same => self.out.push_str(&self.text[self.at..end]),
            Word::Gone => {
                self.at = end;
                return Ok(false);
            }
            Word::To(text) => self.out.push_str(&quoted(&text)),
        }
        self.at = end;
        Ok(true)
    }

    /// Where the value ends that begins here, whatever is in it; the end of the text if it does not.
    fn skipped(&self) -> (Range<usize>, usize) {
        let bytes = self.text.as_bytes();
        let (mut at, mut open) = (self.at, 0_usize);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = string_end(self.text, at).unwrap_or(bytes.len()),
                b'{' | b'[' => {
                    open += 1;
                    at += 1;
                }
                b'}' | b']' if open > 0 => {
                    open -= 1;
                    at += 1;
                }
                b',' | b'}' | b']' if open == 0 => break,
                _ => {
                    at += 1;
                    if open > 0 {
                        continue;
                    }
                    // A bare word, up to what ends it.
                    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
                    at += bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at);
                }
            }
            if open == 0 {
                break;
            }
        }
        // Always at least one character, never the middle of one.
        let end = at.clamp(self.at, bytes.len());
        (self.at..end, end)
    }

    /// An object or an array, from its bracket on.
    fn list(&mut self, close: u8, depth: u32) -> Result<bool, Cut> {
        self.copy_byte();
        let (mut kept, mut number) = (0, 0);
        self.space();
        if self.peek() == Some(close) {
            self.copy_byte();
            return Ok(true);
        }
        loop {
            let start = self.out.len();
            if kept > 0 {
                self.out.push(',');
            }
            self.space();
            let stays = if close == b'}' { self.member(depth)? } else { self.element(number, depth)? };
            self.space();
            number += 1;
            match stays {
                true => kept += 1,
                false => self.out.truncate(start),
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => break,
                _ => return Err(Cut),
            }
        }
        self.copy_byte();
        Ok(true)
    }

    fn copy_byte(&mut self) {
        self.out.push_str(&self.text[self.at..self.at + 1]);
        self.at += 1;
    }

    fn element(&mut self, number: usize, depth: u32) -> Result<bool, Cut> {
        let start = self.out.len();
        self.pass.enter_element(number);
        let stays = self.value(depth + 1);
        self.pass.leave();
        if !stays? {
            // What follows keeps its number.
            self.out.truncate(start);
            self.out.push_str("null");
        }
        Ok(true)
    }

    fn member(&mut self, depth: u32) -> Result<bool, Cut> {
        if self.peek() != Some(b'"') {
            return Err(Cut);
        }
        let end = string_end(self.text, self.at).ok_or(Cut)?;
        let raw = &self.text[self.at..end];
        let key = unquoted(raw);
        self.pass.enter(&key);
        let stays = self.member_at(raw, &key, end, depth);
        self.pass.leave();
        stays
    }

    fn member_at(&mut self, raw: &str, key: &str, end: usize, depth: u32) -> Result<bool, Cut> {
        let mut stays = true;
        match self.pass.words(key) {
            Word::Same => self.out.push_str(raw),
            Word::Gone => stays = false,
            Word::To(key) => self.out.push_str(&quoted(&key)),
        }
        self.at = end;
        self.space();
        if self.peek() != Some(b':') {
            return Err(Cut);
        }
        self.copy_byte();
        self.space();
        Ok(self.value(depth + 1)? && stays)
    }

    fn string(&mut self) -> Result<bool, Cut> {
        let end = string_end(self.text, self.at);
        let raw = &self.text[self.at..end.unwrap_or(self.text.len())];
        self.at += raw.len();
        match self.pass.words(&unquoted(raw)) {
            Word::Same => self.out.push_str(raw),
            Word::Gone => return Ok(false),
            Word::To(text) => self.out.push_str(&quoted(&text)),
        }
        Ok(true)
    }

    /// A number or a word of JSON's own. A number that is found becomes a text.
    fn scalar(&mut self) -> Result<bool, Cut> {
        let rest = &self.text[self.at..];
        let is_end = |byte: u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'));
        let raw = &rest[..rest.bytes().position(is_end).unwrap_or(rest.len())];
        self.at += raw.len();
        match self.pass.searched(raw, &mut None) {
            Word::Same => self.out.push_str(raw),
            Word::Gone => return Ok(false),
            Word::To(text) => self.out.push_str(&quoted(&text)),
        }
        Ok(true)
    }
}

/// Behind the quote that ends the string which begins at `at`.
fn string_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// What a string says. One that is cut short or has an escape that is none says what it can.
fn unquoted(raw: &str) -> Cow<'_, str> {
    let inside = raw.strip_prefix('"').unwrap_or(raw);
    let whole = string_end(raw, 0) == Some(raw.len());
    let inside = if whole { &inside[..inside.len() - 1] } else { inside };
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Cow::Borrowed(inside);
    }
    if whole && let Ok(said) = serde_json::from_str::<String>(raw) {
        return Cow::Owned(said);
    }
    Cow::Owned(leniently(inside))
}

fn leniently(inside: &str) -> String {
    let mut said = String::with_capacity(inside.len());
    let mut signs = inside.chars();
    while let Some(sign) = signs.next() {
        if sign != '\\' {
            said.push(sign);
            continue;
        }
        match signs.next() {
            Some('n') => said.push('\n'),
            Some('t') => said.push('\t'),
            Some('r') => said.push('\r'),
            Some('b') => said.push('\u{8}'),
            Some('f') => said.push('\u{c}'),
            Some('u') => {
                let digits = signs.as_str().get(..4).unwrap_or_default();
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 4);
                match code {
                    Some(code) => {
                        signs = signs.as_str()[4..].chars();
                        // Half of a pair stands for nothing by itself.
                        said.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                    }
                    None => said.push('u'),
                }
            }
            Some(other) => said.push(other),
            None => {}
        }
    }
    said
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
