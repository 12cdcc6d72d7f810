//! One layer of settings, as the command line with the environment, or the file, gives it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer};

use crate::observe::tcp;
use crate::targets::{EndpointError, RuntimeEndpoint};

use super::guards::GuardSettings;
use super::peers;
use super::remote::{self, RoleSettings, TlsSettings};
use super::{
    Attach, AuditPlace, Config, ConfigError, Hook, KubernetesMode, LogConfig, LogFormat, MeasureMode,
    ObserveMode,
};

const MIB: u64 = 1 << 20;

/// One layer of settings: what a source says, and nothing where it is silent.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Settings {
    /// The unix socket that gRPC is served on; one daemon serves it, others need one of their own [default:
    /// /run/sabot/sabotd.sock]
    #[arg(long, env = "SABOT_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Address that gRPC is served on with mutual TLS: --tls-cert, --tls-key and --tls-client-ca are needed with it
    /// [default: none]
    #[arg(long, env = "SABOT_LISTEN", value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,

    #[command(flatten)]
    tls: TlsSettings,

    #[command(flatten)]
    roles: RoleSettings,

    #[command(flatten)]
    guard: GuardSettings,

    /// Where it is written who asked for what and what became of it, as JSON lines: a file, or `stderr` [default: nowhere]
    #[arg(long, env = "SABOT_AUDIT_LOG", value_name = "FILE|stderr")]
    audit_log: Option<PathBuf>,

    /// Address of /metrics, /healthz and /readyz, or `none` [default: 0.0.0.0:9464]
    #[arg(long, env = "SABOT_METRICS_ADDRESS", value_name = "HOST:PORT", value_parser = metrics_address)]
    #[serde(deserialize_with = "with_parser::<_, _, MetricsParser>")]
    metrics_address: Option<MetricsAddress>,

    /// The container runtime's CRI socket, as unix:///run/containerd/containerd.sock; `auto` is the first well-known one
    /// that exists, `none` is no pods [default: auto]
    #[arg(long, env = "SABOT_RUNTIME_ENDPOINT", value_name = "ENDPOINT")]
    #[serde(deserialize_with = "with_parser::<_, _, EndpointParser>")]
    runtime_endpoint: Option<RuntimeEndpoint>,

    /// How often pods are listed where the runtime offers no events [default: 500ms]
    #[arg(long, env = "SABOT_RUNTIME_POLL", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "with_parser::<_, _, DurationParser>")]
    runtime_poll: Option<Duration>,

    /// This node's name, in a cluster as its API server knows it [default: the host's name]
    #[arg(long, env = "SABOT_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    /// Whether the cluster's API server is asked for Services, nodes and pods of other nodes: `auto` where there is a
    /// kubeconfig or a pod's service account [default: auto]
    #[arg(long, env = "SABOT_KUBERNETES", value_enum)]
    kubernetes: Option<KubernetesMode>,

    /// The cluster, and who we are there, for a daemon that doesn't run in a pod [default: the pod's service account]
    #[arg(long, env = "SABOT_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The longest duration that a fault may have [default: 1h]
    #[arg(long, env = "SABOT_MAX_DURATION", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "with_parser::<_, _, DurationParser>")]
    max_duration: Option<Duration>,

    /// How logs are written to stderr [default: text]
    #[arg(long, env = "SABOT_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// What is logged: a level or directives such as `info,sabotd::engine=debug` [default: info]
    #[arg(long, env = "SABOT_LOG_LEVEL", value_name = "DIRECTIVES")]
    log_level: Option<String>,

    /// How long programs stay attached after a target's last fault; the next fault finds them warm [default: 60s]
    #[arg(long, env = "SABOT_KEEP_WARM", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "with_parser::<_, _, DurationParser>")]
    keep_warm: Option<Duration>,

    /// Which pods programs are attached to: those with recent faults, or all as they appear [default: recent]
    #[arg(long, env = "SABOT_ATTACH", value_enum)]
    attach: Option<Attach>,

    /// The kernel's attachment point [default: auto]
    #[arg(long, env = "SABOT_HOOK", value_enum)]
    hook: Option<Hook>,

    /// Bytes that one target's delay line holds at most [default: 64MiB]
    #[arg(long, env = "SABOT_DELAY_LINE_BYTES", value_name = "SIZE", value_parser = size)]
    #[serde(deserialize_with = "with_parser::<_, _, SizeParser>")]
    delay_line_bytes: Option<u64>,

    /// Bytes that all delay lines together hold at most [default: 512MiB]
    #[arg(long, env = "SABOT_DELAY_LINE_TOTAL_BYTES", value_name = "SIZE", value_parser = size)]
    #[serde(deserialize_with = "with_parser::<_, _, SizeParser>")]
    delay_line_total_bytes: Option<u64>,

    /// Whether the delay line's thread may run at the lowest real-time priority [default: true]
    #[arg(long, env = "SABOT_DELAY_LINE_REAL_TIME", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    delay_line_real_time: Option<bool>,

    /// How long ended faults stay listed with their last counters [default: 10m]
    #[arg(long, env = "SABOT_KEEP_ENDED", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "with_parser::<_, _, DurationParser>")]
    keep_ended: Option<Duration>,

    /// When the kubelet's and the runtime's syscalls are traced: `active` is only while faults are active [default: always]
    #[arg(long, env = "SABOT_SYSCALLS", value_enum)]
    syscalls: Option<ObserveMode>,

    /// A process name whose syscalls are traced too; repeatable, in the environment separated by commas
    #[arg(
        long = "syscall-process",
        env = "SABOT_SYSCALL_PROCESS",
        value_name = "COMM",
        value_delimiter = ','
    )]
    #[serde(rename = "syscall-process")]
    syscall_process: Option<Vec<String>>,

    /// A cgroup whose processes' syscalls are traced too, whether it is there yet or not, by its path below the root of
    /// cgroup v2; repeatable, in the environment separated by commas
    #[arg(
        long = "syscall-cgroup",
        env = "SABOT_SYSCALL_CGROUP",
        value_name = "PATH",
        value_delimiter = ','
    )]
    #[serde(rename = "syscall-cgroup")]
    syscall_cgroup: Option<Vec<String>>,

    /// Containers whose processes' syscalls are traced too, by their pods' namespace and their own name, as
    /// `kube-system/etcd`; repeatable, in the environment separated by commas
    #[arg(
        long = "syscall-container",
        env = "SABOT_SYSCALL_CONTAINER",
        value_name = "NAMESPACE/CONTAINER",
        value_delimiter = ','
    )]
    #[serde(rename = "syscall-container")]
    syscall_container: Option<Vec<String>>,

    /// Syscalls that take longer are reported as events [default: 100ms]
    #[arg(long, env = "SABOT_SLOW_SYSCALL", value_name = "DURATION", value_parser = duration)]
    #[serde(deserialize_with = "with_parser::<_, _, DurationParser>")]
    slow_syscall: Option<Duration>,

    /// Whether the calls of the container runtime's clients are observed [default: true]
    #[arg(long, env = "SABOT_CRI_CALLS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    cri_calls: Option<bool>,
    /// When TCP connections are observed: `active` is only while faults are active [default: always]
    #[arg(long, env = "SABOT_TCP", value_enum)]
    tcp: Option<ObserveMode>,

    /// TCP connections that are followed at once, of the whole node; each takes some 170 bytes of the kernel's memory
    /// [default: 65536]
    #[arg(long, env = "SABOT_TCP_CONNECTIONS", value_name = "N")]
    tcp_connections: Option<u32>,

    /// Whose addresses are whose where connections are counted, by class and prefix: pod, service, node, private or public, as
    /// `pod=10.244.0.0/16`; the longest prefix decides, and addresses that the daemon knows by themselves go first;
    /// repeatable, and separated by commas
    #[arg(
        long = "peer-class",
        env = "SABOT_PEER_CLASS",
        value_name = "CLASS=PREFIX",
        value_delimiter = ','
    )]
    #[serde(rename = "peer-class")]
    peer_class: Option<Vec<String>>,

    /// When the kernel measures how long our programs run, for the metrics: `sampled` is for one second out of every 30; it
    /// measures everybody's then, at some 40 ns a run [default: sampled]
    #[arg(long, env = "SABOT_MEASURE_PROGRAMS", value_enum)]
    #[serde(deserialize_with = "measure_mode")]
    measure_programs: Option<MeasureMode>,

    /// Report one in N decided packets as an event, where the fault doesn't say; 0 reports none [default: 100]
    #[arg(long, env = "SABOT_SAMPLE_EVERY", value_name = "N")]
    sample_every: Option<u32>,

    /// Events that a slow subscriber may lag behind before it loses some [default: 4096]
    #[arg(long, env = "SABOT_EVENT_BUFFER", value_name = "EVENTS")]
    event_buffer: Option<usize>,
}

/// `HOST:PORT`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MetricsAddress(Option<SocketAddr>);

impl Settings {
    /// A layer that says at most where the socket is.
    pub(super) fn of_socket(socket: Option<PathBuf>) -> Self {
        Self {
            socket,
            ..Self::default()
        }
    }

    /// The daemon's socket, by this layer or by default.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| PathBuf::from("/run/sabot/sabotd.sock"))
    }

    /// This layer's settings, and the lower one's where this one is silent. What is repeatable adds up.
    pub(super) fn over(self, lower: Self) -> Self {
        let syscall_process = both(self.syscall_process, lower.syscall_process);
        let syscall_cgroup = both(self.syscall_cgroup, lower.syscall_cgroup);
        let syscall_container = both(self.syscall_container, lower.syscall_container);
        let peer_class = both(self.peer_class, lower.peer_class);
        Self {
            socket: self.socket.or(lower.socket),
            listen: self.listen.or(lower.listen),
            tls: self.tls.over(lower.tls),
            roles: self.roles.over(lower.roles),
            guard: self.guard.over(lower.guard),
            audit_log: self.audit_log.or(lower.audit_log),
            metrics_address: self.metrics_address.or(lower.metrics_address),
            runtime_endpoint: self.runtime_endpoint.or(lower.runtime_endpoint),
            runtime_poll: self.runtime_poll.or(lower.runtime_poll),
            node_name: self.node_name.or(lower.node_name),
            kubernetes: self.kubernetes.or(lower.kubernetes),
            kubeconfig: self.kubeconfig.or(lower.kubeconfig),
            max_duration: self.max_duration.or(lower.max_duration),
            log_format: self.log_format.or(lower.log_format),
            log_level: self.log_level.or(lower.log_level),
            keep_warm: self.keep_warm.or(lower.keep_warm),
            attach: self.attach.or(lower.attach),
            hook: self.hook.or(lower.hook),
            delay_line_bytes: self.delay_line_bytes.or(lower.delay_line_bytes),
            delay_line_total_bytes: self.delay_line_total_bytes.or(lower.delay_line_total_bytes),
            delay_line_real_time: self.delay_line_real_time.or(lower.delay_line_real_time),
            keep_ended: self.keep_ended.or(lower.keep_ended),
            syscalls: self.syscalls.or(lower.syscalls),
            syscall_process,
            syscall_cgroup,
            syscall_container,
            slow_syscall: self.slow_syscall.or(lower.slow_syscall),
            cri_calls: self.cri_calls.or(lower.cri_calls),
            tcp: self.tcp.or(lower.tcp),
            tcp_connections: self.tcp_connections.or(lower.tcp_connections),
            peer_class,
            measure_programs: self.measure_programs.or(lower.measure_programs),
            sample_every: self.sample_every.or(lower.sample_every),
            event_buffer: self.event_buffer.or(lower.event_buffer),
        }
    }

    /// Fills in the defaults and checks every bound.
    pub(super) fn complete(self) -> Result<Config, ConfigError> {
        let config = Config {
            socket: self.socket(),
            remote: remote::complete(self.listen, self.tls, self.roles)?,
            guards: self.guard.complete()?,
            audit_log: self.audit_log.map(audit_log),
            metrics_address: match self.metrics_address {
                Some(MetricsAddress(address)) => address,
                None => Some(SocketAddr::from(([0, 0, 0, 0], 9464))),
            },
            runtime_endpoint: self.runtime_endpoint.unwrap_or_default(),
            runtime_poll: self.runtime_poll.unwrap_or(Duration::from_millis(500)),
            node_name: match self.node_name {
                Some(name) => name,
                None => host_name().map_err(ConfigError::HostName)?,
            },
            kubernetes: self.kubernetes.unwrap_or(KubernetesMode::Auto),
            kubeconfig: self.kubeconfig,
            max_duration: self.max_duration.unwrap_or(Duration::from_secs(3600)),
            log: LogConfig {
                format: self.log_format.unwrap_or(LogFormat::Text),
                filter: self.log_level.unwrap_or_else(|| "info".to_owned()),
            },
            keep_warm: self.keep_warm.unwrap_or(Duration::from_secs(60)),
            attach: self.attach.unwrap_or(Attach::Recent),
            hook: self.hook.unwrap_or(Hook::Auto),
            delay_line_bytes: self.delay_line_bytes.unwrap_or(64 * MIB),
            delay_line_total_bytes: self.delay_line_total_bytes.unwrap_or(512 * MIB),
            delay_line_real_time: self.delay_line_real_time.unwrap_or(true),
            keep_ended: self.keep_ended.unwrap_or(Duration::from_secs(600)),
            syscalls: self.syscalls.unwrap_or(ObserveMode::Always),
            syscall_processes: self.syscall_process.unwrap_or_default(),
            syscall_cgroups: self.syscall_cgroup.unwrap_or_default(),
            syscall_containers: self.syscall_container.unwrap_or_default(),
            slow_syscall: self.slow_syscall.unwrap_or(Duration::from_millis(100)),
            cri_calls: self.cri_calls.unwrap_or(true),
            tcp: self.tcp.unwrap_or(ObserveMode::Always),
            tcp_connections: self.tcp_connections.unwrap_or(tcp::DEFAULTS.connections),
            peer_classes: peers::classes(self.peer_class)?,
            measure_programs: self.measure_programs.unwrap_or(MeasureMode::Sampled),
            sample_every: self.sample_every.unwrap_or(100),
            event_buffer: self.event_buffer.unwrap_or(4096),
        };
        config.check()?;
        Ok(config)
    }
}

/// The lower layer's values come first.
pub(super) fn both<T>(upper: Option<Vec<T>>, lower: Option<Vec<T>>) -> Option<Vec<T>> {
    match (upper, lower) {
        (Some(upper), Some(lower)) => Some(lower.into_iter().chain(upper).collect()),
        (upper, lower) => upper.or(lower),
    }
}

fn audit_log(path: PathBuf) -> AuditPlace {
    if path.as_os_str() == "stderr" {
        AuditPlace::Stderr
    } else {
        AuditPlace::File(path)
    }
}

fn host_name() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?
        .trim()
        .to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("not a duration such as 500ms, 60s or 1h30m: {e}"))
}

/// Bytes: `262144`, `256KiB`, `64MiB`, `1GiB`, or with the decimal `kB`, `MB`, `GB`.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => {
            return Err(format!(
                "`{other}` is not a unit; B, KiB, MiB, GiB, kB, MB, GB are"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|e| format!("not a size such as 64MiB: {e}"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "more than 64 bits hold".to_owned())
}

fn metrics_address(text: &str) -> Result<MetricsAddress, String> {
    if text == "none" {
        return Ok(MetricsAddress(None));
    }
    text.parse()
        .map(|address| MetricsAddress(Some(address)))
        .map_err(|_| "an address and port such as 0.0.0.0:9464 or [::]:9464 is needed, or `none`".to_owned())
}

/// One of its words: `true` and `false`, which might be taken for some of them, are answered with what they are.
fn measure_mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MeasureMode>, D::Error> {
    let written = toml::Value::deserialize(from)?;
    let text = written
        .as_str()
        .map_or_else(|| written.to_string(), str::to_owned);
    let mode = MeasureMode::from_str(&text, false).map_err(|_| {
        let message = format_args!("`{text}` is not allowed: never, sampled and always are");
        serde::de::Error::custom(message)
    });
    mode.map(Some)
}

/// How a setting's text is read, for the flag and the file alike.
pub(super) trait TextParser<T> {
    fn parse(text: &str) -> Result<T, String>;
}

struct DurationParser;
struct SizeParser;
struct MetricsParser;
struct EndpointParser;

impl TextParser<Duration> for DurationParser {
    fn parse(text: &str) -> Result<Duration, String> {
        duration(text)
    }
}

impl TextParser<u64> for SizeParser {
    fn parse(text: &str) -> Result<u64, String> {
        size(text)
    }
}

impl TextParser<MetricsAddress> for MetricsParser {
    fn parse(text: &str) -> Result<MetricsAddress, String> {
        metrics_address(text)
    }
}

impl TextParser<RuntimeEndpoint> for EndpointParser {
    fn parse(text: &str) -> Result<RuntimeEndpoint, String> {
        text.parse().map_err(|e: EndpointError| e.to_string())
    }
}

pub(super) fn with_parser<'de, T, D: Deserializer<'de>, P: TextParser<T>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    /// Sizes may be written as plain numbers too.
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a number is needed")]
    enum Written {
        Text(String),
        Number(u64),
    }
    let text = match Written::deserialize(from)? {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    P::parse(&text)
        .map(Some)
        .map_err(|e| serde::de::Error::custom(format_args!("`{text}`: {e}")))
}
