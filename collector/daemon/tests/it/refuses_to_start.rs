//! A place where emberd cannot run: one clear line, and the exit code (78, EX_CONFIG) on which systemd does not start it again.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use super::process::Home;

const EX_CONFIG: i32 = 78;

/// Ends with 78, and its last line, by emberd itself, says all of this.
fn is_refused(what: &str, output: &Output, says: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{what}: {said}");
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(said.lines().filter(|line| line.starts_with("emberd: ")).count(), 1, "{what}: {said}");
    assert!(last.starts_with("emberd: ") && says.iter().all(|part| last.contains(part)), "{what}: {said}");
}

/// `emberd serve` with this data directory; as one for whom rights count, which for root they do not.
fn serve(home: &Home, data_dir: &Path) -> Output {
    let plain = home.command(&["serve"]);
    let is_root = rights_do_not_count();
    let mut command = if is_root { Command::new("setpriv") } else { Command::new(plain.get_program()) };
    if is_root {
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(plain.get_program());
    }
    // The home's own data directory is the last argument.
    let arguments: Vec<_> = plain.get_args().collect();
    command.args(&arguments[..arguments.len() - 1]).arg(data_dir);
    for (key, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.output().unwrap()
}

fn rights_do_not_count() -> bool {
    let probe = tempfile::tempdir().unwrap();
    set_mode(probe.path(), 0o500);
    std::fs::write(probe.path().join("x"), b"").is_ok()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A data directory that cannot be written, or is none.
#[test]
fn data_directories_that_cannot_be_used() {
    let home = Home::new();
    let place = |name: &str| home.path().join(name);

    let read_only = place("read-only");
    std::fs::create_dir(&read_only).unwrap();
    set_mode(&read_only, 0o500);
    is_refused("read-only", &serve(&home, &read_only), &["read-only", "ermission denied"]);
    let inside = read_only.join("inside");
    is_refused("inside one that is read-only", &serve(&home, &inside), &["cannot make", "inside"]);

    let closed = place("closed");
    std::fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o000);
    is_refused("one that others may use and emberd may not", &serve(&home, &closed), &["closed", "ermission denied"]);

    let file = place("file");
    std::fs::write(&file, b"not a directory").unwrap();
    is_refused("a file", &serve(&home, &file), &["cannot make", "file"]);
    is_refused("below a file", &serve(&home, &file.join("data")), &["cannot make", "file/data"]);

    let absent = place("mount/data");
    is_refused("an absent parent", &serve(&home, &absent), &["cannot make", "mount/data"]);
    assert!(!place("mount").exists());

    let dangling = place("dangling");
    symlink(place("nowhere"), &dangling).unwrap();
    is_refused("a link to nowhere", &serve(&home, &dangling), &["cannot make", "dangling"]);
    assert!(!place("nowhere").exists());

    for (closed, mode) in [(&read_only, 0o700), (&closed, 0o700)] {
        set_mode(closed, mode);
    }
}

/// A link to a directory is that directory.
#[test]
fn a_link_to_a_directory_is_followed() {
    let mut home = Home::new();
    let (real, link) = (home.path().join("real"), home.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // So that it ends by itself, after it has opened the log.
    home.set("EMBERD_INTAKE_GRPC", &taken.local_addr().unwrap().to_string());
    is_refused("a taken port", &serve(&home, &link), &["cannot listen"]);
    assert!(real.join("log").is_dir());
}

/// A second emberd on the same data.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance() {
    let home = Home::new();
    let first = home.start();
    let second = home.command(&["serve"]).output().unwrap();
    is_refused("a second instance", &second, &["another process uses the log in", "log"]);
    assert!(first.terminate().success());
}

/// Ports that are taken, by others or by emberd itself, are named.
#[test]
fn ports_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, says) in [
        ("EMBERD_INTAKE_GRPC", "cannot bind the OTLP doors"),
        ("EMBERD_INTAKE_HTTP", "cannot bind the OTLP doors"),
        ("EMBERD_API_LISTEN", "cannot bind the API"),
    ] {
        let mut home = Home::new();
        home.set(key, &address);
        is_refused(key, &home.command(&["serve"]).output().unwrap(), &[says, &address]);
    }
}

/// The same port for two doors, and an address that is not this machine's, are found before or when they are bound.
#[test]
fn ports_that_cannot_be() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut home = Home::new();
    home.set("EMBERD_INTAKE_GRPC", &free).set("EMBERD_INTAKE_HTTP", &free);
    let output = home.command(&["serve"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    assert!(said.contains(&free) && said.contains("is the address of [intake] grpc too"), "{said}");
    assert!(!home.path().join("log").exists(), "found before anything was made");
}
