//! Sampled packets that faults decided on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use sabot_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, OUTCOME_BYPASSED, OUTCOME_CORRUPTED, OUTCOME_DELAYED,
    OUTCOME_DROPPED, OUTCOME_DUPLICATED, OUTCOME_PASSED, OUTCOME_REJECTED,
};
use sabot_core::model::{BootTime, FaultName};
use sabot_core::plan::{Slot, TargetId};

use super::clock;
use super::event::{Event, EventHub, EventKind, PacketEvent, STREAM_PACKETS};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::engine::handle::{Handle, Phase, Snapshot};

/// What the kernel's numbers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub fault: FaultName,
    /// Empty for a target that isn't a pod.
    pub pod_namespace: String,
    pub pod_name: String,
    pub device: String,
}

/// Knows what the kernel's numbers mean now.
pub trait Enricher: Send + 'static {
    /// `None` when the fault or the target is gone.
    fn place(&mut self, slot: Slot, target: TargetId) -> Option<Arc<Place>>;
}

/// Looks numbers up in the engine's latest snapshot, through an index that is rebuilt when the snapshot changes.
pub struct SnapshotEnricher {
    engine: Handle,
    generation: Option<u64>,
    places: HashMap<(Slot, TargetId), Arc<Place>>,
}

impl SnapshotEnricher {
    pub fn new(engine: Handle) -> Self {
        Self {
            engine,
            generation: None,
            places: HashMap::new(),
        }
    }
}

impl Enricher for SnapshotEnricher {
    fn place(&mut self, slot: Slot, target: TargetId) -> Option<Arc<Place>> {
        let snapshot = self.engine.snapshot();
        if self.generation != Some(snapshot.generation) {
            self.places = places(&snapshot);
            self.generation = Some(snapshot.generation);
        }
        self.places.get(&(slot, target)).cloned()
    }
}

/// The task that reads packet events; it ends when this is dropped.
pub struct PacketObserver {
    loss: Arc<StreamLoss>,
    task: OwnedTask,
}

/// Begins to read `ring`, the fault object's ring of [`sabot_abi::PacketEvent`]; events go to `hub`. `lost` reads how many
/// events the kernel had no room for. Must be called within a tokio runtime.
///
/// # Errors
///
/// When the ring can't be polled.
pub fn start(
    ring: RingBuf<MapData>,
    mut enricher: impl Enricher,
    hub: EventHub,
    lost: impl Fn() -> u64 + Send + Sync + 'static,
) -> io::Result<PacketObserver> {
    let loss = Arc::new(StreamLoss::new(STREAM_PACKETS, lost));
    let task = publish_from(ring, hub, Arc::clone(&loss), move |event| {
        decode(&mut enricher, &event)
    })?;
    Ok(PacketObserver { loss, task })
}

impl PacketObserver {
    /// Events that never reached the hub.
    pub fn lost_events(&self) -> u64 {
        self.loss.total()
    }

    /// Whether events are still being read.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }
}

fn places(snapshot: &Snapshot) -> HashMap<(Slot, TargetId), Arc<Place>> {
    let mut places = HashMap::new();
    // A slot may already belong to the next fault while the ended one is still shown, so the living come last and win.
    let (ended, living): (Vec<_>, Vec<_>) = snapshot
        .faults
        .iter()
        .partition(|(_, view)| matches!(view.phase, Phase::Expired | Phase::Deleted));
    for (name, view) in ended.into_iter().chain(living) {
        let Some(slot) = view.slot else { continue };
        for target in &view.targets {
            let Some(id) = target.id else { continue };
            let place = Place {
                fault: name.clone(),
                pod_namespace: target.pod_namespace.clone(),
                pod_name: target.pod_name.clone(),
                device: target.device.clone(),
            };
            places.insert((slot, id), Arc::new(place));
        }
    }
    places
}

/// What is told of a packet; `None` when the numbers mean nothing, or nothing any more.
pub(crate) fn decode(enricher: &mut impl Enricher, event: &sabot_abi::PacketEvent) -> Option<Event> {
    let egress = match event.direction {
        DIRECTION_EGRESS => true,
        DIRECTION_INGRESS => false,
        _ => return None,
    };
    let outcome = outcome(event.outcome)?;
    let place = enricher.place(Slot(event.slot), TargetId(event.target))?;
    Some(Event {
        time: clock::system_time(BootTime(event.time)),
        container: None,
        kind: EventKind::Packet(PacketEvent {
            fault: place.fault.clone(),
            pod_namespace: place.pod_namespace.clone(),
            pod_name: place.pod_name.clone(),
            device: place.device.clone(),
            egress,
            outcome,
            source: address(event.source),
            destination: address(event.destination),
            source_port: event.source_port,
            destination_port: event.destination_port,
            protocol: u8::try_from(event.protocol).ok()?,
            wire_packets: event.wire_packets,
            wire_bytes: event.wire_bytes,
        }),
    })
}

fn outcome(outcome: u32) -> Option<&'static str> {
    match outcome {
        OUTCOME_PASSED => Some("passed"),
        OUTCOME_DROPPED => Some("dropped"),
        OUTCOME_BYPASSED => Some("bypassed"),
        OUTCOME_DELAYED => Some("delayed"),
        OUTCOME_CORRUPTED => Some("corrupted"),
        OUTCOME_DUPLICATED => Some("duplicated"),
        OUTCOME_REJECTED => Some("rejected"),
        _ => None,
    }
}

fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{engine, fault_view, snapshot};
    use super::*;

    fn event(slot: u32, target: u32) -> sabot_abi::PacketEvent {
        sabot_abi::PacketEvent {
            time: crate::kernel::boot_time().0,
            slot,
            target,
            direction: DIRECTION_INGRESS,
            outcome: OUTCOME_DROPPED,
            source: std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
            destination: Ipv6Addr::LOCALHOST.octets(),
            source_port: 80,
            destination_port: 4000,
            protocol: 6,
            wire_packets: 3,
            wire_bytes: 4242,
        }
    }

    #[tokio::test]
    async fn a_packet_is_named_by_the_fault_that_holds_its_slot_now() {
        let ended = fault_view("shop/old", Phase::Expired, 4, &[9]);
        let living = fault_view("shop/cut", Phase::Injected, 4, &[9]);
        let (engine, snapshots) = engine(snapshot(1, [ended, living]));
        let mut enricher = SnapshotEnricher::new(engine);

        let Some(EventKind::Packet(packet)) = decode(&mut enricher, &event(4, 9)).map(|event| event.kind)
        else {
            panic!("the packet has a place");
        };
        assert_eq!(packet.fault.to_string(), "shop/cut");
        assert_eq!(
            (packet.pod_name.as_str(), packet.device.as_str()),
            ("pod-9", "eth0")
        );
        assert!(!packet.egress);
        assert_eq!(packet.outcome, "dropped");
        assert_eq!(packet.source.to_string(), "10.0.0.1");
        assert_eq!(packet.destination.to_string(), "::1");
        assert_eq!((packet.wire_packets, packet.wire_bytes), (3, 4242));

        assert!(decode(&mut enricher, &event(4, 8)).is_none());
        snapshots.send(Arc::new(snapshot(2, []))).unwrap();
        assert!(decode(&mut enricher, &event(4, 9)).is_none());
    }

    #[tokio::test]
    async fn every_outcome_that_programs_report_has_a_name() {
        let (engine, _snapshots) = engine(snapshot(1, [fault_view("cut", Phase::Injected, 0, &[1])]));
        let mut enricher = SnapshotEnricher::new(engine);
        let named = (OUTCOME_PASSED..=OUTCOME_REJECTED).map(|outcome| {
            let event = sabot_abi::PacketEvent {
                outcome,
                ..event(0, 1)
            };
            match decode(&mut enricher, &event).map(|event| event.kind) {
                Some(EventKind::Packet(packet)) => packet.outcome,
                other => panic!("{outcome}: {other:?}"),
            }
        });
        assert_eq!(
            named.collect::<Vec<_>>(),
            [
                "passed",
                "dropped",
                "bypassed",
                "delayed",
                "corrupted",
                "duplicated",
                "rejected"
            ]
        );
    }

    #[tokio::test]
    async fn an_event_with_an_unknown_code_is_not_decoded() {
        let (engine, _snapshots) = engine(snapshot(1, [fault_view("cut", Phase::Injected, 0, &[1])]));
        let mut enricher = SnapshotEnricher::new(engine);
        assert!(decode(&mut enricher, &event(0, 1)).is_some());
        for broken in [
            sabot_abi::PacketEvent {
                outcome: 99,
                ..event(0, 1)
            },
            sabot_abi::PacketEvent {
                direction: 2,
                ..event(0, 1)
            },
            sabot_abi::PacketEvent {
                protocol: 256,
                ..event(0, 1)
            },
        ] {
            assert!(decode(&mut enricher, &broken).is_none());
        }
    }
}
