//! Figures, by hand: `cargo test --release -p sabotd --lib delayline::bench -- --ignored --nocapture --test-threads 1`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sabot_core::plan::{Slot, TargetId};

use super::poller::boot_time;
use super::test_frames::FrameSpec;
use super::test_rig::{Far, Rig};

/// Frames on their way at once: as many as the sockets' buffers hold with ease.
const WINDOW_BYTES: u64 = 8 << 20;

fn process_cpu() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock)
        .expect("every kernel has it")
        .into()
}

/// Frames in a closed loop, each held for 1 ms; one thread sends and receives, the other is the line's.
fn throughput(payload: usize, frames: u64) {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, Duration::from_millis(1));
    let bytes = FrameSpec {
        payload,
        ..FrameSpec::default()
    }
    .build(far.vnet_header);
    let window = (WINDOW_BYTES / bytes.len() as u64).min(4096);
    let mut buffer = vec![0; 1 << 17];
    let (mut sent, mut received) = (0, 0);
    let start = Instant::now();
    while received < frames {
        while sent < frames && sent - received < window {
            far.send_bytes(&bytes);
            sent += 1;
        }
        assert_eq!(far.read(&mut buffer), bytes.len());
        received += 1;
    }
    let rate = received as f64 / start.elapsed().as_secs_f64();
    println!(
        "{payload} B: {rate:.0} frames/s, {:.2} Gbit/s",
        rate * payload as f64 * 8e-9
    );
    assert_eq!(rig.tallies(1, 1), super::LineTallies::default());
}

#[test]
#[ignore = "a measurement"]
fn frames_a_second() {
    for (payload, frames) in [(64, 1_000_000), (1400, 1_000_000), (60_000, 100_000)] {
        throughput(payload, frames);
    }
}

/// Paced frames in one direction; prints how much later than asked they come out at the far end.
fn precision(far: &Far, latency: Duration, every: Duration, frames: usize) {
    let mut errors = std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            for index in 0..frames {
                std::thread::sleep((every * index as u32).saturating_sub(start.elapsed()));
                far.send(&FrameSpec {
                    id: boot_time(),
                    ..FrameSpec::default()
                });
            }
        });
        let mut buffer = vec![0; 4096];
        let mut receive = || {
            let length = far.read(&mut buffer);
            let sent = FrameSpec::id_of(&buffer[..length], far.vnet_header).expect("the frame has an id");
            boot_time() as i64 - sent as i64 - latency.as_nanos() as i64
        };
        (0..frames).map(|_| receive()).collect::<Vec<_>>()
    });
    errors.sort_unstable();
    let at = |share: f64| errors[(share * (frames - 1) as f64) as usize] / 1000;
    println!(
        "{latency:?} every {every:?}: end to end late by {} us (median), {} us (p99)",
        at(0.5),
        at(0.99),
    );
    assert!(errors[0] > 0, "nothing comes early");
}

/// The histogram's bound at 5 ms tells how many of the line's own delays were off by less than a chosen error.
fn release_errors() {
    let rig = Rig::new();
    let far = rig.open(1);
    for (every, frames) in [(100, 30_000), (1_000, 3_000)] {
        for error in [50, 100, 200, 500, 1000] {
            let latency = Duration::from_micros(5000 - error);
            rig.delay(1, latency);
            precision(&far, latency, Duration::from_micros(every), frames);
            let histogram = rig.line.histogram(Slot(1));
            let within: u64 = histogram.buckets[..12].iter().sum();
            let share = within as f64 / histogram.count as f64 * 100.0;
            println!("    in the line itself {share:.2} % within {error} us");
            rig.line.forget(Slot(1), TargetId(1));
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn release_error() {
    release_errors();
    println!("with two busy threads:");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        release_errors();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
#[ignore = "a measurement"]
fn idle_cost() {
    let rig = Rig::new();
    let _far = rig.open(1);
    let before = process_cpu();
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "idle with a line open: {:?} of CPU a second",
        (process_cpu() - before) / 2
    );
}
