//! What the network stack of a namespace says about itself.

use std::fs;

use anyhow::{Context, Result};

use crate::netns::NetnsRef;

/// One of the counters in `/proc/net/snmp`, as `Tcp` and `RetransSegs`.
///
/// # Errors
///
/// The kernel has no such counter.
pub fn snmp(netns: &NetnsRef, protocol: &str, counter: &str) -> Result<u64> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut rows = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = rows
        .next()
        .zip(rows.next())
        .with_context(|| format!("no {protocol}"))?;
    let value = names
        .split(' ')
        .zip(values.split(' '))
        .find_map(|(name, value)| (name == counter).then_some(value));
    let value = value.with_context(|| format!("{protocol} has no {counter}"))?;
    value.parse().with_context(|| format!("`{value}` is no number"))
}

/// One of the counters in `/proc/net/snmp6`, as `Udp6InCsumErrors`.
///
/// # Errors
///
/// The kernel has no such counter.
pub fn snmp6(netns: &NetnsRef, counter: &str) -> Result<u64> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp6"))?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        (name == counter).then(|| value.trim())
    });
    let value = value.with_context(|| format!("no {counter}"))?;
    value.parse().with_context(|| format!("`{value}` is no number"))
}
