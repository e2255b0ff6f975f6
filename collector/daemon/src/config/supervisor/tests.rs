use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const PID: u32 = 7;

fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn said(variables: &[(&str, &str)]) -> Supervisor {
    Supervisor::of(env(variables), PID).unwrap()
}

fn load(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Config, Errors> {
    Config::load_with(file, env(variables), Some("data".into()))
}

/// What is meant for this process counts, what a parent left behind does not, and what is no number is said.
#[test]
fn what_systemd_says() {
    assert_eq!(said(&[("PATH", "/bin"), ("NOTIFY_SOCKET", "")]), Supervisor::default());
    let all = said(&[
        ("NOTIFY_SOCKET", "@abstract"),
        ("WATCHDOG_USEC", "30000000"),
        ("WATCHDOG_PID", "7"),
        ("LISTEN_PID", "7"),
        ("LISTEN_FDS", "3"),
        ("LISTEN_FDNAMES", "grpc:emberd.socket"),
    ]);
    assert_eq!(all.notify, Some("@abstract".into()));
    assert_eq!(all.watchdog, Some(Duration::from_secs(30)));
    assert_eq!(all.sockets, [(3, "grpc".into()), (4, "emberd.socket".into()), (5, String::new())]);
    let others = said(&[("WATCHDOG_USEC", "1"), ("WATCHDOG_PID", "8"), ("LISTEN_PID", "8"), ("LISTEN_FDS", "1")]);
    assert_eq!(others, Supervisor::default());
    assert_eq!(said(&[("LISTEN_FDS", "1")]).sockets, []);
    assert_eq!(said(&[("WATCHDOG_USEC", "1")]).watchdog, Some(Duration::from_micros(1)));
    for (name, value, word) in [
        ("NOTIFY_SOCKET", "vsock:2:1234", "neither a path nor an abstract name"),
        ("WATCHDOG_USEC", "soon", "not a number"),
        ("LISTEN_FDS", "-1", "not a number"),
        ("LISTEN_FDS", "17", "more than 16 sockets"),
    ] {
        let wrong = Supervisor::of(env(&[("LISTEN_PID", "7"), (name, value)]), PID).unwrap_err().to_string();
        assert_eq!(wrong, format!("{name}: {word}"));
    }
}

/// A socket is of the door that it is named after, else of the one whose port it has, and is guarded as that door is.
#[test]
fn sockets_find_their_doors() {
    let at = |address: &str| address.parse::<SocketAddr>().unwrap();
    let mut config = load(None, &[]).unwrap();
    assert_eq!(config.hand("http", at("127.0.0.1:1")).unwrap(), Door::Http);
    assert_eq!(config.hand("emberd.socket", at("[::1]:4317")).unwrap(), Door::Grpc);
    assert_eq!(config.hand("", at("127.0.0.1:8317")).unwrap(), Door::Api);
    let listens = Door::ALL.map(|door| config.listens(door).to_string());
    assert_eq!(listens, ["[::1]:4317", "127.0.0.1:1", "127.0.0.1:8317"]);
    let wrong = config.hand("emberd.socket", at("127.0.0.1:4318")).unwrap_err().to_string();
    assert!(wrong.starts_with("LISTEN_FDNAMES: \"emberd.socket\": 127.0.0.1:4318 is of no door"), "{wrong}");
    for (name, guard) in [("grpc", "[intake] keys_file"), ("http", "[intake] keys_file"), ("api", "[identity]")] {
        let wrong = config.hand(name, at("0.0.0.0:9")).unwrap_err().to_string();
        assert!(wrong.contains("can be reached from other machines") && wrong.contains(guard), "{wrong}");
    }
}

/// `credential:NAME` is the file that systemd put in place, and nothing else.
#[test]
fn credentials_are_files_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("emberd.toml");
    fs::write(
        &file,
        "[phoenix]\napi_key_file = \"credential:phoenix-key\"\n[store]\nurl_file = \"credential:store\"\n",
    )
    .unwrap();
    for (name, text) in [("phoenix-key", "hush"), ("store", "postgres://emberd:hush@db/emberd")] {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o440)).unwrap();
    }
    let directory = ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap());
    let config = load(Some(&file), &[directory]).unwrap();
    assert_eq!(config.phoenix.api_key.unwrap().read().unwrap().reveal(), "hush");
    let crate::config::Database::Postgres(url) = config.store.database else { panic!("not PostgreSQL") };
    assert_eq!(url.reveal(), "postgres://emberd:hush@db/emberd");
    let faults = |variables: &[(&str, &str)]| load(Some(&file), variables).unwrap_err().to_string();
    let without = faults(&[]);
    assert_eq!(without.matches("no credentials were handed over (CREDENTIALS_DIRECTORY is not set)").count(), 2);
    assert!(faults(&[directory, ("DATABASE_URL", "postgres://other/db")]).contains("url_file: url is set too"));
    for bad in ["credential:", "credential:../etc", "credential:a/b", "credential:.."] {
        let wrong = load(None, &[directory, ("EMBERD_PHOENIX_API_KEY_FILE", bad)]).unwrap_err().to_string();
        assert!(wrong.contains("is no credential's name"), "{wrong}");
    }
    fs::write(dir.path().join("store"), "hush-no-url").unwrap();
    let wrong = faults(&[directory]);
    assert!(wrong.contains("url_file: does not hold \"sqlite\"") && !wrong.contains("hush"), "{wrong}");
}
