//! What is installed and composed: the package's layout, the compose file's variables and files, the token that Prometheus shows.
//!
//! Read with the Python of the Phoenix environment, which knows YAML; emberd itself says whether it takes the variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::Home;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn phoenix() -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd/phoenix");
    std::env::var_os("EMBERD_PHOENIX").map_or_else(cache, PathBuf::from)
}

fn python(script: &str, arguments: &[&str]) -> Value {
    let output = Command::new(phoenix().join("bin/python")).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// compose.yaml with the values of example.env in it.
fn compose() -> Value {
    const READ: &str = r##"
import json, re, sys, yaml
values = dict(line.strip().split("=", 1) for line in open(sys.argv[2]) if line.strip() and line[0] != "#")
def filled(match):
    name, _, other = match.group(1).partition(":")
    if name in values:
        return values[name]
    assert other.startswith("-"), f"{name} is not in example.env"
    return other[1:]
text = open(sys.argv[1]).read()
body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
print(json.dumps(yaml.safe_load(re.sub(r"\$\{([^}]+)\}", filled, body))))
"##;
    let file = |name: &str| root().join("packaging").join(name).display().to_string();
    python(READ, &[&file("compose.yaml"), &file("example.env")])
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let all = service["environment"].as_object().into_iter().flatten();
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Each variable that the compose file gives Phoenix is one that this Phoenix reads: the names have changed before.
#[test]
fn phoenix_knows_the_variables_of_compose() {
    // Read, not imported: that takes ten seconds.
    const NAMES: &str = r#"
import importlib.util, json, os, re
folder = os.path.dirname(importlib.util.find_spec("phoenix").origin)
text = open(os.path.join(folder, "config.py")).read()
print(json.dumps(re.findall(r'^ENV_\w+ = \(?\s*"(\w+)"', text, re.M)))
"#;
    let known: BTreeSet<String> = serde_json::from_value(python(NAMES, &[])).unwrap();
    let compose = compose();
    let given = environment(&compose["services"]["phoenix"]);
    assert!(given.len() >= 5 && given.contains_key("PHOENIX_SQL_DATABASE_URL"));
    for name in given.keys() {
        assert!(known.contains(name), "{name} is nothing to this Phoenix");
    }
    let image = compose["services"]["phoenix"]["image"].as_str().unwrap();
    let services = std::fs::read_to_string(root().join(".ci/services")).unwrap();
    let tested = services.lines().find_map(|line| line.strip_prefix("phoenix_version=")).unwrap().trim_matches('"');
    assert_eq!(image, format!("arizephoenix/phoenix:{tested}"), "the Phoenix that is tested");
}

/// emberd takes what the compose file gives it, by the entry point of the image; and refuses a name that it does not know.
#[test]
fn emberd_takes_the_variables_of_compose() {
    let home = Home::new();
    let given = environment(&compose()["services"]["emberd"]);
    let check = |more: &[(&str, &str)]| {
        let emberd = Path::new(env!("CARGO_BIN_EXE_emberd"));
        let mut command = Command::new(root().join("packaging/entrypoint"));
        command.args(["check-config", "--config"]).arg(root().join("packaging/emberd.toml")).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", emberd.parent().unwrap().display()));
        command.env("RUNTIME_DIRECTORY", home.path()).envs(&given).envs(more.iter().copied());
        command.output().unwrap()
    };
    let output = check(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!check(&[("EMBERD_INTAKE_PORT", "1")]).status.success());
    // Without the key, doors that others reach are refused: it did arrive.
    assert!(!check(&[("INGEST_KEY", "")]).status.success());
}

/// Each file of ours that a container is given is there, and each address that one service says of another is a service.
#[test]
fn the_files_and_services_of_compose_are_there() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        BTreeSet::from(["emberd", "grafana", "metrics-token", "phoenix", "postgres", "prometheus", "redis"])
    );
    let mut files = 0;
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with('.') {
                let path = root().join("packaging").join(source);
                assert!(path.is_file(), "{name}: {}", path.display());
                files += 1;
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: no volume {source}");
            }
        }
        for url in environment(service).values().filter(|value| value.contains("://")) {
            let host = reqwest::Url::parse(url).unwrap().host_str().unwrap().to_owned();
            assert!(names.contains(host.as_str()) || host == "127.0.0.1", "{name}: {url}");
        }
        assert!(
            service["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .all(|port| { port.as_str().unwrap().starts_with("127.0.0.1:") })
        );
    }
    assert!(files >= 6, "{files}");
    let mut promtool = Command::new(super::monitoring::tool("promtool"));
    promtool.args(["check", "config", "--syntax-only"]).arg(root().join("packaging/prometheus.yml"));
    assert!(promtool.output().unwrap().status.success());
    for part in ["packaging/Containerfile", "packaging/entrypoint"] {
        assert!(root().join(part).is_file());
    }
}

/// The token that compose makes for Prometheus opens /metrics of an emberd with the same secret, and nothing does without.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_let_in_by_its_token() {
    let secret = environment(&compose()["services"]["emberd"])["SHARED_JWT_SECRET"].clone();
    let mut home = Home::new();
    home.set("SHARED_JWT_SECRET", &secret);
    let emberd = home.start();
    let file = home.path().join("token");
    let mut maker = Command::new("python3");
    maker.arg(root().join("packaging/metrics-token")).arg(&file).arg("once").env("SHARED_JWT_SECRET", &secret);
    assert!(maker.status().unwrap().success());
    let token = std::fs::read_to_string(file).unwrap();
    let url = format!("{}/metrics", emberd.api());
    let client = reqwest::Client::new();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    let answer = client.get(&url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("emberd_log_head_spans"));
}

/// All that the package is made of is there, and what the unit starts and reads is in the package.
#[test]
fn the_package_holds_what_the_unit_needs() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Value = toml::from_str(&manifest).unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut installed = BTreeSet::new();
    for asset in deb["assets"].as_array().unwrap() {
        let [from, to] = [0, 1].map(|at| asset[at].as_str().unwrap());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        let name = source.file_name().unwrap().to_str().unwrap();
        assert!(from == "target/release/emberd" || name.contains('*') || source.is_file(), "{from}");
        assert!(!name.contains('*') || source.parent().unwrap().is_dir(), "{from}");
        installed.insert(if to.ends_with('/') { format!("/{to}{name}") } else { format!("/{to}") });
    }
    let unit = std::fs::read_to_string(root().join("systemd/emberd.service")).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let start: Vec<&str> = value("ExecStart=").split(' ').collect();
    assert_eq!(start[1..], ["serve", "--config", "/etc/emberd/emberd.toml", "--data-dir", "/var/lib/emberd"]);
    for path in [start[0], start[3]] {
        assert!(installed.contains(path), "{path} is not among {installed:?}");
    }
    assert_eq!(deb["conf-files"][0].as_str(), Some(start[3]));
    assert!(installed.contains("/lib/systemd/system/emberd.service"));
    assert!(installed.contains("/lib/systemd/system/emberd.socket"));
    let user = std::fs::read_to_string(root().join("packaging/debian/sysusers.conf")).unwrap();
    assert!(user.contains(&format!("\nu {} - ", value("User="))), "{user}");
    for script in ["postinst", "prerm", "postrm"] {
        let path = root().join("packaging/debian").join(script);
        assert!(Command::new("sh").arg("-n").arg(path).status().unwrap().success(), "{script}");
    }
    let home = Home::new();
    home.configure(&std::fs::read_to_string(root().join("packaging/emberd.toml")).unwrap());
    assert!(home.command(&["check-config"]).output().unwrap().status.success());
}
