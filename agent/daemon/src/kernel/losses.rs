//! What gets lost on a target's detours, by the counters of their devices.
//!
//! They are read without rtnetlink and without the lock of the target's equipment: a device that is being made, or a netns
//! that is being taken down elsewhere, keeps both busy for as long as it likes, and the engine reads counters all the time.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sabot_core::model::TargetDevice;
use sabot_core::plan::TargetId;

use super::equipment::open_netns;
use super::tables::Counted;
use super::{line, netns, segmenter};
use crate::delayline::LineTallies;
use crate::engine::handle::{Ledger, Tally};

/// How long a look serves: a scrape reads the counters of many slots on one target at once.
const FRESH: Duration = Duration::from_millis(20);
/// Of the thread that reads it, unlike `/proc/net`.
const DEVICES: &str = "/proc/thread-self/net/dev";
/// The counter of packets dropped on sending, after the device's name.
const SEND_DROPS: usize = 11;

/// What the detours' devices of one target have dropped: frames that found the TAP's queue full, wire packets on their way
/// through the segmenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceDrops {
    line: u64,
    segmenter: u64,
}

impl DeviceDrops {
    /// With the devices everything that was under way is gone.
    const GONE: Self = Self {
        line: u64::MAX,
        segmenter: u64::MAX,
    };
}

/// One target's.
pub(super) struct Losses {
    device: TargetDevice,
    line: String,
    segmenter: String,
    seen: Mutex<Option<(Instant, DeviceDrops)>>,
    /// Packets of the segmenter's drops that are in accounts which are closed.
    claimed: AtomicU64,
}

impl Losses {
    pub(super) fn new(target: TargetId, device: &TargetDevice) -> Self {
        Self {
            device: device.clone(),
            line: line::device_name(target),
            segmenter: segmenter::device_name(target),
            seen: Mutex::default(),
            claimed: AtomicU64::new(0),
        }
    }

    /// What has been dropped and is in no closed account.
    pub(super) fn unclaimed(&self) -> DeviceDrops {
        let drops = self.drops();
        let claimed = self.claimed.load(Ordering::Relaxed);
        DeviceDrops {
            segmenter: drops.segmenter.saturating_sub(claimed),
            ..drops
        }
    }

    /// A closed account's losses aren't another one's.
    pub(super) fn claim(&self, closed: &Ledger) {
        self.claimed
            .fetch_add(closed.lost_segmenter.packets, Ordering::Relaxed);
    }

    fn drops(&self) -> DeviceDrops {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, drops)) = *seen
            && at.elapsed() < FRESH
        {
            return drops;
        }
        let drops = self.look().unwrap_or(DeviceDrops::GONE);
        *seen = Some((Instant::now(), drops));
        drops
    }

    /// `None` when the netns is gone.
    fn look(&self) -> Option<DeviceDrops> {
        let netns = open_netns(&self.device).ok()?;
        let devices = netns::run_in(netns.as_fd(), devices);
        let devices = devices.ok()?.ok()?;
        let of = |name: &str| send_drops(&devices, name).unwrap_or(u64::MAX);
        Some(DeviceDrops {
            line: of(&self.line),
            segmenter: of(&self.segmenter),
        })
    }
}

fn devices() -> io::Result<String> {
    std::fs::read_to_string(DEVICES)
}

/// `None` when there is no such device.
fn send_drops(devices: &str, name: &str) -> Option<u64> {
    let counters = devices.lines().find_map(|line| {
        let (device, counters) = line.split_once(':')?;
        (device.trim() == name).then_some(counters)
    });
    counters?.split_whitespace().nth(SEND_DROPS)?.parse().ok()
}

/// What was sent on a detour and is neither back nor counted anywhere: in a device's queue now, or dropped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnderWay {
    line: Tally,
    segmenter: Tally,
}

impl UnderWay {
    pub(super) fn of(counted: &Counted, held: &LineTallies) -> Self {
        let mut line = minus(counted.delayed.into(), counted.departing.into());
        for known in [
            minus(counted.released.into(), counted.departed.into()),
            held.held,
            held.rejected,
            held.dropped,
            held.lost_bound,
            held.lost_write,
            held.lost_late,
        ] {
            line = minus(line, known);
        }
        Self {
            line,
            segmenter: minus(counted.segmenting.into(), counted.segmented.into()),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.line.packets == 0 && self.segmenter.packets == 0
    }

    /// The account closes: whatever comes back now is in no account any more.
    pub(super) fn write_off(&self, ledger: &mut Ledger) {
        ledger.lost_queue += self.line;
        ledger.lost_segmenter = self.segmenter;
    }

    /// Puts what the devices have dropped to a slot's account. They count for all slots together, and the TAP counts frames;
    /// what is still under way of this slot is the most that it can have lost.
    pub(super) fn attribute(&self, ledger: &mut Ledger, drops: DeviceDrops) {
        if drops.line > 0 {
            ledger.lost_queue += self.line;
        }
        if drops.segmenter >= self.segmenter.packets {
            ledger.lost_segmenter = self.segmenter;
        } else if drops.segmenter > 0 {
            let share = u128::from(self.segmenter.bytes) * u128::from(drops.segmenter)
                / u128::from(self.segmenter.packets);
            let bytes = u64::try_from(share).unwrap_or(u64::MAX);
            ledger.lost_segmenter = Tally {
                packets: drops.segmenter,
                bytes,
            };
        }
    }
}

/// What was handed to the departure queue and isn't back is held there, or, when the last of it should have been back for a
/// while, lost on the way. `now` is `CLOCK_MONOTONIC` in ns.
pub(super) fn departing(counted: &Counted, now: u64, ledger: &mut Ledger) {
    let away = minus(counted.departing.into(), counted.departed.into());
    if now
        < counted
            .last_departure
            .saturating_add(sabot_abi::HOLDING_LOST_AFTER)
    {
        ledger.held += away;
    } else {
        ledger.lost_queue += away;
    }
}

fn minus(from: Tally, less: Tally) -> Tally {
    Tally {
        packets: from.packets.saturating_sub(less.packets),
        bytes: from.bytes.saturating_sub(less.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC_NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
sabot-l1: 5000      50    0    9    0     0          0         0     7000      70    0    3    0     0       0          0
sabot-l12:   0       0    0    0    0     0          0         0        0       0    0   44    0     0       0          0
";

    fn tally(packets: u64) -> Tally {
        Tally {
            packets,
            bytes: packets * 100,
        }
    }

    #[test]
    fn a_devices_drops_on_sending_are_found_by_its_whole_name() {
        assert_eq!(send_drops(PROC_NET_DEV, "sabot-l1"), Some(3));
        assert_eq!(send_drops(PROC_NET_DEV, "sabot-l12"), Some(44));
        assert_eq!(send_drops(PROC_NET_DEV, "sabot-l"), None);
    }

    #[test]
    fn the_kernel_still_prints_its_counters_that_way() {
        let devices = devices().expect("/proc is mounted");
        let header = devices.lines().nth(1).expect("two lines of header");
        let sent = header.split('|').nth(2).expect("a part for sending");
        let received = header.split('|').nth(1).expect("a part for receiving");
        let column = received.split_whitespace().count() + 3;
        assert_eq!(sent.split_whitespace().nth(3), Some("drop"));
        assert_eq!(column, SEND_DROPS);
        assert!(send_drops(&devices, "lo").is_some());
    }

    #[test]
    fn what_departs_is_held_until_it_should_have_been_back_for_a_while() {
        let counted = Counted {
            delayed: sabot_abi::Tally {
                packets: 9,
                bytes: 900,
            },
            released: sabot_abi::Tally {
                packets: 6,
                bytes: 600,
            },
            departing: sabot_abi::Tally {
                packets: 5,
                bytes: 500,
            },
            departed: sabot_abi::Tally {
                packets: 3,
                bytes: 300,
            },
            last_departure: 7_000_000_000,
            ..Counted::default()
        };
        let books = |now| {
            let mut ledger = Ledger::default();
            departing(&counted, now, &mut ledger);
            (ledger.held, ledger.lost_queue)
        };
        assert_eq!(books(7_999_999_999), (tally(2), tally(0)));
        assert_eq!(books(8_000_000_000), (tally(0), tally(2)));
        let under_way = UnderWay::of(&counted, &LineTallies::default());
        assert_eq!(under_way.line, tally(1), "the rest is the TAP's");
    }

    #[test]
    fn losses_are_no_more_than_what_is_under_way_or_was_dropped() {
        let under_way = UnderWay {
            line: tally(3),
            segmenter: tally(4),
        };
        let attributed = |line, segmenter| {
            let mut ledger = Ledger::default();
            under_way.attribute(&mut ledger, DeviceDrops { line, segmenter });
            (ledger.lost_queue, ledger.lost_segmenter)
        };
        assert_eq!(attributed(0, 0), (tally(0), tally(0)));
        assert_eq!(attributed(1, 1), (tally(3), tally(1)));
        assert_eq!(attributed(u64::MAX, 9), (tally(3), tally(4)));
        let mut closed = Ledger::default();
        under_way.write_off(&mut closed);
        assert_eq!((closed.lost_queue, closed.lost_segmenter), (tally(3), tally(4)));
    }
}
