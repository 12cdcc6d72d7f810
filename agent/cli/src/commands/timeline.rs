//! What a fault did to its targets.

use sabot_proto::sabot::v1;

use crate::client::Client;
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::view::TimelineDoc;

pub(super) async fn run(
    client: &Client,
    output: Output,
    name: &str,
    namespace: Option<&str>,
) -> Result<(), CliError> {
    let timeline = one(client, FaultRef::parse(name, namespace)?).await?;
    output.document(&timeline, render::timeline)
}

pub(crate) async fn one(client: &Client, fault: FaultRef) -> Result<TimelineDoc, CliError> {
    let what = format!("reading the timeline of {fault}");
    let FaultRef { namespace, name } = fault;
    let request = v1::GetTimelineRequest { namespace, name };
    let answer = client
        .answer(what, client.observe().get_timeline(request))
        .await?;
    TimelineDoc::try_from(answer.timeline.unwrap_or_default())
}
