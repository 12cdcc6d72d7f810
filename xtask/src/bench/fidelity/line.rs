//! What the delay line lets through, and what it costs while nothing happens.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use sabot_testkit::{Daemon, Lab, LabPod, Spec};

use super::Scene;
use crate::bench::datapath::iperf;
use crate::bench::measure::{Samples, single};
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::spec;
use crate::bench::usage::cpu_time;
use crate::interrupt;
use crate::ui::Step;

const LINES: usize = 250;
/// Until what new devices send of their own has ended.
const REST: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
/// Least, initial and most bytes.
const TCP_BUFFERS: [(&str, &str); 2] = [
    ("tcp_wmem", "4096 16384 67108864"),
    ("tcp_rmem", "4096 131072 67108864"),
];

/// Lets TCP have on its way what a flow of these pods can send in a delay. The kernel's default of 4 MiB bounds a flow at
/// 5 ms to some 5.4 Gbit/s, whoever delays it, and the sender would be what is measured.
pub(super) fn enlarge_buffers(pod: &LabPod) -> Result<()> {
    pod.netns().run(|| {
        for (file, sizes) in TCP_BUFFERS {
            fs::write(format!("/proc/sys/net/ipv4/{file}"), sizes)
                .with_context(|| format!("net.ipv4.{file} can't be set"))?;
        }
        Ok(())
    })
}

/// Pairs of runs with and without a delay, one after the other.
pub(super) fn throughput(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    enlarge_buffers(scene.target())?;
    enlarge_buffers(scene.peer())?;
    let rounds = scene.plan.repetitions(9, 1);
    let seconds = if scene.plan.quick { 1 } else { 3 };
    let step = Step::start("throughput of the delay line");
    let mut rows = Vec::new();
    for (flows, goal) in [(1, 0.5), (16, 0.6)] {
        let (mut none, mut delayed, mut ratios) =
            (Samples::default(), Samples::default(), Samples::default());
        for round in 0..rounds {
            interrupt::check()?;
            step.note(&format!("{flows} flows, round {} of {rounds}", round + 1));
            let run = || iperf::streams(scene.target(), scene.peer(), flows, seconds);
            let without = run()?;
            let (with, _) = scene.under(scene.action("delay: {latency: 5ms}").egress(), run)?;
            none.push(without / 1e9);
            delayed.push(with / 1e9);
            ratios.push(with / without);
        }
        rows.push((
            flows,
            goal,
            [none, delayed, ratios].map(|samples| samples.spread()),
        ));
    }
    step.done(&format!("{rounds} pairs each"));
    let section = report.section("TCP throughput with a delay of 5 ms one way");
    for (flows, goal, [none, delayed, ratios]) in rows {
        section.row(
            format!("{flows} flows"),
            vec![
                Figure::new("delay 5 ms", "Gbit/s", delayed)
                    .more_is_better()
                    .against("no fault", none),
                Figure::new("ratio of pairs", "", ratios)
                    .more_is_better()
                    .at_least(Statistic::P50, goal),
            ],
        );
    }
    Ok(())
}

/// The daemon's CPU time while it keeps many lines and nothing is sent.
pub(super) fn idle(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let lines = scene.plan.repetitions(LINES, 20);
    let step = Step::start(&format!("{lines} idle delay lines"));
    let lab = Lab::new(lines)?;
    let daemon = Daemon::start(scene.plan.options.clone().netns(lab.node()))?;
    let client = daemon.client()?;
    for (index, pod) in lab.pods().iter().enumerate() {
        interrupt::check()?;
        let fault = Spec::delay(pod, Duration::from_millis(5)).lasting(Duration::from_secs(600));
        let answer = client.apply(&format!("line-{index}"), fault.into(), spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
    }
    thread::sleep(REST);
    let before = cpu_time(daemon.pid())?;
    thread::sleep(IDLE);
    let share = (cpu_time(daemon.pid())? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    step.done(&format!("{share:.2} % of a core"));
    report.section("CPU of the daemon with idle delay lines").row(
        format!("{lines} lines"),
        vec![Figure::new("CPU", "% of a core", single(share)).at_most(Statistic::P50, 1.0)],
    );
    Ok(())
}
