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
    let faults: Vec<_> = names
        .iter()
        .map(|name| FaultRef::parse(name, namespace.as_deref()))
        .collect::<Result<_, _>>()?;
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

async fn one(client: &Client, fault: FaultRef) -> Result<FaultDoc, CliError> {
    let what = format!("deleting {fault}");
    let request = v1::DeleteFaultRequest {
        namespace: fault.namespace,
        name: fault.name,
    };
    let answer = client.answer(what, client.faults().delete_fault(request)).await?;
    FaultDoc::try_from(answer.fault.unwrap_or_default())
}

async fn all(client: &Client, output: Output, namespace: Option<String>) -> Result<(), CliError> {
    let request = v1::DeleteAllFaultsRequest { namespace };
    let answer = client
        .answer("deleting all faults", client.faults().delete_all_faults(request))
        .await?;
    let faults: Vec<_> = answer
        .faults
        .into_iter()
        .map(FaultDoc::try_from)
        .collect::<Result<_, _>>()?;
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
