//! Waiting: for frames, for commands, for the next deadline.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Events taken from the kernel in one call.
const EVENTS: usize = 256;
const TOKEN_WAKE: u64 = u64::MAX;
const TOKEN_TIMER: u64 = u64::MAX - 1;

/// `CLOCK_BOOTTIME` in ns: it goes on while the machine is suspended, as the deadlines of faults do.
pub(super) fn boot_time() -> u64 {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let now = nix::time::clock_gettime(clock).expect("every supported kernel has CLOCK_BOOTTIME");
    Duration::from(now).as_nanos() as u64
}

/// Whether a frame can be read right now. Also `true` where that can't be known.
pub(super) fn is_readable(tap: &OwnedFd) -> bool {
    let mut descriptors = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut descriptors, PollTimeout::ZERO);
    let events = descriptors[0].revents();
    ready.is_err() || events.is_none_or(|events| events.contains(PollFlags::POLLIN))
}

/// What has become ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// Somebody sent a command, which is looked after in any case.
    Nothing,
    /// This moment has come, in ns, and the thread slept until then.
    Time(u64),
    /// The line with this token can be read.
    Line(u64),
    /// The device of the line with this token is gone.
    Gone(u64),
}

pub(super) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    wake: Arc<EventFd>,
    armed: Armed,
    /// The last wait was one for something to become ready.
    slept: bool,
    events: Box<[EpollEvent; EVENTS]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    No,
    For(u64),
    /// It stays readable until it is set anew.
    Fired,
}

impl Poller {
    pub(super) fn new(wake: Arc<EventFd>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
        )?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_WAKE))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_TIMER))?;
        Ok(Self {
            epoll,
            timer,
            wake,
            armed: Armed::No,
            slept: false,
            events: Box::new([EpollEvent::empty(); EVENTS]),
        })
    }

    /// `token` comes back in [`Ready`]; any value but the two highest.
    pub(super) fn add(&self, tap: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(tap, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    pub(super) fn remove(&self, tap: impl AsFd) {
        // It fails for a descriptor whose device is gone only in that it isn't there any more.
        let _ = self.epoll.delete(tap);
    }

    /// Waits until something is ready or `until` (ns; `None`: for ever; in the past: not at all). Returns how many
    /// events there are for [`Poller::ready`]. Whoever sends a command after this has returned ends the next wait.
    pub(super) fn wait(&mut self, until: Option<u64>, now: u64) -> io::Result<usize> {
        self.slept = until.is_none_or(|until| until > now);
        let timeout = if self.slept {
            self.arm(until)?;
            EpollTimeout::NONE
        } else {
            EpollTimeout::ZERO
        };
        let count = match self.epoll.wait(&mut self.events[..], timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        // Before anybody looks for commands: of one that came between that and this, nobody would learn.
        if self.events[..count]
            .iter()
            .any(|event| event.data() == TOKEN_WAKE)
        {
            // Non-blocking: at worst somebody else's read made it empty.
            let _ = self.wake.read();
        }
        Ok(count)
    }

    pub(super) fn ready(&mut self, index: usize) -> Ready {
        let event = self.events[index];
        match event.data() {
            TOKEN_WAKE => Ready::Nothing,
            TOKEN_TIMER => match std::mem::replace(&mut self.armed, Armed::Fired) {
                Armed::For(until) if self.slept => Ready::Time(until),
                _ => Ready::Nothing,
            },
            token if event.events().contains(EpollFlags::EPOLLIN) => Ready::Line(token),
            token => Ready::Gone(token),
        }
    }

    fn arm(&mut self, until: Option<u64>) -> io::Result<()> {
        let wanted = until.map_or(Armed::No, Armed::For);
        if wanted == self.armed {
            return Ok(());
        }
        match until {
            Some(until) => {
                let at = TimeSpec::from_duration(Duration::from_nanos(until));
                self.timer
                    .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => self.timer.unset()?,
        }
        self.armed = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;

    fn poller() -> Poller {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Poller::new(Arc::new(wake.expect("an eventfd"))).expect("a poller")
    }

    #[test]
    fn whoever_slept_until_a_moment_is_told_which() {
        let mut poller = poller();
        let now = boot_time();
        let until = now + 2_000_000;
        assert_eq!(poller.wait(Some(until), now).expect("it waits"), 1);
        assert!(boot_time() >= until);
        assert_eq!(poller.ready(0), Ready::Time(until));
    }

    #[test]
    fn a_moment_that_comes_while_nobody_sleeps_is_no_wake_up() {
        let mut poller = poller();
        let now = boot_time();
        let until = now + 2_000_000;
        poller.wake.write(1).expect("it is written");
        assert_eq!(poller.wait(Some(until), now).expect("it waits"), 1);
        assert_eq!(poller.ready(0), Ready::Nothing);
        while boot_time() < until + 1_000_000 {
            std::hint::spin_loop();
        }
        assert_eq!(poller.wait(Some(now), until).expect("it looks"), 1);
        assert_eq!(poller.ready(0), Ready::Nothing);
    }

    #[test]
    fn a_command_that_comes_after_a_wait_ends_the_next_one() {
        let mut poller = poller();
        poller.wake.write(1).expect("it is written");
        assert_eq!(poller.wait(None, 0).expect("it waits"), 1);
        // The commands that there were have been looked for, the events haven't.
        poller.wake.write(1).expect("it is written");
        assert_eq!(poller.ready(0), Ready::Nothing);
        let now = boot_time();
        assert_eq!(poller.wait(Some(now + 500_000_000), now).expect("it waits"), 1);
        assert_eq!(poller.ready(0), Ready::Nothing, "the command wasn't seen");
    }

    #[test]
    fn what_waits_can_be_read_until_it_has_been() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        assert!(!is_readable(&reader));
        nix::unistd::write(&writer, b"frame").expect("it is written");
        assert!(is_readable(&reader));
        nix::unistd::read(&reader, &mut [0; 16]).expect("it is read");
        assert!(!is_readable(&reader));
        // A device that is gone has nothing.
        drop(writer);
        assert!(!is_readable(&reader));
    }
}
