//! How far long work is, where someone looks: on a terminal, and never beside JSON.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar drawn by this template, with `{msg}` in it; hidden if nobody looks, or if `json` is asked for. Its length is to be set where the
/// template shows one.
pub(super) fn bar(template: &str, message: &'static str, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_message(message);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
