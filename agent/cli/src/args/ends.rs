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
    pub(crate) target: Box<Target>,
    pub(crate) peer: Box<Peer>,
}

impl FromStr for EndForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let TargetForm(target) = text.parse()?;
        let PeerForm(peer) = text.parse()?;
        Ok(Self {
            target: Box::new(target),
            peer: Box::new(peer),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn there_are_two_ends_or_a_target() {
        for (line, kind) in [
            (
                "partition --between pods:a/b=c",
                ErrorKind::MissingRequiredArgument,
            ),
            ("partition --and pods:a/b=c", ErrorKind::MissingRequiredArgument),
            (
                "partition --between pods:a/b=c --and pods:a/b=d --target interface:eth0",
                ErrorKind::ArgumentConflict,
            ),
            (
                "partition --between pods:a/b=c --and pods:a/b=d --peer ip:10.0.0.1",
                ErrorKind::ArgumentConflict,
            ),
            (
                "partition --between pods:a/b=c --and ip:10.0.0.1",
                ErrorKind::ValueValidation,
            ),
            (
                "drop 10 --between pods:a/b=c --and pods:a/b=d",
                ErrorKind::UnknownArgument,
            ),
        ] {
            let line = format!("sabot {line} --for 5s");
            let error = Cli::try_parse_from(line.split(' ')).expect_err(&line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
        }
    }

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
