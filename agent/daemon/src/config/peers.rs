//! Whose addresses are whose, as the operator says it: `--peer-class`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sabot_abi::{PEER_CLASS_NAMES, PEER_LOOPBACK};

use super::{ConfigError, invalid};

/// Classes of peers, `PEER_*`, by the prefixes that are theirs.
pub type PeerClasses = BTreeMap<IpNet, u32>;

const SETTING: &str = "peer-class";
/// Most of the observer's table is for addresses that the daemon finds by itself.
const MOST: usize = 1024;

/// Reads `pod=10.244.0.0/16` and the like.
pub(super) fn classes(given: Option<Vec<String>>) -> Result<PeerClasses, ConfigError> {
    let mut classes = PeerClasses::new();
    for text in given.into_iter().flatten() {
        let (prefix, class) = parse(&text).map_err(|allowed| invalid(SETTING, &text, allowed))?;
        if let Some(before) = classes.insert(prefix, class)
            && before != class
        {
            let before = PEER_CLASS_NAMES[before as usize];
            let allowed = format!("{prefix} is said to be of the class {before} too, and has one class");
            return Err(invalid(SETTING, &text, allowed));
        }
    }
    if classes.len() > MOST {
        let given = format!("{} prefixes", classes.len());
        return Err(invalid(SETTING, given, format!("at most {MOST} are")));
    }
    Ok(classes)
}

/// # Errors
///
/// What is allowed instead.
fn parse(text: &str) -> Result<(IpNet, u32), String> {
    let names = &PEER_CLASS_NAMES[..PEER_LOOPBACK as usize];
    let form = || {
        let names = names.join(", ");
        format!("a class and a prefix are needed, as `pod=10.244.0.0/16`; the classes are {names}")
    };
    let (name, prefix) = text.trim().split_once('=').ok_or_else(form)?;
    let class = names.iter().position(|known| *known == name).ok_or_else(form)?;
    let net: IpNet = prefix.parse().map_err(|_| form())?;
    if net.trunc() != net {
        let host = IpNet::from(net.addr());
        return Err(format!(
            "the network {} is, or {host} for the one address",
            net.trunc()
        ));
    }
    if net.addr().is_loopback() {
        return Err("addresses of loopback are always of the class loopback".to_owned());
    }
    if let IpAddr::V6(address) = net.addr()
        && let Some(mapped) = address.to_ipv4_mapped()
    {
        // Shorter ones begin with another address.
        let length = net.prefix_len().saturating_sub(96);
        return Err(format!("as the IPv4 prefix {mapped}/{length} it is"));
    }
    Ok((net, class as u32))
}

#[cfg(test)]
mod tests {
    use sabot_abi::{PEER_NODE, PEER_POD, PEER_SERVICE};

    use super::*;

    fn read(texts: &[&str]) -> Result<PeerClasses, String> {
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        classes(Some(texts)).map_err(|error| error.to_string())
    }

    #[test]
    fn prefixes_of_both_families_have_their_classes() {
        let given = ["pod=10.244.0.0/16", "service=fd00:96::/112", "node=192.0.2.7/32"];
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let expected = [
            (net("10.244.0.0/16"), PEER_POD),
            (net("fd00:96::/112"), PEER_SERVICE),
            (net("192.0.2.7/32"), PEER_NODE),
        ];
        assert_eq!(read(&given), Ok(expected.into()));
        // The file and a flag may say the same.
        assert_eq!(read(&[given, given].concat()), Ok(expected.into()));
        assert_eq!(classes(None).expect("nothing is fine"), PeerClasses::new());
        // An IPv4 address is one of IPv6 only where it is mapped.
        assert_eq!(
            read(&["public=::/0", "private=0.0.0.0/0"]).map(|all| all.len()),
            Ok(2)
        );
    }

    #[test]
    fn what_is_none_is_refused_with_what_is_allowed() {
        let classes = "the classes are pod, service, node, private, public";
        for (text, allowed) in [
            ("10.244.0.0/16", classes),
            ("pods=10.244.0.0/16", classes),
            ("loopback=10.244.0.0/16", classes),
            ("pod=10.244.0.0", "as `pod=10.244.0.0/16`"),
            ("pod=", "as `pod=10.244.0.0/16`"),
            ("pod=10.244.0.0/33", "as `pod=10.244.0.0/16`"),
            (
                "pod=10.244.3.0/16",
                "the network 10.244.0.0/16 is, or 10.244.3.0/32",
            ),
            ("pod=127.0.0.0/8", "always of the class loopback"),
            ("pod=::1/128", "always of the class loopback"),
            ("pod=::ffff:10.0.0.0/104", "as the IPv4 prefix 10.0.0.0/8 it is"),
        ] {
            let error = read(&[text]).expect_err(text);
            assert!(
                error.starts_with(&format!("peer-class: `{text}` is not allowed: ")),
                "{error}"
            );
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn a_prefix_has_one_class() {
        let error = read(&["pod=10.0.0.0/8", "service=10.0.0.0/8"]).expect_err("it has two");
        assert_eq!(
            error,
            "peer-class: `service=10.0.0.0/8` is not allowed: 10.0.0.0/8 is said to be of the class pod too, and has one \
             class"
        );
    }

    #[test]
    fn there_is_room_for_so_many() {
        let all = |count: u32| -> Vec<String> {
            let addresses = (0..count).map(|host| std::net::Ipv4Addr::from(0x0a00_0000 + host));
            addresses.map(|address| format!("pod={address}/32")).collect()
        };
        assert_eq!(classes(Some(all(1024))).expect("there is room").len(), 1024);
        let error = classes(Some(all(1025))).expect_err("there isn't").to_string();
        assert_eq!(
            error,
            "peer-class: `1025 prefixes` is not allowed: at most 1024 are"
        );
    }
}
