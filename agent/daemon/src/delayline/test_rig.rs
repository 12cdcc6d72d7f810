//! A delay line on socket pairs: sockets with message boundaries stand in for TAPs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use sabot_core::delay::{DelayShape, Distribution};
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};

use super::poller::boot_time;
use super::test_frames::FrameSpec;
use super::{Config, DelayLine, Heartbeat, SlotPolicy, Treatment};

/// Long enough for anything that does happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const SOCKET_BUFFER: usize = 32 << 20;

/// Counts beats, and sleeps in one when it is told to: the thread stands still then.
#[derive(Clone, Default)]
pub(super) struct Pulse {
    pub(super) beats: Arc<AtomicU64>,
    /// Milliseconds to sleep in the next beat; set back to 0 when it is over.
    pub(super) stall: Arc<AtomicU64>,
    pub(super) stalling: Arc<AtomicU64>,
}

impl Heartbeat for Pulse {
    fn beat(&mut self, now: BootTime) {
        assert!(now.0 > 0);
        self.beats.fetch_add(1, Ordering::SeqCst);
        let stall = self.stall.load(Ordering::SeqCst);
        if stall > 0 {
            self.stalling.store(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(stall));
            self.stall.store(0, Ordering::SeqCst);
        }
    }
}

pub(super) struct Rig {
    pub(super) line: DelayLine,
    pub(super) pulse: Pulse,
}

impl Rig {
    pub(super) fn new() -> Self {
        // A busy machine may well hold up a test's thread for a second; what that means is tested on its own.
        Self::with(Config {
            late_after: HOUR,
            ..Config::default()
        })
    }

    pub(super) fn with(config: Config) -> Self {
        let pulse = Pulse::default();
        let line = DelayLine::start(config, Box::new(pulse.clone())).expect("the engine starts");
        Self { line, pulse }
    }

    pub(super) fn open(&self, target: u32) -> Far {
        let (far, tap) = Far::pair();
        self.take(target, tap);
        far
    }

    pub(super) fn take(&self, target: u32, tap: OwnedFd) {
        self.take_in(target, None, tap);
    }

    /// Opens a line in the network namespace with this cookie.
    pub(super) fn take_in(&self, target: u32, netns: Option<u64>, tap: OwnedFd) {
        let identity = TargetIdentity(u64::from(target));
        self.line
            .open(TargetId(target), identity, netns, tap)
            .expect("the line opens");
    }

    pub(super) fn set(&self, slot: u32, treatment: Treatment) {
        self.line.set_slot(Slot(slot), policy(treatment));
    }

    pub(super) fn delay(&self, slot: u32, latency: Duration) {
        self.line.set_slot(Slot(slot), delay(latency));
    }

    pub(super) fn tallies(&self, slot: u32, target: u32) -> super::LineTallies {
        self.line.tallies(Slot(slot), TargetId(target), true)
    }

    pub(super) fn wait_held(&self, slot: u32, target: u32, packets: u64) {
        wait_until("the packets are held", || {
            self.tallies(slot, target).held.packets == packets
        });
    }
}

/// A policy that lasts for longer than any test.
pub(super) fn policy(treatment: Treatment) -> SlotPolicy {
    SlotPolicy {
        treatment,
        starts_at: BootTime(0),
        expires_at: boot_in(24 * HOUR),
        ramp: None,
        seed: 1,
    }
}

/// A delay without jitter.
pub(super) fn delay(latency: Duration) -> SlotPolicy {
    jittered(latency, Duration::ZERO)
}

/// A uniform delay.
pub(super) fn jittered(latency: Duration, jitter: Duration) -> SlotPolicy {
    policy(Treatment::Delay {
        shape: uniform(latency, jitter),
        allow_reorder: false,
    })
}

pub(super) fn uniform(latency: Duration, jitter: Duration) -> Arc<DelayShape> {
    let shape = DelayShape::new(latency, jitter, &Distribution::Uniform, 0.0);
    Arc::new(shape.expect("a valid shape"))
}

pub(super) fn boot_in(duration: Duration) -> BootTime {
    BootTime(boot_time() + duration.as_nanos() as u64)
}

pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The kernel's end of a stand-in for a TAP.
pub(super) struct Far {
    socket: OwnedFd,
    pub(super) vnet_header: usize,
}

impl Far {
    pub(super) fn pair() -> (Self, OwnedFd) {
        let (socket, tap) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("sockets");
        for end in [&socket, &tap] {
            // Needs CAP_NET_ADMIN; without it the buffers are just smaller.
            let _ = setsockopt(end, sockopt::SndBufForce, &SOCKET_BUFFER);
        }
        (
            Self {
                socket,
                vnet_header: 12,
            },
            tap,
        )
    }

    pub(super) fn send(&self, spec: &FrameSpec) -> Vec<u8> {
        let bytes = spec.build(self.vnet_header);
        self.send_bytes(&bytes);
        bytes
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        let written = nix::unistd::write(&self.socket, bytes).expect("the line's socket takes the frame");
        assert_eq!(written, bytes.len());
    }

    /// The next frame, if there is one now.
    pub(super) fn try_receive(&self) -> Option<Vec<u8>> {
        self.receive_within(Duration::ZERO).expect("the line is open")
    }

    pub(super) fn receive(&self) -> Vec<u8> {
        self.receive_within(PATIENCE)
            .expect("the line is open")
            .expect("a frame comes")
    }

    /// Everything until the line closes its end.
    pub(super) fn receive_to_end(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.receive_within(PATIENCE) {
            frames.push(frame.expect("the line closes its end in time"));
        }
        frames
    }

    /// Blocks for the next frame; returns its length.
    pub(super) fn read(&self, buffer: &mut [u8]) -> usize {
        nix::unistd::read(&self.socket, buffer).expect("a frame comes")
    }

    /// `Err` at the end.
    pub(super) fn receive_within(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).expect("a short time");
        if poll(&mut fds, timeout)? == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; 1 << 17];
        match nix::unistd::read(&self.socket, &mut bytes) {
            Ok(0) | Err(Errno::ECONNRESET) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn receive_id(&self) -> u64 {
        FrameSpec::id_of(&self.receive(), self.vnet_header).expect("the frame has an id")
    }
}
