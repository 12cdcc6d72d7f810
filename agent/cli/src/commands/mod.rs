//! What each command does.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod events;
mod flows;
pub(crate) mod get;
pub(crate) mod timeline;
pub(crate) mod top;
mod trace;
pub(crate) mod watch;

use std::io::{self, Write as _};
use std::time::SystemTime;

use sabot_proto::sabot::v1;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::cluster;
use crate::error::CliError;
use crate::output::Output;
use crate::quick::{self, Quick};
use crate::render;
use crate::view::{NodeDoc, TargetDoc, TargetsDoc};

/// `definition` is the command line's own, for completions. What can be wrong without the daemon is said without it.
pub(crate) async fn run(cli: Cli, definition: clap::Command) -> Result<(), CliError> {
    let output = Output {
        format: cli.global.output,
    };
    if cli.global.cluster.is_asked() {
        if let Some(server) = &cli.global.remote.server {
            return Err(CliError::Usage(format!(
                "--server {server} is one daemon, and --cluster and its like ask those of a cluster: give one of them"
            )));
        }
        return cluster::run(&cli.global, cli.command, output, definition).await;
    }
    let connect = async || Client::connect(&cli.global).await;
    on_one_node(connect, cli.command, output, definition).await
}

/// What a command does with one daemon, which is connected to when nothing else is wrong.
pub(crate) async fn on_one_node(
    connect: impl AsyncFn() -> Result<Client, CliError>,
    command: Command,
    output: Output,
    definition: clap::Command,
) -> Result<(), CliError> {
    match command {
        Command::Completions { shell } => completions(shell, definition),
        Command::Quick(command) => match quick::faults(&command, SystemTime::now())? {
            (Quick::One(manifest), how) => apply::one(&connect().await?, output, *manifest, how).await,
            (Quick::Ends(ends), how) => {
                apply::several(&connect().await?, output, Vec::from(*ends), how).await
            }
        },
        Command::Apply(args) => {
            let manifests = apply::read(&args.file)?;
            apply::several(&connect().await?, output, manifests, args.how).await
        }
        Command::Get {
            name,
            namespace,
            active,
        } => get::run(&connect().await?, output, name, namespace, active).await,
        // Without --all there are names.
        Command::Delete {
            names,
            namespace,
            all: _,
        } => delete::run(&connect().await?, output, &names, namespace).await,
        Command::Targets { namespace } => targets(&connect().await?, output, namespace).await,
        Command::Watch {
            name,
            namespace,
            interval,
        } => watch::run(&connect().await?, output, name.as_deref(), namespace, interval).await,
        Command::Events(args) => events::run(&connect().await?, output, args).await,
        Command::Trace { change } => trace::run(&connect().await?, output, change).await,
        Command::Timeline { name, namespace } => {
            timeline::run(&connect().await?, output, &name, namespace.as_deref()).await
        }
        Command::Flows(args) => flows::run(&connect().await?, output, args).await,
        Command::Top { interval, count } => top::run(&connect().await?, output, interval, count).await,
        Command::Node => node(&connect().await?, output).await,
    }
}

fn completions(shell: clap_complete::Shell, mut definition: clap::Command) -> Result<(), CliError> {
    // By way of memory, since the generator panics where it can't write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "sabot", &mut script);
    let mut stdout = io::stdout().lock();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(())
}

async fn targets(client: &Client, output: Output, namespace: Option<String>) -> Result<(), CliError> {
    let targets = list_targets(client, namespace).await?;
    output.document(&TargetsDoc { targets }, render::targets)
}

pub(crate) async fn list_targets(
    client: &Client,
    namespace: Option<String>,
) -> Result<Vec<TargetDoc>, CliError> {
    let request = v1::ListTargetsRequest { namespace };
    let answer = client
        .answer("listing targets", client.node().list_targets(request))
        .await?;
    Ok(answer.targets.into_iter().map(TargetDoc::from).collect())
}

async fn node(client: &Client, output: Output) -> Result<(), CliError> {
    output.document(&get_node(client).await?, render::node)
}

pub(crate) async fn get_node(client: &Client) -> Result<NodeDoc, CliError> {
    let answer = client
        .answer(
            "asking about the node",
            client.node().get_node(v1::GetNodeRequest {}),
        )
        .await?;
    NodeDoc::try_from(answer.node.unwrap_or_default())
}
