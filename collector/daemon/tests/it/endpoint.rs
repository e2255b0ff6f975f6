//! An OpenAI-compatible endpoint that judges, and counts and bills every call when it arrives: who hangs up has to pay all the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A judged text with this word in it gets the second label of those there are, any other the first.
pub const BAD: &str = "mumble";

/// What an answer writes.
const COMPLETION_TOKENS: i64 = 20;
/// Nano-dollars a token of gpt-4o-mini, in and out: $0.15 and $0.60 a million.
const PRICES: (i64, i64) = (150, 600);

/// A running endpoint; it lives as long as the test's process.
pub struct Endpoint {
    pub url: String,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    calls: AtomicU64,
    nano_dollars: AtomicI64,
    /// What was asked.
    heard: Mutex<String>,
}

impl Endpoint {
    /// Every answer takes so long.
    pub fn new(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let book = Arc::<Book>::default();
        let kept = book.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let book = kept.clone();
                std::thread::spawn(move || serve(stream.unwrap(), pause, &book));
            }
        });
        Self { url, book }
    }

    pub fn calls(&self) -> u64 {
        self.book.calls.load(SeqCst)
    }

    /// The bodies of all calls, one behind the other.
    pub fn heard(&self) -> String {
        self.book.heard.lock().unwrap().clone()
    }

    /// What all calls cost, in nano-dollars, by the price of gpt-4o-mini.
    pub fn bill(&self) -> i64 {
        self.book.nano_dollars.load(SeqCst)
    }
}

fn serve(stream: TcpStream, pause: Duration, book: &Book) {
    let mut stream = BufReader::new(stream);
    while let Some(text) = request(&mut stream) {
        let prompt_tokens = text.len() as i64 / 4 + 10;
        book.calls.fetch_add(1, SeqCst);
        book.heard.lock().unwrap().push_str(&text);
        book.nano_dollars.fetch_add(prompt_tokens * PRICES.0 + COMPLETION_TOKENS * PRICES.1, SeqCst);
        std::thread::sleep(pause);
        if stream.get_mut().write_all(answer(&text, prompt_tokens).as_bytes()).is_err() {
            break;
        }
    }
}

/// The next request's body; none when there is no more.
fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn answer(text: &str, prompt_tokens: i64) -> String {
    let body: Value = serde_json::from_str(text).unwrap();
    let labels = &body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"];
    let label = &labels[usize::from(body["messages"].to_string().contains(BAD))];
    let verdict = json!({ "explanation": "as it stands", "label": label });
    let answer = json!({
        "model": body["model"],
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": verdict.to_string() } }],
        "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": COMPLETION_TOKENS, "total_tokens": prompt_tokens + COMPLETION_TOKENS },
    })
    .to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())
}
