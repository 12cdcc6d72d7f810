//! What `/healthz` and `/readyz` answer.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::handle::{Handle, RuntimeState};
use crate::engine::{Control, Heartbeat};
use crate::kernel::Injector;
use crate::metrics::{HttpState, Metrics, Probe, Sources};
use crate::observe::observers::Observers;

/// The engine's heart beats once a second; a pass may take a while on a busy machine.
const HEARTBEAT_BOUND: Duration = Duration::from_secs(10);

/// What `/metrics`, `/healthz` and `/readyz` are answered from.
pub(super) fn http_state(sources: Sources, control: &Control, injector: &Arc<Injector>) -> Arc<HttpState> {
    let observers = Arc::clone(&sources.observers);
    let ready = ready(sources.engine.clone());
    Arc::new(HttpState {
        metrics: Metrics::new("sabot", sources),
        live: live(control.heartbeat(), Arc::clone(injector), observers),
        ready,
    })
}

/// Whether the daemon's loops go round.
fn live(engine: Arc<Heartbeat>, injector: Arc<Injector>, observers: Arc<Observers>) -> Probe {
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
fn ready(engine: Handle) -> Probe {
    Probe::default().with("container runtime", move || match engine.snapshot().runtime {
        RuntimeState::Connecting => Err("it hasn't answered yet".to_owned()),
        RuntimeState::Absent(_) | RuntimeState::Ready { .. } | RuntimeState::Down(_) => Ok(()),
    })
}
