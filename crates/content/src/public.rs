//! Asking where a stranger says: only at public addresses.
//!
//! Whoever follows the URL of a stranger can be made to ask its own router, its own services or its neighbours. So a host
//! is asked only if **every** address that it has is public, and it is these addresses that are connected to: there is no
//! second look-up that could give others. Addresses in URLs are checked before anything is sent.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Why a host is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} is not asked, since {address} is no public address")]
pub struct NotPublic {
    pub host: String,
    pub address: IpAddr,
}

/// Whether an address is one of the public internet: reached by everybody, and by everybody the same.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, and no address at all.
        [0, ..]
        // Private.
        | [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Between a provider of access and its customers.
        | [100, 64..=127, ..]
        // Loopback; link-local, where clouds keep their secrets.
        | [127, ..]
        | [169, 254, ..]
        // For protocols; documentation; relays that are no more; benchmarks.
        | [192, 0, 0, _]
        | [192, 0, 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        // Multicast, reserved, broadcast.
        | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    match address.segments() {
        // How machines without an old address see those that have nothing else.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // For protocols and tunnels; documentation; tunnels to old addresses.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Nothing else is unicast and global: not loopback, unique-local, link-local or multicast.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// The first of a host's addresses that is not public.
fn check(host: &str, mut addresses: impl Iterator<Item = IpAddr>) -> Result<(), NotPublic> {
    match addresses.find(|address| !is_public(*address)) {
        Some(address) => Err(NotPublic { host: host.to_owned(), address }),
        None => Ok(()),
    }
}

/// Refuses a URL whose host is an address that is not public. Names are checked when they are looked up.
pub fn check_url(url: &Url) -> Result<(), NotPublic> {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    check(host, address.into_iter())
}

/// Looks names up, and gives the addresses of those that have no others than public ones.
pub struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            check(name.as_str(), addresses.iter().map(SocketAddr::ip))?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether a request failed because its host is not asked.
pub(crate) fn reason(error: &reqwest::Error) -> Option<NotPublic> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<NotPublic>() {
            return Some(refused.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:db7:ffff::",
            "2001:db9::",
            "2606:4700::1111",
            "2a00::",
            "3fff:1000::",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(is_public(address.parse().expect("address")), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            // Addresses of version 4 in all their disguises.
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.1.2.3",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:1::",
            "2002:101:101::",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::",
            "2001:20::",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff:ffff::",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fdff:ffff::",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "4000::",
            "1fff:ffff::",
        ] {
            assert!(!is_public(address.parse().expect("address")), "{address}");
        }
    }

    #[test]
    fn an_address_in_a_url_is_seen_however_it_is_written() {
        for (url, refused) in [
            ("http://127.0.0.1:8700/", Some("127.0.0.1")),
            ("http://2130706433/", Some("127.0.0.1")),
            ("http://0x7f.1/", Some("127.0.0.1")),
            ("http://0177.0.0.1/", Some("127.0.0.1")),
            ("http://127.1./", Some("127.0.0.1")),
            ("http://%31%32%37.0.0.1/", Some("127.0.0.1")),
            ("http://\u{ff11}27.0.0.1/", Some("127.0.0.1")),
            ("http://[::1]/", Some("::1")),
            ("http://[::ffff:10.0.0.1]/", Some("::ffff:10.0.0.1")),
            ("http://1.1.1.1/", None),
            ("http://[2606:4700::1111]/", None),
            // Names are looked up first.
            ("http://localhost/", None),
            ("http://gateway.example/", None),
        ] {
            let refused = refused.map(|address| address.parse::<IpAddr>().expect("address"));
            let checked = check_url(&Url::parse(url).expect("url"));
            assert_eq!(checked.err().map(|error| error.address), refused, "{url}");
        }
    }

    #[test]
    fn one_address_that_is_not_public_is_enough() {
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        let (good, bad) = (address("1.1.1.1"), address("10.0.0.1"));
        assert_eq!(check("a", [good, good].into_iter()), Ok(()));
        let refused = Err(NotPublic { host: "a".into(), address: bad });
        assert_eq!(check("a", [good, bad].into_iter()), refused);
        assert_eq!(check("a", [bad, good].into_iter()), refused);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_looked_up() {
        let refused = match PublicResolver.resolve("localhost".parse().expect("name")).await {
            Ok(addresses) => panic!("{:?}", addresses.collect::<Vec<_>>()),
            Err(error) => error.downcast::<NotPublic>().expect("the reason"),
        };
        assert_eq!(refused.host, "localhost");
        assert!(refused.address.is_loopback());
    }
}
