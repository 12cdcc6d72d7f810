//! `partition --between A --and B`: a cut at both of its ends.

use std::str::FromStr;

use clap::Args;
use sabot_core::quick::{FormError, PeerForm, TargetForm};
use sabot_core::spec::{Peer, Target};

use super::FaultArgs;

/// One target and its peers, or two ends.
#[derive(Clone, Debug, Args)]
pub(crate) struct PartitionArgs {
    /// One of two ends that are cut off from each other, as `pods:shop/app=web`; a fault NAME-a is made for it.
    #[arg(long, value_name = "FORM", requires = "and", conflicts_with_all = ["target", "peers", "pick"])]
    pub(crate) between: Option<EndForm>,
    /// The other end; a fault NAME-b is made for it. In a cluster both begin at one moment on all nodes.
    #[arg(long, value_name = "FORM", requires = "between")]
    pub(crate) and: Option<EndForm>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

/// What can be a target as well as a peer: `pod:shop/web-0`, `pods:shop/app=web`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndForm {
    pub(crate) target: Target,
    pub(crate) peer: Peer,
}

impl FromStr for EndForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let TargetForm(target) = text.parse()?;
        let PeerForm(peer) = text.parse()?;
        Ok(Self { target, peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_both_a_target_and_a_peer() {
        let end: EndForm = "pods:shop/app=web".parse().expect("pods are both");
        assert!(end.target.pods.is_some() && end.peer.pods.is_some());
        for (text, why) in [
            ("ip:10.0.0.1", "target `ip:10.0.0.1`"),
            ("interface:eth0", "peer `interface:eth0`"),
            ("pods:shop", "the namespace is missing"),
        ] {
            let error = text.parse::<EndForm>().expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
