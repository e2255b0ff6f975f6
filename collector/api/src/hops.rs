//! From which address a request comes, where proxies stand in between.
//!
//! Promise: the socket's other end, unless that is one of the trusted proxies; then the rightmost address of `X-Forwarded-For` that is
//! not one of them. What a proxy that nobody trusts, or the caller itself, wrote there counts for nothing. Where a hop cannot be read the
//! walk ends, and the last trusted one counts.
//! Kept by: `tests` below, `tests::gate::a_strangers_pace_is_its_addresss`.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// Hops that are looked at; a chain of more proxies is nobody's.
const HOPS_MAX: usize = 16;

/// A network, as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

/// IPv4 as a part of IPv6.
fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        IpAddr::V6(six) => six.to_bits(),
    }
}

impl Network {
    /// The network of this address and so many leading bits; none where it has not so many.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let bits = match address {
            IpAddr::V4(_) if bits <= 32 => u32::from(bits) + 96,
            IpAddr::V6(_) if bits <= 128 => u32::from(bits),
            _ => return None,
        };
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        Some(Self { address: wide(address) & mask, mask })
    }

    fn holds(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.address
    }
}

/// Where a request comes from.
pub(crate) fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    let mut from = peer.to_canonical();
    if !is_trusted(from) {
        return from;
    }
    let lines: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(|line| line.as_bytes()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        let Some(address) = parse(hop) else { return from };
        from = address;
        if !is_trusted(from) {
            return from;
        }
    }
    from
}

/// An address, with or without a port; brackets around IPv6 where there is one.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let plain = hop.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(hop);
    let address = plain.parse().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, bits) = text.split_once('/').unwrap();
        Network::new(address.parse().unwrap(), bits.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_rightmost_hop_that_nobody_trusts_counts() {
        let trusted = [network("10.0.0.0/8"), network("fd00::/8"), network("192.0.2.7/32")];
        for (peer, lines, expected) in [
            ("203.0.113.9", &["1.1.1.1"] as &[&str], "203.0.113.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.4"], "198.51.100.4"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.4"], "198.51.100.4"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.4, 10.9.9.9 ,192.0.2.7"], "198.51.100.4"),
            ("10.1.2.3", &["198.51.100.4", "10.9.9.9"], "198.51.100.4"),
            ("10.1.2.3", &["6.6.6.6", "198.51.100.4:5555"], "198.51.100.4"),
            ("10.1.2.3", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            // What cannot be read ends the walk.
            ("10.1.2.3", &["6.6.6.6, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.1.2.3", &["6.6.6.6,"], "10.1.2.3"),
            ("10.1.2.3", &["6.6.6.6, 10.0.0.256"], "10.1.2.3"),
            ("fd00::1", &["[2001:db8::5]:443"], "2001:db8::5"),
            ("fd00::1", &["2001:db8::5"], "2001:db8::5"),
            ("::ffff:10.1.2.3", &["::ffff:198.51.100.4"], "198.51.100.4"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            let found = origin(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn networks_end_where_they_say() {
        assert!(network("10.0.0.0/8").holds("10.255.255.255".parse().unwrap()));
        assert!(!network("10.0.0.0/8").holds("11.0.0.0".parse().unwrap()));
        assert!(network("0.0.0.0/0").holds("203.0.113.1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").holds("2001:db8::1".parse().unwrap()));
        assert!(network("::/0").holds("2001:db8::1".parse().unwrap()));
        assert_eq!(Network::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Network::new("::".parse().unwrap(), 129), None);
    }

    /// A long chain costs a bounded walk.
    #[test]
    fn a_chain_of_a_thousand_hops_is_not_walked() {
        let mut headers = HeaderMap::new();
        let line = format!("6.6.6.6,{}", ["10.0.0.1"; 1_000].join(","));
        headers.append("x-forwarded-for", line.parse().unwrap());
        let found = origin("10.0.0.2".parse().unwrap(), &headers, &[network("10.0.0.0/8")]);
        assert_eq!(found, "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
