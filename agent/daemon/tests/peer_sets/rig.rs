//! The fault object with one target, whose one fault cuts off the peers of a set.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_abi as abi;
use sabot_core::action::Action;
use sabot_core::model::{BootTime, Direction, PacketFilter};
use sabot_core::plan::{PeerEntry, RuleBody, Slot, TargetId};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame, Trial, Verdict, Words};

use crate::packet::Packet;

pub(crate) const TARGET: TargetId = TargetId(3);
pub(crate) const SLOT: Slot = Slot(9);
/// One for all tests, in turns.
static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

/// A target whose one fault cuts off the peers of a set.
pub(crate) struct Rig(MutexGuard<'static, Option<Trial>>);

impl Rig {
    pub(crate) fn new() -> Self {
        let mut trial = TRIAL.lock().unwrap_or_else(PoisonError::into_inner);
        trial.get_or_insert_with(|| {
            Trial::load(Duration::from_secs(10), Words::of_this_kernel())
                .expect("the fault object loads (root is needed)")
        });
        let rig = Self(trial);
        rig.trial().write_rule(SLOT, &rule()).expect("it is written");
        rig.list(1);
        rig
    }

    pub(crate) fn trial(&self) -> &Trial {
        self.0.as_ref().expect("it is loaded")
    }

    /// So many slots are in force, the first of which is the fault's; of several there is an index.
    pub(crate) fn list(&self, count: u32) {
        let mut slots = [0; abi::MAX_TARGET_SLOTS];
        slots[0] = SLOT.0;
        let target = abi::Target {
            ifindex: 900,
            line_ifindex: 0,
            segmenter_ifindex: 0,
            departures_ifindex: 0,
            flags: abi::TARGET_MAC_HEADER,
            slot_count: count,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: 0,
            identity: 0,
            slots,
        };
        self.trial().set_target(TARGET, &target).expect("it is written");
    }

    pub(crate) fn add(&self, entries: &[PeerEntry]) {
        self.trial()
            .add_peers(SLOT.peer_set(), entries)
            .expect("there is room");
    }

    pub(crate) fn remove(&self, entries: &[PeerEntry]) {
        self.trial()
            .remove_peers(SLOT.peer_set(), entries)
            .expect("they go");
    }

    pub(crate) fn cuts(&self, other: IpAddr) -> bool {
        self.cuts_packet(&Packet::to(other))
    }

    /// On its way to the other end, and from there, which is the same.
    pub(crate) fn cuts_packet(&self, packet: &Packet) -> bool {
        let cut = |direction| {
            let bytes = packet.frame(direction);
            let frame = Frame {
                bytes: &bytes,
                ..Frame::default()
            };
            let outcome = self.trial().run(TARGET, direction, &frame);
            outcome.expect("the kernel takes it").verdict != Verdict::Pass
        };
        let [there, back] = LedgerDirection::BOTH.map(cut);
        assert_eq!(there, back, "{packet:?}");
        there
    }

    /// Nanoseconds for each of many packets one after the other, at best.
    pub(crate) fn nanoseconds(&self, other: IpAddr) -> u128 {
        let bytes = Packet::to(other).frame(LedgerDirection::Egress);
        let frame = Frame {
            bytes: &bytes,
            ..Frame::default()
        };
        let time = || {
            let time = self.trial().time(TARGET, LedgerDirection::Egress, &frame, 20_000);
            time.expect("the kernel takes it").as_nanos()
        };
        (0..10).map(|_| time()).min().unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.list(0);
        self.trial().clear_rule(SLOT).expect("it is cleared");
        self.trial().forget(SLOT, TARGET).expect("it is forgotten");
    }
}

/// The fault with the peers of the slot's first set.
pub(crate) fn rule() -> RuleBody {
    RuleBody {
        action: Action::Partition,
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        peers: Some(SLOT.peer_set()),
        peers_exact: true,
        peers_prefix: true,
        spare_node: false,
        allow_control_plane: false,
        watches_dns: false,
        pulse: None,
        ramp: None,
        seed: 0,
        starts_at: BootTime(0),
        expires_at: boot_time().after(Duration::from_secs(3600)),
        sample_every: 0,
    }
}
