//! How the scheduler treats the engine's thread.
//!
//! Packets on time are what this thread is for, so while it has little to do it is prompt: it runs at the lowest real-time
//! priority, or where that isn't allowed with a nice value and a short slice, and preempts others when it wakes. On a
//! machine with more work than cores that is the difference between 0.1 ms and several ms at the 99th percentile.
//!
//! Under bulk traffic the same promptness is wasted work: each packet interrupts the sender or the receiver for a batch of
//! one, and the caches with it. A thread that uses much of a core is therefore scheduled like any other until it is calm
//! again; packets then wait for each other while somebody else has a turn, and go through in larger batches. One TCP flow
//! at 5 ms each way through two pods on two cores, other builds running, medians of six alternating rounds:
//!
//! | while busy                            | seconds of the thread per GB | to no fault |
//! |---------------------------------------|------------------------------|-------------|
//! | real-time until 60 %, then nice -15   | 0.98                         | 0.63        |
//! | ordinary from 20 %                    | 0.69                         | 0.65        |
//! | ordinary from 40 % (chosen)           | 0.71                         | 0.80        |
//! | `SCHED_BATCH` with nice -15, from 40 % | 0.81                        | 0.61        |
//! | `SCHED_BATCH` with nice 0, from 20 %  | 0.74                         | 0.72        |

use std::io;
use std::time::Duration;

/// How long its use of the processor is watched before it is judged, in ns.
const PERIOD: u64 = 100_000_000;
/// Percent of a core at which it becomes ordinary, and below which it is prompt again.
const BUSY: u64 = 40;
const CALM: u64 = 20;

const NICENESS: i32 = -15;
/// The slice, in ns, that it asks for when it is to be prompt without real-time priority: with a shorter one than theirs it
/// preempts others when it wakes. Kernels before 6.12 ignore it.
const SLICE: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    RealTime,
    Preferred,
    Ordinary,
}

pub(super) struct Priority {
    class: Class,
    /// What it is while it is calm.
    prompt: Class,
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
            class: Class::Ordinary,
            prompt: if real_time {
                Class::RealTime
            } else {
                Class::Preferred
            },
            since: now,
            used: thread_time(),
        };
        priority.become_class(priority.prompt);
        priority
    }

    /// Looks at the last period, if it is over. To be called often.
    pub(super) fn review(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.since);
        if elapsed < PERIOD {
            return;
        }
        let used = thread_time();
        let percent = used.saturating_sub(self.used).saturating_mul(100) / elapsed;
        (self.since, self.used) = (now, used);
        if let Some(class) = judge(self.class, self.prompt, percent) {
            self.become_class(class);
        }
    }

    /// A refused class isn't asked for again; the next lower one is taken.
    fn become_class(&mut self, class: Class) {
        let Err(error) = set_class(class) else {
            self.class = class;
            return;
        };
        tracing::debug!(%error, ?class, "the delay line's thread may not be scheduled like this");
        match class {
            Class::RealTime => self.prompt = Class::Preferred,
            Class::Preferred => self.prompt = Class::Ordinary,
            Class::Ordinary => return,
        }
        self.become_class(self.prompt);
    }
}

/// The class that a thread should change to.
fn judge(class: Class, prompt: Class, percent: u64) -> Option<Class> {
    let wanted = match class {
        Class::Ordinary if percent < CALM => prompt,
        Class::RealTime | Class::Preferred if percent > BUSY => Class::Ordinary,
        _ => return None,
    };
    (wanted != class).then_some(wanted)
}

fn set_class(class: Class) -> io::Result<()> {
    let (policy, nice, priority, runtime) = match class {
        Class::RealTime => (libc::SCHED_RR, 0, 1, 0),
        Class::Preferred => (libc::SCHED_OTHER, NICENESS, 0, SLICE),
        // A slice of 0 is the scheduler's own.
        Class::Ordinary => (libc::SCHED_OTHER, 0, 0, 0),
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
        for prompt in [Class::RealTime, Class::Preferred] {
            assert_eq!(judge(prompt, prompt, BUSY), None);
            assert_eq!(judge(prompt, prompt, BUSY + 1), Some(Class::Ordinary));
            assert_eq!(judge(Class::Ordinary, prompt, CALM), None);
            assert_eq!(judge(Class::Ordinary, prompt, CALM - 1), Some(prompt));
        }
        assert_eq!(judge(Class::Ordinary, Class::Ordinary, 0), None);
    }

    /// The policy of the calling thread, as the kernel sees it.
    fn policy() -> libc::c_int {
        // SAFETY: 0 means the calling thread; nothing is written.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_that_computes_all_the_time_becomes_ordinary_and_prompt_again() {
        let thread = || {
            let mut now = 0;
            let mut priority = Priority::of_this_thread(true, now);
            let prompt = (priority.class, policy());
            // As if no other thread had a turn: as much time passes as this one uses.
            while priority.class != Class::Ordinary {
                let start = thread_time();
                while thread_time() - start < PERIOD {}
                now += thread_time() - start;
                priority.review(now);
            }
            let busy = policy();
            // As if it had slept meanwhile.
            priority.review(now + 100 * PERIOD);
            assert_eq!((priority.class, policy()), prompt);
            (prompt.0, busy)
        };
        let (prompt, busy) = std::thread::spawn(thread).join().expect("it ends");
        assert_eq!(busy, libc::SCHED_OTHER);
        assert_eq!(prompt, Class::RealTime, "this test needs CAP_SYS_NICE");
    }
}
