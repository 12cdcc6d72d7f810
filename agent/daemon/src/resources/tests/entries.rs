//! Who writes what, and when, under tokio's paused clock.

use std::time::Duration;

use kube::api::DynamicObject;
use sabot_resources::Kind;
use sabot_resources::status::NodeStatus;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::resources::entry::Entry;
use crate::resources::object::Resource;

fn resource(nodes: &[&str]) -> Resource {
    let parts: Vec<_> = nodes.iter().map(|node| part(node, "Injected")).collect();
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": "NetworkFault",
        "metadata": {"name": "cut", "namespace": "shop", "uid": "1", "resourceVersion": "5"},
        "spec": {"duration": "1m", "target": {"pods": {"name": "web"}}, "action": {"partition": {}}},
        "status": {"nodes": parts},
    }))
    .expect("an object");
    Resource::read(Kind::NetworkFault, &object)
}

fn part(node: &str, phase: &str) -> Value {
    json!({"node": node, "phase": phase, "targets": 1, "injected": 1})
}

fn entry(nodes: &[&str], own: &str, phase: &str) -> Entry {
    let mut entry = Entry::new(resource(nodes), own);
    let part: NodeStatus = serde_json::from_value(part(own, phase)).expect("a part");
    entry.part = Some(part);
    entry
}

#[tokio::test(start_paused = true)]
async fn the_first_injection_is_written_at_once() {
    let mut entry = entry(&[], "node-a", "Injected");
    let (write, _) = entry.next_write("node-a");
    let write = write.expect("a write");
    assert!(write.summary.is_some(), "it is the only node");
    // Not twice at the same time.
    assert!(entry.next_write("node-a").0.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_nodes_spread_their_writes() {
    let nodes: Vec<_> = (0..400).map(|number| format!("node-{number:03}")).collect();
    let names: Vec<_> = nodes.iter().map(String::as_str).collect();
    let mut dues = Vec::new();
    for name in names.iter().skip(1).step_by(20) {
        let (write, wake) = entry(&names, name, "Partial").next_write(name);
        match write {
            Some(write) => {
                assert!(write.summary.is_none(), "{name} doesn't come first");
                dues.push(Duration::ZERO);
            }
            None => dues.push(wake.expect("it waits") - Instant::now()),
        }
    }
    dues.sort_unstable();
    let (first, last) = (dues[0], dues[dues.len() - 1]);
    assert!(
        last <= Duration::from_secs(8) && last - first >= Duration::from_secs(4),
        "{dues:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_node_takes_over_a_sum_that_stays_wrong() {
    // The first node is gone for good, and the sum was never written.
    let mut second = entry(&["node-a", "node-b"], "node-b", "Injected");
    let (write, wake) = second.next_write("node-b");
    assert!(write.is_none(), "it isn't its turn");
    let wait = wake.expect("it looks again") - Instant::now();
    assert!(wait >= Duration::from_secs(9), "{wait:?}");
    tokio::time::advance(wait).await;
    let (write, wake) = second.next_write("node-b");
    let write = match write {
        Some(write) => write,
        None => {
            tokio::time::sleep_until(wake.expect("it is due")).await;
            second.next_write("node-b").0.expect("a write")
        }
    };
    assert_eq!(write.summary.expect("the sum").targets, Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_older_state_that_comes_late_is_ignored() {
    let mut entry = entry(&["node-a"], "node-a", "Injected");
    let mut older = resource(&[]);
    older.version = Some(4);
    entry.update(older);
    assert_eq!(entry.resource.status.nodes.len(), 1);
    let mut newer = resource(&[]);
    newer.version = Some(6);
    entry.update(newer);
    assert!(entry.resource.status.nodes.is_empty());
}
