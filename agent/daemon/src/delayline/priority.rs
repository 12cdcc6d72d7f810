//! How the scheduler treats the engine's thread.
//!
//! Packets on time are what this thread is for, so it runs at the lowest real-time priority: on a machine with more
//! work than cores that is the difference between 0.1 ms and several ms at the 99th percentile. A real-time thread that
//! never sleeps would take a core from everybody else, though; so one that is busy for most of a while is treated
//! like other threads, if preferred, until it is calm again. (Bulk traffic wants throughput, which that doesn't cost.)

use std::io;
use std::time::Duration;

/// How long its use of the processor is watched before it is judged, in ns.
const PERIOD: u64 = 100_000_000;
/// Percent of a core at which it loses its real-time priority, and at which it gets it back.
const BUSY: u64 = 60;
const CALM: u64 = 30;

const NICENESS: i32 = -15;
/// The slice, in ns, that it asks for without real-time priority: with a shorter one than theirs it preempts others when it
/// wakes. Kernels before 6.12 ignore it.
const SLICE: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    RealTime,
    Preferred,
}

pub(super) struct Priority {
    class: Class,
    real_time_allowed: bool,
    /// The start of the present period, and the thread's processor time then; ns.
    since: u64,
    used: u64,
}

impl Priority {
    /// For the calling thread. Each wish may be refused, and then it goes without.
    pub(super) fn of_this_thread(real_time: bool, now: u64) -> Self {
        if let Err(error) = nix::sys::prctl::set_timerslack(1) {
            tracing::debug!(%error, "the delay line keeps the default timer slack");
        }
        let mut priority = Self {
            class: Class::Preferred,
            real_time_allowed: real_time,
            since: now,
            used: thread_time(),
        };
        priority.become_class(Class::Preferred);
        if real_time {
            priority.become_class(Class::RealTime);
        }
        priority
    }

    /// Looks at the last period, if it is over. To be called often.
    pub(super) fn review(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.since);
        if elapsed < PERIOD || !self.real_time_allowed {
            return;
        }
        let used = thread_time();
        let percent = used.saturating_sub(self.used).saturating_mul(100) / elapsed;
        (self.since, self.used) = (now, used);
        if let Some(class) = judge(self.class, percent) {
            self.become_class(class);
        }
    }

    fn become_class(&mut self, class: Class) {
        match set_class(class) {
            Ok(()) => self.class = class,
            Err(error) => {
                tracing::debug!(%error, ?class, "the delay line keeps its scheduling class");
                self.real_time_allowed &= class != Class::RealTime;
            }
        }
    }
}

/// The class that a thread should change to.
fn judge(class: Class, percent: u64) -> Option<Class> {
    match class {
        Class::RealTime if percent > BUSY => Some(Class::Preferred),
        Class::Preferred if percent < CALM => Some(Class::RealTime),
        _ => None,
    }
}

fn set_class(class: Class) -> io::Result<()> {
    let (policy, nice, priority, runtime) = match class {
        Class::RealTime => (libc::SCHED_RR, 0, 1, 0),
        Class::Preferred => (libc::SCHED_OTHER, NICENESS, 0, SLICE),
    };
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: priority,
        sched_runtime: runtime,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the attributes outlive the call and state their own size; 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Processor time of the calling thread, ns.
fn thread_time() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_steps_back_until_it_is_calm() {
        assert_eq!(judge(Class::RealTime, BUSY), None);
        assert_eq!(judge(Class::RealTime, BUSY + 1), Some(Class::Preferred));
        assert_eq!(judge(Class::Preferred, BUSY), None);
        assert_eq!(judge(Class::Preferred, CALM), None);
        assert_eq!(judge(Class::Preferred, CALM - 1), Some(Class::RealTime));
    }

    #[test]
    fn a_thread_that_computes_all_the_time_loses_real_time() {
        let computing = || {
            let mut now = 0;
            let mut priority = Priority::of_this_thread(true, now);
            if !priority.real_time_allowed {
                // Without CAP_SYS_NICE there is nothing to lose.
                return Class::Preferred;
            }
            // As if no other thread had a turn: as much time passes as this one uses.
            while priority.class == Class::RealTime {
                let start = thread_time();
                while thread_time() - start < PERIOD {}
                now += thread_time() - start;
                priority.review(now);
            }
            priority.class
        };
        let class = std::thread::spawn(computing).join().expect("it ends");
        assert_eq!(class, Class::Preferred);
    }
}
