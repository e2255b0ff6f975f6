//! The catalogue of bad input (`tests/bad_input.toml`), driven over every transport that a row can be sent on, and damaged further.
//!
//! Guards: each row is answered as it says, whatever the protocol, the encoding and the compression; exactly what was answered
//! with success is kept; the books balance; whatever the damage, there is an answer, of those that OTLP asks for.

mod input;
mod json;
mod mutate;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_intake::Keys;
use http::{Method, Request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use self::mutate::{Dice, damaged};
use self::row::{Catalogue, Coding, Expected, Form, House as Which, Row};
use crate::client::{Answer, Client, EXPORT, Outgoing, Version, chunked, framed, whole};
use crate::export::partial;
use crate::house::{House, config};
use crate::shelf::Shelf;

const CATALOGUE: &str = include_str!("../../bad_input.toml");
const DECISION: &str = include_str!("../../../../../docs/decisions/0005-intake-answers.md");
const SMALL_BYTES_MAX: usize = 64 << 10;
const PROTOBUF: &str = "application/x-protobuf";
/// What is larger is not damaged further: it would be the same again, slowly.
const DAMAGED_BYTES_MAX: usize = 16 << 10;
const DAMAGES: usize = 6;
/// Nobody waits longer for an answer. No answer takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(10);
const HTTP1_IDLE_MAX: Duration = Duration::from_secs(2);

fn catalogue() -> Catalogue {
    toml::from_str(CATALOGUE).unwrap_or_else(|error| panic!("bad_input.toml: {error}"))
}

/// One way to send a row.
#[derive(Clone, Copy, Debug)]
struct Way {
    form: Form,
    version: Version,
    coding: Coding,
}

impl Row {
    fn ways(&self) -> Vec<Way> {
        const PLAIN: &[Coding] = &[Coding::Plain];
        const ALL: &[Coding] = &[Coding::Plain, Coding::Gzip, Coding::Zstd, Coding::Deflate];
        let as_it_is = self.compress.is_some()
            || self.encoding.is_some()
            || self.flag.is_some()
            || self.frames.is_some()
            || self.unframed;
        let codings = if as_it_is || self.house == Which::Default { PLAIN } else { ALL };
        let mut ways = Vec::new();
        for form in self.forms() {
            let versions: &[Version] = if form == Form::Grpc { &[Version::Two] } else { &[Version::One, Version::Two] };
            for &version in versions {
                ways.extend(codings.iter().map(|&coding| Way { form, version, coding }));
            }
        }
        ways
    }

    /// What goes over the wire for this body.
    fn compressed(&self, body: &[u8], way: Way) -> Vec<u8> {
        match &self.compress {
            None => way.coding.of(body),
            Some(codings) => codings.iter().fold(body.to_vec(), |body, coding| coding.of(&body)),
        }
    }

    /// How what goes over the wire is compressed last.
    fn coding(&self, way: Way) -> Coding {
        self.compress.as_ref().and_then(|codings| codings.last().copied()).unwrap_or(way.coding)
    }

    /// The whole body: for gRPC a message in its frame, or several.
    fn framed(&self, wire: Vec<u8>, way: Way) -> Vec<u8> {
        if way.form != Form::Grpc || self.unframed {
            return wire;
        }
        let flag = self.flag.unwrap_or(u8::from(self.coding(way) != Coding::Plain));
        framed(flag, &wire).repeat(self.frames.unwrap_or(1))
    }

    fn request(&self, body: Vec<u8>, way: Way) -> Request<Outgoing> {
        let encoding = self.encoding.as_deref().or(self.coding(way).name());
        let (path, media, header) = match way.form {
            Form::Grpc => (EXPORT, "application/grpc", "grpc-encoding"),
            Form::Protobuf => ("/v1/traces", PROTOBUF, "content-encoding"),
            Form::Json => ("/v1/traces", "application/json", "content-encoding"),
        };
        let method: Method = self.method.as_deref().unwrap_or("POST").parse().unwrap();
        let mut request = Request::builder().method(method).uri(self.path.as_deref().unwrap_or(path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match self.media.as_deref().unwrap_or(media) {
            "" => {}
            media => request = request.header("content-type", media),
        }
        if let Some(encoding) = encoding {
            request = request.header(header, encoding);
        }
        request.body(if self.undeclared { chunked(body) } else { whole(body) }).unwrap()
    }
}

/// Says what is wrong unless it is so.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// Whether the answer says what it should: code, form, delay, details, partial success.
fn check(row: &Row, expected: &Expected, way: Way, answer: &Answer) -> Result<(), String> {
    let is_grpc = way.form == Form::Grpc;
    let status = if is_grpc { expected.grpc_http } else { expected.http };
    ensure!(answer.status == status, "status {status} is expected, and not {answer:?}");
    let hears = if is_grpc { &row.hears.grpc } else { &row.hears.http };
    for (name, value) in hears {
        ensure!(answer.header(name) == Some(value), "{name}: {value} is expected, and not {answer:?}");
    }
    if is_grpc && status != 200 {
        ensure!(!answer.headers.contains_key("grpc-status"), "plain HTTP is expected, and not {answer:?}");
        return Ok(());
    }
    let form = match (way.form, row.media.as_deref().map(str::to_ascii_lowercase)) {
        (Form::Grpc, _) => "application/grpc",
        (_, Some(media)) if media.starts_with(PROTOBUF) => PROTOBUF,
        (Form::Protobuf, None) => PROTOBUF,
        _ => "application/json",
    };
    ensure!(answer.header("content-type") == Some(form), "{form} is expected, and not {answer:?}");
    if is_grpc {
        ensure!(answer.code() == expected.grpc, "code {} is expected, and not {answer:?}", expected.grpc);
    }
    ensure!(answer.is_retryable() == expected.again, "is it to be sent again? {answer:?}");
    if expected.grpc == 0 && (is_grpc || status == 200) {
        return check_partial(row, success(answer, form)?);
    }
    if row.method.as_deref() == Some("HEAD") {
        return Ok(());
    }
    let body = if is_grpc { answer.details() } else { answer.status_body() };
    ensure!(body.code == expected.grpc, "code {} is expected in {body:?}", expected.grpc);
    ensure!(body.message.contains(&row.says), "{:?} is expected in {body:?}", row.says);
    ensure!(body.has("RetryInfo") == expected.again, "RetryInfo goes with being sent again: {body:?}");
    ensure!(body.has("BadRequest") == (expected.grpc == 3), "BadRequest goes with INVALID_ARGUMENT: {body:?}");
    ensure!(is_grpc || answer.headers.contains_key("retry-after") == expected.again, "retry-after: {answer:?}");
    Ok(())
}

/// The partial success in an answer of success.
fn success(answer: &Answer, form: &str) -> Result<Option<(i64, String)>, String> {
    Ok(match form {
        "application/grpc" => partial(answer.message()),
        PROTOBUF => partial(&answer.body),
        _ => {
            let value: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            value.get("partialSuccess").map(|partial| {
                let count = partial["rejectedSpans"].as_str().unwrap_or_default().parse().unwrap_or(-1);
                (count, partial["errorMessage"].as_str().unwrap_or_default().to_owned())
            })
        }
    })
}

fn check_partial(row: &Row, partial: Option<(i64, String)>) -> Result<(), String> {
    match partial {
        None => ensure!(row.rejected == 0, "{} spans should have been rejected", row.rejected),
        Some((rejected, message)) => {
            ensure!(rejected > 0 && rejected == row.rejected as i64, "{rejected} were rejected: {message}");
            ensure!(message.contains(&row.says), "{:?} is expected in {message}", row.says);
        }
    }
    Ok(())
}

/// A house and the connections to it.
struct Place {
    house: House,
    shelf: Arc<Shelf>,
    grpc: Client,
    http: [Client; 2],
    /// When something went over the HTTP/1 connection, which the doors close when it idles.
    http1_used: Instant,
}

impl Place {
    async fn open(which: Which) -> Self {
        let mut config = config();
        match which {
            Which::Small => config.max_request_bytes = SMALL_BYTES_MAX,
            Which::Default => {}
            Which::Keys => config.keys = Some(Keys::parse("[[key]]\nname = \"first\"\nkey = \"one\"").unwrap()),
        }
        let shelf = Shelf::open();
        let house = House::with(config, shelf.clone());
        let grpc = Client::connect(house.at.grpc, Version::Two).await;
        let http =
            [Client::connect(house.at.http, Version::One).await, Client::connect(house.at.http, Version::Two).await];
        Self { house, shelf, grpc, http, http1_used: Instant::now() }
    }

    /// Sends, and tells what was answered. An HTTP/1 connection that idled, or whose request may not have been read to its end, is
    /// followed by a new one.
    async fn send(&mut self, way: Way, request: Request<Outgoing>) -> Result<Answer, String> {
        let is_http1 = way.version == Version::One;
        if is_http1 && self.http1_used.elapsed() > HTTP1_IDLE_MAX {
            self.http[0] = Client::connect(self.house.at.http, Version::One).await;
        }
        let client = match (way.form, way.version) {
            (Form::Grpc, _) => &mut self.grpc,
            (_, Version::One) => &mut self.http[0],
            (_, Version::Two) => &mut self.http[1],
        };
        let sent = tokio::time::timeout(PATIENCE, client.send(request)).await;
        let answer = sent.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("no answer: {error:?}"));
        if is_http1 {
            self.http1_used = Instant::now();
            if answer.as_ref().map_or(true, |answer| !matches!(answer.status.as_u16(), 200 | 400)) {
                self.http[0] = Client::connect(self.house.at.http, Version::One).await;
            }
        }
        answer
    }

    /// The books balance, and what was kept is what they say.
    fn check_books(&self, kept_before: u64, kept: u64) -> Result<(), String> {
        let counted = self.house.counters.snapshot();
        let out = counted.accepted_spans() + counted.rejected_spans() + counted.refused_spans();
        ensure!(counted.received_spans() == out, "the books do not balance: {counted:?}");
        let accepted = counted.accepted_spans();
        ensure!(accepted - kept_before == kept, "{kept} spans were kept, and {} counted", accepted - kept_before);
        ensure!(counted.in_flight_bytes == 0, "{} bytes are still in flight", counted.in_flight_bytes);
        Ok(())
    }

    async fn close(self) {
        let Self { house, grpc, http, .. } = self;
        drop((grpc, http));
        house.stop().await.unwrap();
    }
}

/// What was tried, and what went wrong.
#[derive(Default)]
struct Outcome {
    cases: usize,
    wrong: Vec<String>,
}

impl Outcome {
    fn count(&mut self, row: &Row, way: Way, what: &str, checked: Result<(), String>) {
        self.cases += 1;
        if let Err(problem) = checked {
            self.wrong.push(format!("row {}, {}, {way:?}{what}: {problem}", row.n, row.what));
        }
    }
}

async fn as_it_is(place: &mut Place, row: &Row, expected: &Expected, way: Way) -> Result<(), String> {
    let body = row.input.body(way.form);
    let before = place.house.counters.snapshot().accepted_spans();
    let sent = row.framed(row.compressed(&body, way), way);
    let answer = place.send(way, row.request(sent, way)).await?;
    check(row, expected, way, &answer)?;
    let entries = place.shelf.take();
    let kept: u64 = entries.iter().map(|entry| u64::from(entry.spans.get())).sum();
    ensure!(kept == row.kept, "{kept} spans were kept instead of {}", row.kept);
    place.check_books(before, kept)?;
    let Some(entry) = entries.first().filter(|_| row.rejected == 0) else { return Ok(()) };
    match row.input.message() {
        _ if way.form != Form::Json => ensure!(entry.body == body, "the log got other bytes than came"),
        None => {}
        Some(message) => {
            let kept = ExportTraceServiceRequest::decode(&*entry.body).map_err(|error| error.to_string())?;
            // Encoded, for a NaN is not equal to itself.
            ensure!(kept.encode_to_vec() == message.encode_to_vec(), "JSON came to mean {kept:?}");
        }
    }
    Ok(())
}

/// The same with damage: in the body before it is compressed, in what is compressed, or in gRPC's frame.
async fn with_damage(
    place: &mut Place,
    row: &Row,
    expected: &Expected,
    way: Way,
    dice: &mut Dice,
) -> Result<(), String> {
    let (mut body, layer) = (row.input.body(way.form), dice.below(3));
    if layer == 0 {
        body = damaged(&body, dice);
    }
    let mut wire = row.compressed(&body, way);
    if layer == 1 {
        wire = damaged(&wire, dice);
    }
    let mut sent = row.framed(wire, way);
    if layer == 2 {
        sent = damaged(&sent, dice);
    }
    let request = row.request(sent, way);
    let before = place.house.counters.snapshot().accepted_spans();
    let answer = place.send(way, request).await?;
    let is_grpc = way.form == Form::Grpc;
    let heard = if is_grpc && answer.status == 200 { answer.code() } else { i32::from(answer.status.as_u16()) };
    let own = match is_grpc && expected.grpc_http == 200 {
        true => expected.grpc,
        false => i32::from(if is_grpc { expected.grpc_http } else { expected.http }),
    };
    let allowed: &[i32] = if is_grpc { &[0, 3, 8] } else { &[200, 400, 413] };
    // A frame that is now marked as compressed, and nobody said how.
    let unnamed = is_grpc && layer == 2 && heard == 13;
    ensure!(heard == own || allowed.contains(&heard) || unnamed, "{answer:?}");
    ensure!(!answer.is_retryable() || expected.again, "damage does not heal: {answer:?}");
    let entries = place.shelf.take();
    let mut kept = 0;
    for entry in &entries {
        let request = ExportTraceServiceRequest::decode(&*entry.body);
        let request = request.map_err(|error| format!("what nobody can decode was kept: {error}"))?;
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        ensure!(spans == entry.spans.get() as usize, "{spans} spans were kept as {}", entry.spans);
        kept += spans as u64;
    }
    ensure!(kept == 0 || heard == if is_grpc { 0 } else { 200 }, "kept, and yet refused: {answer:?}");
    place.check_books(before, kept)
}

/// Every row over every transport is answered as it says, and so is what seeded damage makes of it.
#[tokio::test]
async fn every_row_is_answered_as_it_says() {
    let Catalogue { answers, rows } = catalogue();
    let mut places = BTreeMap::new();
    for which in [Which::Small, Which::Default, Which::Keys] {
        places.insert(which, Place::open(which).await);
    }
    let mut outcome = Outcome::default();
    let mut dice = Dice::new(0x00c0_ffee);
    for row in rows.iter().filter(|row| row.test.is_none()) {
        let expected = &answers[&row.answer];
        let place = places.get_mut(&row.house).unwrap();
        for way in row.ways() {
            let checked = as_it_is(place, row, expected, way).await;
            outcome.count(row, way, "", checked);
            place.shelf.take();
            if row.input.body(way.form).len() > DAMAGED_BYTES_MAX {
                continue;
            }
            for number in 0..DAMAGES {
                let checked = with_damage(place, row, expected, way, &mut dice).await;
                outcome.count(row, way, &format!(", damage {number}"), checked);
                place.shelf.take();
            }
        }
    }
    for place in places.into_values() {
        place.close().await;
    }
    let Outcome { cases, wrong } = outcome;
    let answered = cases - wrong.len();
    let _ = writeln!(
        std::io::stderr(),
        "figure F8 {{\"rows\":{},\"cases\":{cases},\"answered_as_specified\":{answered}}}",
        rows.len()
    );
    assert!(wrong.is_empty(), "{} of {cases} went wrong:\n{}", wrong.len(), wrong[..wrong.len().min(60)].join("\n"));
    assert!(cases >= 5_000 && rows.len() >= 150, "only {cases} cases of {} rows", rows.len());
}

/// Each number of the catalogue has a row; rows that name a test name one that exists; deviations are explained.
#[test]
fn the_catalogue_is_complete() {
    let rows = catalogue().rows;
    let numbers: BTreeSet<u32> = rows.iter().map(|row| row.n).collect();
    assert_eq!(numbers, (1..=66).collect());
    let mut named = BTreeSet::new();
    for row in &rows {
        assert!(named.insert((row.n, &row.what)), "row {} {:?} is there twice", row.n, row.what);
        if let Some(test) = &row.test {
            let (file, function) = test.split_once("::").unwrap();
            let path = format!("{}/tests/it/{file}.rs", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(text.contains(&format!("fn {function}(")), "row {}: {test} is not there", row.n);
        }
        if row.deviates.is_some() {
            assert!(
                DECISION.contains(&format!("| {} |", row.n)),
                "row {} deviates without a word in the decision",
                row.n
            );
        }
    }
}
