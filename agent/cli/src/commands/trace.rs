//! Showing and changing whose syscalls are traced.

use sabot_proto::sabot::v1;

use crate::args::{TraceArgs, TraceCommand};
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;
use crate::render;
use crate::view::TracingDoc;

const ASKING: &str = "asking what is traced";
const CHANGING: &str = "changing what is traced";

/// Without a change it is shown as it is.
pub(super) async fn run(
    client: &Client,
    output: Output,
    change: Option<TraceCommand>,
) -> Result<(), CliError> {
    let tracing = match change {
        None => current(client).await?,
        Some(TraceCommand::Set(args)) => set(client, wanted(args)).await?,
        Some(TraceCommand::Add(args)) => {
            let now = current(client).await?;
            set(client, added(now, args)).await?
        }
        Some(TraceCommand::Remove(args)) => {
            let now = current(client).await?;
            set(client, removed(now, &args)?).await?
        }
    };
    output.document(&TracingDoc::from(tracing), render::tracing)
}

async fn current(client: &Client) -> Result<v1::Tracing, CliError> {
    let answer = client
        .answer(ASKING, client.observe().get_tracing(v1::GetTracingRequest {}))
        .await?;
    Ok(answer.tracing.unwrap_or_default())
}

async fn set(client: &Client, tracing: v1::Tracing) -> Result<v1::Tracing, CliError> {
    let request = v1::SetTracingRequest {
        tracing: Some(tracing),
    };
    let answer = client
        .answer(CHANGING, client.observe().set_tracing(request))
        .await?;
    Ok(answer.tracing.unwrap_or_default())
}

fn wanted(args: TraceArgs) -> v1::Tracing {
    v1::Tracing {
        processes: args.processes,
        syscalls: args.syscalls,
        cgroups: args.cgroups,
        containers: args.containers,
    }
}

fn added(now: v1::Tracing, args: TraceArgs) -> v1::Tracing {
    let both = |mut known: Vec<String>, more: Vec<String>| {
        for name in more {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        known
    };
    v1::Tracing {
        processes: both(now.processes, args.processes),
        syscalls: both(now.syscalls, args.syscalls),
        cgroups: both(now.cgroups, args.cgroups),
        containers: both(now.containers, args.containers),
    }
}

/// # Errors
///
/// What is to go isn't there, or it is the last syscall: none would mean all.
fn removed(now: v1::Tracing, args: &TraceArgs) -> Result<v1::Tracing, CliError> {
    let without = |flag: &str, known: Vec<String>, gone: &[String]| {
        if let Some(stranger) = gone.iter().find(|name| !known.contains(name)) {
            let traced = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(CliError::Failed(format!(
                "{flag} {stranger}: it is not among those that are traced: {traced}"
            )));
        }
        Ok(known
            .into_iter()
            .filter(|name| !gone.contains(name))
            .collect::<Vec<_>>())
    };
    let had_syscalls = !now.syscalls.is_empty();
    let left = v1::Tracing {
        processes: without("--process", now.processes, &args.processes)?,
        syscalls: without("--syscall", now.syscalls, &args.syscalls)?,
        cgroups: without("--cgroup", now.cgroups, &args.cgroups)?,
        containers: without("--container", now.containers, &args.containers)?,
    };
    if had_syscalls && left.syscalls.is_empty() {
        return Err(CliError::Failed(
            "--syscall: without the last of them all syscalls would be traced; use `sabot trace set` for that".to_owned(),
        ));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn args(processes: &[&str], syscalls: &[&str]) -> TraceArgs {
        TraceArgs {
            processes: names(processes),
            syscalls: names(syscalls),
            cgroups: Vec::new(),
            containers: names(&["kube-system/etcd"]),
        }
    }

    fn now() -> v1::Tracing {
        v1::Tracing {
            processes: names(&["kubelet", "runc"]),
            syscalls: names(&["fsync"]),
            cgroups: names(&["/a"]),
            containers: names(&["kube-system/etcd"]),
        }
    }

    #[test]
    fn what_is_added_comes_once() {
        let tracing = added(now(), args(&["etcd", "runc"], &[]));
        assert_eq!(tracing.processes, ["kubelet", "runc", "etcd"]);
        assert_eq!(
            (tracing.syscalls, tracing.cgroups),
            (names(&["fsync"]), names(&["/a"]))
        );
        assert_eq!(tracing.containers, ["kube-system/etcd"]);
    }

    #[test]
    fn only_what_is_there_can_be_removed() {
        let left = removed(now(), &args(&["runc"], &[])).expect("it is there");
        assert_eq!(left.processes, ["kubelet"]);
        assert_eq!(left.containers, Vec::<String>::new());
        let error = removed(now(), &args(&["etcd"], &[])).expect_err("it isn't there");
        assert!(error.to_string().contains("--process etcd"), "{error}");
        let error = removed(now(), &args(&[], &["fsync"])).expect_err("it is the last one");
        assert!(error.to_string().contains("all syscalls"), "{error}");
    }
}
