//! What the network stack of a namespace says about itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::NetnsRef;
use crate::wait::wait_until;

/// One of the counters in `/proc/net/snmp`, as `Tcp` and `RetransSegs`.
///
/// # Errors
///
/// The kernel has no such counter.
pub fn snmp(netns: &NetnsRef, protocol: &str, counter: &str) -> Result<u64> {
    table(netns, "snmp", protocol, counter)
}

/// One of the counters in `/proc/net/netstat`, as `TcpExt` and `TCPTimeouts`.
///
/// # Errors
///
/// The kernel has no such counter.
pub fn netstat(netns: &NetnsRef, protocol: &str, counter: &str) -> Result<u64> {
    table(netns, "netstat", protocol, counter)
}

fn table(netns: &NetnsRef, file: &str, protocol: &str, counter: &str) -> Result<u64> {
    let text = netns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")))?;
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

/// Waits until every TCP connection of the namespace has ended: nothing is left to be sent again.
///
/// # Errors
///
/// One is still there after `patience`, or they can't be read.
pub fn tcp_rests(netns: &NetnsRef, patience: Duration) -> Result<()> {
    /// `TCP_TIME_WAIT` and `TCP_LISTEN`, as the tables print them.
    const RESTING: [&str; 2] = ["06", "0A"];
    let is_at_rest = || -> Result<bool> {
        let tables = netns.run(|| {
            ["tcp", "tcp6"]
                .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
                .into_iter()
                .collect::<Result<String, _>>()
        })?;
        let mut states = tables
            .lines()
            .filter(|line| !line.contains("local_address"))
            .filter_map(|line| line.split_whitespace().nth(3));
        Ok(states.all(|state| RESTING.contains(&state)))
    };
    // An error ends the waiting too, and is told.
    let mut last = Ok(false);
    wait_until(patience, Duration::from_millis(10), || {
        last = is_at_rest();
        !matches!(last, Ok(false))
    });
    ensure!(last?, "a connection hasn't ended after {patience:?}");
    Ok(())
}
