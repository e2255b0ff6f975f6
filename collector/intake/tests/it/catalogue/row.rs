//! A row of the catalogue, as `bad_input.toml` writes it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::input::Input;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalogue {
    /// What a row's `answer` names.
    pub(super) answers: BTreeMap<String, Expected>,
    #[serde(rename = "row")]
    pub(super) rows: Vec<Row>,
}

/// What a client hears.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// gRPC's code.
    pub(super) grpc: i32,
    /// The HTTP status at the gRPC door: another than 200 for what is not gRPC.
    #[serde(default = "ok")]
    pub(super) grpc_http: u16,
    /// The status at the HTTP door.
    pub(super) http: u16,
    /// Whether the client is told to come again, and when.
    #[serde(default)]
    pub(super) again: bool,
}

fn ok() -> u16 {
    200
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Its number in the catalogue of bad input.
    pub(super) n: u32,
    pub(super) what: String,
    /// A test that does what no row can: a dialogue in raw bytes, a client that leaves.
    pub(super) test: Option<String>,
    /// Where what is done differs from the catalogue, and the decision says why.
    pub(super) deviates: Option<String>,
    /// Over what it is sent; all three if it is made of spans, gRPC and protobuf if it is bytes, JSON if it is text.
    pub(super) on: Option<Vec<Form>>,
    #[serde(default)]
    pub(super) house: House,
    #[serde(default)]
    pub(super) input: Input,
    /// What the body is compressed with, in this order; without it every coding of the door is tried.
    pub(super) compress: Option<Vec<Coding>>,
    /// What is said that it is compressed with.
    pub(super) encoding: Option<String>,
    /// gRPC's compressed flag.
    pub(super) flag: Option<u8>,
    /// So many of gRPC's frames, all alike.
    pub(super) frames: Option<usize>,
    /// The input is gRPC's whole body, not a message in a frame.
    #[serde(default)]
    pub(super) unframed: bool,
    /// The body is sent without a length.
    #[serde(default)]
    pub(super) undeclared: bool,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    /// The content-type; "" for none.
    pub(super) media: Option<String>,
    #[serde(default)]
    pub(super) headers: Vec<(String, String)>,
    #[serde(default = "taken")]
    pub(super) answer: String,
    /// What the message of the refusal, or of the partial success, says.
    #[serde(default)]
    pub(super) says: String,
    /// Headers of the answer, by door.
    #[serde(default)]
    pub(super) hears: Hears,
    #[serde(default)]
    pub(super) kept: u64,
    #[serde(default)]
    pub(super) rejected: u64,
}

fn taken() -> String {
    "taken".to_owned()
}

/// The doors to which a row is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(super) enum House {
    /// 64 KiB a request, as the rows about sizes assume.
    #[default]
    Small,
    /// The defaults.
    Default,
    /// One ingest key, "one".
    Keys,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Form {
    Grpc,
    Protobuf,
    Json,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hears {
    #[serde(default)]
    pub(super) grpc: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) http: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Coding {
    Plain,
    Gzip,
    Zstd,
    Deflate,
}

impl Coding {
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Deflate => Some("deflate"),
        }
    }

    pub(super) fn of(self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => body.to_vec(),
            Self::Gzip => crate::export::gzip(body),
            Self::Zstd => crate::export::zstd(body),
            Self::Deflate => crate::export::zlib(body),
        }
    }
}

impl Row {
    pub(super) fn forms(&self) -> Vec<Form> {
        if let Some(on) = &self.on {
            return on.clone();
        }
        match self.input.is_spans() {
            true => vec![Form::Grpc, Form::Protobuf, Form::Json],
            false if self.input.is_text() => vec![Form::Json],
            false => vec![Form::Grpc, Form::Protobuf],
        }
    }
}
