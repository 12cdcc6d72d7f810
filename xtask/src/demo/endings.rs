//! How faults end: at their deadline, on delete, with the daemon; and that nothing stays.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sabot_testkit::traffic::INTERVAL;

use super::report::Outcome;
use super::scene::{PATIENCE, Probes, Scene, ms};
use crate::interrupt;
use crate::ui::Step;

const AFTER_DEADLINE: Duration = Duration::from_millis(100);
const AFTER_KILL: Duration = Duration::from_millis(200);
const GONE: Duration = Duration::from_secs(3);

pub(super) fn expiry(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let probes = scene.probes()?;
    scene.apply(step, "demo-expiry", &["partition"], "2s")?;
    let deadline = scene.deadline()?;
    wait_cut(&probes)?;
    step.note("waiting for the deadline");
    interrupt::sleep(deadline.saturating_duration_since(Instant::now()))?;
    let passed = probes.client.wait_pass(deadline, PATIENCE);
    // The deadline is known to us through another clock; a probe's interval is room enough for the difference.
    let until = deadline - INTERVAL;
    let early = probes.client.between(until - Duration::from_millis(500), until);
    let is_early = |answered: Instant| answered < until;
    let early = early
        .iter()
        .filter(|sample| sample.answered.is_some_and(is_early))
        .count();
    Ok(Outcome {
        asked: format!(
            "a partition for 2 s holds until its deadline; probes pass within {} of it",
            ms(AFTER_DEADLINE)
        ),
        measured: format!("{early} answered before it, {}", after(passed)),
        ok: early == 0 && passed.is_some_and(|passed| passed <= AFTER_DEADLINE),
    })
}

pub(super) fn delete(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let probes = scene.probes()?;
    scene.apply(step, "demo-delete", &["partition"], "60s")?;
    wait_cut(&probes)?;
    scene.delete(step)?;
    let passed = probes.client.wait_pass(Instant::now(), PATIENCE);
    Ok(Outcome {
        asked: format!("probes pass within {} of `sabot delete`", ms(AFTER_DEADLINE)),
        measured: after(passed),
        ok: passed.is_some_and(|passed| passed <= AFTER_DEADLINE),
    })
}

pub(super) fn kill(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let probes = scene.probes()?;
    scene.apply(step, "demo-kill", &["partition"], "60s")?;
    wait_cut(&probes)?;
    // What it holds now must all be gone in the next step.
    scene.leaks.learn(scene.daemon.pid())?;
    step.note("kill -9");
    let killed = Instant::now();
    scene.daemon.kill9()?;
    let passed = probes.client.wait_pass(killed, PATIENCE);
    Ok(Outcome {
        asked: format!("probes pass within {} of the daemon's SIGKILL", ms(AFTER_KILL)),
        measured: after(passed),
        ok: passed.is_some_and(|passed| passed <= AFTER_KILL),
    })
}

pub(super) fn nothing_left(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    step.note("looking for programs, maps, links, devices and qdiscs");
    let started = Instant::now();
    let left = scene.leaks.wait_clean(GONE)?;
    let learned = scene.leaks.learned();
    let measured = if left.is_empty() {
        format!(
            "all {learned} BPF objects of the daemon gone after {}",
            ms(started.elapsed())
        )
    } else {
        left.join(", ")
    };
    Ok(Outcome {
        asked: format!(
            "within {} s of the SIGKILL no program, map, link, device or qdisc of Sabot's is left, here or in any pod",
            GONE.as_secs()
        ),
        measured,
        ok: left.is_empty() && learned > 0,
    })
}

/// Waits until it is seen that the fault bites: for a while no probe of the client is answered, and every one of the
/// bystander is.
fn wait_cut(probes: &Probes) -> Result<()> {
    interrupt::sleep(Duration::from_millis(50))?;
    let from = Instant::now();
    interrupt::sleep(Duration::from_millis(300))?;
    let until = Instant::now();
    let samples = probes.client.between(from, until);
    let answered = samples.iter().filter(|sample| sample.answered.is_some()).count();
    let lost = probes.bystander_lost(from, until);
    ensure!(!samples.is_empty(), "no probe was sent");
    ensure!(
        answered == 0,
        "{answered} of {} probes were answered under partition",
        samples.len()
    );
    ensure!(lost == 0, "the bystander lost {lost} probes");
    Ok(())
}

fn after(passed: Option<Duration>) -> String {
    passed.map_or_else(
        || format!("no probe passed within {} s", PATIENCE.as_secs()),
        |passed| format!("the first passed {} after it", ms(passed)),
    )
}
