//! Where a text stands: the keys that lead to it, joined by dots, and where each of them begins.

use regex::Regex;

/// A path of keys.
#[derive(Default)]
pub(super) struct Path {
    joined: String,
    /// Where each key begins.
    starts: Vec<usize>,
}

impl Path {
    pub(super) fn enter(&mut self, key: &str) {
        if !self.starts.is_empty() {
            self.joined.push('.');
        }
        self.starts.push(self.joined.len());
        self.joined.push_str(key);
    }

    pub(super) fn enter_element(&mut self, number: usize) {
        self.enter(itoa(number, &mut [0; 20]));
    }

    pub(super) fn leave(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.joined.truncate(start.saturating_sub(usize::from(!self.starts.is_empty())));
        }
    }

    /// Whether these names of attributes lead here, counted from the outermost key or from any inside it.
    pub(super) fn is_under(&self, names: &Regex) -> bool {
        self.starts.iter().any(|&start| names.is_match(&self.joined[start..]))
    }
}

fn itoa(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).unwrap_or_default()
}
