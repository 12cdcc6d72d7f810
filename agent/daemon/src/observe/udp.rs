//! The flows of UDP, counted only while somebody looks.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use sabot_abi::{FlowCounts, FlowKey};

use super::follow::{follow, keys};
use super::identity::{Identities, Owners};
use super::ring::OwnedTask;
use crate::kernel::flows::{Counted, FlowPrograms};
use crate::kernel::object::ObjectError;

/// Flows that are told apart in one time, of the whole node.
pub const DEFAULT_ROOM: u32 = 16_384;
const STREAM: &str = "udp flows";

/// Where looks begin.
pub struct UdpFlows {
    identities: Identities,
    room: u32,
    shared: Mutex<Weak<Attached>>,
}

/// The programs in the kernel, as long as one look needs them.
struct Attached {
    programs: Arc<FlowPrograms>,
    _follower: OwnedTask,
}

/// Counts from when it began; several at once share the programs.
pub struct Look {
    attached: Arc<Attached>,
    before: Counted,
}

impl UdpFlows {
    /// Nothing is loaded yet. `room` is for so many flows.
    pub fn new(identities: Identities, room: u32) -> Self {
        Self {
            identities,
            room,
            shared: Mutex::default(),
        }
    }

    /// Waits for the kernel for some ten milliseconds where nobody looks yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When this kernel or this process's privileges don't allow it.
    pub fn look(&self) -> Result<Look, ObjectError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attached) = shared.upgrade() {
            let before = attached.programs.counted()?;
            return Ok(Look { attached, before });
        }
        let attached = Arc::new(Attached::new(self.room, &self.identities)?);
        *shared = Arc::downgrade(&attached);
        Ok(Look {
            attached,
            before: Counted::default(),
        })
    }

    pub fn owners(&self) -> Arc<Owners> {
        self.identities.current()
    }
}

impl Attached {
    fn new(room: u32, identities: &Identities) -> Result<Self, ObjectError> {
        let owners = identities.watch();
        let now = keys(&owners.borrow());
        let programs = Arc::new(FlowPrograms::attach(room, &now)?);
        // It doesn't hold them: they go with the last look.
        let told = Arc::downgrade(&programs);
        let follower = follow(STREAM, owners, move |owners| match told.upgrade() {
            Some(programs) => programs.set_owners(owners),
            None => Ok(()),
        });
        Ok(Self {
            programs,
            _follower: follower,
        })
    }
}

impl Look {
    /// What was counted since it began; the last look takes the programs off.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn end(self) -> Result<Counted, ObjectError> {
        let now = self.attached.programs.counted()?;
        Ok(since(&self.before, now))
    }
}

/// Flows on which nothing has happened since then are left out.
fn since(before: &Counted, mut now: Counted) -> Counted {
    for (key, earlier) in &before.flows {
        if let Some(counts) = now.flows.get_mut(key) {
            *counts = FlowCounts {
                packets_sent: counts.packets_sent - earlier.packets_sent,
                packets_received: counts.packets_received - earlier.packets_received,
                bytes_sent: counts.bytes_sent - earlier.bytes_sent,
                bytes_received: counts.bytes_received - earlier.bytes_received,
            };
        }
    }
    now.flows
        .retain(|_: &FlowKey, counts| *counts != FlowCounts::default());
    now.no_room -= before.no_room;
    now.unresolved -= before.unresolved;
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(flows: &[(u16, u64)], no_room: u64) -> Counted {
        let flows = flows.iter().map(|&(local_port, packets_sent)| {
            let key = FlowKey {
                local_port,
                ..FlowKey::default()
            };
            let counts = FlowCounts {
                packets_sent,
                bytes_sent: 10 * packets_sent,
                ..FlowCounts::default()
            };
            (key, counts)
        });
        Counted {
            flows: flows.collect(),
            no_room,
            unresolved: 0,
        }
    }

    #[test]
    fn a_look_tells_what_came_after_its_beginning() {
        let before = counted(&[(1, 5), (2, 7)], 3);
        let now = counted(&[(1, 9), (2, 7), (3, 1)], 8);
        assert_eq!(since(&before, now), counted(&[(1, 4), (3, 1)], 5));
    }
}
