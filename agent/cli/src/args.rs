//! The command line.

mod cluster;
mod ends;
mod quick;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sabot_proto::sabot::v1;

pub(crate) use cluster::ClusterArgs;
pub(crate) use ends::{EndForm, PartitionArgs};
pub(crate) use quick::{
    CorruptArgs, DelayArgs, DirectionArg, DropArgs, DuplicateArgs, FaultArgs, PickArg, QuickCommand,
    RateLimitArgs, ReorderArgs,
};

use crate::remote::RemoteArgs;

pub(crate) const DEFAULT_SOCKET: &str = "/run/sabot/sabotd.sock";

/// Inject network faults into pods and other targets of this node, and watch what they do.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid fault, 3 sabotd is not reachable, 4 refused by sabotd since
/// this machine can't do it, a guard forbids it, a limit is reached or the caller may not do it.
#[derive(Debug, Parser)]
#[command(name = "sabot", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The socket of sabotd.
    #[arg(long, global = true, env = "SABOT_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// How to print the result.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// How long sabotd may take to answer, beside what --wait adds.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Quick(Box<QuickCommand>),
    /// Apply faults from a file of YAML documents.
    Apply(ApplyArgs),
    /// Show one fault with its counters, or all.
    Get {
        /// NAME or NAMESPACE/NAME.
        name: Option<String>,
        /// The fault's namespace; without a NAME: only faults of this one.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Leave out expired and deleted faults.
        #[arg(long, conflicts_with = "name")]
        active: bool,
    },
    /// Delete faults; their traffic flows again when this returns.
    Delete {
        /// NAME or NAMESPACE/NAME.
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// The faults' namespace; with --all: only faults of this one.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Delete every active fault.
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Show what faults can mean on this node.
    Targets {
        /// Only pods of this namespace.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Follow faults and their counters as they change.
    Watch {
        /// NAME or NAMESPACE/NAME; the watch then ends with the fault.
        name: Option<String>,
        /// The fault's namespace; without a NAME: only faults of this one.
        #[arg(short, long)]
        namespace: Option<String>,
        /// How often the counters are read.
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
        interval: Duration,
    },
    /// Follow events: sampled packets, slow and failed syscalls, what happens to TCP connections, drops, DNS queries that
    /// went wrong, calls of the container runtime, changes of faults.
    Events(EventArgs),
    /// Show whose syscalls are traced, or change that until sabotd ends.
    Trace {
        #[command(subcommand)]
        change: Option<TraceCommand>,
    },
    /// Show what a fault did to each of its targets, and when: from its application to the recovery.
    Timeline {
        /// NAME or NAMESPACE/NAME.
        name: String,
        /// The fault's namespace.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Show the busiest of the TCP connections that are open, and of the flows of UDP, which are counted for a moment.
    Flows(FlowArgs),
    /// Follow what pods and processes go through, as rates: round trips, retransmits, drops, syscalls, and the faults in force.
    ///
    /// With -o json one line for each interval.
    Top {
        /// Between two looks.
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
        interval: Duration,
        /// End after so many intervals; without it, go on until Ctrl-C.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Show what works on this node and what doesn't, and why.
    Node,
    /// Print a script that completes this command line in a shell.
    Completions { shell: Shell },
}

/// How to apply.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct HowArgs {
    /// Only show what would be touched.
    #[arg(long, conflicts_with_all = ["wait", "watch"])]
    pub(crate) dry_run: bool,
    /// How long to wait until the fault is in force, and fail if it isn't by then; `0s`: don't wait.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Follow the fault until it ends.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The file to read; `-` is the standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Trace this and nothing else.
    Set(TraceArgs),
    /// Trace this too.
    Add(TraceArgs),
    /// No longer trace this; its counters go.
    Remove(TraceArgs),
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct TraceArgs {
    /// Processes of this name, as /proc/PID/comm has it; may be repeated.
    #[arg(long = "process", value_name = "COMM")]
    pub(crate) processes: Vec<String>,
    /// Only this syscall and others that are given; may be repeated. Without any, all are measured.
    #[arg(long = "syscall", value_name = "NAME")]
    pub(crate) syscalls: Vec<String>,
    /// Processes in this cgroup or below it: its path below the root of cgroup v2; may be repeated.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub(crate) cgroups: Vec<String>,
    /// Processes in containers of this name in pods of this namespace, as kube-system/etcd; may be repeated.
    #[arg(long = "container", value_name = "NAMESPACE/CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EventArgs {
    /// Only events of this type; may be repeated.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) types: Vec<EventTypeArg>,
    /// Only packets and changes of this fault: NAME or NAMESPACE/NAME.
    #[arg(long)]
    pub(crate) fault: Option<String>,
    /// The namespace of --fault.
    #[arg(short, long, requires = "fault")]
    pub(crate) namespace: Option<String>,
    /// Only packets, TCP connections, drops and DNS queries of this pod, and calls of the runtime about it.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod)]
    pub(crate) pod: Option<PodArg>,
    /// Only what happened in containers of this name, or of this id (12 characters are enough), or is about them.
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) container: Option<String>,
    /// Only syscalls of processes of this name, and calls of the runtime by them.
    #[arg(long)]
    pub(crate) process: Option<String>,
    /// Only packets with this outcome.
    #[arg(long, value_enum)]
    pub(crate) outcome: Option<OutcomeArg>,
    /// Only failed syscalls and calls of the runtime.
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only syscalls and calls of the runtime that took at least this long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) min_duration: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FlowArgs {
    /// Only flows of this pod.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod, conflicts_with_all = ["node", "netns"])]
    pub(crate) pod: Option<PodArg>,
    /// Only the node's own flows.
    #[arg(long, conflicts_with = "netns")]
    pub(crate) node: bool,
    /// Only flows of this network namespace, which an active fault has for a target.
    #[arg(long, value_name = "PATH")]
    pub(crate) netns: Option<PathBuf>,
    /// For how long UDP is counted, up to 60s; 0s: not at all, and TCP is told of at once.
    #[arg(long = "for", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// What comes first: those with the most of this.
    #[arg(long, value_enum, default_value_t = FlowOrderArg::Bytes)]
    pub(crate) sort: FlowOrderArg,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowOrderArg {
    Bytes,
    Packets,
    Retransmits,
}

impl From<FlowOrderArg> for v1::FlowOrder {
    fn from(arg: FlowOrderArg) -> Self {
        match arg {
            FlowOrderArg::Bytes => Self::Bytes,
            FlowOrderArg::Packets => Self::Packets,
            FlowOrderArg::Retransmits => Self::Retransmits,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("not a duration such as 100ms, 5m or 1h30m: {e}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventTypeArg {
    Packet,
    Syscall,
    Fault,
    Cri,
    Container,
    Dns,
    Drop,
    Tcp,
}

impl From<EventTypeArg> for v1::EventType {
    fn from(arg: EventTypeArg) -> Self {
        match arg {
            EventTypeArg::Packet => Self::Packet,
            EventTypeArg::Syscall => Self::Syscall,
            EventTypeArg::Fault => Self::Fault,
            EventTypeArg::Cri => Self::Cri,
            EventTypeArg::Container => Self::Container,
            EventTypeArg::Dns => Self::Dns,
            EventTypeArg::Drop => Self::Drop,
            EventTypeArg::Tcp => Self::Tcp,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutcomeArg {
    Passed,
    Dropped,
    Bypassed,
    Delayed,
    Corrupted,
}

impl From<OutcomeArg> for v1::PacketOutcome {
    fn from(arg: OutcomeArg) -> Self {
        match arg {
            OutcomeArg::Passed => Self::Passed,
            OutcomeArg::Dropped => Self::Dropped,
            OutcomeArg::Bypassed => Self::Bypassed,
            OutcomeArg::Delayed => Self::Delayed,
            OutcomeArg::Corrupted => Self::Corrupted,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodArg {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

fn pod(text: &str) -> Result<PodArg, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(PodArg {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("not of the form NAMESPACE/NAME".to_owned()),
    }
}

/// The command line as it was invoked: kubectl runs its plugin `kubectl-sabot` for `kubectl sabot`.
pub(crate) fn command(program: Option<&OsStr>) -> clap::Command {
    let command = Cli::command();
    let plugin = program
        .and_then(|p| Path::new(p).file_name())
        .is_some_and(|n| n.to_string_lossy().starts_with("kubectl-"));
    if plugin {
        command.bin_name("kubectl sabot").display_name("kubectl sabot")
    } else {
        command
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn required_parts_are_required() {
        for (line, kind) in [
            ("sabot partition --for 5s", ErrorKind::MissingRequiredArgument),
            (
                "sabot partition --target interface:eth0",
                ErrorKind::MissingRequiredArgument,
            ),
            ("sabot delete", ErrorKind::MissingRequiredArgument),
            ("sabot delete --all cut", ErrorKind::ArgumentConflict),
            (
                "sabot drop 101 --target interface:eth0 --for 5s",
                ErrorKind::ValueValidation,
            ),
            (
                "sabot drop 10 --target interface:eth0 --for 5",
                ErrorKind::ValueValidation,
            ),
            ("sabot events --pod web", ErrorKind::ValueValidation),
            (
                "sabot partition --target interface:eth0 --for 5s --dry-run --wait 1s",
                ErrorKind::ArgumentConflict,
            ),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for (line, kind) in [
            (
                "sabot drop --target interface:eth0 --for 5s",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sabot drop 10 --every 3 --target interface:eth0 --for 5s",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sabot drop --burst 2:8 --flows 3 --target interface:eth0 --for 5s",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sabot drop --every 0 --target interface:eth0 --for 5s",
                ErrorKind::ValueValidation,
            ),
            (
                "sabot delay --target interface:eth0 --for 5s",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sabot delay 5ms --quantiles 1ms,2ms --target interface:eth0 --for 5s",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sabot delay 5ms --distribution normal --target interface:eth0 --for 5s",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sabot corrupt 1 --bits 9 --target interface:eth0 --for 5s",
                ErrorKind::ValueValidation,
            ),
            (
                "sabot reorder 1 --target interface:eth0 --for 5s",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "sabot rate-limit 10mb --target interface:eth0 --for 5s",
                ErrorKind::ValueValidation,
            ),
            (
                "sabot rate-limit 1mbit --queue-time 1s --queue-bytes 9kB --target interface:eth0 --for 5s",
                ErrorKind::ArgumentConflict,
            ),
            (
                "sabot reject --code gone --target interface:eth0 --for 5s",
                ErrorKind::InvalidValue,
            ),
            (
                "sabot partition --dscp 64 --target interface:eth0 --for 5s",
                ErrorKind::ValueValidation,
            ),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_names_the_command_as_it_was_invoked() {
        for (program, usage) in [
            ("/usr/bin/sabot", "Usage: sabot "),
            ("/usr/bin/kubectl-sabot", "Usage: kubectl sabot "),
        ] {
            let help = command(Some(OsStr::new(program))).render_help().to_string();
            assert!(help.contains(usage), "{help}");
        }
    }
}
