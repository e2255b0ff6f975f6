//! What keys must be together, once each is good by itself.

use std::net::SocketAddr;

use super::reader::Reader;
use super::sections::SEGMENT_MIN;
use super::units::ByteSize;
use super::{Config, Door};

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
    for door in Door::ALL {
        let (section, key) = door.key();
        // What names a guard and cannot be read is a fault already.
        let (guarding, guard) = door.guard();
        if let Err(message) = is_guarded(config, door)
            && !reader.has_fault(guarding, guard)
        {
            reader.fault(reader.place(section, key), section, key, message);
        }
    }
}

/// Whether a door listens where only this machine reaches it, or asks who is there.
pub(super) fn is_guarded(config: &Config, door: Door) -> Result<(), String> {
    let address = config.listens(door);
    let asks = match door {
        Door::Grpc | Door::Http => config.intake.keys.is_some(),
        Door::Api => config.identity.is_some(),
    };
    if address.ip().is_loopback() || asks {
        return Ok(());
    }
    let (section, key) = door.guard();
    Err(format!("{address} can be reached from other machines: set [{section}] {key}, or listen on 127.0.0.1"))
}

fn ports_differ(config: &Config, reader: &mut Reader) {
    let doors = Door::ALL.map(|door| (door.key().0, door.key().1, config.listens(door)));
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
