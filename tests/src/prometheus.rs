//! A Prometheus of our own: private storage, a private port, the repository's rules.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::netns::NetnsRef;
use crate::wait::{wait_for, wait_until};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// A running Prometheus. Dropping it ends it; its log is shown when that happens in a panic.
#[derive(Debug)]
pub struct Prometheus {
    folder: TempDir,
    netns: NetnsRef,
    address: SocketAddr,
    child: Child,
}

/// One series of an instant query's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Prometheus {
    /// Starts one inside a namespace, which scrapes an address there once a second, as the job `sabot`, and evaluates rules.
    ///
    /// # Errors
    ///
    /// Debian's package `prometheus` is missing, or it doesn't become ready; with its log.
    pub fn start(netns: &NetnsRef, scraped: SocketAddr, rules: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sabot-prometheus-").tempdir()?;
        let address = http::free_address(Some(netns))?;
        let config = folder.path().join("prometheus.yaml");
        let rules = rules
            .canonicalize()
            .with_context(|| format!("{} isn't there", rules.display()))?;
        fs::write(&config, configuration(scraped, &rules))?;
        let log = File::create(folder.path().join("log"))?;
        let child = netns
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("storage").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("prometheus can't be started (Debian's package prometheus)")?;
        let mut prometheus = Self {
            folder,
            netns: netns.clone(),
            address,
            child,
        };
        let ready = wait_for(START, LOOK, || prometheus.readiness());
        match ready {
            Some(Ok(())) => Ok(prometheus),
            Some(Err(ended)) => bail!("prometheus ended ({ended}):\n{}", prometheus.log()),
            None => bail!("prometheus wasn't ready within {START:?}:\n{}", prometheus.log()),
        }
    }

    /// The data of its API's answer, as of `rules` or `label/fault/values`.
    ///
    /// # Errors
    ///
    /// It refuses; with its reason.
    pub fn api(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{}={}", percent_encoded(key), percent_encoded(value)))
            .collect();
        let path = format!("/api/v1/{endpoint}?{}", parameters.join("&"));
        let answer = http::get(Some(&self.netns), self.address, &path, "application/json")?;
        let mut document: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("prometheus answered {}: {}", answer.status, answer.body))?;
        ensure!(
            document["status"] == "success",
            "prometheus refuses {path} ({}): {}",
            answer.status,
            document["error"]
        );
        Ok(document["data"].take())
    }

    /// The answer to an instant query; a scalar is a series without labels.
    ///
    /// # Errors
    ///
    /// It is no valid query, or its answer is neither a vector nor a scalar.
    pub fn query(&self, expression: &str) -> Result<Vec<Series>> {
        let data = self.api("query", &[("query", expression)])?;
        let result = &data["result"];
        match data["resultType"].as_str() {
            Some("vector") => {
                let series = result.as_array().context("a vector is a list")?;
                series
                    .iter()
                    .map(|series| {
                        Ok(Series {
                            labels: serde_json::from_value(series["metric"].clone())?,
                            value: sample(&series["value"])?,
                        })
                    })
                    .collect()
            }
            Some("scalar") => Ok(vec![Series {
                labels: BTreeMap::new(),
                value: sample(result)?,
            }]),
            other => bail!("{expression} is answered by {other:?}"),
        }
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `None`: not yet.
    fn readiness(&mut self) -> Option<Result<(), String>> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(Err(status.to_string()));
        }
        let answer = http::get(Some(&self.netns), self.address, "/-/ready", "*/*");
        answer.is_ok_and(|answer| answer.status == 200).then_some(Ok(()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if !has_ended(&mut self.child) {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
            if !wait_until(STOP, LOOK, || has_ended(&mut self.child)) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            eprintln!("---- prometheus' log ----\n{}----", self.log());
        }
    }
}

/// JSON is YAML.
fn configuration(scraped: SocketAddr, rules: &Path) -> String {
    serde_json::json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "scrape_configs": [{
            "job_name": "sabot",
            "honor_labels": true,
            "static_configs": [{"targets": [scraped.to_string()]}],
        }],
    })
    .to_string()
}

/// The value of `[time, "value"]`.
fn sample(pair: &Value) -> Result<f64> {
    let text = pair[1].as_str().with_context(|| format!("no sample: {pair}"))?;
    text.parse().with_context(|| format!("{text} is no number"))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_string_must_not_hold_is_encoded() {
        assert_eq!(
            percent_encoded("a{b=~\"é\"} > 1"),
            "a%7Bb%3D%7E%22%C3%A9%22%7D%20%3E%201"
        );
    }
}
