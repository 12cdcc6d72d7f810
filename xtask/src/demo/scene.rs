//! The daemon and the pods, and what every step does with them.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use sabot_proto::sabot::v1::{Direction, Fault, Ledger};
use sabot_testkit::daemon::Client;
use sabot_testkit::traffic::{INTERVAL, ProbeServer, Prober, Stream};
use sabot_testkit::{Daemon, DaemonOptions, Leaks, NetnsRef};

use super::stage::{BYSTANDER, CLIENT, SERVER, Stage, StagePod};
use crate::ui::Step;

/// How long something may take that takes milliseconds on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that the steps share.
pub(super) struct Scene<'a> {
    stage: &'a dyn Stage,
    pub(super) daemon: Daemon,
    pub(super) client: Client,
    pub(super) leaks: Leaks,
    /// The fault that the current step applied.
    current: Option<String>,
}

impl<'a> Scene<'a> {
    /// Notes what the machine looks like, and starts the daemon.
    pub(super) fn open(stage: &'a dyn Stage, mut options: DaemonOptions) -> Result<Self> {
        let mut places: Vec<&NetnsRef> = stage.pods().iter().map(|pod| &pod.netns).collect();
        places.extend(stage.node());
        let leaks = Leaks::baseline(&places)?;
        options.runtime = stage.runtime();
        options.netns = stage.node().cloned();
        let daemon = Daemon::start(options)?;
        let client = daemon.client()?;
        Ok(Self {
            stage,
            daemon,
            client,
            leaks,
            current: None,
        })
    }

    pub(super) fn pod(&self, index: usize) -> &'a StagePod {
        &self.stage.pods()[index]
    }

    /// Applies a fault on the client with the server as its peer, as a user would: `sabot ACTION --name NAME --target …
    /// --peer … --for …`.
    pub(super) fn apply(&mut self, step: &Step, name: &str, action: &[&str], lifetime: &str) -> Result<()> {
        let (target, peer) = (&self.pod(CLIENT).target, &self.pod(SERVER).peer);
        let mut words = action.to_vec();
        words.extend([
            "--name", name, "--target", target, "--peer", peer, "--for", lifetime,
        ]);
        step.note(&format!("sabot {}", words.join(" ")));
        self.current = Some(name.to_owned());
        self.daemon.sabot_ok(&words)?;
        Ok(())
    }

    /// `sabot delete NAME`.
    pub(super) fn delete(&mut self, step: &Step) -> Result<()> {
        if let Some(name) = self.current.take() {
            step.note(&format!("sabot delete {name}"));
            self.daemon.sabot_ok(&["delete", &name])?;
        }
        Ok(())
    }

    /// Deletes what a step has left, which may have ended by itself or with the daemon.
    pub(super) fn clear(&mut self) {
        if let Some(name) = self.current.take() {
            let _ = self.client.delete("", &name);
        }
    }

    /// The current fault with its counters.
    pub(super) fn fault(&self) -> Result<Fault> {
        let name = self.current.as_deref().context("no fault is applied")?;
        Ok(self.client.get("", name)?)
    }

    /// The sum of the current fault's counters over its targets, in one direction.
    pub(super) fn ledger(&self, direction: Direction) -> Result<Ledger> {
        let status = self.fault()?.status.context("the fault has no status")?;
        let mut sum = Ledger::default();
        for entry in status.ledgers {
            let Some(ledger) = entry.ledger.filter(|_| entry.direction == direction as i32) else {
                continue;
            };
            for (into, from) in [
                (&mut sum.matched, ledger.matched),
                (&mut sum.dropped, ledger.dropped),
                (&mut sum.corrupted, ledger.corrupted),
                (&mut sum.delayed, ledger.delayed),
                (&mut sum.released, ledger.released),
            ] {
                let into = into.get_or_insert_default();
                let from = from.unwrap_or_default();
                into.packets += from.packets;
                into.bytes += from.bytes;
            }
        }
        Ok(sum)
    }

    /// When the current fault's deadline is.
    pub(super) fn deadline(&self) -> Result<Instant> {
        let status = self.fault()?.status.context("the fault has no status")?;
        let expires = status.expires_at.context("the fault has no deadline")?;
        let expires = SystemTime::try_from(expires).context("the fault's deadline is no time")?;
        // Both clocks are read now; the deadline is seconds away.
        let rest = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Instant::now() + rest)
    }

    /// Probes from the client and from the bystander to the server, which have passed once.
    pub(super) fn probes(&self) -> Result<Probes> {
        let server = self.pod(SERVER);
        let answers = ProbeServer::start(&server.netns, server.ip)?;
        let started = Instant::now();
        let client = Prober::start(&self.pod(CLIENT).netns, &answers, INTERVAL)?;
        let bystander = Prober::start(&self.pod(BYSTANDER).netns, &answers, INTERVAL)?;
        for prober in [&client, &bystander] {
            prober
                .wait_pass(started, PATIENCE)
                .context("probes don't pass before the fault")?;
        }
        Ok(Probes {
            client,
            bystander,
            _answers: answers,
        })
    }

    /// An established TCP connection from the client to the server, on which data flows.
    pub(super) fn stream(&self) -> Result<Stream> {
        let server = self.pod(SERVER);
        let stream = Stream::open(&self.pod(CLIENT).netns, &server.netns, server.ip, INTERVAL)?;
        stream
            .wait_back(Instant::now(), PATIENCE)
            .context("the stream doesn't flow before the fault")?;
        Ok(stream)
    }
}

/// Paced probes to the server.
pub(super) struct Probes {
    pub(super) client: Prober,
    pub(super) bystander: Prober,
    _answers: ProbeServer,
}

impl Probes {
    /// How many of the bystander's probes of a time got no answer; those that may still get one don't count.
    pub(super) fn bystander_lost(&self, from: Instant, until: Instant) -> usize {
        let samples = self.bystander.between(from, until - 4 * INTERVAL);
        samples.iter().filter(|sample| sample.answered.is_none()).count()
    }
}

/// For people: `12.3 ms`.
pub(super) fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
