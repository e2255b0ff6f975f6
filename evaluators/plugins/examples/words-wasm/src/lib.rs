//! An evaluator for emberd as a WebAssembly module.
//!
//! `cargo build --release --target wasm32-unknown-unknown`, then `[plugins.words] wasm = ".../words.wasm"`, and use it as `words/brevity`.

mod glue;

use serde_json::{Value, json};

fn describe() -> Value {
    json!({"contract": 1, "plugin": "words", "evaluators": [{
        "name": "brevity", "version": "1", "kind": "code", "summary": "1 for an answer of few words, less for a longer one.",
        "fields": [{"name": "output", "required": true, "paths": ["output", "root.output"]}],
        "outputs": [{"name": "brevity", "direction": "maximize", "min": 0, "max": 1}],
        "config": [{"name": "words", "summary": "As many are still brief.", "default": 50}],
    }]})
}

/// One example: `fields` as described, `config` as the job has it.
fn judge(fields: &Value, config: &Value) -> Value {
    let Some(output) = fields["output"].as_str() else {
        return json!({"error": {"class": "invalid_field", "message": "output is not a text"}});
    };
    let words = output.split_whitespace().count() as f64;
    let score = (config["words"].as_f64().unwrap_or(50.0) / words.max(1.0)).min(1.0);
    json!({"scores": [{"score": score, "explanation": format!("{words} words")}]})
}
