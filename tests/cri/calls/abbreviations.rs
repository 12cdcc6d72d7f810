//! Clients that abbreviate the names of their calls, on connections that are older than the daemon, and on younger ones.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sabot_testkit::cri::Containerd;
use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::scene::{LOOK, PATIENCE, Scene};

const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cri/calls/abbreviating.py");

/// Operations whose names are abbreviated from before the daemon on. What the second one is can be told by its request's
/// shape, and what the last one is by its answer's.
const OLD: [&str; 5] = [
    "StartContainer",
    "StopContainer",
    "ContainerStatus",
    "PodSandboxStatus",
    "Version",
];
/// Operations that are said for the first time after that.
const NEW: [&str; 3] = ["RemoveContainer", "StopPodSandbox", "ListContainers"];

/// One connection.
struct Abbreviating {
    child: Child,
    requests: ChildStdin,
    codes: Lines<BufReader<ChildStdout>>,
}

impl Abbreviating {
    fn connect(socket: &Path) -> Self {
        let mut child = Command::new(PYTHON)
            .arg(SCRIPT)
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's Python runs");
        let requests = child.stdin.take().expect("it is piped");
        let codes = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self {
            child,
            requests,
            codes,
        }
    }

    /// Returns the call's code as the daemon names it.
    fn call(&mut self, operation: &str) -> &'static str {
        let message: String = request(operation)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        writeln!(self.requests, "/runtime.v1.RuntimeService/{operation} {message}").expect("it reads");
        let code = self.codes.next().expect("it answers").expect("with a text");
        match code.as_str() {
            "OK" => "OK",
            "NOT_FOUND" => "NotFound",
            "UNKNOWN" => "Unknown",
            other => panic!("{operation} ended with {other}: is Debian's `python3-grpcio` there?"),
        }
    }
}

impl Drop for Abbreviating {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No container or sandbox has it; each operation has its own.
fn id(operation: &str) -> String {
    let place = OLD.iter().chain(&NEW).position(|known| *known == operation);
    format!("{:02x}", 0xa0 + place.expect("it is one of these")).repeat(32)
}

/// The id, and for some a second field.
fn request(operation: &str) -> Vec<u8> {
    let id = match operation {
        "Version" | "ListContainers" => return Vec::new(),
        operation => id(operation),
    };
    let mut message = vec![0x0a, id.len() as u8];
    message.extend(id.as_bytes());
    if operation == "StopContainer" {
        // Half a minute.
        message.extend([0x10, 30]);
    }
    message
}

/// By operation and outcome.
type Counts = BTreeMap<(String, String), u64>;

/// Makes each operation as often as its place says, and notes how that ended.
fn call_all(client: &mut Abbreviating, operations: &[&str], made: &mut Counts) {
    for (place, operation) in operations.iter().enumerate() {
        for _ in 0..place + 2 {
            let code = client.call(operation).to_owned();
            *made.entry(((*operation).to_owned(), code)).or_default() += 1;
        }
    }
}

fn total(counts: &Counts, operation: &str) -> u64 {
    let of = counts.iter().filter(|((name, _), _)| name == operation);
    of.map(|(_, count)| count).sum()
}

/// What the daemon has counted of these operations and of those without a name, once it is as much.
fn counted(scene: &Scene, total: u64) -> Counts {
    let mut counts = Counts::new();
    let is_complete = wait_until(PATIENCE, LOOK, || {
        counts = scene.counts();
        counts.retain(|(operation, _), _| {
            operation == "unknown" || OLD.contains(&operation.as_str()) || NEW.contains(&operation.as_str())
        });
        counts.values().sum::<u64>() == total
    });
    assert!(is_complete, "{total} calls were made: {counts:#?}");
    counts
}

/// Every event that has a name has the id that only this operation is called with.
fn assert_events(scene: &Scene) -> usize {
    let mut named = 0;
    while let Some(event) = scene.events.next(LOOK * 10) {
        let operation = event["operation"].as_str().unwrap_or_default();
        if operation == "unknown" || operation == "PullImage" {
            continue;
        }
        let about = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        let found = about("container").or_else(|| about("sandbox"));
        assert_eq!(found, Some(id(operation)), "{event}");
        named += 1;
    }
    named
}

#[test]
fn abbreviated_names_on_an_older_connection_are_right_or_missing() {
    let containerd = Containerd::start(&std::env::temp_dir()).expect("containerd starts");
    let mut client = Abbreviating::connect(&containerd.socket());
    call_all(&mut client, &OLD, &mut Counts::new());
    let scene = Scene::beside(containerd);

    let mut made = Counts::new();
    for _ in 0..2 {
        call_all(&mut client, &OLD, &mut made);
        call_all(&mut client, &NEW, &mut made);
    }
    let counted = counted(&scene, made.values().sum());
    // The client does abbreviate.
    assert!(total(&counted, "unknown") > 0, "{counted:#?}");
    for ((operation, outcome), &count) in &counted {
        if operation == "unknown" {
            continue;
        }
        assert!(
            count <= total(&made, operation),
            "{operation}: {counted:#?} {made:#?}"
        );
        let was = made.get(&(operation.clone(), outcome.clone()));
        // How a failure ends may be abbreviated as well.
        assert!(
            was.is_some_and(|&made| count <= made) || outcome == "unread",
            "{operation} {outcome}: {counted:#?} {made:#?}"
        );
    }
    for known in NEW.iter().chain(&["StopContainer", "Version"]) {
        assert_eq!(
            total(&counted, known),
            total(&made, known),
            "{known}: {counted:#?}"
        );
    }
    assert!(assert_events(&scene) > 0, "some calls have a name");
}

#[test]
fn abbreviated_names_on_a_younger_connection_are_all_known() {
    let scene = Scene::start();
    let mut client = Abbreviating::connect(&scene.containerd.socket());
    let mut made = Counts::new();
    for _ in 0..2 {
        call_all(&mut client, &OLD, &mut made);
        call_all(&mut client, &NEW, &mut made);
    }
    assert_eq!(counted(&scene, made.values().sum()), made);
    assert!(assert_events(&scene) > 0, "failures are told");
}
