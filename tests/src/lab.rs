//! A small network of pods: each in a namespace of its own, all on one bridge in a private "node" namespace.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::netns::Netns;
use crate::wait::wait_until;

/// The node's address on the bridge, which is the pods' default route.
pub const NODE_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const NODE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// A bridge has no more ports than 1,023, and the prefix no more addresses.
const MOST_PODS: usize = 1000;
const PREFIX: u8 = 22;
/// How long the kernel may take to bring everything up, and how much longer for each pod.
const SETTLE: Duration = Duration::from_secs(10);
const SETTLE_EACH: Duration = Duration::from_millis(100);
const NETWORK: u32 = u32::from_be_bytes([10, 77, 0, 0]);
/// Pods' addresses end in 10, 11 and so on.
const FIRST_ADDRESS: usize = 10;

/// Pods and the node that they stand on. The host's namespace isn't part of it, so labs don't meet each other.
#[derive(Debug)]
pub struct Lab {
    // Dropped before the node, so that the veths go with their pods.
    pods: Vec<LabPod>,
    node: Netns,
    /// What the next pod is called, unless one of that number still stands.
    next: usize,
}

/// One pod: a namespace with `eth0`, the other end of which is a port of the node's bridge.
#[derive(Debug)]
pub struct LabPod {
    netns: Netns,
    /// The node's end of its veth.
    port: String,
    /// By which it has its port's name and its addresses.
    number: usize,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Lab {
    /// A node and its pods, which reach each other and the node at once (no address detection, no spanning tree).
    ///
    /// # Errors
    ///
    /// Holds what `ip` said.
    pub fn new(pods: usize) -> Result<Self> {
        let node = Netns::new("sabot-node")?;
        // Otherwise bridged packets would pass the node's iptables, and be refragmented on the way.
        node.run(|| {
            for file in ["iptables", "ip6tables", "arptables"] {
                let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{file}"), "0");
            }
        });
        batch(
            &node,
            &format!(
                "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
                 link set br0 up\n\
                 address add {NODE_IPV4}/{PREFIX} dev br0\n\
                 address add {NODE_IPV6}/64 dev br0 nodad\n"
            ),
        )?;
        let mut lab = Self {
            pods: Vec::new(),
            node,
            next: 0,
        };
        for _ in 0..pods {
            lab.make_pod()?;
        }
        lab.wait_settled(&lab.pods)?;
        Ok(lab)
    }

    pub fn node(&self) -> &Netns {
        &self.node
    }

    pub fn pods(&self) -> &[LabPod] {
        &self.pods
    }

    /// # Panics
    ///
    /// There is no such pod.
    pub fn pod(&self, index: usize) -> &LabPod {
        &self.pods[index]
    }

    /// Adds one more pod with an address of its own.
    ///
    /// # Errors
    ///
    /// Holds what `ip` said.
    pub fn add_pod(&mut self) -> Result<&LabPod> {
        self.make_pod()?;
        let pod = self.pods.len() - 1;
        self.wait_settled(&self.pods[pod..])?;
        Ok(self.pod(pod))
    }

    fn make_pod(&mut self) -> Result<()> {
        let number = self.free_number()?;
        self.next = (number + 1) % MOST_PODS;
        let host = FIRST_ADDRESS + number;
        let port = format!("port{number}");
        let netns = Netns::new("sabot-pod")?;
        let pod = LabPod {
            ipv4: Ipv4Addr::from(NETWORK + host as u32),
            ipv6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host as u16),
            netns,
            port,
            number,
        };
        batch(
            &self.node,
            &format!(
                "link add {port} type veth peer name eth0 netns {name}\n\
                 link set {port} master br0\n\
                 link set {port} up\n",
                port = pod.port,
                name = pod.netns.name(),
            ),
        )?;
        batch(
            &pod.netns,
            &format!(
                "address add {}/{PREFIX} dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via {NODE_IPV4}\n\
                 route add ::/0 via {NODE_IPV6}\n",
                pod.ipv4, pod.ipv6
            ),
        )?;
        self.pods.push(pod);
        Ok(())
    }

    /// Numbers go round, so that an address comes again as late as possible.
    fn free_number(&self) -> Result<usize> {
        let mut numbers = (self.next..MOST_PODS).chain(0..self.next);
        let is_free = |number: &usize| self.pods.iter().all(|pod| pod.number != *number);
        let free = numbers.find(is_free);
        free.with_context(|| format!("a lab has room for {MOST_PODS} pods"))
    }

    /// The kernel notices a carrier a little later, up to a second when many come up; until then a device drops what it
    /// is given, the first neighbour solicitation among it.
    fn wait_settled(&self, pods: &[LabPod]) -> Result<()> {
        let settled = || {
            let ports = devices(&self.node);
            let is_up = |name: &str| {
                ports
                    .iter()
                    .any(|port| port["ifname"] == name && port["operstate"] == "UP")
            };
            let forwards = |name: &str| {
                let mut ports = ports.iter().filter(|port| port["ifname"] == name);
                ports.any(|port| port["linkinfo"]["info_slave_data"]["state"] == "forwarding")
            };
            let pod_is_up = |pod: &LabPod| {
                let own = devices(&pod.netns);
                own.iter()
                    .any(|device| device["ifname"] == "eth0" && device["operstate"] == "UP")
            };
            pods.iter()
                .all(|pod| is_up(&pod.port) && forwards(&pod.port) && pod_is_up(pod))
                && (pods.is_empty() || is_up("br0"))
        };
        let patience = SETTLE + SETTLE_EACH * pods.len() as u32;
        ensure!(
            wait_until(patience, Duration::from_millis(5), settled),
            "the lab's devices aren't up after {patience:?}"
        );
        Ok(())
    }

    /// Deletes a pod as a runtime does; returns the name of its port on the node, which goes once nothing holds its
    /// namespace.
    ///
    /// # Panics
    ///
    /// There is no such pod.
    pub fn remove_pod(&mut self, index: usize) -> String {
        self.pods.remove(index).port
    }

    /// Whether the node still has a device of this name.
    pub fn node_has(&self, device: &str) -> bool {
        self.node.ip(&["link", "show", "dev", device]).is_ok()
    }

    /// From now on the kernel cuts super-packets into wire packets before they reach this pod, so that whatever counts
    /// there counts wire packets.
    ///
    /// # Errors
    ///
    /// Holds what `ip` said.
    pub fn segment_towards(&self, pod: &LabPod) -> Result<()> {
        self.node
            .ip(&["link", "set", "dev", &pod.port, "gso_max_segs", "1"])?;
        Ok(())
    }
}

impl LabPod {
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node's end of its `eth0`.
    pub fn port(&self) -> &str {
        &self.port
    }

    pub fn ipv4(&self) -> IpAddr {
        self.ipv4.into()
    }

    pub fn ipv6(&self) -> IpAddr {
        self.ipv6.into()
    }

    /// As `sabot --target` takes it.
    pub fn target(&self) -> String {
        format!("netns:{}", self.netns.path().display())
    }
}

/// The devices of a namespace as `ip` describes them; none if it can't.
fn devices(netns: &Netns) -> Vec<Value> {
    let text = netns.ip(&["-j", "-d", "link", "show"]).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Runs several `ip` commands in one process; many pods are made that way.
fn batch(netns: &Netns, commands: &str) -> Result<()> {
    let mut child = netns
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("`ip` can't be started")?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(commands.as_bytes())
            .context("`ip` doesn't read its commands")?;
    }
    let output = child.wait_with_output().context("`ip` can't be waited for")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`ip -batch` in {} failed: {}\nof:\n{commands}",
            netns.name(),
            said.trim()
        );
    }
    Ok(())
}
