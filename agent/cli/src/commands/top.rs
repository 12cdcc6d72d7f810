//! What happens now, as rates.

use std::io::{self, Stdout};
use std::time::Duration;

use sabot_proto::sabot::v1;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;
use crate::render;
use crate::screen::{FALLBACK_SIZE, Screen};
use crate::view::TopDoc;

/// Until Ctrl-C, or so many intervals.
pub(super) async fn run(
    client: &Client,
    output: Output,
    every: Duration,
    count: Option<u64>,
) -> Result<(), CliError> {
    check_interval(every)?;
    let mut screen = match output.is_live() {
        true => Some(Screen::new(io::stdout())?),
        false => None,
    };
    let mut earlier = snapshot(client).await?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            _ = ticks.tick() => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
        let later = snapshot(client).await?;
        show(output, screen.as_mut(), &TopDoc::between(&earlier, &later))?;
        earlier = later;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

pub(crate) fn check_interval(every: Duration) -> Result<(), CliError> {
    if every.is_zero() {
        return Err(CliError::Usage(
            "--interval: a duration above zero is needed".to_owned(),
        ));
    }
    Ok(())
}

pub(crate) async fn snapshot(client: &Client) -> Result<v1::GetSnapshotResponse, CliError> {
    client
        .answer(
            "reading the counters",
            client.observe().get_snapshot(v1::GetSnapshotRequest {}),
        )
        .await
}

fn show(output: Output, screen: Option<&mut Screen<Stdout>>, top: &TopDoc) -> Result<(), CliError> {
    match screen {
        Some(screen) => {
            let size = crossterm::terminal::size().unwrap_or(FALLBACK_SIZE);
            Ok(screen.draw(&render::top(top), size)?)
        }
        None => output.item(top, |top| format!("{}\n", render::top(top))),
    }
}
