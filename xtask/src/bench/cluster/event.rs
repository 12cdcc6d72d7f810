//! How long an event takes from the API server into the kernel.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_testkit::{Lab, LabPod};

use super::people::Inhabited;
use crate::bench::measure::Samples;
use crate::interrupt;

const PATIENCE: Duration = Duration::from_secs(30);
/// Far longer than a datagram takes that passes.
const TICK: Duration = Duration::from_millis(10);
/// So many in a row that don't arrive are dropped, and not late.
const MISSED: u32 = 10;

/// The last pod of the lab becomes a peer of the first fault, again and again; how long after that the first datagram was
/// sent that didn't arrive.
///
/// # Errors
///
/// Datagrams go on passing, or never pass.
pub(super) fn latency(repetitions: usize, lab: &Lab, cluster: &Inhabited) -> Result<Samples> {
    let (target, peer) = (lab.pod(0), lab.pods().last().context("the lab is empty")?);
    let IpAddr::V4(address) = peer.ipv4() else {
        anyhow::bail!("the lab has no IPv4 addresses");
    };
    let mut line = Line::new(target, peer)?;
    let mut samples = Samples::default();
    line.until(true)?;
    for change in 0..repetitions {
        interrupt::check()?;
        let told = Instant::now();
        cluster.add_peer(address, change);
        samples.push_ms(line.until(false)?.saturating_duration_since(told));
        cluster.remove_peer();
        line.until(true)?;
    }
    Ok(samples)
}

/// Datagrams from one pod to another.
struct Line {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    number: u64,
}

impl Line {
    fn new(from: &LabPod, to: &LabPod) -> Result<Self> {
        let socket = |pod: &LabPod| {
            let address = pod.ipv4();
            pod.netns().run(|| UdpSocket::bind((address, 0)))
        };
        let receiver = socket(to).context("the peer has no UDP socket")?;
        receiver.set_read_timeout(Some(TICK))?;
        Ok(Self {
            sender: socket(from).context("the target has no UDP socket")?,
            to: receiver.local_addr()?,
            receiver,
            number: 0,
        })
    }

    /// Sends one after the other until they pass, or don't; returns when the first of those was sent.
    fn until(&mut self, passes: bool) -> Result<Instant> {
        let end = Instant::now() + PATIENCE;
        let (mut first, mut in_a_row) = (Instant::now(), 0);
        loop {
            ensure!(
                Instant::now() < end,
                "after {PATIENCE:?} packets {} pass",
                if passes { "don't" } else { "still" }
            );
            let sent = Instant::now();
            if self.passes()? == passes {
                if in_a_row == 0 {
                    first = sent;
                }
                in_a_row += 1;
                if passes || in_a_row == MISSED {
                    return Ok(first);
                }
            } else {
                in_a_row = 0;
            }
        }
    }

    fn passes(&mut self) -> Result<bool> {
        self.number += 1;
        let sent = self.number.to_le_bytes();
        self.sender
            .send_to(&sent, self.to)
            .context("the target can't send")?;
        let mut datagram = [0; 8];
        // An earlier one that was late says nothing.
        while let Ok(length) = self.receiver.recv(&mut datagram) {
            if datagram[..length] == sent {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
