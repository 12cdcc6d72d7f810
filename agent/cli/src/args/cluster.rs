//! Which daemons are asked: this node's, or those of a cluster.

use std::path::PathBuf;

use clap::Args;

/// Where the manifests of `deploy/` put the daemons.
pub(crate) const DEFAULT_NAMESPACE: &str = "sabot";

/// Any of these asks a cluster's daemons, through its API server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Ask the daemons of all nodes of the cluster that the kubeconfig names, through `pods/exec`.
    #[arg(long, global = true)]
    pub(crate) cluster: bool,
    /// The same, by this context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The same, by this kubeconfig. Default: $KUBECONFIG, ~/.kube/config, or the pod's own service account.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The same, but only the daemon of this node; may be repeated.
    #[arg(long = "on-node", global = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// The same, with the daemons in this namespace. Default: sabot.
    #[arg(long, global = true, value_name = "NAMESPACE")]
    pub(crate) sabot_namespace: Option<String>,
}

impl ClusterArgs {
    pub(crate) fn is_asked(&self) -> bool {
        self.cluster
            || self.context.is_some()
            || self.kubeconfig.is_some()
            || !self.nodes.is_empty()
            || self.sabot_namespace.is_some()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.sabot_namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::Cli;

    #[test]
    fn any_of_the_flags_asks_a_cluster() {
        for (line, asked) in [
            ("sabot get", false),
            ("sabot get --socket /run/x.sock -n shop", false),
            ("sabot flows --node", false),
            ("sabot get --cluster", true),
            ("sabot --cluster get", true),
            ("sabot get --context kind", true),
            ("sabot get --kubeconfig /root/config", true),
            ("sabot get --on-node a --on-node b", true),
            ("sabot get --sabot-namespace ops", true),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.global.cluster.is_asked(), asked, "{line}");
        }
        let cli = Cli::try_parse_from("sabot get --on-node a --on-node b".split(' ')).expect("valid");
        assert_eq!(cli.global.cluster.nodes, ["a", "b"]);
        assert_eq!(cli.global.cluster.namespace(), "sabot");
    }
}
