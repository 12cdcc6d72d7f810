//! Waiting for something to become true.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

/// How many times as long as elsewhere things may take here; set for emulated machines.
const SLOWNESS: &str = "SABOT_TEST_SLOWNESS";

/// Asks until the answer is `Some` or the time is over; asks at least once, also after the last wait.
pub fn wait_for<T>(timeout: Duration, every: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + on_this_machine(timeout);
    loop {
        let last = Instant::now() >= end;
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if last {
            return None;
        }
        thread::sleep(every.min(end.saturating_duration_since(Instant::now())));
    }
}

/// What may take so long on a real machine, on this one.
pub fn on_this_machine(timeout: Duration) -> Duration {
    let slowness = env::var(SLOWNESS).ok().and_then(|text| text.parse().ok());
    timeout * slowness.unwrap_or(1)
}

/// [`wait_for`] with a condition.
pub fn wait_until(timeout: Duration, every: Duration, mut condition: impl FnMut() -> bool) -> bool {
    wait_for(timeout, every, || condition().then_some(())).is_some()
}

/// Measures up to `tries` times, until a measurement is within the bound: what a busy machine can make late now and then,
/// but not always.
///
/// # Panics
///
/// None of them was; with all of them.
pub fn best_of(tries: usize, bound: Duration, what: &str, mut measure: impl FnMut() -> Duration) -> Duration {
    let mut measured = Vec::new();
    for _ in 0..tries {
        let took = measure();
        if took <= bound {
            return took;
        }
        measured.push(took);
    }
    panic!("{what}: {measured:?} measured, none of them within {bound:?}");
}
