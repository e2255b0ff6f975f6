//! docs/configuration.md, made from config/emberd.toml and from what the code asks for.

use std::fmt::Write as _;

use super::super::changes::is_reloaded;
use super::*;

const HEAD: &str = "# Configuration

Every key, its default, its name in the environment, and whether a running emberd takes up a change of it. Made from
[`config/emberd.toml`](../config/emberd.toml), which says the same and can be copied: change it there, then
`EMBERD_RENEW=1 cargo test -p emberd-daemon the_reference`.

- The environment counts more than the file, `EMBERD_` names more than the application's. Every `[section] key` is `EMBERD_SECTION_KEY` or
  `EMBERD__SECTION__KEY`; lists are written with commas, tables as TOML.
- `emberd check-config` names all mistakes at once, each with file, line and key; `emberd serve` refuses to start on them (exit 78).
- Sizes: `\"64MiB\"` (B, KiB, MiB, GiB, TiB; kB, MB, GB, TB). Durations: `\"500ms\"`, `\"90s\"`, `\"1h30m\"`, `\"7d\"`. Paths that do not begin with `/`
  are relative to the file. An empty text means none.
- Secrets stand in files that others cannot read (`chmod 600`), or are credentials of the unit: `\"credential:NAME\"` is what
  `LoadCredential=NAME:FILE` gave it.

**Reload.** `kill -HUP` (`systemctl reload`) has emberd read file, environment and the files that they name anew. A configuration that is wrong
changes nothing: all its mistakes are logged, the old one goes on. One that is right takes effect where the last column says *reload*; what else
changed is logged as needing a restart. Every change is logged with what it was and is, secrets aside. The environment of a running process
does not change, so `EMBERD_LOG` (what is logged: error, warn, info, debug) needs a restart. `api_key_file` of `[phoenix]` and `[[forward]]` is
read anew by itself when the key in use is refused. Taking `keys_file` away, or all keys of `[identity]`, or naming the first of them, needs a
restart: doors do not open or close on the fly. `evaluations` switched off stops jobs and rules at once; switched on again they run after a
restart.
";

/// A key as it is documented.
struct Key {
    name: String,
    /// None: it stands there as an example.
    default: Option<String>,
    example: String,
    meaning: String,
}

/// What stands before a comment, and the comment.
fn split(line: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return (line[..at].trim(), line[at + 1..].trim()),
            _ => (),
        }
    }
    (line.trim(), "")
}

/// A line of the file that is a key or a section, commented out or not.
fn entry(line: &str) -> Option<(&str, bool)> {
    let is_entry = |line: &str| {
        line.starts_with('[')
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    match line.strip_prefix("# ") {
        Some(rest) if is_entry(rest) => Some((rest, true)),
        None if is_entry(line) => Some((line, false)),
        _ => None,
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn environment(section: &str, key: &str, apps: &std::collections::BTreeMap<(String, &'static str), String>) -> String {
    let own = match section {
        "[forward]" => "in `EMBERD_FORWARD`".to_owned(),
        _ if section.starts_with("plugins") => "–".to_owned(),
        _ => format!("`EMBERD_{}_{}`", section, key).to_uppercase().replace('-', "_"),
    };
    let app = apps.iter().find(|((of, known), _)| of == section && *known == key).map(|(_, app)| format!(", `{app}`"));
    own + &app.unwrap_or_default()
}

fn table(page: &mut String, section: &str, keys: &mut Vec<Key>, reader: &reader::Reader) {
    if keys.is_empty() {
        return;
    }
    page.push_str("\n| key | default | meaning | environment | change |\n|---|---|---|---|---|\n");
    for Key { name, default, example, meaning } in keys.drain(..) {
        let default = default.map_or_else(|| format!("none; such as `{example}`"), |default| format!("`{default}`"));
        let environment = environment(section, &name, &reader.apps);
        let change = if is_reloaded(section, &name) { "reload" } else { "restart" };
        let _ = writeln!(page, "| `{name}` | {} | {} | {environment} | {change} |", cell(&default), cell(&meaning));
    }
}

/// The reference.
fn made(reader: &reader::Reader) -> String {
    let mut page = HEAD.to_owned();
    let (mut section, mut keys, mut prose) = (String::new(), Vec::new(), String::new());
    let mut lines = DOCUMENTED.lines();
    while let Some(line) = lines.next() {
        let Some((line, is_example)) = entry(line) else {
            match line.strip_prefix("# ") {
                Some(text) => prose = format!("{prose} {text}").trim().to_owned(),
                None => prose.clear(),
            }
            continue;
        };
        let (said, mut meaning) = (split(line).0.to_owned(), split(line).1.to_owned());
        if let Some(header) = said.strip_prefix('[').and_then(|said| said.strip_suffix(']')) {
            table(&mut page, &section, &mut keys, reader);
            section = header.to_owned();
            let _ = writeln!(page, "\n## `{said}`");
            for text in [&meaning, &prose].into_iter().filter(|text| !text.is_empty()) {
                let _ = writeln!(page, "\n{text}");
            }
            prose.clear();
            continue;
        }
        if section.is_empty() {
            continue;
        }
        let (name, value) = said.split_once(" = ").unwrap();
        let mut value = value.to_owned();
        while value.starts_with('[') && !value.ends_with(']') {
            let (more, comment) = split(lines.next().expect("a list ends"));
            value += more;
            meaning += comment;
        }
        value = value.replace(",]", "]").replace(",\"", ", \"");
        if !prose.is_empty() {
            meaning = format!("{prose} {meaning}");
            prose.clear();
        }
        assert!(!meaning.is_empty(), "[{section}] {name} is not explained");
        let default = (!is_example).then(|| value.clone());
        keys.push(Key { name: name.to_owned(), default, example: value, meaning });
    }
    table(&mut page, &section, &mut keys, reader);
    page
}

/// The reference is what the documented file says. `EMBERD_RENEW=1` writes it anew.
#[test]
fn the_reference_is_the_documented_file() {
    let place = Folder::with(DOCUMENTED);
    let (config, reader) = read(Some(&place.path("emberd.toml")), [], None);
    config.unwrap();
    let made = made(&reader);
    for (section, key) in reader.keys().filter(|(_, key)| !key.is_empty()) {
        assert!(made.contains(&format!("| `{key}` |")), "[{section}] {key} is not in the reference");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("EMBERD_RENEW").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(made, kept, "docs/configuration.md is not what config/emberd.toml says: EMBERD_RENEW=1");
}

/// A key that is said to be taken up without a restart is a key.
#[test]
fn keys_that_reload_are_keys() {
    let place = Folder::with(DOCUMENTED);
    let (_, reader) = read(Some(&place.path("emberd.toml")), [], None);
    for (section, keys) in super::super::changes::RELOADED {
        assert!(reader.keys().any(|(known, _)| known == section), "[{section}]");
        for key in keys {
            assert!(reader.keys().any(|known| known == &(section.to_owned(), *key)), "[{section}] {key}");
        }
    }
}
