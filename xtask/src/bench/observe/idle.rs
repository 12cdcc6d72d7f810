//! What the daemon takes while it observes a node at rest.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::scene::Scene;
use crate::bench::Plan;
use crate::bench::measure::single;
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::usage::{Memory, cpu_time};
use crate::ui::Step;

const PODS: usize = 100;
/// Until what new devices send of their own has ended.
const REST: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
const MEBIBYTE: f64 = 1048576.0;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let pods = plan.repetitions(PODS, 10);
    let step = Step::start(&format!("a daemon at rest that observes {pods} pods"));
    let scene = Scene::new(pods)?;
    let daemon = scene.daemon(plan, &[])?;
    thread::sleep(REST);
    let before = cpu_time(daemon.pid())?;
    thread::sleep(IDLE);
    let share = (cpu_time(daemon.pid())? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let memory = Memory::of(&daemon)?;
    let [resident, maps] = [memory.process, memory.maps].map(|bytes| bytes as f64 / MEBIBYTE);
    step.done(&format!("{share:.2} % of a core, {resident:.0} MiB"));
    report.section("a daemon at rest").row(
        format!("{pods} pods"),
        vec![
            Figure::new("CPU", "% of a core", single(share)).at_most(Statistic::P50, 0.3),
            Figure::new("resident", "MiB", single(resident)).at_most(Statistic::P50, 48.0),
            Figure::new("maps in the kernel", "MiB", single(maps)),
        ],
    );
    Ok(())
}
