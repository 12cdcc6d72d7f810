//! What each command does with the daemons of a cluster.

use std::time::SystemTime;

use serde::Serialize;

use super::answers::{Answers, Outcome};
use super::{Fleet, faults, live};
use crate::args::{Command, Format, Global};
use crate::client::Client;
use crate::commands::{
    apply, delete, events, get, get_node, list_targets, on_one_node, timeline, top, watch,
};
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::quick::{self, Quick};
use crate::render;
use crate::view::{FaultDoc, Merged};

/// What can be wrong without the cluster is said without it.
pub(crate) async fn run(
    global: &Global,
    command: Command,
    output: Output,
    definition: clap::Command,
) -> Result<(), CliError> {
    let find = async || Fleet::find(global).await;
    match command {
        Command::Quick(command) => match quick::faults(&command, SystemTime::now())? {
            (Quick::One(manifest), how) => {
                faults::apply(find().await?, output, vec![*manifest], how, faults::Start::AsSaid).await
            }
            (Quick::Ends(ends), how) => {
                faults::apply(
                    find().await?,
                    output,
                    Vec::from(*ends),
                    how,
                    faults::Start::Common,
                )
                .await
            }
        },
        Command::Apply(args) => {
            let manifests = apply::read(&args.file)?;
            faults::apply(find().await?, output, manifests, args.how, faults::Start::AsSaid).await
        }
        Command::Get {
            name,
            namespace,
            active,
        } => get(&find, output, name, namespace, active).await,
        // Without --all there are names.
        Command::Delete {
            names,
            namespace,
            all: _,
        } => delete(&find, output, &names, namespace).await,
        Command::Targets { namespace } => targets(&find().await?, output, namespace).await,
        Command::Watch {
            name,
            namespace,
            interval,
        } => {
            let scope = watch::scope(name.as_deref(), namespace)?;
            live::watch(&find().await?, output, &scope, interval).await
        }
        Command::Events(args) => {
            let request = events::request(args)?;
            live::events(&find().await?, output, request).await
        }
        Command::Timeline { name, namespace } => timeline(&find, output, &name, namespace.as_deref()).await,
        Command::Top { interval, count } => {
            top::check_interval(interval)?;
            live::top(&find().await?, output, interval, count).await
        }
        Command::Node => node(&find().await?, output).await,
        command => {
            let connect = async || find().await?.only().await;
            on_one_node(connect, command, output, definition).await
        }
    }
}

/// No table where nobody answered: what went wrong is told then, and nothing else.
fn show<T: Serialize>(
    output: Output,
    merged: &Merged<T>,
    outcome: &Outcome,
    table: impl FnOnce(&Merged<T>) -> String,
) -> Result<(), CliError> {
    if output.format == Format::Table && outcome.failed.len() == outcome.total {
        return Ok(());
    }
    output.document(merged, table)
}

async fn get(
    find: &impl AsyncFn() -> Result<Fleet, CliError>,
    output: Output,
    name: Option<String>,
    namespace: Option<String>,
    active: bool,
) -> Result<(), CliError> {
    let Some(name) = name else {
        let fleet = find().await?;
        let answers = fleet
            .each(async |client: &Client| get::list(client, namespace.clone(), active).await)
            .await;
        let (faults, outcome) = answers.merged("faults", |faults| faults);
        show(output, &faults, &outcome, |f| {
            render::faults_on_nodes(&f.items, SystemTime::now())
        })?;
        return outcome.finish("");
    };
    let fault = FaultRef::parse(&name, namespace.as_deref())?;
    let fleet = find().await?;
    let answers = fleet
        .each(async |client: &Client| get::one(client, fault.clone()).await)
        .await;
    let answers = known(answers)?;
    let (faults, outcome) = answers.merged("faults", |fault| vec![fault]);
    show(output, &faults, &outcome, |f| {
        render::fault_details_on_nodes(f, SystemTime::now())
    })?;
    outcome.finish("")
}

/// That a fault is known nowhere is said once, and no document is printed.
fn known<T>(answers: Answers<T>) -> Result<Answers<T>, CliError> {
    let mut answers = answers.forgive_absence();
    if answers.failed.iter().all(|(_, error)| error.is_absence())
        && let Some((_, error)) = answers.failed.pop()
    {
        return Err(error);
    }
    Ok(answers)
}

async fn delete(
    find: &impl AsyncFn() -> Result<Fleet, CliError>,
    output: Output,
    names: &[String],
    namespace: Option<String>,
) -> Result<(), CliError> {
    let references = delete::references(names, namespace.as_deref())?;
    let fleet = find().await?;
    let answers = if references.is_empty() {
        let every = async |client: &Client| delete::every(client, namespace.clone()).await;
        fleet.each(every).await
    } else {
        fleet
            .each(async |client: &Client| delete_named(client, &references).await)
            .await
    };
    let answers = known(answers)?;
    let deleted: Vec<_> = answers.answered.iter().flat_map(|(_, faults)| faults).collect();
    let unknown = unknown(&references, &deleted);
    let (faults, outcome) = answers.merged("faults", |faults| faults);
    match output.format {
        Format::Table if faults.items.is_empty() && outcome.failed.is_empty() => {
            output.remark("no active faults")?;
        }
        _ => show(output, &faults, &outcome, |f| {
            render::faults_on_nodes(&f.items, SystemTime::now())
        })?,
    }
    outcome.finish("")?;
    unknown
}

/// Those that this node knows; its failure is that it knows none of them.
async fn delete_named(client: &Client, references: &[FaultRef]) -> Result<Vec<FaultDoc>, CliError> {
    let mut deleted = Vec::new();
    let mut absence = None;
    for fault in references {
        match delete::one(client, fault.clone()).await {
            Ok(fault) => deleted.push(fault),
            Err(error) if error.is_absence() => absence = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absence {
        Some(error) if deleted.is_empty() => Err(error),
        _ => Ok(deleted),
    }
}

/// A name that no node knows.
fn unknown(references: &[FaultRef], deleted: &[&FaultDoc]) -> Result<(), CliError> {
    let is_deleted = |fault: &&FaultRef| deleted.iter().any(|d| watch::reference(d) == **fault);
    match references.iter().find(|fault| !is_deleted(fault)) {
        None => Ok(()),
        Some(missing) => Err(CliError::Failed(format!("deleting {missing}: no node knows it"))),
    }
}

async fn targets(fleet: &Fleet, output: Output, namespace: Option<String>) -> Result<(), CliError> {
    let list = async |client: &Client| list_targets(client, namespace.clone()).await;
    let (targets, outcome) = fleet.each(list).await.merged("targets", |targets| targets);
    show(output, &targets, &outcome, render::targets_on_nodes)?;
    outcome.finish("")
}

async fn timeline(
    find: &impl AsyncFn() -> Result<Fleet, CliError>,
    output: Output,
    name: &str,
    namespace: Option<&str>,
) -> Result<(), CliError> {
    let fault = FaultRef::parse(name, namespace)?;
    let read = async |client: &Client| timeline::one(client, fault.clone()).await;
    let answers = known(find().await?.each(read).await)?;
    let (timelines, outcome) = answers.merged("timelines", |timeline| vec![timeline]);
    show(output, &timelines, &outcome, render::timelines_on_nodes)?;
    outcome.finish("")
}

async fn node(fleet: &Fleet, output: Output) -> Result<(), CliError> {
    let answers = fleet.each(async |client: &Client| get_node(client).await).await;
    let (nodes, outcome) = answers.merged("nodes", |node| vec![node]);
    show(output, &nodes, &outcome, render::nodes)?;
    outcome.finish("")
}
