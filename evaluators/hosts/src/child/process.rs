//! Starting a process, and its end.
//!
//! Promise: a thread stays with each process from fork to reaping. It is the parent whose death kills the child (`PR_SET_PDEATHSIG` is
//! bound to a thread, and a runtime's threads come and go), and when the child ends it kills what is left of its group before the pid is
//! given free, so that no other process is ever hit. A guard, a shell that waits for emberd's end of a pipe to close, kills the group
//! when emberd itself is killed. Dropping a [`Process`] kills it.
//! Not here: offspring that leaves the group and outlives its parents, when emberd is killed in the same moment (docs/plugins.md).
//! Kept by: `tests/it/orphans.rs`.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command as Program, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::limits::ProcessLimits;
use super::tree;
use crate::config::Command;

/// Where programs are looked for unless the configuration says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `$0` is the group. It reads until emberd's end is closed, which a killed emberd's is.
const GUARD: &str = "read -r _; kill -KILL -\"$0\"";

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    group: Group,
    end: watch::Receiver<Option<String>>,
}

/// Its process group; `None` before it is there, and once the pid may belong to somebody else. Dropping it kills the group.
#[derive(Debug)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

type Started = io::Result<(u32, ChildStdout, ChildStderr)>;

impl Process {
    /// Starts it, and its thread.
    pub(super) async fn start(
        name: &str,
        command: &Command,
        home: &Path,
    ) -> Result<(Self, pipe::Receiver, pipe::Receiver), String> {
        let program = program(name, command, home).ok_or("its command is empty")?;
        // Before the channel: when this is cancelled, the channel is closed first, and whoever starts it later finds it so.
        let group = Group(Arc::new(Mutex::new(None)));
        let (started, begun) = oneshot::channel();
        let (ended, end) = watch::channel(None);
        let minded = Arc::clone(&group.0);
        let thread = std::thread::Builder::new().name(format!("plugin {name}")).stack_size(256 << 10);
        thread.spawn(move || mind(program, &minded, started, &ended)).map_err(|error| format!("no thread: {error}"))?;
        let begun = begun.await.map_err(|_| "its thread ended".to_owned())?;
        let (pid, stdout, stderr) = begun.map_err(|error| format!("cannot start {:?}: {error}", command.argv[0]))?;
        let process = Self { pid, group, end };
        let read = |fd: std::os::fd::OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(|error| error.to_string());
        Ok((process, read(stdout.into())?, read(stderr.into())?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end: how it came.
    pub(super) async fn exited(&mut self) -> String {
        match self.end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_default(),
            Err(_) => "its thread ended".into(),
        }
    }

    /// Asks it to end, and kills it with its group and offspring when it does not.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.group.signal(Signal::TERM);
        let _ = timeout(grace, self.exited()).await;
        self.kill();
        self.exited().await;
    }

    fn kill(&self) {
        // Those that left the group are found by their parents, while those live.
        let strays = if self.end.borrow().is_none() { tree::offspring(self.pid) } else { Vec::new() };
        self.group.signal(Signal::KILL);
        for stray in strays {
            let _ = rustix::process::kill_process(stray, Signal::KILL);
        }
    }
}

/// The thread's work: fork, wait, clear up, reap.
fn mind(
    mut program: Program,
    group: &Mutex<Option<Pid>>,
    started: oneshot::Sender<Started>,
    ended: &watch::Sender<Option<String>>,
) {
    let (mut child, pid) = match start(&mut program) {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let mut guard = guard(pid);
    *group.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
    let pipes = child.stdout.take().zip(child.stderr.take());
    let told = pipes.is_some_and(|(out, err)| started.send(Ok((child.id(), out, err))).is_ok());
    if !told {
        // Whoever wanted it is gone.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    // Waits without reaping: the pid, and so the group, is still its own.
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    // Before the pid is free: the guard knows the group by it.
    if let Some(guard) = &mut guard {
        let _ = guard.kill();
        let _ = guard.wait();
    }
    *group = None;
    drop(group);
    let end = child.wait().map_or_else(|error| error.to_string(), told_by);
    ended.send_replace(Some(end));
}

fn start(program: &mut Program) -> io::Result<(Child, Pid)> {
    let child = program.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.map(|pid| (child, pid)).ok_or_else(|| io::Error::other("a pid that is none"))
}

fn told_by(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "an unknown end".into(),
    }
}

/// The program with all that it gets and all that is taken from it.
fn program(name: &str, command: &Command, home: &Path) -> Option<Program> {
    let (first, arguments) = command.argv.split_first()?;
    let mut program = Program::new(first);
    program
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("LANG", "C.UTF-8")
        .envs(&command.env)
        .env("EMBERD_PLUGIN", name)
        .env("EMBERD_PLUGIN_CONTRACT", emberd_evaluators_kit::wire::CONTRACT.to_string())
        .env("EMBERD_PLUGIN_SOCKET", super::socket(home))
        .current_dir(command.working_dir.as_deref().unwrap_or(home))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let limits = command.limits;
    let emberd = rustix::process::getpid();
    // SAFETY: between fork and exec, only system calls that are async-signal-safe are made, and nothing is allocated.
    unsafe { program.pre_exec(move || confine(&limits, emberd)) };
    Some(program)
}

/// In the child, before it becomes the plugin.
fn confine(limits: &ProcessLimits, emberd: Pid) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // emberd may have died before that: then nobody would send the signal.
    if rustix::process::getppid() != Some(emberd) {
        return Err(io::Error::from(rustix::io::Errno::SRCH));
    }
    rustix::thread::set_no_new_privs(true)?;
    limits.impose()
}

/// Kills the group when emberd is killed. Without a shell, the child alone dies with emberd, and its offspring may not.
fn guard(group: Pid) -> Option<Child> {
    let mut guard = Program::new("/bin/sh");
    guard.args(["-c", GUARD, &group.as_raw_nonzero().to_string()]).env_clear().current_dir("/").process_group(0);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    guard
        .spawn()
        .inspect_err(|error| tracing::warn!(%error, "no guard: a plugin's offspring may outlive a killed emberd"))
        .ok()
}
