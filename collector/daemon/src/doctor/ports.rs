//! The three ports: free, held by the emberd of this data directory, or by somebody else, who is named where it can be seen.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::{Finding, Patient};
use crate::run_file::RunFile;

pub(super) async fn look(patient: Patient) -> Vec<Finding> {
    let running = RunFile::read(&patient.config.data_dir);
    let config = &patient.config;
    let ports = [
        ("port grpc", "[intake] grpc", config.intake.grpc),
        ("port http", "[intake] http", config.intake.http),
        ("port api", "[api] listen", config.api.listen),
    ];
    ports.into_iter().map(|(check, key, address)| one(check, key, address, running.as_ref())).collect()
}

fn one(check: &str, key: &str, address: SocketAddr, running: Option<&RunFile>) -> Finding {
    if address.port() == 0 {
        let told = running.filter(|run| run.is_alive()).map(|run| format!("; emberd (pid {}) runs", run.pid));
        return Finding::ok(check, format!("{address}: a free one is taken{}", told.unwrap_or_default()));
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => taken(check, key, address, running),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let advice = format!("set {key} to a port above 1023, or give emberd CAP_NET_BIND_SERVICE");
            Finding::failed(check, format!("{address} may not be taken"), advice)
        }
        Err(error) => {
            let advice = format!("set {key} to an address of this machine");
            Finding::failed(check, format!("{address}: {error}"), advice)
        }
    }
}

fn taken(check: &str, key: &str, address: SocketAddr, running: Option<&RunFile>) -> Finding {
    let holder = holder(address);
    let own = running.filter(|run| run.is_alive() && run.listens_at(address));
    match (own, holder) {
        (Some(run), None) => Finding::ok(check, format!("{address} is held by this emberd (pid {})", run.pid)),
        (Some(run), Some((pid, _))) if pid == run.pid => {
            Finding::ok(check, format!("{address} is held by this emberd (pid {pid})"))
        }
        (_, Some((pid, name))) => {
            let advice = format!("stop it, or set {key} to another port");
            Finding::failed(check, format!("{address} is held by {name} (pid {pid})"), advice)
        }
        (_, None) => {
            let advice = format!("see `ss -ltnp` who it is and stop it, or set {key} to another port");
            Finding::failed(check, format!("{address} is held by another process"), advice)
        }
    }
}

/// Who listens there, by its pid and name, as far as this process may see it.
fn holder(address: SocketAddr) -> Option<(u32, String)> {
    let socket = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listening(line, address))
    })?;
    let wanted = format!("socket:[{socket}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files.find(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))?;
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some((pid, name.trim().to_owned()))
    })
}

/// The socket's number, if this line of `/proc/net/tcp` is about one that listens at the address, or at all of its port.
fn listening(line: &str, address: SocketAddr) -> Option<u64> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (host, port) = local.rsplit_once(':')?;
    let is_all = host.bytes().all(|digit| digit == b'0');
    let is_it = state == "0A"
        && u16::from_str_radix(port, 16) == Ok(address.port())
        && (is_all || address.ip().is_unspecified() || hex(address.ip()).as_deref() == Some(host));
    // inode: the seventh field after the state.
    if is_it { fields.nth(5)?.parse().ok() } else { None }
}

/// As the kernel writes an IPv4 address there; IPv6 addresses are told from each other by their port alone.
fn hex(ip: IpAddr) -> Option<String> {
    match ip {
        IpAddr::V4(ip) => Some(format!("{:08X}", u32::from_ne_bytes(ip.octets()))),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener of this process is found by its pid and name.
    #[test]
    fn who_holds_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (pid, name) = holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(holder(address), None);
    }
}
