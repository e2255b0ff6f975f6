//! Did it fail for want of time? No convention has a status code for that, so words decide.

/// The longest text that is searched; what matters stands at its beginning.
const SEARCHED_BYTES_MAX: usize = 1024;

/// Whether an exception's or error's type says so: `openai.APITimeoutError`, `DEADLINE_EXCEEDED`, `504`.
pub(super) fn type_says_timeout(error_type: &str) -> bool {
    let lower = lower(error_type);
    let lower = lower.trim();
    matches!(lower, "408" | "504")
        || [
            "timeout",
            "timedout",
            "timed_out",
            "timed out",
            "deadline_exceeded",
            "deadlineexceeded",
            "deadline exceeded",
        ]
        .iter()
        .any(|word| lower.contains(word))
}

/// Whether an error's message says so. Stricter than for a type: "invalid timeout: -1" is no timeout.
pub(super) fn message_says_timeout(message: &str) -> bool {
    let lower = lower(message);
    let phrases = [
        "timed out",
        "deadline exceeded",
        "deadline_exceeded",
        "timeouterror",
        "timeoutexception",
        "request timeout",
        "gateway timeout",
        "gateway time-out",
        "read timeout",
        "connect timeout",
        "connection timeout",
    ];
    lower.trim_start().starts_with("timeout")
        || phrases.iter().any(|phrase| lower.contains(phrase))
        || ["code", "status", "http", "error"].iter().any(|word| names_code(&lower, word))
}

/// Whether 408 or 504 follows `word`, with nothing but blanks and punctuation between: `Error code: 504 - ...`.
fn names_code(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let rest = text[at + word.len()..].trim_start_matches([' ', ':', '=', '(', '"', '\'']);
        ["408", "504"].iter().any(|code| {
            rest.strip_prefix(code).is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    })
}

fn lower(text: &str) -> String {
    text[..text.floor_char_boundary(SEARCHED_BYTES_MAX)].to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_say_timeout() {
        let types = [
            "openai.APITimeoutError",
            "TimeoutError",
            "<class 'httpx.ReadTimeout'>",
            "DEADLINE_EXCEEDED",
            "504",
            "408",
        ];
        for yes in types.into_iter().chain(["java.net.SocketTimeoutException", "grpc: DeadlineExceeded", "timeout"]) {
            assert!(type_says_timeout(yes), "{yes}");
        }
        for no in ["RateLimitError", "500", "5040", "", "openai.InternalServerError"] {
            assert!(!type_says_timeout(no), "{no}");
        }
    }

    #[test]
    fn messages_that_say_timeout() {
        for yes in [
            "APITimeoutError: Request timed out.",
            "Error code: 504 - upstream",
            "HTTP 408",
            "Timeout",
            "504 Gateway Timeout",
            "context deadline exceeded",
            "status=504",
        ] {
            assert!(message_says_timeout(yes), "{yes}");
        }
        for no in [
            "Error code: 429 - Rate limit reached",
            "invalid timeout value -1",
            "Error code: 5041",
            "answer 504 is wrong",
            "",
            "code",
            "\u{130}code: 50",
        ] {
            assert!(!message_says_timeout(no), "{no}");
        }
    }
}
