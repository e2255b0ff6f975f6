use std::time::Instant;

use emberd_log::sim::SimDisk;
use emberd_log::{Appender, Entry};
use emberd_model::UnixNanos;
use emberd_model::clock::Still;

use super::*;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const WATCHDOG: Duration = Duration::from_millis(20);

/// The far end of a notify socket, and what tells it.
fn listening() -> (tempfile::TempDir, UnixDatagram, Systemd) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let hears = UnixDatagram::bind(&path).unwrap();
    hears.set_read_timeout(Some(PATIENCE)).unwrap();
    let supervisor = Supervisor { notify: Some(path.into()), watchdog: Some(WATCHDOG), ..Supervisor::default() };
    (dir, hears, Systemd::new(&supervisor).unwrap())
}

fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn until(socket: &UnixDatagram, what: impl Fn(&str) -> bool) {
    let since = Instant::now();
    while !what(&hear(socket)) {
        assert!(since.elapsed() < PATIENCE, "never heard");
    }
}

/// A disk from whose sync nobody returns withholds the watchdog's message, for as long as it lasts; then it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_withholds_the_watchdog() {
    let disk = SimDisk::new();
    let config = emberd_log::Config { budget_bytes: 4 << 20, ..emberd_log::Config::in_dir("/log") };
    let clock = Arc::new(Still::at(UnixNanos(1)));
    let (log, _) = DiskLog::open(config, Arc::new(disk.clone()), clock).unwrap();
    let (_dir, hears, systemd) = listening();
    let consumer = Progress::new("recorder");
    let watched = Watched { log: log.clone(), consumers: vec![Arc::new(consumer)] };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { systemd.watch(watched).await });
    until(&hears, |said| said == "WATCHDOG=1\nSTATUS=0 spans accepted, recorder 0 behind");

    disk.hold_syncs(true);
    let entry = Entry {
        spans: 3.try_into().unwrap(),
        received_at: UnixNanos(1),
        key: Default::default(),
        flags: Default::default(),
        body: b"three spans".to_vec().into(),
    };
    let append = log.append(entry);
    until(&hears, |said| said.starts_with("STATUS=stuck"));
    for _ in 0..3 {
        assert!(!hear(&hears).contains("WATCHDOG"));
    }
    disk.hold_syncs(false);
    append.await.unwrap();
    until(&hears, |said| said == "WATCHDOG=1\nSTATUS=3 spans accepted, recorder 3 behind");
}

/// The names of a notify socket, and what each message is.
#[test]
fn what_is_told() {
    let (_dir, hears, systemd) = listening();
    systemd.ready();
    assert_eq!(hear(&hears), "READY=1");
    systemd.reloading();
    let said = hear(&hears);
    let usec: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((1..=monotonic_usec()).contains(&usec));
    systemd.stopping();
    assert!(hear(&hears).starts_with("STOPPING=1\nSTATUS="));
    // Nobody listens any more: nothing comes of it.
    drop(hears);
    systemd.ready();

    let name = format!("emberd-test-{}", std::process::id());
    let hears = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let supervisor = Supervisor { notify: Some(format!("@{name}").into()), ..Supervisor::default() };
    Systemd::new(&supervisor).unwrap().ready();
    assert_eq!(hear(&hears), "READY=1");
    Systemd::default().ready();
}
