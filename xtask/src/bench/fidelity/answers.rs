//! Reset and reject: how soon an application learns of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use sabot_testkit::traffic::Echo;

use super::Scene;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::interrupt;
use crate::ui::Step;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(50, 5);
    let step = Step::start("resets and rejections");
    let (mut resets, mut rejections) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        interrupt::check()?;
        resets.push_ms(reset(scene)?);
        rejections.push_ms(rejection(scene)?);
    }
    step.done(&format!("{rounds} rounds"));
    let (resets, rejections) = (resets.spread(), rejections.spread());
    let section = report.section("from a packet to the error that its application gets");
    section.row(
        "reset of an established connection",
        vec![Figure::new("time", "ms", resets).at_most(Statistic::P99, 10.0)],
    );
    section.row("reject of a connect", vec![Figure::new("time", "ms", rejections)]);
    Ok(())
}

fn connect(scene: &Scene<'_>, echo: &Echo) -> std::io::Result<TcpStream> {
    let address = echo.address();
    scene
        .target()
        .netns()
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
}

fn reset(scene: &Scene<'_>) -> Result<Duration> {
    let echo = Echo::start(scene.peer().netns(), scene.peer().ipv4())?;
    let mut connection = connect(scene, &echo)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"ping")?;
    connection.read_exact(&mut [0; 4])?;
    let (took, _) = scene.under(scene.action("reset: {}").port("TCP", None), || {
        let started = Instant::now();
        connection.write_all(b"ping")?;
        match connection.read_exact(&mut [0; 4]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(started.elapsed()),
            other => bail!("the connection isn't reset: {other:?}"),
        }
    })?;
    Ok(took)
}

fn rejection(scene: &Scene<'_>) -> Result<Duration> {
    let echo = Echo::start(scene.peer().netns(), scene.peer().ipv4())?;
    let fault = scene
        .action("reject: {code: admin-prohibited}")
        .egress()
        .port("TCP", None);
    let (took, _) = scene.under(fault, || {
        let started = Instant::now();
        let error = connect(scene, &echo).err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(libc::EHOSTUNREACH), "the error is {error:?}");
        Ok(started.elapsed())
    })?;
    Ok(took)
}
