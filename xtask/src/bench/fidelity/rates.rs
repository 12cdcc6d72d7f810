//! Rate limits: achieved against asked, of datagrams and streams, out of the target and into it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use sabot_testkit::traffic::{Bulk, StampedLoad};

use super::{QUIET, Scene};
use crate::bench::measure::single;
use crate::bench::report::{Figure, Report};
use crate::interrupt;
use crate::ui::Step;

const PATIENCE: Duration = Duration::from_secs(60);
/// UDP, IPv4 and Ethernet headers.
const HEADERS: usize = 42;
const PAYLOAD: usize = 1400;
const TOLERANCE: f64 = 2.0;

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rates = [("1mbit", 1e6), ("10mbit", 1e7), ("100mbit", 1e8), ("1gbit", 1e9)];
    let seconds = scene.plan.repetitions(4, 1) as f64;
    let step = Step::start("rate limits");
    let mut rows = Vec::new();
    for egress in [true, false] {
        for (text, rate) in rates {
            interrupt::check()?;
            let way = if egress { "egress" } else { "ingress" };
            step.note(&format!("{text}, {way}"));
            let udp = datagrams(scene, text, rate, seconds, egress)?;
            let tcp = stream(scene, text, rate, seconds, egress)?;
            rows.push((format!("{text}, {way}"), udp, tcp));
        }
    }
    step.done(&format!("{} runs", 2 * rows.len()));
    let section = report.section("achieved rate, in percent of the asked one");
    for (name, udp, tcp) in &rows {
        section.row(
            name.clone(),
            vec![
                Figure::new("UDP at 1.5 times the rate", "%", single(udp * 100.0)),
                Figure::new("one TCP stream", "%", single(tcp * 100.0)),
            ],
        );
    }
    let off = rows.iter().flat_map(|(_, udp, tcp)| [udp, tcp]);
    let worst = off.map(|ratio| (ratio - 1.0).abs() * 100.0).fold(0.0, f64::max);
    report.at_most("rate, furthest from asked", worst, TOLERANCE, "%");
    Ok(())
}

/// The rate at which a flood arrives once the queue is full, as a part of the asked one.
fn datagrams(scene: &Scene<'_>, text: &str, rate: f64, seconds: f64, egress: bool) -> Result<f64> {
    let wire = (PAYLOAD + HEADERS) as f64;
    let per_second = (1.5 * rate / 8.0 / wire).max(1.0);
    let load = StampedLoad {
        datagrams: (per_second * seconds) as u64,
        payload: PAYLOAD,
        per_second: per_second as u32,
    };
    let fault = scene.action(&format!(
        "rateLimit: {{rate: {text}, burst: 3028, queueTime: 50ms}}"
    ));
    let fault = fault.port("UDP", None);
    let fault = if egress { fault.egress() } else { fault.ingress() };
    let (from, to) = ends(scene, egress);
    let (arrivals, _) = scene.under(fault, || load.run(from.netns(), to.netns(), to.ipv4(), QUIET))?;
    // The first fifth fills the queue, at the end it runs empty.
    let steady = &arrivals[arrivals.len() / 5..arrivals.len() * 9 / 10];
    let (Some(first), Some(last)) = (steady.first(), steady.last()) else {
        bail!("of a flood at {text} nothing arrived");
    };
    let took = last.time.saturating_sub(first.time).as_secs_f64();
    Ok((steady.len() - 1) as f64 * wire * 8.0 / took / rate)
}

fn stream(scene: &Scene<'_>, text: &str, rate: f64, seconds: f64, egress: bool) -> Result<f64> {
    let bytes = (rate / 8.0 * seconds) as u64;
    let fault = scene.action(&format!("rateLimit: {{rate: {text}, queueTime: 100ms}}"));
    let fault = fault.port("TCP", None);
    let fault = if egress { fault.egress() } else { fault.ingress() };
    let (from, to) = ends(scene, egress);
    let (took, books) = scene.under(fault, || {
        let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE)?;
        let (sent, received) = sink.send_from(from.netns(), bytes, PATIENCE)?;
        ensure!(sent.sha256 == received.sha256, "the stream was altered");
        Ok(sent.took)
    })?;
    let released = books[usize::from(!egress)].released.bytes as f64;
    Ok(released * 8.0 / took.as_secs_f64() / rate)
}

/// Sender and receiver.
fn ends<'a>(scene: &'a Scene<'_>, egress: bool) -> (&'a sabot_testkit::LabPod, &'a sabot_testkit::LabPod) {
    if egress {
        (scene.target(), scene.peer())
    } else {
        (scene.peer(), scene.target())
    }
}
