//! WebAssembly modules as text: a good one, and what may be wrong with one.

/// A module in pieces, all good unless changed.
pub(crate) struct Module {
    pub(crate) describe: String,
    pub(crate) answer: String,
    /// Pages of memory, as `(memory (export "memory") …)` takes them.
    pub(crate) memory: &'static str,
    pub(crate) alloc: &'static str,
    /// Instead of giving the answer.
    pub(crate) evaluate: Option<&'static str>,
    pub(crate) more: &'static str,
}

const DESCRIPTION: &str = r#"{"contract": 1, "plugin": "module", "evaluators": [{"name": "x", "version": "1", "kind": "code",
    "fields": [{"name": "output", "required": true, "paths": ["output"]}],
    "outputs": [{"name": "x", "direction": "maximize", "min": 0, "max": 1, "labels": ["good", "bad"]}]}]}"#;
/// Answers whichever of three examples it was asked.
const ANSWER: &str = r#"{"results": [{"id": 1, "scores": [{"score": 0.5}]}, {"id": 2, "scores": [{"score": 0.5}]},
    {"id": 3, "scores": [{"score": 0.5}]}]}"#;

impl Default for Module {
    fn default() -> Self {
        Self {
            describe: DESCRIPTION.into(),
            answer: ANSWER.into(),
            memory: "2",
            alloc: "(i32.const 32768)",
            evaluate: None,
            more: "",
        }
    }
}

impl Module {
    pub(crate) fn wasm(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("a sound module")
    }

    fn text(&self) -> String {
        let packed = |place: u64, text: &str| (place << 32) | text.len() as u64;
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        let (describe, answer) = (quoted(&self.describe), quoted(&self.answer));
        let give = format!("(i64.const {})", packed(16384, &self.answer));
        format!(
            r#"(module {more}
                (memory (export "memory") {memory})
                (data (i32.const 1024) "{describe}")
                (data (i32.const 16384) "{answer}")
                (func (export "alloc") (param i32) (result i32) {alloc})
                (func (export "describe") (result i64) (i64.const {described}))
                (func $evaluate (export "evaluate") (param i32 i32) (result i64) {evaluate}))"#,
            more = self.more,
            memory = self.memory,
            alloc = self.alloc,
            described = packed(1024, &self.describe),
            evaluate = self.evaluate.unwrap_or(&give),
        )
    }
}
