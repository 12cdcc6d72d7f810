//! The node's own addresses, as the kernel's rules spare them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use sabot_core::model::BootTime;

use super::datapath::Datapath;

const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct NodeAddresses {
    /// `None` until they were written once.
    written: Option<BTreeSet<IpAddr>>,
    retry_at: Option<BootTime>,
}

impl NodeAddresses {
    /// Writes the addresses where they differ from what the kernel has; a failure is tried again after a second.
    pub(super) fn write(&mut self, datapath: &dyn Datapath, addresses: &BTreeSet<IpAddr>, now: BootTime) {
        if self.written.as_ref() == Some(addresses) || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        match datapath.set_node_addresses(addresses) {
            Ok(()) => {
                self.written = Some(addresses.clone());
                self.retry_at = None;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell the kernel the node's addresses");
                self.retry_at = Some(now.after(RETRY));
            }
        }
    }

    pub(super) fn retry_at(&self) -> Option<BootTime> {
        self.retry_at
    }
}
