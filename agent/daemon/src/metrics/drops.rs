//! What the kernel and the faults drop.

use prometheus_client::registry::Registry;

use super::family::{Count, Family};
use crate::observe::drops::DropSnapshot;

pub(super) fn register(registry: &mut Registry, snapshot: &DropSnapshot) {
    let mut drops = Family::new(
        "packet_drops",
        "Wire packets that were dropped, by the kernel's reason; FAULT is what faults decide to drop, FAULT_LOST_* what their delay line loses.",
        ["namespace", "pod", "direction", "reason", "injected"],
    );
    for (class, dropped) in &snapshot.drops {
        let direction = if class.kind.egress { "egress" } else { "ingress" };
        let injected = if class.kind.injected { "true" } else { "false" };
        let owner = &class.owner;
        drops.push(
            [
                owner.namespace(),
                &owner.label(),
                direction,
                &class.kind.reason,
                injected,
            ],
            Count(dropped.packets),
        );
    }
    drops.register(registry);

    let mut unrecorded = Family::new(
        "drop_unrecorded",
        "Drops that a full table kept out of the counts (count), and those that no event was made of, to bound their rate \
         (event).",
        ["table"],
    );
    unrecorded.push(["count"], Count(snapshot.uncounted));
    unrecorded.push(["event"], Count(snapshot.suppressed));
    unrecorded.register(registry);
}
