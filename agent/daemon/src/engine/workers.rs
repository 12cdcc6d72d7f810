//! Slow operations, off the reconciler's task: each waits for the kernel for tens of milliseconds.

use std::sync::Arc;

use sabot_core::plan::Operation;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::datapath::{Datapath, DatapathError};

/// Attaching waits for RCU grace periods, so that more threads than CPUs pay off; more than this no longer do.
const WORKERS: usize = 16;

/// A slow operation that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) operation: Operation,
    pub(super) result: Result<(), DatapathError>,
}

/// Runs slow operations on the runtime's blocking threads, and reports each through the channel it was made with.
pub(super) struct Workers {
    datapath: Arc<dyn Datapath>,
    permits: Arc<Semaphore>,
    done: mpsc::UnboundedSender<Done>,
    running: usize,
}

impl Workers {
    pub(super) fn new(datapath: Arc<dyn Datapath>, done: mpsc::UnboundedSender<Done>) -> Self {
        Self {
            datapath,
            permits: Arc::new(Semaphore::new(WORKERS)),
            done,
            running: 0,
        }
    }

    /// Operations whose end hasn't been taken note of.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Starts the operation; must be called within a tokio runtime.
    pub(super) fn start(&mut self, operation: Operation) {
        self.running += 1;
        let (datapath, done) = (Arc::clone(&self.datapath), self.done.clone());
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(run(datapath, permit, operation, done))),
            Err(_) => {
                let permits = Arc::clone(&self.permits);
                tokio::spawn(async move {
                    let permit = permits
                        .acquire_owned()
                        .await
                        .expect("the semaphore is never closed");
                    run(datapath, permit, operation, done).await;
                });
            }
        }
    }

    /// To be called for each operation that was reported.
    pub(super) fn finished(&mut self) {
        self.running -= 1;
    }
}

async fn run(
    datapath: Arc<dyn Datapath>,
    permit: OwnedSemaphorePermit,
    operation: Operation,
    done: mpsc::UnboundedSender<Done>,
) {
    let copy = operation.clone();
    let result = tokio::task::spawn_blocking(move || execute(&*datapath, &copy)).await;
    drop(permit);
    let result = result.unwrap_or_else(|panic| {
        Err(DatapathError {
            reason: format!("the worker failed: {panic}"),
            permanent: false,
        })
    });
    // Without a receiver the reconciler has ended, and nobody needs to know.
    let _ = done.send(Done { operation, result });
}

/// Does one operation; whether it is slow is for the caller to know.
pub(super) fn execute(datapath: &dyn Datapath, operation: &Operation) -> Result<(), DatapathError> {
    match operation {
        // Bookkeeping alone.
        Operation::Claim { .. } => Ok(()),
        Operation::Equip {
            target,
            device,
            equipment,
        } => datapath.equip(*target, device, *equipment),
        Operation::Strip { target, key } => datapath.strip(*target, key),
        Operation::AddPeers { set, entries } => datapath.add_peers(*set, entries),
        Operation::RemovePeers { set, entries } => datapath.remove_peers(*set, entries),
        Operation::WriteRule { slot, rule } => datapath.write_rule(*slot, rule),
        Operation::ClearRule { slot } => datapath.clear_rule(*slot),
        Operation::SetSlots { target, slots } => datapath.set_slots(*target, slots),
    }
}
