//! The busiest connections, and flows of UDP.

use sabot_proto::convert::duration_to_proto;
use sabot_proto::sabot::v1;

use crate::args::FlowArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;
use crate::render;
use crate::view::FlowsDoc;

pub(super) async fn run(client: &Client, output: Output, args: FlowArgs) -> Result<(), CliError> {
    let duration = args.duration;
    let mut observe = client.observe();
    let call = observe.list_flows(request(args));
    let answer = client.slow_answer("listing flows", duration, call).await?;
    output.document(&FlowsDoc::try_from(answer)?, render::flows)
}

fn request(args: FlowArgs) -> v1::ListFlowsRequest {
    let pod = args.pod.map(|pod| v1::PodRef {
        namespace: pod.namespace,
        name: pod.name,
    });
    let node = args.node.then(|| v1::PodRef {
        namespace: String::new(),
        name: "node".to_owned(),
    });
    let netns = args.netns.map(|path| v1::PodRef {
        namespace: String::new(),
        name: format!("netns:{}", path.display()),
    });
    v1::ListFlowsRequest {
        pod: pod.or(node).or(netns),
        order: v1::FlowOrder::from(args.sort).into(),
        limit: args.limit,
        observe_for: Some(duration_to_proto(args.duration)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(line: &str) -> v1::ListFlowsRequest {
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("valid flags");
        match cli.command {
            Command::Flows(args) => request(args),
            other => panic!("{other:?} is not `flows`"),
        }
    }

    #[test]
    fn flags_become_a_request() {
        let request = parsed("sabot flows --pod shop/web --sort retransmits --limit 5");
        let pod = request.pod.clone().expect("a pod");
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web"));
        assert_eq!((request.order(), request.limit), (v1::FlowOrder::Retransmits, 5));
        assert_eq!(parsed("sabot flows --node").pod.expect("the node").name, "node");
        let netns = parsed("sabot flows --netns /run/netns/x")
            .pod
            .expect("a namespace");
        assert_eq!(netns.name, "netns:/run/netns/x");
        assert_eq!(
            (parsed("sabot flows").pod, parsed("sabot flows").limit),
            (None, 20)
        );
        let observe_for = |line| {
            let duration = parsed(line).observe_for.expect("it is said");
            (duration.seconds, duration.nanos)
        };
        assert_eq!(observe_for("sabot flows"), (1, 0));
        assert_eq!(observe_for("sabot flows --for 2500ms"), (2, 500_000_000));
        assert_eq!(observe_for("sabot flows --for 0s"), (0, 0));
    }

    #[test]
    fn limits_and_owners_are_checked() {
        for line in [
            "sabot flows --limit 0",
            "sabot flows --limit 1001",
            "sabot flows --pod web",
            "sabot flows --node --pod a/b",
            "sabot flows --sort age",
            "sabot flows --for long",
        ] {
            Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        }
    }
}
