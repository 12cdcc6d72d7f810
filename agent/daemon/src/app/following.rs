//! Observers that are at work only while a fault is active.

use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use crate::engine::handle::{Handle, Phase, Snapshot};

/// Faults often follow each other; programs that come and go with each would cost more than they spare.
const LINGER: Duration = Duration::from_secs(1);

/// Tells an observer to begin and to stop; ends with the engine. `change` may block.
pub(super) async fn follow_faults(engine: Handle, change: impl Fn(bool) + Send + Sync + 'static) {
    let change = Arc::new(change);
    let mut snapshots = engine.watch();
    let mut attached = false;
    loop {
        let wanted = is_active(&snapshots.borrow_and_update());
        if wanted != attached {
            if !wanted {
                tokio::time::sleep(LINGER).await;
                if is_active(&snapshots.borrow_and_update()) {
                    continue;
                }
            }
            let change = Arc::clone(&change);
            if let Err(error) = task::spawn_blocking(move || change(wanted)).await {
                tracing::error!(%error, "an observer could not be told of the faults");
            }
            attached = wanted;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn is_active(snapshot: &Snapshot) -> bool {
    snapshot
        .faults
        .values()
        .any(|view| !matches!(view.phase, Phase::Expired | Phase::Deleted))
}
