//! How many events a second are told before some are lost: failing system calls, each of which is one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sabot_proto::sabot::v1;
use sabot_testkit::Daemon;
use sabot_testkit::daemon::Client;

use super::syscalls::as_thread;
use crate::bench::Plan;
use crate::bench::measure::{Samples, single};
use crate::bench::report::{Figure, Report};
use crate::interrupt;
use crate::ui::Step;

const TRACED: &str = "sabot-failing";
/// Asked of the thread, a second; it makes as many as it can of the last.
const RATES: [u32; 6] = [3_000, 10_000, 30_000, 100_000, 200_000, 1_000_000];
/// Calls are made together this often.
const TICK: Duration = Duration::from_millis(1);
const TICKS: u32 = 1000;
/// Until the daemon has read what is in its buffers.
const REST: Duration = Duration::from_millis(500);

/// One rate.
#[derive(Default)]
struct Seen {
    /// That were really made, a second.
    made: Samples,
    /// In percent of those.
    lost: Samples,
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("events until some are lost");
    let rounds = plan.repetitions(5, 1);
    let mut all = Vec::new();
    let mut uncounted = 0;
    for rate in RATES {
        let mut seen = Seen::default();
        for _ in 0..rounds {
            interrupt::check()?;
            step.note(&format!("{rate} a second"));
            uncounted += run(plan, rate, &mut seen)?;
        }
        all.push((rate, seen));
    }
    step.done(&format!("{} rates, {rounds} times", RATES.len()));
    let section = report.section("failing system calls of one thread, each of them an event, for a second");
    for (rate, seen) in &all {
        section.row(
            format!("{rate} a second asked"),
            vec![
                Figure::new("made", "a second", seen.made.spread()).more_is_better(),
                Figure::new("lost", "%", seen.lost.spread()),
            ],
        );
    }
    let most = without_loss(&all);
    let most = Figure::new("events", "a second", single(most)).more_is_better();
    report.derive("most events a second of which none is lost", most);
    report.check(
        "every failing call is counted, its event lost or not",
        uncounted == 0,
        format!("{uncounted} calls aren't"),
    );
    Ok(())
}

/// The highest rate that was made and lost nothing in any round; zero if there is none.
fn without_loss(all: &[(u32, Seen)]) -> f64 {
    let lossless = all.iter().filter(|(_, seen)| seen.lost.spread().max == 0.0);
    lossless
        .map(|(_, seen)| seen.made.spread().p50)
        .fold(0.0, f64::max)
}

/// One second against a fresh daemon; how many calls its counters miss.
fn run(plan: &Plan, rate: u32, seen: &mut Seen) -> Result<u64> {
    let daemon = Daemon::start(plan.options.clone().flags(&["--syscall-process", TRACED]))?;
    let client = daemon.client()?;
    // While nobody reads events of syscalls few failures become one. This reader has all looked at, and is sent none.
    let request = v1::WatchEventsRequest {
        types: vec![v1::EventType::Syscall.into()],
        process: Some("sabot-nobody".to_owned()),
        ..v1::WatchEventsRequest::default()
    };
    let _reader = client.wait(client.observe().watch_events(request))?;
    let (made, took) = as_thread(TRACED, || fail(rate))?;
    thread::sleep(REST);
    let (lost, counted) = told(&client)?;
    ensure!(made > 0, "no call was made");
    seen.made.push(made as f64 / took.as_secs_f64());
    seen.lost.push(100.0 * lost as f64 / made as f64);
    Ok(made.abs_diff(counted))
}

/// Makes failing calls for a second; how many, and how long it took.
fn fail(rate: u32) -> (u64, Duration) {
    let started = Instant::now();
    let mut made = 0;
    for tick in 1..=TICKS {
        for _ in 0..rate / TICKS {
            // SAFETY: the call takes a number and changes nothing: there is no such descriptor.
            unsafe { libc::close(-1) };
            made += 1;
        }
        if started.elapsed() > TICK * TICKS {
            break;
        }
        thread::sleep((TICK * tick).saturating_sub(started.elapsed()));
    }
    (made, started.elapsed())
}

/// Events that were lost on the way out of the kernel, and failing calls that were counted.
fn told(client: &Client) -> Result<(u64, u64)> {
    let answer = client.wait(client.observe().get_snapshot(v1::GetSnapshotRequest {}))?;
    let snapshot = answer.into_inner();
    let lost = snapshot.events_lost.iter().find(|lost| lost.name == "syscalls");
    let calls = snapshot.syscalls.iter();
    let mut calls = calls.filter(|pair| pair.process == TRACED && pair.syscall == "close");
    let errors = calls.next().map_or(0, |pair| {
        pair.errors
            .iter()
            .filter(|error| error.name == "EBADF")
            .map(|error| error.count)
            .sum()
    });
    Ok((lost.map_or(0, |lost| lost.count), errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_with_a_loss_speaks_against_its_rate() {
        let seen = |made: f64, lost: &[f64]| {
            let mut seen = Seen::default();
            for lost in lost {
                seen.made.push(made);
                seen.lost.push(*lost);
            }
            seen
        };
        let all = [
            (10, seen(10.0, &[0.0, 0.0])),
            (30, seen(29.0, &[0.0, 0.0])),
            (100, seen(95.0, &[0.0, 0.1])),
        ];
        assert_eq!(without_loss(&all), 29.0);
        assert_eq!(without_loss(&all[2..]), 0.0);
    }

    #[test]
    fn calls_are_made_at_the_asked_rate_or_below() {
        let (made, took) = fail(5000);
        assert!((1..=5000).contains(&made), "{made}");
        assert!(took >= TICK, "{took:?}");
    }
}
