//! What keys must be together, once each is good by itself.

use std::net::SocketAddr;

use super::Config;
use super::reader::Reader;
use super::sections::SEGMENT_MIN;
use super::units::ByteSize;

/// Notes what does not fit together.
pub(super) fn check(config: &Config, reader: &mut Reader) {
    log_holds_segments(config, reader);
    doors_are_guarded(config, reader);
    ports_differ(config, reader);
}

fn log_holds_segments(config: &Config, reader: &mut Reader) {
    let (budget, segment) = (config.log.budget, config.log.segment);
    if budget.0 / 2 < segment.0 {
        let needed = ByteSize(segment.0.saturating_mul(2).max(2 * SEGMENT_MIN.0));
        reader.fault(
            reader.place("log", "budget"),
            "log",
            "budget",
            format!("{budget} is less than two segments of {segment}: at least {needed}"),
        );
    }
}

/// Whoever reaches a door may use it, so only this machine reaches one that asks for nothing.
fn doors_are_guarded(config: &Config, reader: &mut Reader) {
    let keys = config.intake.keys.is_some() || reader.has_fault("intake", "keys_file");
    for (key, address) in [("grpc", config.intake.grpc), ("http", config.intake.http)] {
        if !address.ip().is_loopback() && !keys {
            let message =
                format!("{address} can be reached from other machines: set [intake] keys_file, or listen on 127.0.0.1");
            reader.fault(reader.place("intake", key), "intake", key, message);
        }
    }
    let listen = config.api.listen;
    let tokens = config.identity.is_some() || reader.has_fault("identity", "jwt_secret_file");
    if !listen.ip().is_loopback() && !tokens {
        let message = format!(
            "{listen} can be reached from other machines: set [identity] jwt_secret_file, or listen on 127.0.0.1"
        );
        reader.fault(reader.place("api", "listen"), "api", "listen", message);
    }
}

fn ports_differ(config: &Config, reader: &mut Reader) {
    let doors = [
        ("intake", "grpc", config.intake.grpc),
        ("intake", "http", config.intake.http),
        ("api", "listen", config.api.listen),
    ];
    for (index, (section, key, address)) in doors.into_iter().enumerate() {
        for (other_section, other_key, other) in &doors[..index] {
            if collide(address, *other) {
                let message = format!("{address} is the address of [{other_section}] {other_key} too");
                reader.fault(reader.place(section, key), section, key, message);
            }
        }
    }
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 is a free one, a different one each time.
    one.port() != 0 && one.port() == other.port() && same_host
}
