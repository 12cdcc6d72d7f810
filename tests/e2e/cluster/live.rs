//! What all nodes tell as it happens.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::scene::{PATIENCE, Scene, code, stderr, stdout};

/// A command that runs beside the test; its lines are documents. It is killed with its guard.
struct Stream {
    child: Child,
    documents: Receiver<Value>,
}

impl Stream {
    fn start(scene: &Scene, line: &str) -> Self {
        let mut command = scene.command(line);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, documents) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let document = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no document: {line}"));
                // Nobody listens any more when the test is over.
                let _ = sender.send(document);
            }
        });
        Self { child, documents }
    }

    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let document = self.documents.recv_timeout(PATIENCE);
            let document = document.unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if holds(&document) {
                return document;
            }
        }
    }
}

impl Stream {
    /// Two nodes' beginnings, in whatever order.
    fn wait_for_both(&self) {
        for _ in 0..2 {
            self.wait("the beginning", |item| item["change"] == "synced");
        }
    }

    /// How it ends by itself.
    fn end(mut self) -> Option<i32> {
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_and_events_come_from_every_node() {
    let mut scene = Scene::new(&["one", "two"]);
    let watch = Stream::start(&scene, "watch -o json --interval 100ms");
    watch.wait_for_both();
    let events = Stream::start(&scene, "events -o json --type packet --type fault --fault cut");
    let ends = "--target pods:shop/app=a --peer pods:shop/app=b --for 60s --sample-every 1";
    // Events come from now on: one that tells of the fault shows that its node's stream is open.
    for node in ["one", "two"] {
        let mut tries = 0;
        loop {
            scene.ok(&format!("partition --name cut {ends} --on-node {node}"));
            let opened = events.documents.recv_timeout(Duration::from_millis(500));
            if opened.is_ok_and(|event| event["node"] == node) {
                break;
            }
            scene.ok(&format!("delete cut --on-node {node}"));
            tries += 1;
            assert!(tries < 20, "no event comes from {node}");
        }
        watch.wait("the fault", |item| {
            item["node"] == node && item["fault"]["metadata"]["name"] == "cut"
        });
    }
    assert_eq!(scene.answers(), [false, false]);
    for node in ["one", "two"] {
        // Events of both may have come in any order.
        let events = Stream::start(&scene, &format!("events -o json --type packet --on-node {node}"));
        let packet = loop {
            scene.answers();
            if let Ok(event) = events.documents.recv_timeout(Duration::from_millis(500)) {
                break event;
            }
        };
        assert_eq!(
            (&packet["node"], &packet["outcome"]),
            (&Value::from(node), &Value::from("dropped"))
        );
    }

    // A daemon that ends is told, and the others go on.
    let one = Stream::start(&scene, "watch cut -o json");
    one.wait_for_both();
    scene.nodes[1].daemon.kill9().expect("it runs");
    scene.ok("delete cut --on-node one");
    one.wait("the end", |item| {
        item["node"] == "one" && item["change"] == "deleted"
    });
    assert_eq!(one.end(), Some(1), "a node was lost");
}

#[test]
fn rates_of_all_nodes_stand_in_one_table() {
    let scene = Scene::new(&["one", "two"]);
    let output = scene.run("top --count 2 --interval 200ms -o json");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document"))
        .collect();
    let nodes: Vec<_> = lines
        .iter()
        .map(|line| line["node"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(nodes, ["one", "two", "one", "two"]);
    let table = scene.ok("top --count 1 --interval 100ms");
    assert!(
        table.contains(", 2 nodes") && table.contains("NODE  POD") && table.contains("NODE  PROCESS"),
        "{table}"
    );
}
