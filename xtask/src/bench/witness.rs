//! Whether packets that are sent after the answer still pass.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sabot_testkit::LabPod;

const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(5);

/// A socket in each target and one at their peer. A datagram that is sent from a target after the fault is followed by one
/// after its deletion; when the second has arrived, the first never will, and no time-out has to be trusted.
pub(super) struct Witness {
    receiver: UdpSocket,
    to: SocketAddr,
    senders: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    number: u64,
}

impl Witness {
    /// Waits until each target's datagrams pass, and so until neighbours are resolved.
    ///
    /// # Errors
    ///
    /// They don't pass.
    pub(super) fn new(targets: &[&LabPod], peer: &LabPod) -> Result<Self> {
        let receiver = peer
            .netns()
            .run(|| UdpSocket::bind((peer.ipv4(), 0)))
            .context("the peer has no UDP socket")?;
        receiver.set_read_timeout(Some(TICK))?;
        let (mut senders, mut addresses) = (Vec::new(), Vec::new());
        for pod in targets {
            let sender = pod
                .netns()
                .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
                .context("a target has no UDP socket")?;
            addresses.push(SocketAddr::new(pod.ipv4(), sender.local_addr()?.port()));
            senders.push(sender);
        }
        let mut witness = Self {
            to: receiver.local_addr()?,
            receiver,
            senders,
            addresses,
            number: 0,
        };
        witness.passed().context("before the fault")?;
        Ok(witness)
    }

    pub(super) fn targets(&self) -> usize {
        self.senders.len()
    }

    /// Sends a datagram from each target.
    ///
    /// # Errors
    ///
    /// One can't be sent.
    pub(super) fn mark(&mut self) -> Result<()> {
        self.number += 1;
        for sender in &self.senders {
            self.send(sender)?;
        }
        Ok(())
    }

    /// How many of the marks that were sent last have passed; waits until each target's packets pass again.
    ///
    /// # Errors
    ///
    /// They don't.
    pub(super) fn passed(&mut self) -> Result<usize> {
        let marked = self.number;
        self.mark()?;
        let mut missing: BTreeSet<SocketAddr> = self.addresses.iter().copied().collect();
        let mut passed = 0;
        let end = Instant::now() + PATIENCE;
        let mut datagram = [0; 8];
        while !missing.is_empty() {
            match self.receiver.recv_from(&mut datagram) {
                Ok((8, from)) => {
                    let number = u64::from_le_bytes(datagram);
                    if number == self.number {
                        missing.remove(&from);
                    } else if number == marked {
                        passed += 1;
                    }
                }
                _ if Instant::now() > end => {
                    bail!(
                        "packets of {} targets don't pass within {PATIENCE:?}",
                        missing.len()
                    );
                }
                _ => {
                    for (sender, address) in self.senders.iter().zip(&self.addresses) {
                        if missing.contains(address) {
                            self.send(sender)?;
                        }
                    }
                }
            }
        }
        Ok(passed)
    }

    fn send(&self, sender: &UdpSocket) -> Result<()> {
        match sender.send_to(&self.number.to_le_bytes(), self.to) {
            // So the kernel tells that iptables has dropped it; it doesn't arrive, as any other that is dropped.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            other => other.map(drop).context("a target can't send"),
        }
    }
}
