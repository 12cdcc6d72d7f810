//! What each command does.

mod apply;
mod delete;
mod events;
mod flows;
mod get;
mod timeline;
mod top;
mod trace;
mod watch;

use std::io::{self, Write as _};
use std::time::SystemTime;

use sabot_proto::sabot::v1;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;
use crate::view::{NodeDoc, TargetDoc, TargetsDoc};
use crate::{quick, render};

/// `definition` is the command line's own, for completions. What can be wrong without the daemon is said without it.
pub(crate) async fn run(cli: Cli, definition: clap::Command) -> Result<(), CliError> {
    let output = Output {
        format: cli.global.output,
    };
    let connect = || Client::connect(&cli.global);
    match cli.command {
        Command::Completions { shell } => completions(shell, definition),
        Command::Quick(command) => {
            let (action, args) = quick::parts(&command);
            let manifest = quick::manifest(args, action, SystemTime::now())?;
            apply::one(&connect().await?, output, manifest, args.how).await
        }
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
    let request = v1::ListTargetsRequest { namespace };
    let answer = client
        .answer("listing targets", client.node().list_targets(request))
        .await?;
    let targets = TargetsDoc {
        targets: answer.targets.into_iter().map(TargetDoc::from).collect(),
    };
    output.document(&targets, render::targets)
}

async fn node(client: &Client, output: Output) -> Result<(), CliError> {
    let answer = client
        .answer(
            "asking about the node",
            client.node().get_node(v1::GetNodeRequest {}),
        )
        .await?;
    let node = NodeDoc::try_from(answer.node.unwrap_or_default())?;
    output.document(&node, render::node)
}
