//! Random loss, packet by packet.

use std::time::Duration;

use anyhow::Result;
use sabot_proto::sabot::v1::Direction;
use sabot_testkit::traffic::{UdpLoad, UdpReceiver};

use super::report::Outcome;
use super::scene::Scene;
use super::stage::{CLIENT, SERVER};
use crate::ui::Step;

const SHARE: f64 = 0.2;
const LOAD: UdpLoad = UdpLoad {
    datagrams: 20_000,
    payload: 200,
    per_second: 10_000,
};
const QUIET: Duration = Duration::from_millis(500);

pub(super) fn drop_share(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let server = scene.pod(SERVER);
    let receiver = UdpReceiver::start(&server.netns, server.ip)?;
    scene.apply(
        step,
        "demo-drop",
        &["drop", "20%", "--direction", "egress"],
        "60s",
    )?;
    step.note(&format!("{} datagrams from client to server", LOAD.datagrams));
    LOAD.send(&scene.pod(CLIENT).netns, receiver.address())?;
    let report = receiver.finish(LOAD.datagrams, QUIET);
    let dropped = scene
        .ledger(Direction::Egress)?
        .dropped
        .unwrap_or_default()
        .packets;
    let missing = report.missing(LOAD.datagrams).len() as u64;

    let sent = LOAD.datagrams as f64;
    let four_sigma = 4.0 * (SHARE * (1.0 - SHARE) / sent).sqrt();
    let lost = missing as f64 / sent;
    Ok(Outcome {
        asked: format!(
            "{:.0} % ± {:.2} % of {} datagrams lost, and the kernel's counter says which number",
            SHARE * 100.0,
            four_sigma * 100.0,
            LOAD.datagrams
        ),
        measured: format!(
            "{:.2} % ({missing}) lost, {dropped} counted, {} altered",
            lost * 100.0,
            report.altered.len()
        ),
        ok: (lost - SHARE).abs() <= four_sigma && dropped == missing && report.altered.is_empty(),
    })
}
