//! STUB of the border; its owner fills it in.

/// How spans are read; from config.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Attributes that name a prompt, in this order. `metadata.X` reads key X of the JSON text in `metadata`.
    pub prompt_keys: Vec<String>,
    /// Keep input and output texts (first 4 KiB) in a row's metadata.
    pub texts: bool,
}
