//! emberd under a supervisor that speaks systemd's protocols: when it says that it is ready, that it goes on, that it stops; sockets that
//! outlive it; and what `systemd/` promises. The same under a real systemd, installed from the package: `packaging/try`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::client::Client;
use super::kill::Made;
use super::process::{Home, PATIENCE, wait_for};

/// The far end of `NOTIFY_SOCKET`.
struct Hears(Receiver<String>);

impl Hears {
    fn in_home(home: &mut Home) -> Self {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        home.set("NOTIFY_SOCKET", path.to_str().unwrap());
        let (told, hears) = channel();
        // A queue of datagrams is short: somebody must listen all the time. It ends with the test's process, or when nobody asks.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                if told.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self(hears)
    }

    /// The next message that is of interest; those before it.
    fn until(&self, what: impl Fn(&str) -> bool) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let said = self.0.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("not heard; only {all:?}"));
            if what(&said) {
                return all;
            }
            all.push(said);
        }
    }
}

fn answers(api: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(api) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut first = String::new();
    asked.is_ok() && BufReader::new(stream).read_line(&mut first).is_ok() && first.starts_with("HTTP/1.1 200")
}

/// READY is said when the ports answer; WATCHDOG goes on with a database and an endpoint that are away, with the truth beside it; a
/// reload begins and ends; STOPPING is said as soon as the stop begins.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_the_truth() {
    let mut home = Home::new();
    home.set("EMBERD_STORE_URL", "postgres://emberd@127.0.0.1:9/nowhere").set("WATCHDOG_USEC", "100000");
    home.set("EMBERD_ARCHIVE_ENABLED", "false");
    home.set("EMBERD_FORWARD", "[{ name = \"away\", url = \"http://127.0.0.1:9/v1/traces\" }]");
    let hears = Hears::in_home(&mut home);
    let path = home.path().to_owned();
    let ready = std::thread::spawn(move || {
        hears.until(|said| said == "READY=1");
        // Looked at once, without patience.
        let run: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join("run.json")).unwrap()).unwrap();
        assert!(answers(run["api"].as_str().unwrap()));
        for door in ["grpc", "http"] {
            TcpStream::connect(run[door].as_str().unwrap()).unwrap();
        }
        hears
    });
    let emberd = home.start();
    let hears = ready.join().unwrap();
    let mut client = Client::connect(&emberd).await;
    for number in (0..30).step_by(3) {
        client.send_grpc(Made::new(number).requests[0].clone()).await.unwrap();
    }
    const TRUTH: &str = "WATCHDOG=1\nSTATUS=20 spans accepted, away 20 behind, recorder 20 behind";
    hears.until(|said| said == TRUTH);
    for _ in 0..5 {
        hears.until(|said| said == TRUTH);
    }
    emberd.signal("HUP");
    hears.until(|said| said.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    hears.until(|said| said == "READY=1");
    emberd.signal("TERM");
    hears.until(|said| said.starts_with("STOPPING=1\n"));
    // How the stop goes on is `stopping`'s.
    emberd.kill();
}

/// What systemd does with a socket unit: binds three sockets, and starts emberd with them whenever it is told to.
const LAUNCHER: &str = r#"
import fcntl, os, signal, socket, sys
listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(3)]
# The one without a name of its own is known by its port.
os.environ["EMBERD_INTAKE_HTTP"] = "127.0.0.1:%d" % listeners[1].getsockname()[1]
print(*["%s:%d" % l.getsockname() for l in listeners], flush=True)
for line in sys.stdin:
    if line == "up\n":
        pid = os.fork()
        if pid == 0:
            for at, fd in enumerate([fcntl.fcntl(l, fcntl.F_DUPFD, 20) for l in listeners]):
                os.dup2(fd, 3 + at)
                os.close(fd)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="grpc:emberd.socket:api")
            os.execv(sys.argv[1], sys.argv[1:])
        print(pid, flush=True)
    elif line == "down\n":
        os.kill(pid, signal.SIGTERM)
        print(os.waitpid(pid, 0)[1], flush=True)
"#;

struct Launcher {
    child: Child,
    orders: ChildStdin,
    says: BufReader<ChildStdout>,
    pid: Option<String>,
}

impl Launcher {
    fn new(home: &Home) -> (Self, [String; 3]) {
        let emberd = home.command(&["serve"]);
        let mut command = Command::new("python3");
        command.args(["-c", LAUNCHER]).arg(emberd.get_program()).args(emberd.get_args());
        for (name, value) in emberd.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let log = std::fs::File::create(home.path().join("stderr.log")).unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (orders, says) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut launcher = Self { child, orders, says, pid: None };
        let addresses: Vec<String> = launcher.line().split(' ').map(str::to_owned).collect();
        (launcher, addresses.try_into().unwrap())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn up(&mut self) {
        self.orders.write_all(b"up\n").unwrap();
        self.pid = Some(self.line());
    }

    /// How it ended.
    fn down(&mut self) -> String {
        self.orders.write_all(b"down\n").unwrap();
        self.pid = None;
        self.line()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if let Some(pid) = &self.pid {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a whole request; its answer is read later.
fn ask(address: &str, head: &str, body: &[u8]) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"content-type: application/x-protobuf\r\n\r\n").unwrap();
    stream.write_all(body).unwrap();
    BufReader::new(stream)
}

fn is_ok(mut answer: BufReader<TcpStream>) -> bool {
    let mut first = String::new();
    answer.read_line(&mut first).is_ok() && first.starts_with("HTTP/1.1 200")
}

/// Sockets that were handed over are the doors: whoever connects while emberd is away waits, and is answered by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_refuses_no_connection() {
    let home = Home::new();
    let (mut launcher, [grpc, http, api]) = Launcher::new(&home);
    for life in 0..3 {
        let body = Made::new(3 * life).requests[0].clone();
        let health = ask(&api, "GET /healthz", b"");
        let spans = ask(&http, "POST /v1/traces", &body);
        let mut client = Client::at(format!("http://{grpc}"), format!("http://{http}/v1/traces")).await;
        let sent = tokio::spawn(async move { client.send_grpc(body).await });
        launcher.up();
        assert!(is_ok(health) && is_ok(spans));
        sent.await.unwrap().unwrap();
        let run = wait_for("run.json", || std::fs::read(home.path().join("run.json")).ok());
        let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
        assert_eq!([&run["grpc"], &run["http"], &run["api"]], [&grpc, &http, &api]);
        let status: serde_json::Value =
            reqwest::get(format!("http://{api}/api/status")).await.unwrap().json().await.unwrap();
        assert_eq!(status["ledger"]["accepted_spans"], 4 * (life + 1), "{status:#}");
        assert_eq!(launcher.down(), "0");
    }
}

/// A socket that other machines reach is a door that asks for a key, wherever its address was said.
#[test]
fn a_socket_that_others_reach_is_refused_without_keys() {
    let home = Home::new();
    let mut command = Command::new("python3");
    let open = LAUNCHER.replace("(\"127.0.0.1\", 0)", "(\"0.0.0.0\", 0)").replace("os.fork()", "0");
    let emberd = home.command(&["serve"]);
    command.args(["-c", &open]).arg(emberd.get_program()).args(emberd.get_args());
    command.envs(emberd.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"up\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("LISTEN_FDNAMES: \"grpc\": 0.0.0.0:") && said.contains("set [intake] keys_file"), "{said}");
    assert!(!home.path().join("log").exists(), "found before anything was made");
}

fn systemd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd").canonicalize().unwrap()
}

/// Runs systemd-analyze over units of ours, and gives what it said; the program that the unit starts is the one under test.
fn analyze(units: &[&str], arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for name in units {
        let unit = std::fs::read_to_string(systemd().join(name)).unwrap();
        let unit = unit.replace("/usr/bin/emberd ", concat!(env!("CARGO_BIN_EXE_emberd"), " "));
        let place = dir.path().join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, unit).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg("--no-pager").current_dir(dir.path());
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()));
    let output = command.output().expect("systemd-analyze: run make setup");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

/// systemd's own judgement of the sandbox stays at 1.5 at most, and the units are without fault, with and without the drop-in.
#[test]
fn the_unit_is_tight() {
    const UNITS: [&str; 3] = ["emberd.service", "emberd.socket", "emberd.service.d/example.conf"];
    let exposure = |units: &[&str]| -> f64 {
        let said = analyze(units, &["security", "--offline=true", "--threshold=15", "./emberd.service"]);
        let told = said.lines().find_map(|line| line.split_once("exposure level for emberd.service: ")).expect(&said);
        told.1.split(' ').next().unwrap().parse().unwrap()
    };
    let [alone, with_drop_in] = [exposure(&UNITS[..2]), exposure(&UNITS)];
    assert!(alone <= 1.5 && with_drop_in <= 1.5, "{alone} {with_drop_in}");
    super::figure("F19", &[("exposure", alone.into()), ("with_the_drop_in", with_drop_in.into())]);
    for units in [&UNITS[..2], &UNITS] {
        // It has no other way to say that a key is unknown.
        assert_eq!(analyze(units, &["verify", "./emberd.service", "./emberd.socket"]), "");
    }
}
