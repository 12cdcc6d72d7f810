//! What `/healthz` and `/readyz` answer.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Heartbeat;
use crate::engine::handle::{Handle, RuntimeState};
use crate::kernel::Injector;
use crate::metrics::Probe;
use crate::observe::observers::Observers;

/// The engine's heart beats once a second; a pass may take a while on a busy machine.
const HEARTBEAT_BOUND: Duration = Duration::from_secs(10);

/// Whether the daemon's loops go round.
pub(super) fn live(engine: Arc<Heartbeat>, injector: Arc<Injector>, observers: Arc<Observers>) -> Probe {
    Probe::default()
        .with("engine", move || {
            let age = engine.age();
            if age < HEARTBEAT_BOUND {
                Ok(())
            } else {
                Err(format!("the reconciler has been silent for {} s", age.as_secs()))
            }
        })
        .with("delay line", move || {
            if injector.is_alive() {
                Ok(())
            } else {
                Err("its thread has ended".to_owned())
            }
        })
        .with("observers", move || observers.alive())
}

/// Whether faults mean what they say: a runtime that was asked has answered once, or isn't there.
pub(super) fn ready(engine: Handle) -> Probe {
    Probe::default().with("container runtime", move || match engine.snapshot().runtime {
        RuntimeState::Connecting => Err("it hasn't answered yet".to_owned()),
        RuntimeState::Absent(_) | RuntimeState::Ready { .. } | RuntimeState::Down(_) => Ok(()),
    })
}
