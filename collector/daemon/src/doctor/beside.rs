//! What emberd works with beside database and Phoenix: further endpoints, Redis, models, plugins. Nothing is spent on them.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Patient, QUESTION, phoenix, told};
use crate::config::{Plugin, PluginSource};
use crate::settings::{PATH, PHOENIX};

pub(super) async fn forward(patient: Patient) -> Vec<Finding> {
    let targets = match patient.config.targets() {
        Ok(targets) => targets,
        Err(error) => return vec![Finding::failed("forward", format!("{error:#}"), "see [[forward]]")],
    };
    let mut findings = Vec::new();
    for target in targets.iter().filter(|target| target.name != PHOENIX) {
        let (check, key) = (format!("forward {}", target.name), format!("[[forward]] {}", target.name));
        findings.push(phoenix::probe(&check, &key, target, &patient).await);
    }
    findings
}

pub(super) async fn redis(patient: Patient) -> Vec<Finding> {
    let caches = match patient.config.cache.room(patient.config.identity.as_ref(), patient.clock.clone()) {
        Ok(room) => room.caches,
        Err(error) => return vec![Finding::failed("redis", format!("{error:#}"), "see [cache] redis_url")],
    };
    match caches.ping(Duration::from_secs(2)).await {
        None => Vec::new(),
        Some(Ok(place)) => vec![Finding::ok("redis", format!("{place} answers"))],
        Some(Err(error)) => {
            let advice = "start it, or see [cache] redis_url; until then each emberd has its memory alone";
            vec![Finding::warning("redis", error.to_string(), advice)]
        }
    }
}

/// Asks for the list of models, which no endpoint charges for.
pub(super) async fn models(patient: Patient) -> Vec<Finding> {
    let llm = &patient.config.llm;
    let Some(base) = &llm.base_url else { return Vec::new() };
    let shown = format!("{}{}", base.origin().ascii_serialization(), base.path());
    let Ok(http) = reqwest::Client::builder().timeout(QUESTION).build() else { return Vec::new() };
    let mut request = http.get(format!("{}/models", base.as_str().trim_end_matches('/')));
    if let Some(key) = &llm.api_key {
        request = request.bearer_auth(key.reveal());
    }
    vec![match request.send().await {
        Err(error) => {
            let advice = "see [llm] base_url; evaluations that ask a model fail until it answers";
            Finding::failed("models", format!("{shown}: {}", told(&error.without_url())), advice)
        }
        Ok(answer) => match answer.status().as_u16() {
            401 | 403 => Finding::failed(
                "models",
                format!("{shown}: the key is not taken ({})", answer.status()),
                "put a good key into the file of [llm] api_key_file, or OPENAI_API_KEY",
            ),
            200..=299 => Finding::ok("models", format!("{shown} answers")),
            500.. => Finding::warning("models", format!("{shown}: {}", answer.status()), "see whether it is ill"),
            _ => Finding::ok("models", format!("{shown} answers, and lists no models ({})", answer.status())),
        },
    }]
}

pub(super) async fn plugins(patient: Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    for plugin in &patient.config.plugins {
        findings.push(one(plugin).await);
    }
    findings
}

async fn one(plugin: &Plugin) -> Finding {
    let check = format!("plugin {}", plugin.name);
    match &plugin.source {
        PluginSource::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            let own = plugin.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.reveal());
            match found(program, own.unwrap_or(PATH)) {
                Some(path) => Finding::ok(check, format!("{} can be started", path.display())),
                None => {
                    let advice =
                        format!("install it, or name it with its whole path in [plugins.{}] command", plugin.name);
                    Finding::failed(check, format!("no program {program:?} is found"), advice)
                }
            }
        }
        PluginSource::Address(url) => address(check, url).await,
        PluginSource::Wasm(module) => wasm(check, module),
    }
}

/// The program that would be started: as it is named, or the first of that name in the directories of PATH.
fn found(program: &str, path: &str) -> Option<PathBuf> {
    let runs = |path: &Path| path.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    path.split(':').map(|dir| Path::new(dir).join(program)).find(|path| runs(path))
}

async fn address(check: String, url: &str) -> Finding {
    let place = reqwest::Url::parse(url).ok().and_then(|url| {
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, url.port_or_known_default()?))
    });
    let Some((host, port)) = place else { return Finding::failed(check, "no address", "see its address") };
    match tokio::time::timeout(QUESTION, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Finding::ok(check, format!("{host}:{port} answers")),
        Ok(Err(error)) => Finding::failed(check, format!("{host}:{port}: {error}"), "start it, or see its address"),
        Err(_) => Finding::failed(check, format!("{host}:{port}: no answer"), "start it, or see its address"),
    }
}

fn wasm(check: String, module: &Path) -> Finding {
    let mut magic = [0; 4];
    let read = std::fs::File::open(module).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == b"\0asm" => Finding::ok(check, format!("{} is a module", module.display())),
        Ok(()) => Finding::failed(check, format!("{} is no WebAssembly module", module.display()), "build it anew"),
        Err(error) => Finding::failed(check, format!("{}: {error}", module.display()), "see its path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_they_would_be_started() {
        assert_eq!(found("sh", "/nowhere:/bin"), Some("/bin/sh".into()));
        assert_eq!(found("/bin/sh", ""), Some("/bin/sh".into()));
        assert_eq!(found("no-such-program", PATH), None);
        assert_eq!(found("/etc/passwd", ""), None, "a file that cannot be run is no program");
    }
}
