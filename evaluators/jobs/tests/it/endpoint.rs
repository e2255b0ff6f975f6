//! A fake OpenAI-compatible endpoint: bills each call when it arrives, judges by what stands inside of the fence, and misbehaves as the judged
//! text asks (`mode:NAME`), or as a switch says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use emberd_model::cost::Prices;
use serde_json::{Value, json};

/// What every call of a model writes.
const COMPLETION_TOKENS: u64 = 20;

/// `judge` at $2.50 and $10 a million tokens, `runner` at $1 and $2.
pub(crate) fn prices() -> Arc<Prices> {
    let table = json!({"model": [
        {"name": "judge", "input": "2.5", "output": "10"},
        {"name": "runner", "input": "1", "output": "2"},
    ]});
    Arc::new(Prices::from_json(&table).unwrap())
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) calls: u64,
    /// Nano-dollars, by exact usage, of all calls that were answered with status 200.
    pub(crate) bill: i64,
    pub(crate) in_flight: u64,
    pub(crate) in_flight_max: u64,
    /// How often each body was asked.
    pub(crate) bodies: HashMap<Vec<u8>, u64>,
    /// Texts outside of fences, without the fence's word: one of each template.
    pub(crate) skeletons: std::collections::HashSet<String>,
    /// The keys that came.
    pub(crate) keys: std::collections::HashSet<String>,
}

pub(crate) struct Endpoint {
    pub(crate) book: Mutex<Book>,
    /// Every call takes as long.
    pub(crate) slow: Mutex<Duration>,
    /// Every call fails so, if not empty.
    pub(crate) mode: Mutex<String>,
    pub(crate) address: SocketAddr,
    _server: tokio::task::JoinSet<()>,
}

type Shared = Arc<std::sync::OnceLock<Arc<Endpoint>>>;

impl Endpoint {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cell: Shared = Arc::default();
        let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(Arc::clone(&cell));
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let endpoint = Arc::new(Self {
            book: Mutex::default(),
            slow: Mutex::default(),
            mode: Mutex::default(),
            address,
            _server: server,
        });
        let _ = cell.set(Arc::clone(&endpoint));
        endpoint
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.book.lock().unwrap().calls
    }

    pub(crate) fn bill(&self) -> i64 {
        self.book.lock().unwrap().bill
    }

    /// The most calls that were in flight at once.
    pub(crate) fn peak(&self) -> u64 {
        self.book.lock().unwrap().in_flight_max
    }

    pub(crate) fn forget_peak(&self) {
        self.book.lock().unwrap().in_flight_max = 0;
    }

    pub(crate) fn slow(&self, by: Duration) {
        *self.slow.lock().unwrap() = by;
    }

    pub(crate) fn mode(&self, mode: &str) {
        mode.clone_into(&mut self.mode.lock().unwrap());
    }
}

/// Counts a call as in flight until it is answered, or cut off.
struct InFlight(Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.book.lock().unwrap().in_flight -= 1;
    }
}

async fn answer(State(cell): State<Shared>, headers: HeaderMap, bytes: Bytes) -> Response {
    let endpoint = Arc::clone(cell.get().unwrap());
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let text: String = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    let fenced = Fenced::read(&text);
    let mode = {
        let switch = endpoint.mode.lock().unwrap().clone();
        if switch.is_empty() { fenced.mode(&text) } else { switch }
    };
    let usage = Usage::of(&text);
    let (nth, slow) = {
        let mut book = endpoint.book.lock().unwrap();
        book.calls += 1;
        book.in_flight += 1;
        book.in_flight_max = book.in_flight_max.max(book.in_flight);
        let key = headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
        book.keys.insert(key.unwrap_or_default());
        if let Some(skeleton) = &fenced.skeleton {
            book.skeletons.insert(skeleton.clone());
        }
        let nth = book.bodies.entry(bytes.to_vec()).or_default();
        *nth += 1;
        (*nth, *endpoint.slow.lock().unwrap())
    };
    let _in_flight = InFlight(Arc::clone(&endpoint));
    let is_repair = text.contains("Your last answer was not");
    let reply = reply(&mode, &body, &fenced, nth, is_repair);
    if reply.status == StatusCode::OK {
        // When it arrives: who hangs up has to pay all the same.
        endpoint.book.lock().unwrap().bill += usage.price(body["model"].as_str().unwrap());
    }
    let wait = if mode == "slow" { Duration::from_secs(30) } else { slow };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    reply.send(&body, &usage)
}

struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, &'static str)>,
    /// The message, its finish reason; or the whole body.
    body: Result<(Value, &'static str), String>,
}

fn reply(mode: &str, body: &Value, fenced: &Fenced, nth: u64, is_repair: bool) -> Reply {
    let ok =
        |message: Value, reason| Reply { status: StatusCode::OK, headers: Vec::new(), body: Ok((message, reason)) };
    let error = |status: u16, code: &str, headers: &[(&'static str, &'static str)]| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers.to_vec(),
        body: Err(json!({"error": {"code": code, "message": "what was sent, perhaps"}}).to_string()),
    };
    let verdict = || json!({"content": fenced.verdict(body)});
    match mode {
        "429" => error(429, "rate_limit_exceeded", &[("retry-after", "1")]),
        "429once" if nth == 1 => error(429, "rate_limit_exceeded", &[("retry-after", "1")]),
        "500" => error(500, "server_error", &[]),
        "500once" if nth == 1 => error(500, "server_error", &[]),
        "401" => error(401, "invalid_api_key", &[]),
        "402" => error(402, "", &[]),
        "404" => error(404, "model_not_found", &[]),
        "302" => error(302, "", &[("location", "http://127.0.0.1:1/")]),
        "filter400" => error(400, "content_filter", &[]),
        "cut" => Reply { status: StatusCode::OK, headers: Vec::new(), body: Err(r#"{"choices": [{"mess"#.to_owned()) },
        "wrong" => ok(json!({"content": r#"{"explanation": "", "label": "splendid"}"#}), "stop"),
        "wrongonce" if !is_repair => ok(json!({"content": "I think it is right."}), "stop"),
        "two" => {
            let one = fenced.verdict(body);
            ok(json!({"content": format!("{one}{one}")}), "stop")
        }
        "refusal" => ok(json!({"content": null, "refusal": "I cannot judge this."}), "stop"),
        "length" => ok(json!({"content": r#"{"explanation": "It is"#}), "length"),
        "filter" => ok(json!({"content": null}), "content_filter"),
        _ if body.get("response_format").is_some() => ok(verdict(), "stop"),
        _ => ok(
            json!({"content": format!("echo {}", body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap())}),
            "stop",
        ),
    }
}

impl Reply {
    fn send(self, body: &Value, usage: &Usage) -> Response {
        let text = match self.body {
            Err(text) => text,
            Ok((message, reason)) => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": usage.prompt, "completion_tokens": COMPLETION_TOKENS,
                    "total_tokens": usage.prompt + COMPLETION_TOKENS},
            })
            .to_string(),
        };
        let mut response = (self.status, text).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }
}

struct Usage {
    prompt: u64,
}

impl Usage {
    fn of(text: &str) -> Self {
        Self { prompt: text.len() as u64 / 4 + 10 }
    }

    fn price(&self, model: &str) -> i64 {
        let (input, output) = if model == "judge" { (2_500, 10_000) } else { (1_000, 2_000) };
        (self.prompt * input + COMPLETION_TOKENS * output) as i64
    }
}

/// A judge's prompt: what stands inside of the fence, and what outside.
struct Fenced {
    data: HashMap<String, String>,
    skeleton: Option<String>,
}

impl Fenced {
    fn read(text: &str) -> Self {
        let guard = "stands between <data-";
        let Some(at) = text.find(guard) else { return Self { data: HashMap::new(), skeleton: None } };
        let word = text[at + guard.len()..].split_whitespace().next().unwrap().to_owned();
        let (open, close) = (format!("<data-{word} name=\""), format!("\n</data-{word}>"));
        let (mut data, mut skeleton, mut rest) = (HashMap::new(), String::new(), text);
        while let Some((before, behind)) = rest.split_once(&open) {
            let (name, behind) = behind.split_once("\">\n").unwrap();
            let (inside, behind) = behind.split_once(&close).unwrap();
            data.insert(name.to_owned(), inside.to_owned());
            skeleton.push_str(before);
            rest = behind;
        }
        skeleton.push_str(rest);
        Self { data, skeleton: Some(skeleton.replace(&word, "WORD")) }
    }

    fn mode(&self, text: &str) -> String {
        let of = |text: &str| {
            text.split_once("mode:").map(|(_, mode)| mode.split_whitespace().next().unwrap_or("").to_owned())
        };
        let fenced = self.data.values().find_map(|text| of(text));
        fenced.or_else(|| if self.data.is_empty() { of(text) } else { None }).unwrap_or_default()
    }

    /// The first of the labels where the output says "right", the second otherwise.
    fn verdict(&self, body: &Value) -> String {
        let labels = &body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"];
        let is_right = self.data.get("output").is_some_and(|output| output.contains("right"));
        json!({"explanation": "as it stands", "label": labels[usize::from(!is_right)]}).to_string()
    }
}
