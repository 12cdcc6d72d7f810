//! One gate before all requests: while the API server is away or asks for patience, a single caller asks for its version now
//! and then, and everybody else waits for the answer.

use std::future::Future;
use std::sync::Mutex as Locked;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use super::lacks::too_old;

/// What is known of the cluster's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeState {
    /// None is configured; why.
    Absent(String),
    Connecting,
    /// The API server's version.
    Ready {
        version: String,
    },
    /// It doesn't answer, or not well; the last known world stays.
    Down(String),
}

/// Times between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// After so many failures in a row: doubled from one to the next, and then a random part from the half on, so that the
    /// nodes of a cluster don't come all at once.
    pub(super) fn after(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(rand::random_range(0.5..1.0))
    }
}

#[derive(Debug)]
pub(super) struct Gate {
    state: watch::Sender<KubeState>,
    backoff: Backoff,
    waits: Locked<Waits>,
    /// Held by the one that asks.
    asking: Mutex<()>,
}

#[derive(Debug)]
struct Waits {
    failures: u32,
    until: Instant,
}

/// A version that couldn't be asked.
#[derive(Debug)]
pub(super) struct Unreachable(pub(super) String);

impl Gate {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            state: watch::Sender::new(KubeState::Connecting),
            backoff,
            waits: Locked::new(Waits {
                failures: 0,
                until: Instant::now(),
            }),
            asking: Mutex::new(()),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<KubeState> {
        self.state.subscribe()
    }

    fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), KubeState::Ready { .. })
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until requests make sense.
    pub(super) async fn pass<F>(&self, ask: impl Fn() -> F)
    where
        F: Future<Output = Result<String, Unreachable>>,
    {
        if self.is_open() {
            return;
        }
        let _asking = self.asking.lock().await;
        while !self.is_open() {
            let until = self.waits().until;
            if until > Instant::now() {
                sleep_until(until).await;
                // It may have been told to wait longer in the meantime.
                continue;
            }
            match ask().await {
                Ok(version) => {
                    match too_old(&version) {
                        None => tracing::info!(version, "the cluster's API server answers"),
                        Some(why) => tracing::warn!(version, why, "the cluster's API server is too old"),
                    }
                    self.state.send_replace(KubeState::Ready { version });
                }
                Err(Unreachable(reason)) => self.close(reason),
            }
        }
    }

    /// A request was answered well.
    pub(super) fn succeeded(&self) {
        self.waits().failures = 0;
    }

    /// A request failed in a way that others would too.
    pub(super) fn close(&self, reason: String) {
        {
            let mut waits = self.waits();
            waits.failures = waits.failures.saturating_add(1);
            waits.until = waits
                .until
                .max(Instant::now() + self.backoff.after(waits.failures));
        }
        self.state.send_if_modified(|state| {
            let down = KubeState::Down(reason);
            let changed = *state != down;
            if changed {
                if !matches!(state, KubeState::Down(_)) {
                    tracing::warn!(state = ?down, "the cluster's API server doesn't answer as it should");
                }
                *state = down;
            }
            changed
        });
    }

    /// The server has asked for patience.
    pub(super) fn wait(&self, time: Duration) {
        let mut waits = self.waits();
        waits.until = waits.until.max(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Backoff, Gate, KubeState, Unreachable};

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(15),
    };

    #[test]
    fn attempts_come_less_and_less_often() {
        for failures in 1..100 {
            let doubled = BACKOFF.first.saturating_mul(1 << (failures - 1).min(10));
            let most = doubled.min(BACKOFF.longest);
            let after = BACKOFF.after(failures);
            assert!(
                after >= most / 2 && after <= most,
                "{after:?} after {failures} failures"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_for_all() {
        let gate = Arc::new(Gate::new(BACKOFF));
        let asked = Arc::new(AtomicU32::new(0));
        let start = Instant::now();
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let (gate, asked) = (gate.clone(), asked.clone());
                tokio::spawn(async move {
                    let ask = || async {
                        // Away for a minute.
                        asked.fetch_add(1, Ordering::Relaxed);
                        match start.elapsed() {
                            t if t < Duration::from_secs(60) => Err(Unreachable("refused".to_owned())),
                            _ => Ok("v1.33.1".to_owned()),
                        }
                    };
                    gate.pass(ask).await;
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let asked = asked.load(Ordering::Relaxed);
        assert!((6..=20).contains(&asked), "{asked} times in a minute");
        assert!(start.elapsed() < Duration::from_secs(60 + 15));
        let version = "v1.33.1".to_owned();
        assert_eq!(*gate.state().borrow(), KubeState::Ready { version });
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_kept() {
        let gate = Gate::new(BACKOFF);
        gate.pass(async || Ok(String::new())).await;
        gate.wait(Duration::from_secs(40));
        gate.close("429".to_owned());
        assert_eq!(*gate.state().borrow(), KubeState::Down("429".to_owned()));
        let start = Instant::now();
        gate.pass(async || Ok(String::new())).await;
        assert!(start.elapsed() >= Duration::from_secs(40));
    }
}
