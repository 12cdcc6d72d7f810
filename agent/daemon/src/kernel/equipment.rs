//! What a target has: hooks on its device, the delay line's TAP, the segmenter, the way to the departure queue.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use sabot_abi as abi;
use sabot_core::model::TargetDevice;
use sabot_core::plan::{Equipment, Slot, TargetId};

use super::departures::{self, Yard};
use super::devices::Side;
use super::entry::{Door, Entries};
use super::hook::{Hook, HookError, HookKind};
use super::line::{LineDevice, LineDeviceError};
use super::netns::{self, NetnsError};
use super::nsfs::{NetnsFile, NsfsError};
use super::roundabout::{Roundabout, RoundaboutError, Site};
use super::rtnl::RtnlError;
use super::segmenter::{self, SegmenterError};
use crate::delayline::{DelayLine, LineError};

#[derive(Debug, thiserror::Error)]
pub(super) enum EquipError {
    #[error(transparent)]
    Nsfs(#[from] NsfsError),
    #[error("{path} is another network namespace now")]
    OtherNetns { path: String },
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("{device} has no MAC header, which {what} needs")]
    NoMacHeader { device: String, what: &'static str },
    #[error("cannot load an entry program: {0}")]
    Entry(#[source] std::io::Error),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("delay line: {0}")]
    Line(#[from] LineDeviceError),
    #[error("delay line: {0}")]
    Open(#[from] LineError),
    #[error("segmenter: {0}")]
    Segmenter(#[from] SegmenterError),
    #[error("cannot remove a way there and back: {0}")]
    Pair(#[from] RoundaboutError),
    #[error("cannot detach: {0}")]
    Detach(#[source] RtnlError),
}

impl EquipError {
    /// Trying again can't help while the target is what it is.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::NoMacHeader { .. })
    }
}

/// What all targets' equipment is made with.
pub(super) struct Workbench {
    pub(super) entries: Entries,
    pub(super) gate: OwnedFd,
    pub(super) bounce: OwnedFd,
    /// The daemon's private netns, in which devices are made.
    pub(super) workshop: OwnedFd,
    pub(super) hook: HookKind,
    pub(super) line: DelayLine,
    /// Where departure queues are made; `None` where there can't be one.
    pub(super) yard: Option<Yard>,
    /// Bytes that a departure queue may hold of one target.
    pub(super) departures_bytes: u32,
}

/// One target's equipment; empty when new.
pub(super) struct Equipped {
    pub(super) device: TargetDevice,
    egress: Option<Hook>,
    ingress: Option<Hook>,
    pub(super) line: Option<LineDevice>,
    pub(super) segmenter: Option<Roundabout>,
    pub(super) departures: Option<Roundabout>,
}

impl Equipped {
    pub(super) fn new(device: TargetDevice) -> Self {
        Self {
            device,
            egress: None,
            ingress: None,
            line: None,
            segmenter: None,
            departures: None,
        }
    }

    /// Adds what is missing.
    pub(super) fn add(
        &mut self,
        bench: &Workbench,
        target: TargetId,
        want: Equipment,
    ) -> Result<(), EquipError> {
        let netns = open_netns(&self.device)?;
        if want.line && self.line.is_none() {
            self.needs_mac_header("delay")?;
            let program = bench.entry(target, Door::Line)?;
            let (device, tap) =
                LineDevice::make(target, bench.workshop.as_fd(), netns.as_fd(), program.as_fd())?;
            // Kernels before 5.14 have none, and nobody counts drops there.
            let cookie = netns::cookie(netns.as_fd()).ok();
            bench.line.open(target, self.device.identity, cookie, tap)?;
            self.line = Some(device);
        }
        if want.segmenter && self.segmenter.is_none() {
            self.needs_mac_header("deciding per wire packet")?;
            let program = bench.entry(target, Door::Segmenter)?;
            let name = segmenter::device_name(target);
            self.segmenter = Some(segmenter::make(bench.site(
                &name,
                netns.as_fd(),
                program.as_fd(),
            ))?);
        }
        if want.departures && self.departures.is_none() {
            self.add_departures(bench, target, netns.as_fd())?;
        }
        let egress = if want.egress && self.egress.is_none() {
            Some(bench.entry(target, Door::Egress)?)
        } else {
            None
        };
        let ingress = if want.ingress && self.ingress.is_none() {
            Some(bench.entry(target, Door::Ingress)?)
        } else {
            None
        };
        if egress.is_none() && ingress.is_none() {
            return Ok(());
        }
        let (name, ifindex) = (&self.device.key.device, self.device.key.ifindex);
        let attach = |program: &OwnedFd, side| Hook::attach(bench.hook, program.as_fd(), name, ifindex, side);
        let (egress, ingress) = netns::run_in(netns.as_fd(), || {
            let egress = egress.map(|program| attach(&program, Side::Egress)).transpose();
            let ingress = ingress.map(|program| attach(&program, Side::Ingress)).transpose();
            (egress, ingress)
        })?;
        // What was attached is kept even when the other side failed: the next attempt adds only what is missing.
        let results = [(egress, &mut self.egress), (ingress, &mut self.ingress)].map(|(result, place)| {
            result.map(|hook| {
                if hook.is_some() {
                    *place = hook;
                }
            })
        });
        Ok(results.into_iter().collect::<Result<(), HookError>>()?)
    }

    /// The delay line does what this can't: that it can't be made is no failure.
    fn add_departures(
        &mut self,
        bench: &Workbench,
        target: TargetId,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EquipError> {
        let Some(yard) = &bench.yard else { return Ok(()) };
        let program = bench.entry(target, Door::Departures)?;
        let name = departures::device_name(target);
        match yard.make(bench.site(&name, netns, program.as_fd())) {
            Ok(departures) => self.departures = Some(departures),
            Err(error) => {
                let device = &self.device.key.device;
                tracing::warn!(device, %error, "constant delays go through the delay line here");
            }
        }
        Ok(())
    }

    /// Takes everything away. What is in a netns that is gone has gone with it.
    pub(super) fn remove(&mut self, bench: &Workbench, target: TargetId) -> Result<(), EquipError> {
        if self.line.take().is_some() {
            bench.line.close(target);
        }
        let [segmenter, departures] = [self.segmenter.take(), self.departures.take()]
            .map(|pair| pair.map_or(Ok(()), |pair| pair.delete(bench.workshop.as_fd())));
        let hooks: Vec<Hook> = [self.egress.take(), self.ingress.take()]
            .into_iter()
            .flatten()
            .collect();
        let needs_netns = hooks.iter().any(Hook::is_clsact);
        let detach = || hooks.into_iter().try_for_each(Hook::detach);
        let detached = if !needs_netns {
            detach()
        } else if let Ok(netns) = open_netns(&self.device) {
            netns::run_in(netns.as_fd(), detach)?
        } else {
            Ok(())
        };
        segmenter.and(departures)?;
        detached.map_err(EquipError::Detach)
    }

    /// As the classifier reads it, with these slots in force.
    pub(super) fn body(&self, bench: &Workbench, in_force: &[Slot]) -> abi::Target {
        let mut slots = [0; abi::MAX_TARGET_SLOTS];
        for (place, slot) in slots.iter_mut().zip(in_force) {
            *place = slot.0;
        }
        let mut flags = 0;
        if self.device.mac_header {
            flags |= abi::TARGET_MAC_HEADER;
        }
        if self.device.node_device {
            flags |= abi::TARGET_NODE_DEVICE;
        }
        abi::Target {
            ifindex: self.device.key.ifindex,
            line_ifindex: self.line.as_ref().map_or(0, |line| line.ifindex),
            segmenter_ifindex: self
                .segmenter
                .as_ref()
                .map_or(0, |segmenter| segmenter.near_ifindex),
            departures_ifindex: self
                .departures
                .as_ref()
                .map_or(0, |departures| departures.near_ifindex),
            flags,
            slot_count: in_force.len() as u32,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: bench.departures_bytes,
            identity: self.device.identity.0,
            slots,
        }
    }

    fn needs_mac_header(&self, what: &'static str) -> Result<(), EquipError> {
        if self.device.mac_header {
            return Ok(());
        }
        Err(EquipError::NoMacHeader {
            device: self.device.key.device.clone(),
            what,
        })
    }
}

impl Workbench {
    fn entry(&self, target: TargetId, door: Door) -> Result<Arc<OwnedFd>, EquipError> {
        self.entries
            .get(target, self.gate(), door)
            .map_err(EquipError::Entry)
    }

    /// Of a pair with that name and that program on its near end.
    fn site<'a>(&'a self, name: &'a str, netns: BorrowedFd<'a>, near: BorrowedFd<'a>) -> Site<'a> {
        Site {
            name,
            workshop: self.workshop.as_fd(),
            netns,
            near,
            far: self.bounce.as_fd(),
        }
    }

    fn gate(&self) -> BorrowedFd<'_> {
        self.gate.as_fd()
    }
}

/// The device's netns, if its path still means that one.
pub(super) fn open_netns(device: &TargetDevice) -> Result<NetnsFile, EquipError> {
    let netns = NetnsFile::open(&device.netns_path)?;
    if netns.id()? != device.key.netns {
        return Err(EquipError::OtherNetns {
            path: device.netns_path.display().to_string(),
        });
    }
    Ok(netns)
}
