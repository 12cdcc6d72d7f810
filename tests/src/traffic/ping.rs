//! The system's ping.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::median;
use crate::netns::NetnsRef;

/// What ping printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    /// Round trips of the answers, in their order.
    pub round_trips: Vec<Duration>,
}

impl PingReport {
    /// `None` without an answer.
    pub fn median(&self) -> Option<Duration> {
        (!self.round_trips.is_empty()).then(|| median(self.round_trips.clone()))
    }
}

/// Sends echo requests from inside a namespace; waits up to a second for the last answers.
///
/// # Errors
///
/// ping can't be started or its arguments are refused; requests without answers are no error.
pub fn ping(netns: &NetnsRef, to: IpAddr, count: u32, interval: Duration) -> Result<PingReport> {
    let output = netns
        .command("ping")
        .args(["-n", "-W", "1", "-c", &count.to_string()])
        .args(["-i", &format!("{:.3}", interval.as_secs_f64())])
        .arg(to.to_string())
        .env("LC_ALL", "C")
        .output()
        .context("ping can't be started")?;
    // 1 is "no answer"; 2 is an error.
    if output.status.code().is_none_or(|code| code > 1) {
        bail!(
            "ping {to} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(PingReport {
        sent: count,
        round_trips: text.lines().filter_map(round_trip).collect(),
    })
}

/// The time in a line like `64 bytes from 10.77.0.11: icmp_seq=1 ttl=64 time=0.041 ms`.
fn round_trip(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once(" time=")?;
    let milliseconds: f64 = rest.strip_suffix(" ms")?.parse().ok()?;
    Some(Duration::from_secs_f64(milliseconds / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_have_a_round_trip() {
        let answer = "64 bytes from 10.77.0.11: icmp_seq=1 ttl=64 time=50.1 ms";
        assert_eq!(round_trip(answer), Some(Duration::from_micros(50_100)));
        assert_eq!(
            round_trip("PING 10.77.0.11 (10.77.0.11) 56(84) bytes of data."),
            None
        );
        assert_eq!(round_trip("rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms"), None);
    }
}
