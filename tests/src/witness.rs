//! nftables counters: what passed a device, according to someone who isn't us.

use std::io::Write;
use std::ops::Add;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::netns::{NetnsRef, checked_output};

/// Bytes of an Ethernet header, which nftables has in view on the way out but not on the way in.
const MAC_HEADER: u64 = 14;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Where a witness stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What arrives at the device, before anything else in its namespace.
    Ingress,
    /// What leaves through the device; before it, for super-packets, is cut into wire packets.
    Egress,
}

/// Packets and their bytes from the Ethernet header on, without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Count {
    /// What came since an earlier count.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// A counter on one device; dropping it removes it. A super-packet counts as one packet: where wire packets are meant,
/// stand behind [`crate::Lab::segment_towards`], or take [`crate::wire::WireCapture`].
#[derive(Debug)]
pub struct Witness {
    netns: NetnsRef,
    table: String,
    side: Side,
}

impl Witness {
    /// Counts the packets that an nftables match names, as `ip protocol udp udp dport 5000`; all of them if it is empty.
    ///
    /// # Errors
    ///
    /// Holds what `nft` said.
    pub fn on(netns: &NetnsRef, device: &str, side: Side, matching: &str) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let table = format!("witness{number}");
        let hook = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        // Before every other filter on the way in, after every other one on the way out.
        let priority = match side {
            Side::Ingress => -500,
            Side::Egress => 500,
        };
        nft(
            netns,
            &format!(
                "table netdev {table} {{\n\
                   chain count {{\n\
                     type filter hook {hook} device \"{device}\" priority {priority}; policy accept;\n\
                     {matching} counter\n\
                   }}\n\
                 }}\n"
            ),
        )?;
        Ok(Self {
            netns: netns.clone(),
            table,
            side,
        })
    }

    /// What passed until now.
    ///
    /// # Errors
    ///
    /// Holds what `nft` said.
    pub fn count(&self) -> Result<Count> {
        let text =
            checked_output(
                self.netns
                    .command("nft")
                    .args(["-j", "list", "table", "netdev", &self.table]),
            )?;
        let listing: Value = serde_json::from_str(&text).context("`nft -j` didn't print JSON")?;
        let counter = listing["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["rule"]["expr"].as_array())
            .flatten()
            .find_map(|expression| expression.get("counter"));
        let field = |name: &str| counter.and_then(|counter| counter[name].as_u64());
        let (Some(packets), Some(bytes)) = (field("packets"), field("bytes")) else {
            bail!("`nft -j` listed no counter: {text}");
        };
        let headers = match self.side {
            Side::Ingress => packets * MAC_HEADER,
            Side::Egress => 0,
        };
        Ok(Count {
            packets,
            bytes: bytes + headers,
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.netns, &format!("delete table netdev {}\n", self.table)) {
            eprintln!("a witness stays: {error:#}");
        }
    }
}

/// A firewall of a test: drops at a device what an nftables match names, until it is dropped itself.
#[derive(Debug)]
pub struct Barrier {
    netns: NetnsRef,
    table: String,
}

impl Barrier {
    /// # Errors
    ///
    /// Holds what `nft` said.
    pub fn on(netns: &NetnsRef, device: &str, side: Side, matching: &str) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let table = format!("barrier{number}");
        let hook = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        nft(
            netns,
            &format!(
                "table netdev {table} {{\n\
                   chain cut {{\n\
                     type filter hook {hook} device \"{device}\" priority 0; policy accept;\n\
                     {matching} drop\n\
                   }}\n\
                 }}\n"
            ),
        )?;
        Ok(Self {
            netns: netns.clone(),
            table,
        })
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.netns, &format!("delete table netdev {}\n", self.table)) {
            eprintln!("a barrier stays: {error:#}");
        }
    }
}

fn nft(netns: &NetnsRef, ruleset: &str) -> Result<()> {
    let mut child = netns
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("`nft` can't be started")?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(ruleset.as_bytes())
            .context("`nft` doesn't read its ruleset")?;
    }
    let output = child.wait_with_output().context("`nft` can't be waited for")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`nft` refused:\n{}\nof:\n{ruleset}", said.trim());
    }
    Ok(())
}
