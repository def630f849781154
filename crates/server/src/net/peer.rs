//! From where a request comes: the socket's other end, or whom a trusted proxy names.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

use super::{Backend, Shared, error::ApiError};

/// The other end of a request's socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The address that a request is counted for.
pub(crate) struct From(pub(crate) IpAddr);

/// An address as far as one person has it: all of IPv4, a /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Network(u128);

impl std::convert::From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(address.to_bits())),
            IpAddr::V6(address) => Self(address.to_bits() >> 64 << 64),
        }
    }
}

impl<B: Backend> FromRequestParts<Arc<Shared<B>>> for From {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared<B>>,
    ) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
        let config = shared.config.read();
        let trusted = &config.server.trusted_proxies;
        Ok(Self(address(peer, &parts.headers, trusted)))
    }
}

/// Each proxy adds, at the end, whom it asks for: the first from there that is no proxy of ours.
fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[String]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| contains(net, address));
    let mut found = peer.to_canonical();
    let named = headers.get_all("x-forwarded-for").iter();
    let named: Vec<&str> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for name in named.iter().rev() {
        if !is_trusted(found) {
            break;
        }
        let Ok(address) = name.trim().parse::<IpAddr>() else {
            break;
        };
        found = address.to_canonical();
    }
    found
}

/// Whether `network`, an address or one with the length of a prefix, contains `address`.
fn contains(network: &str, address: IpAddr) -> bool {
    let (base, length) = match network.split_once('/') {
        Some((base, length)) => (base, length.parse::<u32>().ok()),
        None => (network, None),
    };
    match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(length.unwrap_or(32));
            let differ = u64::from(base.to_bits() ^ address.to_bits());
            differ >> shift == 0
        }
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(length.unwrap_or(128));
            let differ = base.to_bits() ^ address.to_bits();
            differ.checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac6_only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".to_owned(), "::1".to_owned()];
        let from = |peer: &str, named: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for name in named {
                headers.append("x-forwarded-for", name.parse().unwrap());
            }
            address(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(from("192.0.2.7", &["198.51.100.1"]), "192.0.2.7");
        assert_eq!(from("10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(from("10.1.2.3", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            from("::1", &["6.6.6.6, 198.51.100.1, 10.9.9.9"]),
            "198.51.100.1"
        );
        assert_eq!(
            from("10.1.2.3", &["6.6.6.6", "198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(from("10.1.2.3", &["198.51.100.1, nonsense"]), "10.1.2.3");
        assert_eq!(from("::ffff:10.1.2.3", &["2001:db8::1"]), "2001:db8::1");
        assert!(contains("0.0.0.0/0", "192.0.2.7".parse().unwrap()));
        assert!(contains("2001:db8::/32", "2001:db8:1::1".parse().unwrap()));
        assert!(!contains("2001:db8::/32", "2001:db9::1".parse().unwrap()));
        assert!(!contains("11.0.0.0/8", "10.0.0.1".parse().unwrap()));
    }
}
