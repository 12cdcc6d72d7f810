//! The kernel programs' clock, the one that people read, and the one that observers go by.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use sabot_core::model::BootTime;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::kernel::boot_time;

/// The wall-clock time of an instant since boot.
///
/// Both clocks are read anew each time, for the wall clock may be set, and the boot clock counts suspended time.
pub fn system_time(instant: BootTime) -> SystemTime {
    let now = boot_time();
    let wall = SystemTime::now();
    match now.0.checked_sub(instant.0) {
        Some(ago) => wall.checked_sub(Duration::from_nanos(ago)),
        None => wall.checked_add(Duration::from_nanos(instant.0 - now.0)),
    }
    .unwrap_or(wall)
}

/// The instant since boot of a past wall-clock time.
pub fn instant(time: SystemTime) -> BootTime {
    let ago = SystemTime::now().duration_since(time).unwrap_or_default();
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    BootTime(boot_time().0.saturating_sub(ago))
}

/// All of one period at the same instants, so that a daemon at rest wakes up once for all that look at something now and
/// then. Must be called within a tokio runtime.
pub(super) fn ticks(period: Duration) -> Interval {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(Instant::now);
    let past = epoch.elapsed().as_nanos() / period.as_nanos();
    let next = u32::try_from(past + 1).unwrap_or(1);
    let mut ticks = interval_at(epoch + period.saturating_mul(next), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_and_a_future_instant_lie_on_their_sides_of_now() {
        let minute = Duration::from_secs(60);
        let boot = boot_time();
        let past = BootTime(boot.0.saturating_sub(minute.as_nanos() as u64));
        let future = BootTime(boot.0 + minute.as_nanos() as u64);
        assert!(system_time(past) < system_time(boot));
        assert!(system_time(future) > SystemTime::now());
        assert!(system_time(boot) <= SystemTime::now());
        let back = instant(system_time(past));
        assert!(back.0.abs_diff(past.0) < Duration::from_secs(1).as_nanos() as u64);
    }
}
