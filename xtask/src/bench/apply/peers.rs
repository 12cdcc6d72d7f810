//! The same partition as others make it.

use std::time::Instant;

use anyhow::Result;

use super::Scene;
use crate::bench::measure::Samples;
use crate::bench::rules;
use crate::ui::Step;

/// How long cutting off the first pods took, one after the other; they are as before afterwards.
pub(super) fn measure(scene: &Scene<'_>, count: usize, repetitions: usize) -> Result<Samples> {
    let step = Step::start(&format!("{}, {count} pods", rules::NAME));
    let peer = scene.lab.pod(0).ipv4();
    let pods = &scene.lab.pods()[1..=count];
    let mut latencies = Samples::default();
    for _ in 0..repetitions {
        let started = Instant::now();
        rules::cut(pods, peer)?;
        latencies.push_ms(started.elapsed());
        rules::heal(pods)?;
    }
    step.done(&format!("{repetitions} times"));
    Ok(latencies)
}
