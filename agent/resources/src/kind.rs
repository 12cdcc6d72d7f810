//! The kinds of resources.

use std::fmt;

pub const GROUP: &str = "sabot.dev";
pub const VERSION: &str = "v1alpha1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Of one namespace, whose pods are the only ones it can target.
    NetworkFault,
    /// Of the cluster: any pods, and the nodes themselves.
    ClusterNetworkFault,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::NetworkFault, Self::ClusterNetworkFault];

    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkFault => sabot_core::spec::KIND,
            Self::ClusterNetworkFault => sabot_core::spec::CLUSTER_KIND,
        }
    }

    pub fn singular(self) -> &'static str {
        match self {
            Self::NetworkFault => "networkfault",
            Self::ClusterNetworkFault => "clusternetworkfault",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Self::NetworkFault => "networkfaults",
            Self::ClusterNetworkFault => "clusternetworkfaults",
        }
    }

    pub fn short_name(self) -> &'static str {
        match self {
            Self::NetworkFault => "nf",
            Self::ClusterNetworkFault => "cnf",
        }
    }

    pub fn is_namespaced(self) -> bool {
        self == Self::NetworkFault
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
