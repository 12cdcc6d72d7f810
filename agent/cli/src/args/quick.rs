//! The quick forms: a fault in one line.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use sabot_core::quick::{
    BurstForm, BytesForm, DscpForm, GilbertElliottForm, LengthForm, OffsetForm, PeerForm, PercentForm,
    PortForm, PulseForm, RampForm, RateForm, TargetForm,
};

use super::{HowArgs, PartitionArgs, duration};

/// A fault in one line, a command for each action.
#[derive(Debug, Subcommand)]
pub(crate) enum QuickCommand {
    /// Let nothing pass between a target and its peers, or between two ends.
    #[command(
        after_help = QUICK_HELP,
        mut_arg("target", |target| target.required(false).required_unless_present("between"))
    )]
    Partition(PartitionArgs),
    /// Drop packets: a share of them, in bursts, by their number, or of some connections.
    #[command(after_help = QUICK_HELP)]
    Drop(DropArgs),
    /// Hold each packet back for a while.
    #[command(after_help = QUICK_HELP)]
    Delay(DelayArgs),
    /// Change a byte in a share of the packets.
    #[command(after_help = QUICK_HELP)]
    Corrupt(CorruptArgs),
    /// Send a share of the packets several times.
    #[command(after_help = QUICK_HELP)]
    Duplicate(DuplicateArgs),
    /// Hold a share of the packets back until later ones have passed them.
    #[command(after_help = QUICK_HELP)]
    Reorder(ReorderArgs),
    /// Let only so many bits a second pass, for each target and direction.
    #[command(after_help = QUICK_HELP)]
    RateLimit(RateLimitArgs),
    /// Answer each packet with an ICMP error: connections fail at once.
    #[command(after_help = QUICK_HELP)]
    Reject {
        /// What the error says. Default: port-unreachable.
        #[arg(long, value_name = "CODE", value_parser = ["net-unreachable", "host-unreachable", "port-unreachable", "admin-prohibited"])]
        code: Option<String>,
        #[command(flatten)]
        fault: FaultArgs,
    },
    /// Answer each TCP packet with resets: connections end at once.
    #[command(after_help = QUICK_HELP)]
    Reset {
        /// Which end gets one. Default: both.
        #[arg(long, value_name = "END", value_parser = ["target", "peer", "both"])]
        to: Option<String>,
        #[command(flatten)]
        fault: FaultArgs,
    },
}

const QUICK_HELP: &str = "\
Targets: pod:NS/NAME, pods:NS/LABELSELECTOR, interface:NAME, netns:PATH
Peers:   pod:NS/NAME, pods:NS/LABELSELECTOR, ip:ADDRESS, cidr:NETWORK[,except=NETWORK]…, host:NAME
Ports:   PORT (of TCP), TCP:8000-8099, source:TCP:443, destination:UDP:53, SCTP:PORT, ICMP, ICMP:8/0, ICMPv6, …";

/// One model of loss, or `--only` alone.
#[derive(Clone, Debug, Args)]
pub(crate) struct DropArgs {
    /// Each packet with this probability, from 0 to 100, as `20%` or `0.5`.
    #[arg(allow_negative_numbers = true, group = "model",
        required_unless_present_any = ["burst", "gilbert_elliott", "every", "first", "flows", "only"])]
    pub(crate) percent: Option<PercentForm>,
    /// In bursts: the loss and the mean number of packets of a burst, as `2%:8`.
    #[arg(long, group = "model", value_name = "PERCENT:LENGTH")]
    pub(crate) burst: Option<BurstForm>,
    /// By a good and a bad state: percents from good to bad, from bad to good, and lost in the good and in the bad one, as
    /// `1:25:0:100`.
    #[arg(long, group = "model", value_name = "P:R[:GOOD[:BAD]]")]
    pub(crate) gilbert_elliott: Option<GilbertElliottForm>,
    /// Every N-th packet.
    #[arg(long, group = "model", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every: Option<u32>,
    /// The first N packets of each connection, in each direction.
    #[arg(long, group = "model", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) first: Option<u32>,
    /// All packets of this share of the connections.
    #[arg(long, group = "model", value_name = "PERCENT")]
    pub(crate) flows: Option<PercentForm>,
    /// Only packets that open a TCP connection: `syn`, or with the answer, `handshake`. Without a share: all of them.
    #[arg(long, value_name = "PACKETS", value_parser = ["syn", "handshake"])]
    pub(crate) only: Option<String>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DelayArgs {
    /// How long, as `100ms`.
    #[arg(value_parser = duration, required_unless_present = "quantiles")]
    pub(crate) latency: Option<Duration>,
    /// Spread the delay around the latency; not above it.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "quantiles")]
    pub(crate) jitter: Option<Duration>,
    /// How the jitter is distributed. Default: uniform.
    #[arg(long, value_name = "NAME", requires = "jitter",
        value_parser = ["uniform", "normal", "pareto", "paretoNormal"])]
    pub(crate) distribution: Option<String>,
    /// The distribution itself: delays at equally spaced probabilities, as `5ms,9ms,40ms`.
    #[arg(long, value_name = "DURATION,…", value_parser = duration, value_delimiter = ',',
        conflicts_with_all = ["latency", "jitter", "distribution"])]
    pub(crate) quantiles: Vec<Duration>,
    /// How much a packet's delay follows the one before, from 0 to below 100.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) correlation: Option<PercentForm>,
    /// Let a packet overtake an earlier one of its flow that got a longer delay.
    #[arg(long)]
    pub(crate) allow_reorder: bool,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CorruptArgs {
    /// From 0 to 100, as `20%` or `0.5`.
    #[arg(allow_negative_numbers = true)]
    pub(crate) percent: PercentForm,
    /// `payload`: with a valid checksum, so that the application sees it; `wire`: the receiver's stack rejects the packet.
    /// Default: payload.
    #[arg(long, value_name = "KIND", value_parser = ["payload", "wire"])]
    pub(crate) kind: Option<String>,
    /// How many bits of the byte, 1 to 8. Default: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) bits: Option<u32>,
    /// Among which bytes of the payload, without the last, as `0-100`. Default: all.
    #[arg(long, value_name = "FROM-TO", allow_hyphen_values = true)]
    pub(crate) offset: Option<OffsetForm>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DuplicateArgs {
    /// From 0 to 100, as `20%` or `0.5`.
    #[arg(allow_negative_numbers = true)]
    pub(crate) percent: PercentForm,
    /// How many copies, 1 to 10. Default: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub(crate) copies: Option<u32>,
    /// How much later the copies go. Default: at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) delay: Option<Duration>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReorderArgs {
    /// From 0 to 100, as `20%` or `0.5`.
    #[arg(allow_negative_numbers = true)]
    pub(crate) percent: PercentForm,
    /// Until so many later packets of the flow have passed, 1 to 1000.
    #[arg(long, value_name = "N", required_unless_present = "delay",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) gap: Option<u32>,
    /// For so long; with --gap: at most. Default beside --gap: 100ms.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) delay: Option<Duration>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RateLimitArgs {
    /// As tc writes it: `10mbit`, `1.5gbit`, `800kbit`, or bits per second.
    pub(crate) rate: RateForm,
    /// Bytes that may leave at once after a pause, as `16KiB`. Default: 1 ms of the rate, at least 3028.
    #[arg(long, value_name = "BYTES")]
    pub(crate) burst: Option<BytesForm>,
    /// How long a packet may wait before later ones are dropped. Default: 100ms.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "queue_bytes")]
    pub(crate) queue_time: Option<Duration>,
    /// How many bytes may wait before later ones are dropped, as `256KiB`.
    #[arg(long, value_name = "BYTES")]
    pub(crate) queue_bytes: Option<BytesForm>,
    #[command(flatten)]
    pub(crate) fault: FaultArgs,
}

/// What every quick form of a fault has.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArgs {
    /// Whose traffic is affected, as `pods:shop/app=web`.
    #[arg(long, value_name = "FORM", required = true)]
    pub(crate) target: Option<TargetForm>,
    /// The other end, as `pod:shop/db-0`; may be repeated. Default: every other end.
    #[arg(long = "peer", value_name = "FORM")]
    pub(crate) peers: Vec<PeerForm>,
    /// Only this port or protocol, as `UDP:53`; may be repeated. Default: all traffic.
    #[arg(long = "port", value_name = "FORM")]
    pub(crate) ports: Vec<PortForm>,
    /// Only packets with these DSCP code points, as `46,0`.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) dscp: Vec<DscpForm>,
    /// Only IP packets of these lengths, as `100-1500`.
    #[arg(long, value_name = "MIN-MAX", allow_hyphen_values = true)]
    pub(crate) length: Option<LengthForm>,
    /// Only traffic that leaves the target, or that arrives at it.
    #[arg(long, value_enum, default_value_t = DirectionArg::Both)]
    pub(crate) direction: DirectionArg,
    /// How long the fault lasts, as `30s` or `5m`.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Duration,
    /// The fault's name. Default: made from the action and the target.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(crate) name: Option<String>,
    /// The fault's own namespace. Default: none.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Take only some of the pods that match: a number, or a percent as `50%`.
    #[arg(long, value_name = "COUNT|PERCENT")]
    pub(crate) pick: Option<PickArg>,
    /// What every choice follows from: of packets, and of pods with --pick. Default: sabotd draws one for the packets, and
    /// the pods are those of 0.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// When it starts (RFC 3339, as `2030-01-31T12:00:00Z`). Default: at once.
    #[arg(long, value_name = "TIME", conflicts_with = "starts_in", value_parser = humantime::parse_rfc3339_weak)]
    pub(crate) starts_at: Option<SystemTime>,
    /// In how long it starts, as `10s`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) starts_in: Option<Duration>,
    /// From the start on in force for ON, then not for OFF, and so on, as `10s/5s`.
    #[arg(long, value_name = "ON/OFF")]
    pub(crate) pulse: Option<PulseForm>,
    /// Move the action's value over a time, from 0 to 100 percent of it or as said, as `60s` or `60s:50..200`.
    #[arg(long, value_name = "OVER[:FROM..TO]")]
    pub(crate) ramp: Option<RampForm>,
    /// Hit traffic with the node's own addresses too, and with it the kubelet's probes.
    #[arg(long)]
    pub(crate) no_spare_node: bool,
    /// On a device of the node, hit its SSH, kubelet, API server and Sabot's own connections too.
    #[arg(long)]
    pub(crate) allow_control_plane: bool,
    /// Report one in this many packets as an event; 0: none. Default: what sabotd was told.
    #[arg(long, value_name = "N")]
    pub(crate) sample_every: Option<u32>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DirectionArg {
    Egress,
    Ingress,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PickArg {
    Count(u32),
    Percent(f64),
}

impl std::str::FromStr for PickArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            let percent: PercentForm = text.parse().map_err(|e| format!("{e}"))?;
            return Ok(Self::Percent(percent.0));
        }
        text.parse()
            .map(Self::Count)
            .map_err(|_| "neither a number of pods, as 2, nor a percent, as 50%".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_numbers_or_percents() {
        assert_eq!("2".parse(), Ok(PickArg::Count(2)));
        assert_eq!("50%".parse(), Ok(PickArg::Percent(50.0)));
        for bad in ["", "-1", "half", "101%"] {
            assert!(bad.parse::<PickArg>().is_err(), "{bad}");
        }
    }
}
