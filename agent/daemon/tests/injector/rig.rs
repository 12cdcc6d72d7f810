//! One injector and three pods, of which the first is the target.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sabot_core::delay::Distribution;
use sabot_core::model::{
    Action, BootTime, Corrupt, CorruptKind, Delay, Direction, Loss, LossModel, PacketFilter, Percent,
    TargetDevice, TargetIdentity, TargetKey,
};
use sabot_core::plan::{Equipment, PeerEntry, PeerSetId, RuleBody, Slot, TargetId};
use sabot_testkit::{Lab, LabPod};
use sabotd::engine::datapath::Datapath as _;
use sabotd::engine::handle::{Ledger, LedgerDirection};
use sabotd::kernel::nsfs::netns_id;
use sabotd::kernel::{HookKind, Injector, InjectorOptions, boot_time};
use std::time::Duration;

pub(crate) const SLOT: Slot = Slot(7);
pub(crate) const TARGET: TargetId = TargetId(3);
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const ALL: Equipment = Equipment {
    egress: true,
    ingress: true,
    line: true,
    segmenter: true,
    departures: false,
};

pub(crate) struct Rig {
    pub lab: Lab,
    pub injector: Arc<Injector>,
    device: TargetDevice,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::on(HookKind::Tcx)
    }

    pub(crate) fn on(hook: HookKind) -> Self {
        let lab = Lab::new(3).unwrap();
        let options = InjectorOptions {
            hook,
            line_bytes: 1 << 26,
            line_bytes_total: 1 << 28,
            line_real_time: true,
            departures: false,
        };
        let (injector, _taps) = Injector::load(&options).unwrap();
        let device = device_of(lab.pod(0));
        injector.equip(TARGET, &device, ALL).unwrap();
        Self {
            lab,
            injector,
            device,
        }
    }

    pub(crate) fn apply(&self, action: Action, direction: Direction, peer: Option<IpAddr>) {
        self.apply_to(action, direction, peer, PacketFilter::ALL);
    }

    pub(crate) fn apply_to(
        &self,
        action: Action,
        direction: Direction,
        peer: Option<IpAddr>,
        packets: PacketFilter,
    ) {
        let set = PeerSetId(14);
        if let Some(peer) = peer {
            self.injector
                .add_peers(set, &[PeerEntry::included(peer.into())])
                .unwrap();
        }
        let rule = RuleBody {
            action,
            direction,
            ports: Vec::new(),
            packets,
            peers: peer.map(|_| set),
            peers_exact: peer.is_some(),
            peers_prefix: false,
            spare_node: false,
            allow_control_plane: false,
            watches_dns: false,
            pulse: None,
            ramp: None,
            seed: 1,
            starts_at: BootTime(0),
            expires_at: BootTime(boot_time().0 + 60_000_000_000),
            sample_every: 0,
        };
        self.injector.write_rule(SLOT, &rule).unwrap();
        self.injector.set_slots(TARGET, &[SLOT]).unwrap();
    }

    pub(crate) fn ledger(&self, direction: LedgerDirection) -> Ledger {
        self.injector.ledger(SLOT, TARGET, direction)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.injector.strip(TARGET, &self.device.key).unwrap();
        if !std::thread::panicking() {
            assert_eq!(self.injector.incidents(), [0; sabot_abi::INCIDENT_COUNT as usize]);
        }
    }
}

fn device_of(pod: &LabPod) -> TargetDevice {
    let path = pod.netns().path();
    let netns = netns_id(path).unwrap();
    let ifindex = pod.netns().run(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    TargetDevice {
        key: TargetKey {
            netns,
            device: "eth0".into(),
            ifindex,
        },
        netns_path: Path::new(path).to_owned(),
        mac_header: true,
        node_device: false,
        identity: TargetIdentity::of("netns:pod/eth0"),
    }
}

pub(crate) fn drop_share(share: f64) -> Action {
    Action::Drop(Loss {
        model: LossModel::Percent(percent(share)),
        only: None,
    })
}

pub(crate) fn corrupt(share: f64, kind: CorruptKind) -> Action {
    Action::Corrupt(Corrupt {
        percent: percent(share),
        kind,
        bits: 1,
        offset: (0, u32::MAX),
    })
}

pub(crate) fn delay(latency: Duration) -> Action {
    Action::Delay(Delay {
        latency,
        jitter: Duration::ZERO,
        distribution: Distribution::Uniform,
        correlation: 0.0,
        allow_reorder: false,
    })
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent::new(value).unwrap()
}

/// The identity of the counters, and nothing lost on the way.
pub(crate) fn assert_reconciled(ledger: &Ledger) {
    let outcomes = [ledger.passed, ledger.dropped, ledger.bypassed, ledger.released];
    assert_eq!(
        ledger.matched.packets,
        outcomes.iter().map(|tally| tally.packets).sum::<u64>(),
        "{ledger:?}"
    );
    assert_eq!(
        ledger.matched.bytes,
        outcomes.iter().map(|tally| tally.bytes).sum::<u64>(),
        "{ledger:?}"
    );
}
