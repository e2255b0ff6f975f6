mod reference;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::sections::{Network, Origin};
use super::units::ByteSize;
use super::*;

/// A directory with an `emberd.toml` of this text, and files that only their owner can read.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(place.path("emberd.toml"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(self, name: &str, mode: u32, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, Errors> {
        Config::load_with(Some(&self.path("emberd.toml")), env(variables), Some("data".into()))
    }

    /// The faults as they are shown, with the directory's name taken out.
    fn faults(&self, variables: &[(&str, &str)]) -> String {
        let shown = self.load(variables).map(|_| ()).expect_err("must be refused").to_string();
        shown.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn without_file(variables: &[(&str, &str)]) -> Result<Config, Errors> {
    Config::load_with(None, env(variables), Some("data".into()))
}

fn shown(config: &Config) -> String {
    assert_eq!(config.warnings(), []);
    format!("{config:#?}")
}

const DOCUMENTED: &str = include_str!("../../../../config/emberd.toml");

/// The file that documents every key holds the defaults, so that copying it changes nothing.
#[test]
fn the_documented_file_is_the_defaults() {
    let place = Folder::with(DOCUMENTED);
    assert_eq!(shown(&place.load(&[]).unwrap()), shown(&without_file(&[]).unwrap()));
}

/// A key that code asks for stands in the documented file, at its place; the commented ones count, and load when uncommented.
#[test]
fn every_key_is_documented() {
    let uncommented: String = DOCUMENTED
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") && !key.contains("EMBERD_") || key.starts_with('[') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // Its three ways to name a plugin exclude each other, and files of secrets must be there.
    let uncommented = uncommented
        .replace("secrets/b", "emberd.key")
        .replace("secrets/openai", "emberd.key")
        .replace("secrets/s3", "emberd.key");
    let place = Folder::with(uncommented.replace("address = ", "# address = ").replace("wasm = ", "# wasm = "));
    let place = place.file("emberd.key", 0o600, "s3cr3t");
    let (config, reader) = read(Some(&place.path("emberd.toml")), [], None);
    config.unwrap();
    let mut section = String::new();
    let mut documented = std::collections::BTreeSet::new();
    for line in uncommented.lines() {
        let line = line.split('#').next().unwrap().trim();
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = header.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            documented.insert(format!("[{section}] {key}"));
        }
    }
    for (section, key) in reader.keys().filter(|(_, key)| !key.is_empty()) {
        assert!(documented.remove(&format!("[{section}] {key}")), "[{section}] {key} is not in config/emberd.toml");
    }
    assert!(documented.is_empty(), "documented and never read: {documented:?}");
}

/// The block of the specification loads as it stands, with a word about what is not used yet.
#[test]
fn the_specified_file_loads() {
    let place = Folder::with(
        r#"
[intake]
grpc = "127.0.0.1:4317"
http = "127.0.0.1:4318"
max_request = "64MiB"
keys_file = ""
[log]
backend = "disk"
durability = "sync"
budget = "20GiB"
keep = "24h"
[store]
url = "sqlite"
max_connections = 100
[phoenix]
url = "http://127.0.0.1:6006"
otlp = "http://127.0.0.1:14317"
api_key_file = ""
verify = true
[[forward]]
[archive]
url = "file"
[api]
listen = "127.0.0.1:8317"
[llm]
base_url = ""
api_key_file = ""
[plugins.phoenix-evals]
command = ["python3", "-m", "emberd_phoenix_evals"]
[identity]
jwt_secret_file = ""
[flags]
evaluations = { enabled = true, rollout = 100 }
"#,
    );
    let mut config = place.load(&[]).unwrap();
    let warnings: Vec<_> = config.warnings.drain(..).map(|fault| format!("{} {}", fault.key, fault.message)).collect();
    assert_eq!(warnings, ["[[forward]] has no url: nothing is forwarded"]);
    assert_eq!(config.plugins.len(), 1);
    config.plugins.clear();
    assert_eq!(shown(&config), shown(&without_file(&[]).unwrap()));
}

/// Each fault is said with its file, line and key, and all of them in one go.
#[test]
fn every_fault_has_its_place() {
    let place = Folder::with(
        r#"budgett = 1
[intake]
grpc = "127.0.0.1"
max_request = "0 B"
maxrequest = 3
[log]
budgett = "20GiB"
keep = 24
durability = "maybe"
segment = "-1MiB"
[store]
url = "mysql://root:hunter2@db/x"
max_connections = "many"
[phoenix]
url = "phoenix:6006"
otlp = "http://127.0.0.1:4317/v1/metrics"
verify = "true"
[[forward]]
name = "a b"
[[forward]]
url = "grpc://h:1"
[stor]
url = "sqlite"
[api]
listen = { port = 1 }
"#,
    );
    let expected = r#"emberd.toml:1: unknown key `budgett`
emberd.toml:3: [intake] grpc: expected an address and port such as "127.0.0.1:4317" or "[::1]:4317", found "127.0.0.1"
emberd.toml:4: [intake] max_request: must be more than zero
emberd.toml:5: [intake]: unknown key `maxrequest`, did you mean `max_request`?
emberd.toml:7: [log]: unknown key `budgett`, did you mean `budget`?
emberd.toml:8: [log] keep: a duration needs a unit: expected a duration such as "24h", "90s" or "1h30m"
emberd.toml:9: [log] durability: expected "sync" or "os", found "maybe"
emberd.toml:10: [log] segment: negative bytes: -1
emberd.toml:12: [store] url: expected "sqlite", "sqlite:FILE" or "postgres://..", found mysql:
emberd.toml:13: [store] max_connections: expected a whole number, found text
emberd.toml:15: [phoenix] url: expected a URL that begins with http:// or https://, found phoenix:
emberd.toml:16: [phoenix] otlp: the path "/v1/metrics" is not one of OTLP's: expected "grpc://host:4317", or "https://host:4318/v1/traces" for OTLP/HTTP
emberd.toml:17: [phoenix] verify: expected true or false without quotes, found text
emberd.toml:18: [[forward]] url: is missing
emberd.toml:19: [[forward]] name: expected 1 to 32 of a-z, 0-9 and -
emberd.toml:20: [[forward]] name: is missing
emberd.toml:22: unknown section `stor`, did you mean [store]?
emberd.toml:25: [api] listen: expected an address and port such as "127.0.0.1:4317" or "[::1]:4317", found a table"#;
    assert_eq!(place.faults(&[]), expected);
}

/// What is not TOML is said with its line too, beside what else is wrong.
#[test]
fn a_file_that_is_not_toml_is_refused_with_all_its_lines() {
    for (text, expected) in [
        (
            "[log]\nbudget = \"1GiB\"\nbudget = \"2GiB\"\nkeep = 1",
            &["emberd.toml:3: [log] budget: duplicate key", "emberd.toml:4: [log] keep: "][..],
        ),
        ("[log]\n[log]\n", &["emberd.toml:2: [log]: duplicate key"]),
        (
            "[log]\nbudget = 1GiB\nkepe = \"1h\"",
            &["emberd.toml:2: [log] budget: ", "emberd.toml:3: [log]: unknown key `kepe`"],
        ),
        ("log:\n  budget: 1\n", &["emberd.toml:1: "]),
        ("a = [[[[", &["emberd.toml:1: a: "]),
    ] {
        let faults = Folder::with(text).faults(&[]);
        for part in expected {
            assert!(faults.lines().any(|line| line.starts_with(part)), "{text:?} gives\n{faults}");
        }
    }
    assert_eq!(Folder::with(b"[log]\nkeep = \"\xff\"").faults(&[]), "emberd.toml:2: not UTF-8: byte 0xff");
    let bomb = Folder::with("x = 1\n".repeat(1 << 18));
    assert_eq!(bomb.faults(&[]), "emberd.toml: cannot read: more than 1048576 bytes");
    let missing = Config::load_with(Some(Path::new("/nowhere/emberd.toml")), [], None).unwrap_err().to_string();
    assert_eq!(missing, "/nowhere/emberd.toml: cannot read: No such file or directory (os error 2)");
    let directory = Config::load_with(Some(Path::new("/")), [], None).unwrap_err().to_string();
    assert!(directory.starts_with("/: cannot read: "), "{directory}");
}

/// Sizes, durations, addresses and endpoints: what they mean, and what is refused.
#[test]
fn values_mean_what_they_say() {
    let size = |text: &str| without_file(&[("EMBERD_INTAKE_IN_FLIGHT", text)]).map(|config| config.intake.in_flight.0);
    for (text, bytes) in [
        ("256MiB", 256 << 20),
        ("1 GiB", 1 << 30),
        ("1tib", 1 << 40),
        ("100MB", 100_000_000),
        ("268435456", 256 << 20),
        ("268435456B", 256 << 20),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for (text, why) in [
        ("", "expected a size"),
        ("MiB", "expected a size"),
        ("1.5GiB", "expected a size"),
        ("1e9", "unknown unit \"e9\""),
        ("64M", "unknown unit \"M\""),
        ("0", "must be more than zero"),
        ("-64MiB", "negative"),
        ("99999999999GiB", "too large"),
        ("18446744073709551616", "too large"),
        ("9999999999999999999999999999999999999999999", "too large"),
    ] {
        let fault = size(text).unwrap_err().to_string();
        assert!(
            fault.starts_with("EMBERD_INTAKE_IN_FLIGHT: [intake] in_flight: ") && fault.contains(why),
            "{text}: {fault}"
        );
    }

    let keep = |text: &str| without_file(&[("EMBERD_LOG_KEEP", text)]).map(|config| config.log.keep.as_millis());
    for (text, millis) in
        [("24h", 86_400_000), ("500ms", 500), ("1h30m", 5_400_000), ("2d 1s", 172_801_000), ("0", 0), ("0s", 0)]
    {
        assert_eq!(keep(text), Ok(millis), "{text}");
    }
    for text in [
        "24",
        "h",
        "-1h",
        "1 fortnight",
        "1h30",
        "1.5h",
        "99999999999999999999h",
        "9999999999999999d",
        "400d",
        "1h--3m",
    ] {
        assert!(keep(text).unwrap_err().to_string().starts_with("EMBERD_LOG_KEEP: [log] keep: "), "{text}");
    }

    let listen = |text: &str| without_file(&[("EMBERD_API_LISTEN", text)]).map(|config| config.api.listen.to_string());
    for (text, address) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:80", "[::1]:80"), ("localhost:9", "127.0.0.1:9")] {
        assert_eq!(listen(text).as_deref(), Ok(address));
    }
    for text in ["", "8317", ":8317", "127.0.0.1:65536", "some.host:80", "localhost"] {
        listen(text).unwrap_err();
    }

    let otlp = |text: &str| without_file(&[("EMBERD_PHOENIX_OTLP", text)]).map(|config| config.phoenix.otlp);
    let url = |text: &str| reqwest::Url::parse(text).unwrap();
    for (text, endpoint) in [
        ("", None),
        ("http://h:14317", Some(Endpoint::Grpc(url("http://h:14317")))),
        ("grpc://h:1/", Some(Endpoint::Grpc(url("http://h:1/")))),
        ("grpcs://h:1", Some(Endpoint::Grpc(url("https://h:1")))),
        ("https://h/v1/traces", Some(Endpoint::Http(url("https://h/v1/traces")))),
        ("http://h:6006/base/v1/traces", Some(Endpoint::Http(url("http://h:6006/base/v1/traces")))),
    ] {
        assert_eq!(otlp(text), Ok(endpoint), "{text}");
    }
    for text in
        ["h:4317", "http://", "grpc://h:1/v1/traces", "ftp://h", "http://h/v1/logs", "http://h/?a=b", "http://h:99999"]
    {
        otlp(text).unwrap_err();
    }
}

/// The file stands below the app's names, and these below emberd's.
#[test]
fn the_environment_counts_more_than_the_file() {
    let place =
        Folder::with("[store]\nmax_connections = 7\nurl = \"sqlite:file.db\"\n[phoenix]\nurl = \"http://file:1\"\n");
    let connections = |variables: &[_]| place.load(variables).unwrap().store.max_connections;
    let app = ("PHOENIX_MAX_DB_CONNECTIONS", "8");
    assert_eq!(connections(&[]), 7);
    assert_eq!(connections(&[app]), 8);
    assert_eq!(connections(&[app, ("EMBERD_STORE_MAX_CONNECTIONS", "9")]), 9);
    assert_eq!(connections(&[app, ("EMBERD__STORE__MAX_CONNECTIONS", "10")]), 10);
    assert_eq!(connections(&[("PHOENIX_MAX_DB_CONNECTIONS", "")]), 7, "empty is absent for the app's names");

    let database = |variables: &[_]| place.load(variables).unwrap().store.database;
    assert_eq!(database(&[]), Database::Sqlite("file.db".into()));
    assert_eq!(database(&[("EMBERD_STORE_URL", "sqlite")]), Database::Sqlite("data/emberd.db".into()));
    let postgres = "postgresql://u:p%40@h/d";
    let Database::Postgres(url) = database(&[("DATABASE_URL", postgres)]) else { panic!("PostgreSQL was asked for") };
    assert_eq!(url.reveal(), postgres);
    assert_eq!(place.load(&[("PHOENIX_INTERNAL_URL", "http://app:2")]).unwrap().phoenix.url.as_str(), "http://app:2/");

    let typed = place
        .load(&[
            ("EMBERD_PHOENIX_VERIFY", "false"),
            ("EMBERD_PHOENIX_OTLP", ""),
            ("EMBERD_RECORDER_PROMPT_KEYS", "a, b"),
            ("EMBERD_API_CORS", "[\"https://app.example\"]"),
            ("EMBERD_API_TRUSTED_PROXIES", "10.0.0.0/8, fd00::1"),
            ("EMBERD_FORWARD", "[{ name = \"two\", url = \"grpc://h:1\", headers = { X-Tenant = \"t\" } }]"),
            ("EMBERD_DATA_DIR", "elsewhere"),
        ])
        .unwrap();
    assert!(!typed.phoenix.verify && typed.phoenix.otlp.is_none());
    assert_eq!(typed.recorder.prompt_keys, ["a", "b"]);
    assert_eq!(typed.api.cors, [Origin("https://app.example".into())]);
    let network = |address: &str, bits| Network { address: address.parse().unwrap(), bits };
    assert_eq!(typed.api.trusted_proxies, [network("10.0.0.0", 8), network("fd00::1", 128)]);
    assert_eq!((typed.forward[0].name.as_str(), typed.forward[0].headers[0].0.as_str()), ("two", "x-tenant"));
    assert_eq!(typed.data_dir, Path::new("data"), "the command line counts most");
    let named = Config::load_with(None, env(&[("EMBERD_DATA_DIR", "elsewhere")]), None).unwrap();
    assert_eq!(named.store.database, Database::Sqlite("elsewhere/emberd.db".into()));
}

/// A slip in a variable's name is not ignored, for it would be found when it matters.
#[test]
fn unknown_variables_are_refused() {
    let faults = without_file(&[
        ("EMBERD_LOG_BUDGETT", "1GiB"),
        ("EMBERD_WAL_DIRR", "x"),
        ("EMBERD_LOG_KEEP", "1h"),
        ("EMBERD__LOG__KEEP", "2h"),
        ("EMBERD_INTAKE_GRPC", "here"),
        ("PHOENIX_CACHE_TTL", "long"),
    ]);
    let expected = r#"EMBERD_INTAKE_GRPC: [intake] grpc: expected an address and port such as "127.0.0.1:4317" or "[::1]:4317", found "here"
EMBERD_LOG_BUDGETT: unknown variable, did you mean EMBERD_LOG_BUDGET?
EMBERD_WAL_DIRR: unknown variable, did you mean EMBERD_DATA_DIR?
EMBERD__LOG__KEEP: set twice: EMBERD_LOG_KEEP too
PHOENIX_CACHE_TTL: [phoenix] cache_ttl: expected a whole number, found "long""#;
    assert_eq!(faults.unwrap_err().to_string(), expected);

    let others = [
        ("EMBERD_LOG", "debug"),
        ("EMBERD_CACHE", "x"),
        ("EMBERD_FIXTURES", "x"),
        ("EMBERD_TEST_POSTGRES", "x"),
        ("EMBERD_PHOENIX", "x"),
        ("PHOENIX_PORT", "x"),
        ("HOME", "x"),
    ];
    assert_eq!(shown(&without_file(&others).unwrap()), shown(&without_file(&[]).unwrap()));

    use std::os::unix::ffi::OsStringExt;
    let raw = |name: &str| (name.into(), OsString::from_vec(vec![0xff]));
    let faults = Config::load_with(None, [raw("EMBERD_LOG_KEEP"), raw("LESS")], None).unwrap_err().to_string();
    assert_eq!(faults, "EMBERD_LOG_KEEP: not UTF-8");
}

/// A secret is one line in a file that others cannot read, or a variable, and never shows.
#[test]
fn secrets_are_read_and_not_shown() {
    let place = Folder::with("[phoenix]\napi_key_file = \"key\"\n").file("key", 0o640, "s3cr3t\r\n");
    let config = place.load(&[]).unwrap();
    let key = config.phoenix.api_key.clone().unwrap();
    assert_eq!(key.read().unwrap().reveal(), "s3cr3t");
    assert!(!format!("{config:?} {:?}", key.read()).contains("s3cr3t"));
    let place = place.file("key", 0o600, "an0ther");
    assert_eq!(key.read().unwrap().reveal(), "an0ther", "a new key takes effect");
    let _place = place.file("key", 0o644, "an0ther");
    assert!(key.read().unwrap_err().to_string().contains("can be read by others"));

    for (mode, text, why) in [
        (0o644, "s3cr3t", "can be read by others (mode 644)"),
        (0o602, "s3cr3t", "can be read by others (mode 602)"),
        (0o600, "", "the secret is empty"),
        (0o600, "\n\n", "the secret is empty"),
        (0o600, "s3cr3t\nsecond\n", "one line"),
        (0o600, " s3cr3t", "space"),
    ] {
        let faults = Folder::with("[phoenix]\n\napi_key_file = \"key\"\n").file("key", mode, text).faults(&[]);
        assert!(faults.starts_with("emberd.toml:3: [phoenix] api_key_file: key") && faults.contains(why), "{faults}");
        assert!(!faults.contains("s3cr3t"));
    }
    let gone = Folder::with("[phoenix]\napi_key_file = \"/nowhere/key\"\n").faults(&[]);
    assert!(
        gone.starts_with("emberd.toml:2: [phoenix] api_key_file: cannot read /nowhere/key: No such file"),
        "{gone}"
    );

    // Of a file, the app's variable and emberd's own, the last that is there counts.
    let identity = Folder::with("[identity]\njwt_secret_file = \"gone\"\n").file(
        "own",
        0o600,
        "from emberd's own, of 32 bytes or more",
    );
    let own = identity.path("own").display().to_string();
    let app = ("SHARED_JWT_SECRET", "from the application, of 32 bytes or more");
    assert!(identity.faults(&[]).contains("jwt_secret_file: cannot read"));
    assert!(identity.load(&[app]).unwrap().identity.is_some());
    assert!(identity.load(&[("EMBERD_IDENTITY_JWT_SECRET_FILE", &own)]).unwrap().identity.is_some());
    let empty = identity.path("empty").display().to_string();
    let identity = identity.file("empty", 0o600, "\n");
    let faults = identity.faults(&[app, ("EMBERD_IDENTITY_JWT_SECRET_FILE", &empty)]);
    assert!(
        faults.starts_with("EMBERD_IDENTITY_JWT_SECRET_FILE: ") && faults.ends_with("the secret is empty"),
        "{faults}"
    );

    let shown = Folder::with("[store]\nurl = \"postgres://u:hunter2@h/d\"\n").file("x", 0o600, "");
    let config = shown.load(&[]).unwrap();
    assert!(config.warnings()[0].to_string().contains("[store] url: holds a password"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let bad = Folder::with("[store]\nurl = \"postgres://u:hunter2@h:port/d\"\n").faults(&[]);
    assert_eq!(bad, "emberd.toml:2: [store] url: not a URL: invalid port number");
}

/// A fault is one line, whatever stands in the value that it shows.
#[test]
fn a_fault_is_one_line() {
    let faults = Folder::with("[llm]\napi_key_file = \"a\\nb\\tc\"\n").faults(&[]);
    assert!(!faults.contains('\n') && faults.contains("a\\nb\\tc"), "{faults}");
}

/// What differs between two configurations is named by key, with what it was and is; of a secret only that it changed, of a file what it
/// holds; and which of it a running emberd takes up.
#[test]
fn changes_are_named() {
    const KEYS: &str = "[[key]]\nname = \"a\"\nkey = \"s3cr3t\"\n";
    let text = "[intake]\nkeys_file = \"keys\"\n[log]\nkeep = \"1h\"\n[store]\nurl = \"postgres://u:one@h/d\"\n";
    let place = Folder::with(text).file("keys", 0o600, KEYS);
    let old = place.load(&[]).unwrap();
    let told = |newer: &Config| -> Vec<(String, bool)> {
        old.settings()
            .changes(&newer.settings())
            .into_iter()
            .map(|change| (change.to_string(), change.is_reloaded))
            .collect()
    };
    assert_eq!(told(&place.load(&[]).unwrap()), []);
    let place = place.file("keys", 0o600, &KEYS.replace("s3cr3t", "other"));
    let rotated = place.load(&[]).unwrap();
    assert_eq!(told(&rotated), [("[intake] keys_file: what it holds changed".to_owned(), true)]);

    let text = "[intake]\nkeys_file = \"keys\"\n[log]\nkeep = \"2h\"\n[store]\nurl = \"postgres://u:two@h/d\"\n[flags]\ntraces = false\n\
        [plugins.own]\naddress = \"http://h:1\"\nenv = { KEY = \"hush\" }\n[[forward]]\nname = \"b\"\nurl = \"grpc://h:1\"\n";
    let place = place.file("emberd.toml", 0o600, text).file("keys", 0o600, KEYS);
    let expected = [
        ("[[forward]]: (default) -> (not shown)", false),
        ("[flags] traces: (default) -> false", true),
        ("[log] keep: \"1h\" -> \"2h\"", false),
        ("[plugins.own]: (default) -> (not shown)", false),
        ("[store] url: what it holds changed", false),
    ];
    let newer = place.load(&[]).unwrap();
    assert_eq!(told(&newer), expected.map(|(text, is_reloaded)| (text.to_owned(), is_reloaded)));
    assert!(!format!("{newer:?}{:?}", told(&newer)).contains("hush"));
}

/// Every secret can stand in a file of its own, or be one of the unit's credentials; a password in a URL that would be shown is refused.
#[test]
fn no_secret_needs_to_stand_in_the_file() {
    let text = "[store]\nurl_file = \"db\"\n[[forward]]\nname = \"b\"\nurl = \"grpc://h:1\"\nheader_files = { X-Key = \"one\" }\n\
        [plugins.own]\ncommand = [\"a\"]\nenv_files = { KEY = \"one\" }\n[phoenix]\napi_key_file = \"credential:one\"\n";
    let place = Folder::with(text).file("db", 0o600, "postgres://u:hush@h/d\n").file("one", 0o600, "hush\n");
    let here = place.dir.path().display().to_string();
    let credentials = ("CREDENTIALS_DIRECTORY", here.as_str());
    let config = place.load(&[credentials]).unwrap();
    let Database::Postgres(url) = &config.store.database else { panic!("PostgreSQL was named") };
    assert_eq!(url.reveal(), "postgres://u:hush@h/d");
    let header = &config.forward[0].headers[0];
    assert_eq!((header.0.as_str(), header.1.reveal()), ("x-key", "hush"));
    assert_eq!((config.plugins[0].env[0].0.as_str(), config.plugins[0].env[0].1.reveal()), ("KEY", "hush"));
    assert_eq!(config.phoenix.api_key.as_ref().unwrap().read().unwrap().reveal(), "hush");
    assert!(!format!("{config:?}").contains("hush") && config.warnings().is_empty());

    assert!(
        place
            .faults(&[])
            .contains("[phoenix] api_key_file: no credentials were handed over (CREDENTIALS_DIRECTORY is not set)")
    );
    let both = place.faults(&[credentials, ("DATABASE_URL", "postgres://h/d")]);
    assert!(both.contains("[store] url_file: url is set too"), "{both}");
    let open = place.file("one", 0o644, "hush").faults(&[credentials]);
    assert_eq!(open.lines().count(), 3, "{open}");
    assert!(open.contains("[plugins.own] env_files: KEY: ") && !open.contains("hush"), "{open}");
    for (text, key) in [
        ("[phoenix]\nurl = \"http://u:hush@h\"", "[phoenix] url"),
        ("[llm]\nbase_url = \"https://u:hush@h/v1\"", "[llm] base_url"),
        ("[phoenix]\notlp = \"grpc://u:hush@h:1\"", "[phoenix] otlp"),
    ] {
        let faults = Folder::with(text).faults(&[]);
        assert!(faults.contains(key) && faults.contains("holds a password") && !faults.contains("hush"), "{faults}");
    }
}

/// Only this machine reaches a door that asks for nothing.
#[test]
fn open_doors_are_refused() {
    const GOOD: &str = "[[key]]\nname = \"a\"\nkey = \"s3cr3t\"\n";
    let keys = "[intake]\ngrpc = \"0.0.0.0:4317\"\nkeys_file = \"keys\"\n";
    Folder::with(keys).file("keys", 0o600, GOOD).load(&[]).unwrap();
    let faults = Folder::with(keys).file("keys", 0o644, GOOD).faults(&[]);
    assert!(faults.starts_with("emberd.toml:3: [intake] keys_file: ") && !faults.contains('\n'), "{faults}");
    for (text, why) in [
        ("\n", "keys: there is no [[key]] in the file"),
        ("[[key]]\nname = \"a\"\nkey = s3cr3t\n", "keys: not a file of keys: "),
        ("[[key]]\nname = \"a\"\nkey = \"s3cr3t\"\nrat = 3\n", "keys: not a file of keys: unknown field `rat`"),
    ] {
        let faults = Folder::with(keys).file("keys", 0o600, text).faults(&[]);
        assert!(faults.starts_with(&format!("emberd.toml:3: [intake] keys_file: {why}")), "{faults}");
        assert!(!faults.contains("s3cr3t"), "{faults}");
    }

    let open = Folder::with(
        "[intake]\nhttp = \"0.0.0.0:4318\"\nkeys_file = \"\"\n[api]\nlisten = \"[::]:8317\"\n[identity]\njwt_secret_file = \"\"\n",
    );
    let expected = "emberd.toml:2: [intake] http: 0.0.0.0:4318 can be reached from other machines: set [intake] keys_file, or listen on 127.0.0.1
emberd.toml:5: [api] listen: [::]:8317 can be reached from other machines: set [identity] jwt_secret_file, or listen on 127.0.0.1";
    assert_eq!(open.faults(&[]), expected);
    let secret = ("SHARED_JWT_SECRET", "a secret of thirty-two bytes or more");
    let guarded = without_file(&[("EMBERD_API_LISTEN", "0.0.0.0:8317"), secret]).unwrap();
    assert!(guarded.identity.is_some() && without_file(&[]).unwrap().identity.is_none());
    let short = Folder::with("").faults(&[("SHARED_JWT_SECRET", "x")]);
    assert_eq!(
        short,
        "SHARED_JWT_SECRET: [identity] jwt_secret_file: the shared secret has 1 bytes: HS256 asks for 32 at least"
    );
}

/// What is good by itself can be wrong together.
#[test]
fn keys_must_fit_together() {
    for (text, expected) in [
        (
            "[log]\nsegment = \"64MiB\"\nbudget = \"100MiB\"",
            "emberd.toml:3: [log] budget: 100MiB is less than two segments of 64MiB: at least 128MiB",
        ),
        (
            "[log]\nbudget = \"1MiB\"",
            "emberd.toml:2: [log] budget: 1MiB is less than two segments of 1MiB: at least 2MiB",
        ),
        ("[log]\nsegment = \"4KiB\"", "emberd.toml:2: [log] segment: less than 1MiB"),
        ("[log]\nbackend = \"kafka\"", "emberd.toml:2: [log] backend: \"kafka\" is not there yet: use \"disk\""),
        ("[intake]\nmax_request = \"129MiB\"", "emberd.toml:2: [intake] max_request: more than 128MiB"),
        (
            "[intake]\nhttp = \"127.0.0.1:4317\"",
            "emberd.toml:2: [intake] http: 127.0.0.1:4317 is the address of [intake] grpc too",
        ),
        ("[recorder]\nquiet = \"1s\"", "emberd.toml:2: [recorder] quiet: must not be shorter than root_wait"),
        (
            "[recorder]\nprices_file = \"gone\"",
            "emberd.toml:2: [recorder] prices_file: gone: No such file or directory (os error 2)",
        ),
        (
            "[[forward]]\nname = \"a\"\nurl = \"grpc://h:1\"\n[[forward]]\nname = \"a\"\nurl = \"grpc://h:2\"",
            "emberd.toml:5: [[forward]] name: \"a\" is the name of two",
        ),
        (
            "[[forward]]\nname = \"phoenix\"\nurl = \"grpc://h:1\"",
            "emberd.toml:2: [[forward]] name: \"phoenix\" is the name of one of emberd's own consumers",
        ),
        (
            "[plugins.x]\ncommand = [\"a\"]\naddress = \"h:1\"",
            "emberd.toml:3: [plugins.x] address: expected an address such as \"127.0.0.1:50051\" or \"http://plugin:50051\"",
        ),
        ("[plugins.x]", "emberd.toml:1: [plugins.x]: expected one of `command`, `address` and `wasm`"),
        (
            "[flags]\ntraces = { enabled = true, rollout = 101 }",
            "emberd.toml:2: [flags] traces: rollout is a percentage: 0 to 100",
        ),
        (
            "[phoenix]\ncompression = \"zstd\"",
            "emberd.toml:2: [phoenix] compression: Phoenix takes only \"none\" or \"gzip\"",
        ),
        (
            "[archive]\nurl = \"ftp://x\"",
            "emberd.toml:2: [archive] url: expected \"file\" or \"s3://bucket/prefix\": an archive is at \"file\" (in the data directory) or at s3://BUCKET/PREFIX",
        ),
        (
            "[archive]\nurl = \"s3://bucket\"\naccess_key_id = \"x\"",
            "emberd.toml:1: [archive] secret_access_key_file: access_key_id and secret_access_key_file go together: set both, or neither",
        ),
        ("[archive]\nkeep = \"1h\"", "emberd.toml:2: [archive] keep: less than a day: the archive is kept by days"),
        ("[reconcile]\nevery = \"1s\"", "emberd.toml:2: [reconcile] every: must be from 1m to 30d, or \"0\""),
        (
            "[api]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "emberd.toml:2: [api] trusted_proxies: \"10.0.0.0/33\": expected a network such as \"10.0.0.0/8\", or an address",
        ),
        (
            "[api]\ncors = [\"https://app.example/page\"]",
            "emberd.toml:2: [api] cors: \"https://app.example/page\": an origin has no path: use \"https://app.example\"",
        ),
    ] {
        assert_eq!(Folder::with(text).faults(&[]), expected, "{text}");
    }
    let small = without_file(&[("EMBERD_LOG_BUDGET", "64MiB")]).unwrap();
    assert_eq!(small.log.segment, ByteSize::mib(16), "segments shrink with a small budget");
    assert_eq!(without_file(&[]).unwrap().log.segment, ByteSize::mib(64));
}

/// A price table of one's own is read, and refused where it is none.
#[test]
fn price_tables_are_checked() {
    let place = Folder::with("[recorder]\nprices_file = \"prices\"\n");
    let good = "currency = \"EUR\"\n[[model]]\nname = \"m\"\ninput = \"1.5\"\noutput = \"3\"\n";
    let place = place.file("prices", 0o644, good);
    assert_eq!(place.load(&[]).unwrap().recorder.prices.unwrap()["currency"], "EUR");
    for bad in
        ["currency = EUR", "[[model]]\nname = \"m\"\ninput = \"-1\"\noutput = \"3\"\n", "[[model]]\nname = \"m\"\n"]
    {
        let place = Folder::with("[recorder]\nprices_file = \"prices\"\n").file("prices", 0o644, bad);
        assert!(place.faults(&[]).starts_with("emberd.toml:2: [recorder] prices_file: "), "{bad}");
    }
}

/// A caller that has started Phoenix and tells people where everything is can change what was configured.
#[test]
fn a_demo_can_move_what_was_configured() {
    let mut config = without_file(&[]).unwrap();
    config.point_at_phoenix("http://127.0.0.1:7006", "http://127.0.0.1:7007").unwrap();
    assert_eq!(config.phoenix.port(), Some(7006));
    config.point_at_phoenix("nowhere", "http://127.0.0.1:7007").unwrap_err();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.intake.grpc = taken.local_addr().unwrap();
    config.intake.http = free;
    config.free_busy_ports();
    assert_eq!(config.intake.grpc.port(), 0);
    assert_eq!(config.intake.http, free);
}

/// The Redis's address, from wherever it is named, and never shown with its password.
#[test]
fn a_redis_is_named_in_one_place_and_its_password_is_shown_nowhere() {
    let bare = Folder::with("").load(&[]).unwrap().cache;
    assert_eq!((bare.redis, bare.prefix.as_str(), bare.users, bare.answers), (None, "emberd", 10_000, 500));
    let url = |config: Config| config.cache.redis.map(|url| url.reveal().to_owned());
    let place = Folder::with("[cache]\nredis_url = \"redis://file\"\nusers = 7\n");
    let app = ("REDIS_URL", "rediss://:hush@app:6380/2");
    assert_eq!(url(place.load(&[]).unwrap()).as_deref(), Some("redis://file"));
    let loaded = place.load(&[app, ("PHOENIX_ENABLE_AUTH_CACHE", "false")]).unwrap();
    assert_eq!(loaded.cache.users, 0);
    assert!(!format!("{loaded:?}").contains("hush"));
    assert_eq!(url(loaded).as_deref(), Some("rediss://:hush@app:6380/2"));
    let own = url(place.load(&[app, ("EMBERD_CACHE_REDIS_URL", "unix:///run/redis.sock")]).unwrap());
    assert_eq!(own.as_deref(), Some("unix:///run/redis.sock"));

    let file = |text: &str| Folder::with("[cache]\nredis_url_file = \"url\"\n").file("url", 0o600, text);
    assert_eq!(url(file("redis://:hush@h\n").load(&[]).unwrap()).as_deref(), Some("redis://:hush@h"));
    assert!(file("redis://h").faults(&[app]).contains("redis_url_file: redis_url is set too"));
    for bad in ["http://:hush@h", "redis://:hush@", "redis://:hush@h/x", "hush", "redis://:hush@h:99999", "redis:hush"]
    {
        let faults = file(bad).faults(&[]);
        assert!(faults.starts_with("emberd.toml:2: [cache] redis_url_file: ") && !faults.contains("hush"), "{faults}");
        let faults = Folder::with("").faults(&[("REDIS_URL", bad)]);
        assert!(faults.starts_with("REDIS_URL: [cache] redis_url: ") && !faults.contains("hush"), "{faults}");
    }
    let shown = Folder::with("[cache]\nredis_url = \"redis://:hush@h\"\n").load(&[]).unwrap();
    let warnings: Vec<_> = shown.warnings().iter().map(ToString::to_string).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("holds a password") && !warnings[0].contains("hush"),
        "{warnings:?}"
    );
}

/// The application's own names reach what they mean.
#[test]
fn the_application_s_own_names_count() {
    let place = Folder::with("[flags]\ntraces = false\n");
    let config = place.load(&[("OPENAI_API_KEY", "x")]).unwrap();
    assert!(config.warnings().is_empty());
    assert!(config.api.summary);
    let app = [("PHOENIX_PUBLIC_URL", "https://phoenix.example"), ("PHOENIX_ENABLE_MONITORING", "false")];
    let config = place.load(&app).unwrap();
    assert_eq!(config.phoenix.public_url.unwrap().as_str(), "https://phoenix.example/");
    assert!(!config.api.summary);
    assert!(!config.flags.traces.enabled && config.flags.evaluations.enabled);
    // The application's own switch turns every part off.
    let off = place.load(&[("PHOENIX_ENABLED", "false")]).unwrap().flags;
    assert!(![off.evaluations, off.traces, off.experiments, off.advanced_metrics].iter().any(|flag| flag.enabled));
}

proptest::proptest! {
    /// No file, however broken, does anything but load or be refused.
    #[test]
    fn broken_files_are_refused_and_never_stop_the_program(
        cuts in proptest::collection::vec((0..DOCUMENTED.len(), 0..40usize, "[\\[\\]{}=\".#\n a-z0-9-]{0,6}"), 1..6),
    ) {
        let mut text = DOCUMENTED.as_bytes().to_vec();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.bytes());
        }
        let mut faults = Vec::new();
        let table = document::parse(Path::new("emberd.toml"), &text, &mut faults);
        proptest::prop_assert!(!table.is_empty() || !faults.is_empty() || text.is_empty());
        let place = Folder::with(&text);
        if let Err(errors) = place.load(&[]) {
            proptest::prop_assert!(errors.to_string().lines().count() >= 1);
        }
    }
}
