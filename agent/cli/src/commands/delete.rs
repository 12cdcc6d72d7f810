//! Deleting faults.

use sabot_proto::sabot::v1;

use super::apply::Failures;
use crate::args::Format;
use crate::client::Client;
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::view::{FaultDoc, FaultsDoc};

/// No names: every active fault.
pub(super) async fn run(
    client: &Client,
    output: Output,
    names: &[String],
    namespace: Option<String>,
) -> Result<(), CliError> {
    if names.is_empty() {
        return all(client, output, namespace).await;
    }
    let faults = references(names, namespace.as_deref())?;
    let mut failures = Failures::default();
    let mut deleted = Vec::new();
    for fault in faults {
        match one(client, fault).await {
            Ok(fault) => {
                output.remark(&render::deleted(&fault))?;
                deleted.push(fault);
            }
            // One failure is the command's own.
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => failures.add(error),
        }
    }
    document(output, deleted)?;
    failures.finish(names.len(), "")
}

pub(crate) fn references(names: &[String], namespace: Option<&str>) -> Result<Vec<FaultRef>, CliError> {
    names
        .iter()
        .map(|name| FaultRef::parse(name, namespace))
        .collect()
}

pub(crate) async fn one(client: &Client, fault: FaultRef) -> Result<FaultDoc, CliError> {
    let what = format!("deleting {fault}");
    let request = v1::DeleteFaultRequest {
        namespace: fault.namespace,
        name: fault.name,
    };
    let answer = client.answer(what, client.faults().delete_fault(request)).await?;
    FaultDoc::try_from(answer.fault.unwrap_or_default())
}

/// Every active fault, or those of one namespace.
pub(crate) async fn every(client: &Client, namespace: Option<String>) -> Result<Vec<FaultDoc>, CliError> {
    let request = v1::DeleteAllFaultsRequest { namespace };
    let answer = client
        .answer("deleting all faults", client.faults().delete_all_faults(request))
        .await?;
    answer.faults.into_iter().map(FaultDoc::try_from).collect()
}

async fn all(client: &Client, output: Output, namespace: Option<String>) -> Result<(), CliError> {
    let faults = every(client, namespace).await?;
    for fault in &faults {
        output.remark(&render::deleted(fault))?;
    }
    if faults.is_empty() {
        output.remark("no active faults")?;
    }
    document(output, faults)
}

fn document(output: Output, faults: Vec<FaultDoc>) -> Result<(), CliError> {
    match output.format {
        // Each has been told.
        Format::Table => Ok(()),
        Format::Json | Format::Yaml => output.document(&FaultsDoc { faults }, |_| String::new()),
    }
}
