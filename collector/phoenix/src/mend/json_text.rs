//! JSON inside a string: Phoenix parses some attributes' texts and stores what they say, if it can.
//!
//! Texts that are no JSON it leaves as they are; nothing here parses either, a text is only looked at for what could do harm.

/// Phoenix parses the text of every attribute whose key ends so.
const PARSED_KEYS: [&str; 4] = ["document.metadata", "llm.prompt_template.variables", "metadata", "tool.parameters"];

/// Parsed too, and put into `tool.parameters`.
const TOOL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";

/// Its JSON writer stops at about 250 levels, some of which the key takes.
const DEPTH_MAX: usize = 64;

/// It writes whole numbers of 64 bits.
const DIGITS_MAX: usize = 18;

/// Whether Phoenix parses the text of the attribute called `key`.
fn is_parsed(key: &str) -> bool {
    key == TOOL_ARGUMENTS || PARSED_KEYS.iter().any(|parsed| key.ends_with(parsed))
}

/// Whether Phoenix would parse this text into something that it cannot store: nested too deep, or with a number too long.
pub(super) fn is_trap(key: &str, text: &str) -> bool {
    is_parsed(key) && (depth(text) > DEPTH_MAX || longest_number(text) > DIGITS_MAX)
}

/// The text with its escaped NULs and lone surrogates replaced by U+FFFD's escape; none if it has none of them, or if Phoenix
/// does not parse it.
pub(super) fn unescaped(key: &str, text: &str) -> Option<String> {
    if !(key.starts_with("gen_ai.") || is_parsed(key)) || !text.contains("\\u") {
        return None;
    }
    let mut made = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let from = at + found;
        let unit = code_unit(text, from);
        // A pair of surrogates is one character and stays; any other escape is two bytes to pass over.
        let next = unit.and_then(|_| code_unit(text, from + 6));
        at = match unit {
            Some(0xd800..0xdc00) if next.is_some_and(|next| (0xdc00..0xe000).contains(&next)) => from + 12,
            Some(0 | 0xd800..0xe000) => {
                made.push_str(&text[copied..from]);
                made.push_str("\\ufffd");
                copied = from + 6;
                copied
            }
            Some(_) => from + 6,
            None => from + 1 + text[from + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    (copied > 0).then(|| made + &text[copied..])
}

/// The number in the escape `\uXXXX` that begins at `at`.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// How deep brackets nest, those inside strings not counted.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in outside_strings(text) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The most digits in a row, outside strings.
fn longest_number(text: &str) -> usize {
    let (mut run, mut longest) = (0, 0);
    for byte in outside_strings(text) {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

fn outside_strings(text: &str) -> impl Iterator<Item = u8> {
    let (mut inside, mut escaped) = (false, false);
    text.bytes().filter(move |&byte| {
        if inside {
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return false;
        }
        inside = byte == b'"';
        true
    })
}
