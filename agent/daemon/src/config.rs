//! Flags, environment and file, merged into one [`Config`].
//!
//! Every setting has the same name everywhere: `--keep-warm`, `SABOT_KEEP_WARM`, and `keep-warm` in the TOML file. A flag
//! goes before the environment, the environment before the file, the file before the default. What belongs together has a
//! table in the file: `--guard-…` is in `[guard]`, `--tls-…` in `[tls]`, and who may do what in `[roles]`.

mod guards;
mod peers;
mod remote;
mod settings;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

pub use self::guards::GuardConfig;
pub use self::peers::PeerClasses;
pub use self::remote::{RemoteConfig, Roles, TlsFiles};
use self::settings::Settings;
use crate::observe::syscalls::{CGROUP, CONTAINER, is_cgroup, is_container};
use crate::targets::RuntimeEndpoint;

/// Read when it exists and `--config` names no other.
pub const DEFAULT_FILE: &str = "/etc/sabot/sabotd.toml";

/// A frame with its GSO payload must fit into any line.
const LEAST_LINE_BYTES: u64 = 256 << 10;
const LONGEST_COMM: usize = 15;
/// The kernel takes their memory, some 170 MiB, at once.
const MOST_TCP_CONNECTIONS: u32 = 1 << 20;

/// Everything that can be set, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The gRPC socket, mode 0600.
    pub socket: PathBuf,
    /// Where gRPC is served with mutual TLS; `None`: nowhere.
    pub remote: Option<RemoteConfig>,
    pub guards: GuardConfig,
    /// `None`: nothing is written.
    pub audit_log: Option<AuditPlace>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    pub runtime_endpoint: RuntimeEndpoint,
    /// How often the runtime is listed where it offers no events.
    pub runtime_poll: Duration,
    pub node_name: String,
    pub kubernetes: KubernetesMode,
    /// Where the cluster is, for a daemon that runs outside of it.
    pub kubeconfig: Option<PathBuf>,
    /// No fault lives longer.
    pub max_duration: Duration,
    pub log: LogConfig,
    /// How long an attachment outlives its last fault.
    pub keep_warm: Duration,
    pub attach: Attach,
    pub hook: Hook,
    /// Bytes that one target's delay line holds at most.
    pub delay_line_bytes: u64,
    /// Bytes that all delay lines together hold at most.
    pub delay_line_total_bytes: u64,
    /// The delay line's thread may run at the lowest real-time priority.
    pub delay_line_real_time: bool,
    /// How long an ended fault stays listed with its last counters.
    pub keep_ended: Duration,
    pub syscalls: ObserveMode,
    /// Process names watched beside the built-in ones.
    pub syscall_processes: Vec<String>,
    /// Cgroups whose processes are watched, by their paths below the v2 root.
    pub syscall_cgroups: Vec<String>,
    /// As `kube-system/etcd`; besides the defaults.
    pub syscall_containers: Vec<String>,
    /// Calls that take longer are reported as events.
    pub slow_syscall: Duration,
    /// Whether the calls of the container runtime's clients are observed.
    pub cri_calls: bool,
    /// When TCP connections are observed.
    pub tcp: ObserveMode,
    /// TCP connections that are followed at once.
    pub tcp_connections: u32,
    /// Whose addresses are whose, beside what the daemon finds by itself.
    pub peer_classes: PeerClasses,
    /// When the kernel measures how long the programs run.
    pub measure_programs: MeasureMode,
    /// For faults that don't say: one in this many decided packets is reported as an event; 0: none.
    pub sample_every: u32,
    /// Events that a slow subscriber may lag behind before it loses some.
    pub event_buffer: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Directives of `tracing_subscriber`'s `EnvFilter`, checked.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    Stderr,
    File(PathBuf),
}

/// When programs are attached to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// When a fault needs it, and for a while after.
    Recent,
    /// As the pod appears, so that its first fault finds it warm.
    All,
}

/// Where programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// tcx where the kernel has it.
    Auto,
    Tcx,
    Clsact,
}

/// Whether the cluster's API server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubernetesMode {
    /// Where one is known, by the kubeconfig or by the pod's service account.
    Auto,
    Off,
}

/// When something is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObserveMode {
    Always,
    /// Only while a fault is active.
    Active,
    Never,
}

/// When the runs of our programs are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MeasureMode {
    Never,
    /// One second out of every 30.
    Sampled,
    Always,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Help, version, or a usage error: clap's text is complete and goes out as it is.
    #[error("{0}")]
    Usage(clap::Error),
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {} is invalid: {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{setting}: `{given}` is not allowed: {allowed}")]
    Invalid {
        setting: &'static str,
        given: String,
        allowed: String,
    },
    #[error("node-name: none was given and the host's name can't be read: {0}")]
    HostName(std::io::Error),
}

/// What the process is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Be the daemon.
    Serve(Box<Config>),
    /// Connect the standard input and output with the daemon that serves this socket.
    Bridge { socket: PathBuf },
    /// Remove what the daemon with this pid leaves, as soon as it has ended.
    Reaper { owner: u32 },
}

/// Sabot's node daemon: injects network faults into pods and network namespaces, and observes what they do.
#[derive(Debug, Parser)]
#[command(
    name = "sabotd",
    version,
    about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    /// A TOML file with the same settings, by the names of the flags [default: /etc/sabot/sabotd.toml if it exists]
    #[arg(long, env = "SABOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy the standard input to the socket of the daemon that runs here, and what it answers to the standard output.
    ///
    /// The cluster-wide client runs this in a daemon's container, and speaks gRPC over it. It ends with either side.
    Bridge(BridgeArgs),
    /// Wait for the end of the standard input, and then remove the filters of a daemon. The daemon starts it by itself.
    #[command(hide = true)]
    Reaper {
        /// The daemon's pid.
        #[arg(long)]
        owner: u32,
    },
}

#[derive(Debug, Args)]
struct BridgeArgs {
    /// The daemon's configuration file, which may name its socket [default: /etc/sabot/sabotd.toml if it exists]
    #[arg(long, env = "SABOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's socket [default: /run/sabot/sabotd.sock]
    #[arg(long, env = "SABOT_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Invocation {
    /// Merges the command line (with the environment) and the configuration file over the defaults.
    ///
    /// # Errors
    /// Bad flags, an unreadable or invalid file, a value out of its bounds; each names the setting and what is allowed.
    pub fn load<I, T>(arguments: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let line = CommandLine::try_parse_from(arguments).map_err(ConfigError::Usage)?;
        let bridge = match line.command {
            Some(Command::Bridge(bridge)) => bridge,
            Some(Command::Reaper { owner }) => return Ok(Self::Reaper { owner }),
            None => {
                let settings = with_file(line.settings, line.config.as_deref())?;
                return settings.complete().map(Box::new).map(Self::Serve);
            }
        };
        let given = Settings::of_socket(bridge.socket);
        let socket = with_file(given, bridge.config.as_deref())?.socket();
        check_socket(&socket)?;
        Ok(Self::Bridge { socket })
    }
}

/// The settings over those of the file that is named, or of the one at the usual place if there is one.
fn with_file(settings: Settings, file: Option<&Path>) -> Result<Settings, ConfigError> {
    match file.or_else(|| Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists())) {
        Some(path) => Ok(settings.over(read(path)?)),
        None => Ok(settings),
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::File {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        EnvFilter::try_new(&self.log.filter)
            .map_err(|e| invalid("log-level", &self.log.filter, e.to_string()))?;
        let text = |d: Duration| humantime::format_duration(d).to_string();
        check_socket(&self.socket)?;
        if let Some(AuditPlace::File(path)) = &self.audit_log
            && !path.is_absolute()
        {
            let allowed = "an absolute path is needed, or `stderr`";
            return Err(invalid("audit-log", path.display(), allowed));
        }
        if self.node_name.is_empty() {
            return Err(invalid("node-name", "", "a name is needed"));
        }
        if let (KubernetesMode::Off, Some(path)) = (self.kubernetes, &self.kubeconfig) {
            let allowed = "with `kubernetes` set to off there is nothing that it is for";
            return Err(invalid("kubeconfig", path.display(), allowed));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.runtime_poll) {
            return Err(invalid(
                "runtime-poll",
                text(self.runtime_poll),
                "10ms to 1h are allowed",
            ));
        }
        for (setting, value) in [
            ("max-duration", self.max_duration),
            ("slow-syscall", self.slow_syscall),
        ] {
            if value.is_zero() {
                return Err(invalid(setting, text(value), "a duration above zero is needed"));
            }
        }
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        if self.delay_line_bytes < LEAST_LINE_BYTES {
            return Err(invalid(
                "delay-line-bytes",
                self.delay_line_bytes,
                "at least 256KiB are needed, or a single super-packet may not fit",
            ));
        }
        if self.delay_line_total_bytes < self.delay_line_bytes {
            let allowed = format!("at least delay-line-bytes ({}) is needed", self.delay_line_bytes);
            return Err(invalid(
                "delay-line-total-bytes",
                self.delay_line_total_bytes,
                allowed,
            ));
        }
        if !(1..=1 << 20).contains(&self.event_buffer) {
            return Err(invalid(
                "event-buffer",
                self.event_buffer,
                "1 to 1048576 events are allowed",
            ));
        }
        if !(1..=MOST_TCP_CONNECTIONS).contains(&self.tcp_connections) {
            let allowed = format!("1 to {MOST_TCP_CONNECTIONS} connections are allowed");
            return Err(invalid("tcp-connections", self.tcp_connections, allowed));
        }
        for name in &self.syscall_processes {
            if name.is_empty() || name.len() > LONGEST_COMM {
                let allowed = "the kernel's name of a process has 1 to 15 bytes (see /proc/PID/comm)";
                return Err(invalid("syscall-process", name, allowed));
            }
        }
        for path in &self.syscall_cgroups {
            if !is_cgroup(path) {
                return Err(invalid("syscall-cgroup", path, CGROUP));
            }
        }
        for name in &self.syscall_containers {
            if !is_container(name) {
                return Err(invalid("syscall-container", name, CONTAINER));
            }
        }
        Ok(())
    }
}

fn check_socket(socket: &Path) -> Result<(), ConfigError> {
    if socket.is_absolute() {
        return Ok(());
    }
    Err(invalid("socket", socket.display(), "an absolute path is needed"))
}

fn invalid(setting: &'static str, given: impl fmt::Display, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        setting,
        given: given.to_string(),
        allowed: allowed.into(),
    }
}

#[cfg(test)]
mod tests;
