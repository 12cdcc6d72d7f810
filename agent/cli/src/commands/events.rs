//! Following events.

use sabot_proto::convert::duration_to_proto;
use sabot_proto::sabot::v1;
use tonic::{Status, Streaming};

use crate::args::EventArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::view::EventDoc;

const WHAT: &str = "watching events";

/// Until Ctrl-C, or until the daemon stops.
pub(super) async fn run(client: &Client, output: Output, args: EventArgs) -> Result<(), CliError> {
    let mut stream = open(client, request(args)?).await?;
    loop {
        let message = tokio::select! {
            message = stream.message() => message.map_err(|s| CliError::status(WHAT, s))?,
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        let Some(message) = message else {
            return Err(CliError::status(WHAT, Status::unavailable("sabotd stopped")));
        };
        let event = EventDoc::try_from(message.event.unwrap_or_default())?;
        output.item(&event, render::event_line)?;
    }
}

pub(crate) async fn open(
    client: &Client,
    request: v1::WatchEventsRequest,
) -> Result<Streaming<v1::WatchEventsResponse>, CliError> {
    client.answer(WHAT, client.observe().watch_events(request)).await
}

pub(crate) fn request(args: EventArgs) -> Result<v1::WatchEventsRequest, CliError> {
    let fault = args
        .fault
        .map(|name| FaultRef::parse(&name, args.namespace.as_deref()))
        .transpose()?;
    Ok(v1::WatchEventsRequest {
        types: args
            .types
            .into_iter()
            .map(|t| v1::EventType::from(t).into())
            .collect(),
        fault: fault.map(|f| v1::Metadata {
            name: f.name,
            namespace: f.namespace,
        }),
        pod: args.pod.map(|p| v1::PodRef {
            namespace: p.namespace,
            name: p.name,
        }),
        process: args.process,
        outcome: args
            .outcome
            .map(v1::PacketOutcome::from)
            .unwrap_or_default()
            .into(),
        failed_only: args.failed,
        min_duration: args.min_duration.map(duration_to_proto),
        container: args.container,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn flags_become_filters() {
        let line = "sabot events --type packet --type fault --fault team-a/cut --pod team-a/web --container main --process kubelet \
                    --outcome dropped --failed --min-duration 5ms";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("valid flags");
        let Command::Events(args) = cli.command else {
            panic!("the command is `events`");
        };
        let expected = v1::WatchEventsRequest {
            types: vec![v1::EventType::Packet.into(), v1::EventType::Fault.into()],
            fault: Some(v1::Metadata {
                name: "cut".into(),
                namespace: "team-a".into(),
            }),
            pod: Some(v1::PodRef {
                namespace: "team-a".into(),
                name: "web".into(),
            }),
            process: Some("kubelet".into()),
            outcome: v1::PacketOutcome::Dropped.into(),
            failed_only: true,
            min_duration: Some(duration_to_proto(std::time::Duration::from_millis(5))),
            container: Some("main".into()),
        };
        assert_eq!(request(args).expect("a request"), expected);
    }
}
