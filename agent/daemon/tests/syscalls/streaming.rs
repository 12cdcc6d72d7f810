//! Which events there are while somebody reads every one of them, and while nobody does.

use std::time::{Duration, Instant};

use nix::libc;
use sabotd::observe::event::{EventHub, SyscallEvent};

use crate::rig::{errors, observe_into, on_thread_named, open_missing, receive, unique_name};

/// Failures of another kind than [`open_missing`]'s.
fn close_nothing(times: usize) {
    for _ in 0..times {
        // SAFETY: the call takes a number, which is no descriptor.
        assert_eq!(unsafe { libc::close(-1) }, -1);
    }
}

/// A failure of a third kind: what came before it has come when it does.
fn sync_nothing() {
    // SAFETY: as above.
    assert_eq!(unsafe { libc::fsync(-1) }, -1);
}

fn of(calls: &[SyscallEvent], syscall: &str) -> usize {
    calls.iter().filter(|call| call.syscall == syscall).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_events_one_by_one_while_somebody_reads_them() {
    /// Fewer than the ring has room for.
    const MANY: usize = 400;
    let name = unique_name();
    let hub = EventHub::new(4 * MANY);
    let mut overheard = hub.overhear();
    let observer = observe_into(&hub, &name, None);

    let began = Instant::now();
    on_thread_named(&name, || open_missing(MANY));
    let mut all = hub.subscribe();
    on_thread_named(&name, || {
        close_nothing(MANY);
        sync_nothing();
    });
    let read = receive(&mut all, |calls| of(calls, "fsync") == 1).await;
    assert_eq!(of(&read, "close"), MANY);

    drop(all);
    on_thread_named(&name, || close_nothing(MANY));
    let _again = hub.subscribe();
    on_thread_named(&name, sync_nothing);
    let heard = receive(&mut overheard, |calls| of(calls, "fsync") == 2).await;
    // One at first, and no more than one a second.
    let few = 1 + began.elapsed().as_secs() as usize;
    let (opened, closed) = (of(&heard, "openat"), of(&heard, "close") - MANY);
    assert!((1..=few).contains(&opened), "{opened}, at most {few}");
    assert!((1..=few).contains(&closed), "{closed}, at most {few}");

    // Only events are fewer.
    let snapshot = observer.snapshot().unwrap();
    assert_eq!(errors(&snapshot, &["openat"], "ENOENT"), MANY as u64);
    assert_eq!(errors(&snapshot, &["close"], "EBADF"), 2 * MANY as u64);
    assert_eq!(observer.lost_events(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_one_syscall_are_told_apart() {
    let name = unique_name();
    let hub = EventHub::new(64);
    let mut overheard = hub.overhear();
    let _observer = observe_into(&hub, &name, None);
    on_thread_named(&name, || {
        open_missing(1);
        // SAFETY: the path is a valid string.
        let result = unsafe { libc::open(c"/bin/busybox/file".as_ptr(), 0) };
        assert_eq!(result, -1);
    });
    let heard = receive(&mut overheard, |calls| of(calls, "openat") == 2).await;
    let errnos: Vec<_> = heard.iter().filter_map(|call| call.errno).collect();
    assert_eq!(errnos, ["ENOENT", "ENOTDIR"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_slow_call_is_an_event_whoever_reads() {
    const CALLS: usize = 50;
    let name = unique_name();
    let hub = EventHub::new(1024);
    let mut overheard = hub.overhear();
    // From no time at all on.
    let _observer = observe_into(&hub, &name, Some(Duration::ZERO));
    on_thread_named(&name, || {
        for _ in 0..CALLS {
            // SAFETY: the call takes nothing.
            unsafe { libc::getppid() };
        }
        sync_nothing();
    });
    let heard = receive(&mut overheard, |calls| of(calls, "fsync") == 1).await;
    assert_eq!(of(&heard, "getppid"), CALLS);
}
