//! A cluster full of pods that come, change and go.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use sabot_testkit::NetnsRef;
use sabot_testkit::kube::FakeCluster;
use serde_json::{Value, json};

use super::FAULTS;
use crate::interrupt;

pub(super) const PODS_PER_NODE: usize = 30;
/// Pods that each fault names, on nodes all over the cluster.
pub(super) const PEERS: usize = 60;
/// Of all pods, as many change in a second as this goes into them.
const ONE_CHANGES_IN: usize = 1000;
/// The name of a peer that comes and goes.
const LATE: &str = "latecomer";
/// Changes come as often as this.
const TICK: Duration = Duration::from_millis(100);

/// A cluster, and how many pods it has.
pub(super) struct Inhabited {
    pub(super) cluster: FakeCluster,
    nodes: usize,
}

/// Where the peers of a fault live; everybody else lives in namespaces of their own.
pub(super) fn namespace_of(fault: usize) -> String {
    format!("peers-{fault:02}")
}

impl Inhabited {
    pub(super) fn start(netns: &NetnsRef, nodes: usize) -> Self {
        let cluster = FakeCluster::start_in(netns);
        let inhabited = Self { cluster, nodes };
        for number in 0..inhabited.pods() {
            inhabited.cluster.apply(inhabited.pod(number, 0));
        }
        inhabited
    }

    fn pods(&self) -> usize {
        self.nodes * PODS_PER_NODE
    }

    /// The first pods are the faults' peers.
    fn pod(&self, number: usize, change: usize) -> Value {
        let is_peer = number < FAULTS * PEERS;
        let namespace = if is_peer {
            namespace_of(number % FAULTS)
        } else {
            format!("others-{:03}", number % 997)
        };
        let app = if is_peer { "peer" } else { "other" };
        let address = Ipv4Addr::from(0x0a00_0000 + 0x0010_0000 + number as u32);
        let node = format!("node-{:04}", number * 7 % self.nodes);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": namespace, "name": format!("{app}-{number}"), "uid": format!("uid-{number}"),
                "labels": {"app": app, "pod-template-hash": "7c9d6f5b8", "tier": "backend"},
                "annotations": {"change": change.to_string(), "text": "x".repeat(200)},
            },
            "spec": {"nodeName": node, "containers": [
                {"name": "main", "image": "registry.example/app:1.2.3", "env": [
                    {"name": "TEXT", "value": "x".repeat(500)},
                ]},
            ]},
            "status": {
                "phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }

    /// A peer of the first fault, with this address.
    pub(super) fn add_peer(&self, address: Ipv4Addr, change: usize) {
        let mut pod = self.pod(0, change);
        pod["metadata"]["name"] = json!(LATE);
        pod["metadata"]["uid"] = json!(format!("uid-{LATE}"));
        pod["status"]["podIP"] = json!(address.to_string());
        pod["status"]["podIPs"] = json!([{"ip": address.to_string()}]);
        self.cluster.apply(pod);
    }

    pub(super) fn remove_peer(&self) {
        self.cluster.delete("pods", &namespace_of(0), LATE);
    }

    /// Lives for a while: pods all over the cluster change, among them peers in their share; returns how many did.
    pub(super) fn live(&self, time: Duration) -> Result<usize> {
        let start = Instant::now();
        let mut changed = 0;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * self.pods() as f64 / ONE_CHANGES_IN as f64) as usize;
            while changed < due {
                changed += 1;
                // A step that is prime to the number of pods: each has its turn.
                let number = changed * 7919 % self.pods();
                self.cluster.apply(self.pod(number, changed));
            }
            interrupt::sleep(TICK)?;
        }
        Ok(changed)
    }
}
