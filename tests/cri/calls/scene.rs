//! A real runtime, a daemon beside it, and the events that it streams.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::{CriSummary, GetSnapshotRequest};
use sabot_testkit::cri::{CallRecord, Containerd};
use sabot_testkit::daemon::Client;
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions};
use serde_json::Value;

/// Longer than a busy machine needs for what takes a fraction of a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Scene {
    pub(crate) events: Events,
    /// Calls that the fixture made before the daemon started.
    unobserved: usize,
    pub(crate) client: Client,
    // Ends before the runtime does.
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd,
}

/// Events as `sabot events` shows them, until it is dropped.
pub(crate) struct Events {
    child: Child,
    lines: Receiver<Value>,
}

impl Scene {
    /// The fixture's own connection is there before the daemon is.
    pub(crate) fn start() -> Self {
        Self::beside(Containerd::start(&env::temp_dir()).expect("containerd starts"))
    }

    pub(crate) fn beside(containerd: Containerd) -> Self {
        let unobserved = containerd.calls().len();
        let options = DaemonOptions::built().expect("the daemon is built");
        let daemon = Daemon::start(options.runtime(&containerd.socket())).expect("the daemon starts");
        let client = daemon.client().expect("the daemon answers");
        let events = Events::follow(&daemon, "cri");
        let scene = Self {
            events,
            unobserved,
            client,
            daemon,
            containerd,
        };
        scene.wait_listening();
        scene
    }

    /// By operation.
    pub(crate) fn summaries(&self) -> BTreeMap<String, CriSummary> {
        let answer = self
            .client
            .wait(self.client.observe().get_snapshot(GetSnapshotRequest {}))
            .expect("there is a snapshot");
        answer
            .into_inner()
            .cri
            .into_iter()
            .map(|summary| (summary.operation.clone(), summary))
            .collect()
    }

    /// Operations and outcomes with their counts.
    pub(crate) fn counts(&self) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for (operation, summary) in self.summaries() {
            for outcome in summary.outcomes {
                counts.insert((operation.clone(), outcome.name), outcome.count);
            }
        }
        counts
    }

    /// Waits until the daemon has counted what the client did since it observes, and no more.
    pub(crate) fn assert_all_counted(&self) {
        let expected = tally(&self.containerd.calls()[self.unobserved..]);
        let mut last = BTreeMap::new();
        let equal = wait_until(PATIENCE, LOOK, || {
            last = self.counts();
            last == expected
        });
        assert!(equal, "seen: {last:#?}\nmade: {expected:#?}");
    }

    /// A failing call that is made until it is streamed: nobody tells when events begin to be.
    fn wait_listening(&self) {
        let told = wait_for(PATIENCE, LOOK, || {
            let refused = self.containerd.pull("no image's name");
            assert!(refused.is_err());
            let event = self.events.next(Duration::from_millis(300));
            // On a busy machine other streams may have lost something.
            event.filter(|event| event["type"] == "cri")
        });
        let event = told.expect("events are streamed");
        assert_eq!(event["operation"], "PullImage", "{event}");
        while self.events.next(Duration::from_millis(300)).is_some() {}
    }
}

impl Events {
    pub(crate) fn follow(daemon: &Daemon, kind: &str) -> Self {
        Self::filtered(daemon, &["--type", kind])
    }

    pub(crate) fn filtered(daemon: &Daemon, filters: &[&str]) -> Self {
        let mut child = daemon
            .sabot_command(&[&["events", "-o", "json"], filters].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("each line is a document");
                // Nobody listens any more when the test is over.
                let _ = sender.send(event);
            }
        });
        Self { child, lines }
    }

    pub(crate) fn next(&self, patience: Duration) -> Option<Value> {
        self.lines.recv_timeout(patience).ok()
    }

    /// The next one of this operation, and those before it are passed over.
    pub(crate) fn of(&self, operation: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .next(left)
                .unwrap_or_else(|| panic!("waited in vain for {operation}"));
            if event["operation"] == operation {
                return event;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client's own records come to, named as the daemon names it.
pub(crate) fn tally(calls: &[CallRecord]) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for call in calls {
        let code = match call.code {
            tonic::Code::Ok => "OK".to_owned(),
            code => format!("{code:?}"),
        };
        *counts.entry((call.name.clone(), code)).or_default() += 1;
    }
    counts
}
