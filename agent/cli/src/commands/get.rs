//! Showing faults.

use std::time::SystemTime;

use sabot_proto::sabot::v1;

use crate::client::Client;
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::view::{FaultDoc, FaultsDoc};

pub(super) async fn run(
    client: &Client,
    output: Output,
    name: Option<String>,
    namespace: Option<String>,
    active: bool,
) -> Result<(), CliError> {
    let Some(name) = name else {
        let faults = list(client, namespace, active).await?;
        return output.document(&FaultsDoc { faults }, |f| render::faults(f, SystemTime::now()));
    };
    let fault = one(client, FaultRef::parse(&name, namespace.as_deref())?).await?;
    output.document(&fault, |f| render::fault_detail(f, SystemTime::now()))
}

/// No namespace: faults of all.
pub(crate) async fn list(
    client: &Client,
    namespace: Option<String>,
    active: bool,
) -> Result<Vec<FaultDoc>, CliError> {
    let request = v1::ListFaultsRequest {
        namespace,
        active_only: active,
        include_counters: true,
    };
    let answer = client
        .answer("listing faults", client.faults().list_faults(request))
        .await?;
    answer.faults.into_iter().map(FaultDoc::try_from).collect()
}

pub(crate) async fn one(client: &Client, fault: FaultRef) -> Result<FaultDoc, CliError> {
    let what = format!("getting {fault}");
    let FaultRef { namespace, name } = fault;
    let request = v1::GetFaultRequest { namespace, name };
    let answer = client.answer(what, client.faults().get_fault(request)).await?;
    FaultDoc::try_from(answer.fault.unwrap_or_default())
}
