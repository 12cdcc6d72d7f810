//! Figures, by hand: `cargo test --release -p sabotd --lib delayline::bench -- --ignored --nocapture --test-threads 1`.

use std::time::{Duration, Instant};

use sabot_core::plan::Slot;

use super::poller::boot_time;
use super::test_frames::FrameSpec;
use super::test_rig::{Far, Rig};

const LATENCY: Duration = Duration::from_millis(5);

fn thread_cpu() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock)
        .expect("every kernel has it")
        .into()
}

/// Sends `frames` of them as fast as the line takes them; returns frames a second.
fn throughput(payload: usize, frames: u64) -> f64 {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, LATENCY);
    let spec = FrameSpec {
        payload,
        ..FrameSpec::default()
    };
    let bytes = spec.build(far.vnet_header);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..frames).for_each(|_| far.send_bytes(&bytes)));
        let mut received = 0;
        while received + rig.tallies(1, 1).lost_bound.packets + rig.tallies(1, 1).lost_write.packets < frames
        {
            received += u64::from(
                far.receive_within(Duration::from_millis(100))
                    .is_ok_and(|frame| frame.is_some()),
            );
        }
        let lost = frames - received;
        let rate = received as f64 / start.elapsed().as_secs_f64();
        println!(
            "{payload} B: {rate:.0} frames/s, {:.2} Gbit/s, {lost} lost",
            rate * payload as f64 * 8e-9
        );
        assert!(received > 0);
        rate
    })
}

#[test]
#[ignore = "a measurement"]
fn frames_a_second() {
    for (payload, frames) in [(64, 1_000_000), (1400, 1_000_000), (60_000, 100_000)] {
        throughput(payload, frames);
    }
}

/// Paced frames, one at a time; prints how much later than asked they come out at the far end.
fn precision(far: &Far, every: Duration, frames: usize) {
    let mut errors = std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            for index in 0..frames {
                while start.elapsed() < every * index as u32 {
                    std::thread::sleep((every * index as u32).saturating_sub(start.elapsed()));
                }
                far.send(&FrameSpec {
                    id: boot_time(),
                    ..FrameSpec::default()
                });
            }
        });
        (0..frames)
            .map(|_| boot_time_error(far.receive_id()))
            .collect::<Vec<_>>()
    });
    errors.sort_unstable();
    let at = |share: f64| errors[(share * (frames - 1) as f64) as usize] as f64 / 1000.0;
    println!(
        "every {every:?}: late by {:.0} us (median), {:.0} us (p99), {:.0} us (p99.9)",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    assert!(errors[0] > 0, "nothing comes early");
}

fn boot_time_error(sent: u64) -> i64 {
    boot_time() as i64 - sent as i64 - LATENCY.as_nanos() as i64
}

#[test]
#[ignore = "a measurement"]
fn release_error() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, LATENCY);
    for (every, frames) in [(100, 50_000), (1_000, 5_000), (10_000, 500)] {
        precision(&far, Duration::from_micros(every), frames);
    }
    println!("inside the line: {:?}", rig.line.histogram(Slot(1)));
    let before = thread_cpu();
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "idle with a line open: {:?} of CPU a second",
        (thread_cpu() - before) / 2
    );
}
