//! Settings of the guards: `--guard-…`, and the table `[guard]` of the file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use clap::Args;
use sabot_core::guard::{DEFAULT_NAMESPACE, Guards, is_namespace, parse_labels};
use sabot_core::model::{LabelSelector, Percent};
use serde::Deserialize;

use super::settings::{TextParser, both, with_parser};
use super::{ConfigError, invalid};

/// SSH, and the kubelet.
const DEFAULT_PORTS: [u16; 2] = [22, 10250];
/// Protects no namespace.
const NONE: &str = "none";

/// What faults are kept from.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardConfig {
    pub pods: Guards,
    /// TCP ports on the node's addresses that faults on the node's devices leave alone.
    pub ports: BTreeSet<u16>,
    /// Where the API server is, beside what the machine says by itself, as `HOST:PORT`.
    pub api_servers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct GuardSettings {
    /// A namespace whose pods have no faults; repeatable, in the environment separated by commas; `none` alone: no
    /// namespace [default: kube-system]
    #[arg(
        long = "guard-protected-namespace",
        env = "SABOT_GUARD_PROTECTED_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    protected_namespace: Option<Vec<String>>,

    /// Labels that a pod must have for faults, as `sabot.dev/allowed=true` (kubectl's syntax) [default: none are needed]
    #[arg(long = "guard-opt-in", env = "SABOT_GUARD_OPT_IN", value_name = "LABELS", value_parser = labels)]
    #[serde(deserialize_with = "with_parser::<_, _, LabelsParser>")]
    opt_in: Option<LabelSelector>,

    /// Of the pods of one workload (a Deployment, a StatefulSet and the like) in the whole cluster, the share that may have
    /// faults, rounded down; needs the API server [default: 100%]
    #[arg(long = "guard-workload-share", env = "SABOT_GUARD_WORKLOAD_SHARE", value_name = "PERCENT", value_parser = percent)]
    #[serde(deserialize_with = "with_parser::<_, _, PercentParser>")]
    workload_share: Option<Percent>,

    /// Of the pods of one namespace on this node, the share that may have faults at once, rounded down [default: 100%]
    #[arg(long = "guard-namespace-share", env = "SABOT_GUARD_NAMESPACE_SHARE", value_name = "PERCENT", value_parser = percent)]
    #[serde(deserialize_with = "with_parser::<_, _, PercentParser>")]
    namespace_share: Option<Percent>,

    /// The same of all pods on this node [default: 100%]
    #[arg(long = "guard-node-share", env = "SABOT_GUARD_NODE_SHARE", value_name = "PERCENT", value_parser = percent)]
    #[serde(deserialize_with = "with_parser::<_, _, PercentParser>")]
    node_share: Option<Percent>,

    /// A TCP port of the node that faults on its devices leave alone unless they say `allowControlPlane`, beside Sabot's
    /// own; repeatable, in the environment separated by commas [default: 22 and 10250]
    #[arg(
        long = "guard-port",
        env = "SABOT_GUARD_PORT",
        value_name = "PORT",
        value_delimiter = ','
    )]
    port: Option<Vec<NonZeroU16>>,

    /// Where the API server is, which such faults leave alone too, beside what KUBERNETES_SERVICE_HOST and the kubelet's
    /// kubeconfig say; repeatable, in the environment separated by commas
    #[arg(
        long = "guard-api-server",
        env = "SABOT_GUARD_API_SERVER",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    api_server: Option<Vec<String>>,
}

impl GuardSettings {
    /// This layer's settings, and the lower one's where this one is silent. What is repeatable adds up.
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            protected_namespace: both(self.protected_namespace, lower.protected_namespace),
            opt_in: self.opt_in.or(lower.opt_in),
            workload_share: self.workload_share.or(lower.workload_share),
            namespace_share: self.namespace_share.or(lower.namespace_share),
            node_share: self.node_share.or(lower.node_share),
            port: both(self.port, lower.port),
            api_server: both(self.api_server, lower.api_server),
        }
    }

    pub(super) fn complete(self) -> Result<GuardConfig, ConfigError> {
        let whole = Guards::default();
        let api_servers = self.api_server.unwrap_or_default();
        if let Some(bad) = api_servers.iter().find(|text| !is_host_port(text)) {
            let allowed = "a host and a port are needed, as `10.0.0.1:6443` or `[fd00::1]:6443`";
            return Err(invalid("guard-api-server", bad, allowed));
        }
        Ok(GuardConfig {
            pods: Guards {
                protected_namespaces: protected(self.protected_namespace)?,
                opt_in: self.opt_in,
                workload_share: self.workload_share.unwrap_or(whole.workload_share),
                namespace_share: self.namespace_share.unwrap_or(whole.namespace_share),
                node_share: self.node_share.unwrap_or(whole.node_share),
            },
            ports: match self.port {
                Some(ports) => ports.into_iter().map(NonZeroU16::get).collect(),
                None => DEFAULT_PORTS.into(),
            },
            api_servers,
        })
    }
}

fn protected(given: Option<Vec<String>>) -> Result<BTreeSet<String>, ConfigError> {
    let Some(given) = given else {
        return Ok(BTreeSet::from([DEFAULT_NAMESPACE.to_owned()]));
    };
    if given == [NONE] {
        return Ok(BTreeSet::new());
    }
    let bad = |name: &&String| name.as_str() == NONE || !is_namespace(name);
    match given.iter().find(bad) {
        Some(name) => {
            let allowed = "names of namespaces are needed, or `none` alone";
            Err(invalid("guard-protected-namespace", name, allowed))
        }
        None => Ok(given.into_iter().collect()),
    }
}

/// An address or a name, and a port.
fn is_host_port(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([':', '/', '[']) && port.parse::<NonZeroU16>().is_ok()
    })
}

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.trim().strip_suffix('%').unwrap_or(text).trim();
    let number = number.parse().ok().and_then(Percent::new);
    number.ok_or_else(|| "a percent from 0 to 100 is needed, as 50 or 50%".to_owned())
}

fn labels(text: &str) -> Result<LabelSelector, String> {
    parse_labels(text)
}

struct PercentParser;
struct LabelsParser;

impl TextParser<Percent> for PercentParser {
    fn parse(text: &str) -> Result<Percent, String> {
        percent(text)
    }
}

impl TextParser<LabelSelector> for LabelsParser {
    fn parse(text: &str) -> Result<LabelSelector, String> {
        labels(text)
    }
}
