//! Corruption that checksums don't catch.

use std::time::Duration;

use anyhow::Result;
use sabot_proto::sabot::v1::Direction;
use sabot_testkit::traffic::{UdpLoad, UdpReceiver};

use super::report::Outcome;
use super::scene::Scene;
use super::stage::{CLIENT, SERVER};
use crate::ui::Step;

const LOAD: UdpLoad = UdpLoad {
    datagrams: 5_000,
    payload: 200,
    per_second: 5_000,
};
const SHARE: f64 = 0.1;
const QUIET: Duration = Duration::from_millis(500);

pub(super) fn corrupt(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let server = scene.pod(SERVER);
    let receiver = UdpReceiver::start(&server.netns, server.ip)?;
    scene.apply(
        step,
        "demo-corrupt",
        &["corrupt", "10%", "--direction", "egress"],
        "60s",
    )?;
    step.note(&format!(
        "{} datagrams, each with a hash of itself",
        LOAD.datagrams
    ));
    LOAD.send(&scene.pod(CLIENT).netns, receiver.address())?;
    let report = receiver.finish(LOAD.datagrams, QUIET);
    let counted = scene
        .ledger(Direction::Egress)?
        .corrupted
        .unwrap_or_default()
        .packets;
    let altered = report.altered.len() as u64;
    let missing = report.missing(LOAD.datagrams).len();

    let sent = LOAD.datagrams as f64;
    let four_sigma = 4.0 * (SHARE * (1.0 - SHARE) / sent).sqrt();
    let share = altered as f64 / sent;
    Ok(Outcome {
        asked: format!(
            "{:.0} % ± {:.2} % of {} datagrams arrive with a wrong hash, as many as counted, none is lost",
            SHARE * 100.0,
            four_sigma * 100.0,
            LOAD.datagrams
        ),
        measured: format!(
            "{:.2} % ({altered}) with a wrong hash, {counted} counted, {missing} lost",
            share * 100.0
        ),
        ok: (share - SHARE).abs() <= four_sigma && counted == altered && missing == 0,
    })
}
