//! A real DNS server and a real client, as Debian has them.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::NetnsRef;
use crate::wait::wait_until;

const PORT: u16 = 53;
const PATIENCE: Duration = Duration::from_secs(10);
/// A name that the server knows.
pub const KNOWN_NAME: &str = "known.test";
/// In a domain of the server's, which has no such name.
pub const MISSING_NAME: &str = "missing.test";
/// In a domain that the server knows nobody for, so that it refuses.
pub const FOREIGN_NAME: &str = "elsewhere.invalid";

/// dnsmasq, which answers on one address until it is dropped.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Child,
    ip: IpAddr,
}

/// What dig made of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// As `NXDOMAIN`; `None` without an answer.
    pub status: Option<String>,
    /// What dig measured; zero without an answer.
    pub took: Duration,
}

impl Dnsmasq {
    /// # Errors
    ///
    /// dnsmasq isn't there, or can't serve the address.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let process = netns
            .command("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--log-facility=-",
                "--user=root",
                "--pid-file",
            ])
            .args([
                "--conf-file=/dev/null",
                "--no-hosts",
                "--no-resolv",
                "--bind-interfaces",
            ])
            .args(["--except-interface=lo", "--local=/test/"])
            .arg(format!("--listen-address={ip}"))
            .arg(format!("--host-record={KNOWN_NAME},192.0.2.7,2001:db8::7"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("dnsmasq can't be started (it is in Debian's dnsmasq-base)")?;
        let mut server = Self { process, ip };
        let is_up = wait_until(PATIENCE, Duration::from_millis(20), || {
            dig(netns, ip, &["+tries=1", "+time=1", KNOWN_NAME])
                .is_ok_and(|found| found.iter().any(|lookup| lookup.status.is_some()))
        });
        if !is_up {
            let _ = server.process.kill();
            let mut said = String::new();
            if let Some(mut errors) = server.process.stderr.take() {
                errors.read_to_string(&mut said)?;
            }
            bail!("dnsmasq doesn't answer on {ip}: {said}");
        }
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        (self.ip, PORT).into()
    }

    /// Asks from inside a namespace, one name after the other, and over UDP.
    ///
    /// # Errors
    ///
    /// dig isn't there, or prints what can't be read.
    pub fn ask(&self, netns: &NetnsRef, options: &[&str], name: &str, times: usize) -> Result<Vec<Lookup>> {
        let mut arguments = options.to_vec();
        arguments.extend(std::iter::repeat_n(name, times));
        let lookups = dig(netns, self.ip, &arguments)?;
        ensure!(
            lookups.len() == times,
            "dig was asked {times} times and says {lookups:?}"
        );
        Ok(lookups)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It is ours and not waited for yet, so that the number can't be another process's.
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn dig(netns: &NetnsRef, server: IpAddr, arguments: &[&str]) -> Result<Vec<Lookup>> {
    let mut command: Command = netns.command("dig");
    // -u: microseconds; no retries by TCP.
    command
        .args(["-r", "-u"])
        .arg(format!("@{server}"))
        .args(arguments);
    let output = command
        .output()
        .context("dig can't be started (it is in Debian's bind9-dnsutils)")?;
    let mut lookups = Vec::new();
    for line in BufReader::new(output.stdout.as_slice()).lines() {
        let line = line?;
        if line.contains("no servers could be reached") {
            lookups.push(Lookup {
                status: None,
                took: Duration::ZERO,
            });
        } else if let Some((_, status)) = line.split_once("status: ") {
            let status = status.split(',').next().unwrap_or(status);
            lookups.push(Lookup {
                status: Some(status.to_owned()),
                took: Duration::ZERO,
            });
        } else if let Some(took) = line.strip_prefix(";; Query time: ")
            && let Some(last) = lookups.last_mut()
        {
            let number = took.split(' ').next().unwrap_or(took);
            let micros = number.parse().with_context(|| format!("`{line}` of dig"))?;
            last.took = Duration::from_micros(micros);
        }
    }
    Ok(lookups)
}
