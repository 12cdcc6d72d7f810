//! Telling kernel objects who owns what, whenever that changes.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use sabot_abi::OwnerKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::identity::Owners;
use super::ring::OwnedTask;

/// Before what the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Begins to hand over all owners at each change, until the result is dropped. `set` may block. Must be called within a
/// tokio runtime.
pub(super) fn follow<E: Display + Send + 'static>(
    stream: &'static str,
    mut owners: watch::Receiver<Arc<Owners>>,
    set: impl Fn(&[(OwnerKey, u32)]) -> Result<(), E> + Send + Sync + 'static,
) -> OwnedTask {
    let set = Arc::new(set);
    let task = tokio::spawn(async move {
        loop {
            let keys = keys(&owners.borrow_and_update());
            let setter = Arc::clone(&set);
            let result = spawn_blocking(move || setter(&keys).map_err(|error| error.to_string())).await;
            if let Err(error) = result.unwrap_or_else(|panic| Err(panic.to_string())) {
                tracing::warn!(stream, error, "the kernel isn't told who owns what; trying again");
                sleep(RETRY).await;
                continue;
            }
            if owners.changed().await.is_err() {
                return;
            }
        }
    });
    OwnedTask::new(&task)
}

/// As kernel objects want them.
pub(super) fn keys(owners: &Owners) -> Vec<(OwnerKey, u32)> {
    owners.keys().collect()
}

/// A kernel's count that never goes back: the last one known when it can't be read now.
pub(super) fn lasting<E: Display>(
    stream: &'static str,
    read: impl Fn() -> Result<u64, E> + Send + Sync,
) -> impl Fn() -> u64 + Send + Sync {
    use std::sync::atomic::{AtomicU64, Ordering};
    let last = AtomicU64::new(0);
    move || match read() {
        Ok(count) => {
            last.fetch_max(count, Ordering::Relaxed);
            count
        }
        Err(error) => {
            tracing::debug!(stream, %error, "a count can't be read");
            last.load(Ordering::Relaxed)
        }
    }
}
