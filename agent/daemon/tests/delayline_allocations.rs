//! The delay line's thread allocates nothing per packet once it has seen its traffic's peak.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use sabot_abi::{DIRECTION_EGRESS, Role, Tag};
use sabot_core::action::{QueueBound, RateLimit, RejectCode};
use sabot_core::delay::{DelayShape, Distribution};
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};
use sabotd::delayline::{Config, DelayLine, Heartbeat, SlotPolicy, Treatment};

/// The thread whose allocations are counted.
static THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if THREAD.load(Ordering::Relaxed) == nix::unistd::gettid().as_raw() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tells which thread is the engine's.
struct Witness;

impl Heartbeat for Witness {
    fn beat(&mut self, _: BootTime) {
        THREAD.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
    }
}

const FRAMES: u16 = 120;

/// A UDP frame of slot 1, from one of some ports, behind a vnet header of 12 bytes. Each eleventh is chosen.
fn frame(number: u16) -> Vec<u8> {
    let payload = [40, 1000, 10_000][usize::from(number) % 3];
    let role = if number.is_multiple_of(11) {
        Role::Chosen
    } else {
        Role::Plain
    };
    let tag = Tag {
        slot: 1,
        direction: DIRECTION_EGRESS,
        role,
    };
    let mut frame = vec![0; 12 + 12];
    frame.extend([0x81, 0x00]);
    frame.extend(tag.tci().to_be_bytes());
    frame.extend([0x81, 0x00, 0, 0]);
    frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend((number % 40).to_be_bytes());
    frame.resize(frame.len() + 6 + payload, 0);
    frame
}

fn exchange(far: &OwnedFd, release: impl FnOnce()) {
    for number in 0..FRAMES {
        nix::unistd::write(far, &frame(number)).expect("the line takes the frame");
    }
    release();
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..FRAMES {
        nix::unistd::read(far, &mut buffer).expect("the frame comes back");
    }
}

#[test]
fn steady_traffic_allocates_nothing() {
    let line = DelayLine::start(Config::default(), Box::new(Witness)).expect("the engine starts");
    let (far, tap) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .expect("sockets");
    // With the default size a burst of releases would overrun it.
    let size = 16 << 20;
    for end in [&far, &tap] {
        nix::sys::socket::setsockopt(end, nix::sys::socket::sockopt::SndBufForce, &size)
            .expect("this needs root");
    }
    line.open(TargetId(1), TargetIdentity(1), None, tap)
        .expect("the line opens");
    line.set_slot(Slot(1), policy(delay(Duration::from_secs(3600), Duration::ZERO)));
    // The peak: everything is held at once.
    exchange(&far, || {
        let held = || line.tallies(Slot(1), TargetId(1), true).held.packets;
        while held() < u64::from(FRAMES) {
            std::thread::sleep(Duration::from_millis(1));
        }
        line.clear_slot(Slot(1));
    });
    let latency = Duration::from_millis(3);
    let limit = RateLimit {
        rate: 1_000_000_000,
        burst: 3000,
        queue: QueueBound::Time(Duration::from_secs(3600)),
    };
    for treatment in [
        delay(latency, latency),
        Treatment::Reorder {
            gap: Some(2),
            delay: latency,
        },
        Treatment::RateLimit(limit),
        // Each frame is answered by one.
        Treatment::Reject(RejectCode::PortUnreachable),
    ] {
        line.set_slot(Slot(1), policy(treatment.clone()));
        exchange(&far, || {});
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        assert!(before > 0, "the counter sees the engine's thread");
        (0..20).for_each(|_| exchange(&far, || {}));
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{treatment:?}");
    }
    let rejected = line.tallies(Slot(1), TargetId(1), true).rejected.packets;
    assert_eq!(rejected, 21 * u64::from(FRAMES));
}

fn policy(treatment: Treatment) -> SlotPolicy {
    SlotPolicy {
        treatment,
        starts_at: BootTime(0),
        expires_at: BootTime(u64::MAX),
        ramp: None,
        seed: 1,
    }
}

fn delay(latency: Duration, jitter: Duration) -> Treatment {
    let shape = DelayShape::new(latency, jitter, &Distribution::Normal, 0.5);
    Treatment::Delay {
        shape: Arc::new(shape.expect("a valid shape")),
        allow_reorder: false,
    }
}
