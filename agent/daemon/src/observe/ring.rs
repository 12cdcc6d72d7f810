//! Reading a kernel ring buffer without ever blocking the runtime or losing count.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aya::Pod;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, JoinHandle};

use super::clock::ticks;
use super::event::{Event, EventHub, EventKind};

/// How often a stream's losses are looked at.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// How often a ring is looked at unasked: the kernel's programs wake its reader only when much waits there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Entries that are handled before other tasks get their turn.
const BATCH: usize = 1024;

/// How many events of one kernel stream never reached the hub.
pub struct StreamLoss {
    stream: &'static str,
    /// Counted by the kernel programs: no room in the ring.
    kernel: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Read, but without a meaning any more.
    discarded: AtomicU64,
    announced: AtomicU64,
}

impl StreamLoss {
    pub fn new(stream: &'static str, kernel: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            stream,
            kernel: Box::new(kernel),
            discarded: AtomicU64::new(0),
            announced: AtomicU64::new(0),
        }
    }

    pub fn total(&self) -> u64 {
        (self.kernel)().saturating_add(self.discarded.load(Ordering::Relaxed))
    }

    pub fn discard(&self) {
        self.discarded.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells subscribers how many events are missing since they were last told.
    pub fn announce(&self, hub: &EventHub) {
        let total = self.total();
        let before = self.announced.fetch_max(total, Ordering::Relaxed);
        if total > before {
            hub.publish(Event {
                time: SystemTime::now(),
                container: None,
                kind: EventKind::Lost {
                    stream: self.stream,
                    count: total - before,
                },
            });
        }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct OwnedTask(AbortHandle);

impl OwnedTask {
    pub fn new<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }

    pub fn is_running(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the task that reads `ring` and publishes what `decode` makes of each entry; an entry of which it makes nothing
/// is counted as lost.
///
/// # Errors
///
/// When the ring can't be registered with the runtime's poller.
pub fn publish_from<T: Pod + Send + Sync>(
    ring: RingBuf<MapData>,
    hub: EventHub,
    loss: Arc<StreamLoss>,
    mut decode: impl FnMut(T) -> Option<Event> + Send + 'static,
) -> io::Result<OwnedTask> {
    let publisher = hub.clone();
    consume(ring, hub, loss, move |entry| match decode(entry) {
        Some(event) => {
            publisher.publish(event);
            true
        }
        None => false,
    })
}

/// Starts the task that reads `ring` and hands each entry on; where `take` says false the entry, or a part of it, is
/// counted as lost. Losses are made known through `hub`.
///
/// # Errors
///
/// When the ring can't be registered with the runtime's poller.
pub fn consume<T: Pod + Send + Sync>(
    ring: RingBuf<MapData>,
    hub: EventHub,
    loss: Arc<StreamLoss>,
    mut take: impl FnMut(T) -> bool + Send + 'static,
) -> io::Result<OwnedTask> {
    consume_entries(ring, hub, loss, move |entry| {
        read::<T>(entry).is_some_and(&mut take)
    })
}

/// As [`consume`], for a ring whose entries aren't all of one type.
///
/// # Errors
///
/// When the ring can't be registered with the runtime's poller.
pub fn consume_entries(
    ring: RingBuf<MapData>,
    hub: EventHub,
    loss: Arc<StreamLoss>,
    mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> io::Result<OwnedTask> {
    let mut ring = Ring::new(ring)?;
    let task = tokio::spawn(async move {
        let mut losses = ticks(LOSS_INTERVAL);
        let mut looks = ticks(LOOK_INTERVAL);
        let mut handle = |entry: &[u8]| {
            if !take(entry) {
                loss.discard();
            }
        };
        let mut is_more = false;
        loop {
            tokio::select! {
                woken = ring.woken() => if let Err(error) = woken {
                    tracing::error!(stream = loss.stream, %error, "the event ring can't be polled; its events stop here");
                    return;
                },
                _ = looks.tick() => {}
                _ = losses.tick() => loss.announce(&hub),
                () = tokio::task::yield_now(), if is_more => {}
            }
            is_more = ring.drain(&mut handle);
        }
    });
    Ok(OwnedTask::new(&task))
}

struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its map's descriptor, always gives the same one, and is owned by the `AsyncFd` from here on.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until the kernel says that there are entries. It says so at the next wake-up only, whatever is left by then.
    async fn woken(&mut self) -> io::Result<()> {
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Handles all entries, or a batch; returns whether there may be more.
    fn drain(&mut self, mut handle: impl FnMut(&[u8])) -> bool {
        for _ in 0..BATCH {
            let Some(entry) = self.0.get_mut().next() else {
                return false;
            };
            handle(&entry);
        }
        true
    }
}

/// `None` unless the entry has exactly the type's size.
pub(crate) fn read<T: Pod>(entry: &[u8]) -> Option<T> {
    if entry.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the slice is as long as the type, the read needs no alignment, and `Pod` accepts every bit pattern.
    Some(unsafe { entry.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_size_is_not_read() {
        assert_eq!(read::<u32>(&[1, 0, 0, 0]), Some(u32::from_ne_bytes([1, 0, 0, 0])));
        assert_eq!(read::<u32>(&[1, 0, 0]), None);
        assert_eq!(read::<u32>(&[1, 0, 0, 0, 0]), None);
    }

    #[test]
    fn only_growth_is_announced() {
        let kernel = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&kernel);
        let loss = StreamLoss::new("packets", move || seen.load(Ordering::Relaxed));
        let hub = EventHub::new(8);
        let mut events = hub.subscribe();
        loss.announce(&hub);
        assert!(events.try_recv().is_err());

        kernel.store(5, Ordering::Relaxed);
        loss.discard();
        loss.announce(&hub);
        loss.announce(&hub);
        let event = events.try_recv().expect("the loss is announced");
        assert_eq!(
            event.kind,
            EventKind::Lost {
                stream: "packets",
                count: 6
            }
        );
        assert!(events.try_recv().is_err());
        assert_eq!(loss.total(), 6);
    }
}
