//! Actions: what a fault does to the packets that it names.

use std::time::Duration;

use crate::delay::Distribution;
use crate::loss::GilbertElliott;
use crate::model::Percent;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing passes.
    Partition,
    /// An ICMP or ICMPv6 error answers each packet, which goes no further.
    Reject(RejectCode),
    /// Resets answer each TCP packet, which goes no further; other packets pass.
    Reset(ResetTo),
    Drop(Loss),
    Corrupt(Corrupt),
    Duplicate(Duplicate),
    RateLimit(RateLimit),
    Delay(Delay),
    Reorder(Reorder),
}

impl Action {
    /// The name in the API, in metrics and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Reject(_) => "reject",
            Self::Reset(_) => "reset",
            Self::Drop(_) => "drop",
            Self::Corrupt(_) => "corrupt",
            Self::Duplicate(_) => "duplicate",
            Self::RateLimit(_) => "rate_limit",
            Self::Delay(_) => "delay",
            Self::Reorder(_) => "reorder",
        }
    }

    /// The longest that a packet is held, before a ramp stretches it.
    pub fn longest_hold(&self) -> Duration {
        match self {
            Self::Delay(delay) => delay.longest(),
            Self::Duplicate(duplicate) => duplicate.delay,
            Self::Reorder(reorder) => reorder.delay,
            Self::RateLimit(limit) => match limit.queue {
                QueueBound::Time(time) => time,
                QueueBound::Bytes(bytes) => {
                    let seconds = bytes.saturating_mul(8) / limit.rate.max(1);
                    Duration::from_secs(seconds.saturating_add(1))
                }
            },
            Self::Partition | Self::Reject(_) | Self::Reset(_) | Self::Drop(_) | Self::Corrupt(_) => {
                Duration::ZERO
            }
        }
    }

    /// The share of the packets that are lost in the long run, from 0 to 1. `None` where nothing says how many will be:
    /// with `only` or the first packets of connections that depends on the traffic, and other actions aren't for loss.
    pub fn expected_loss(&self) -> Option<f64> {
        let Self::Drop(Loss { model, only: None }) = self else {
            return None;
        };
        match model {
            LossModel::Percent(percent) | LossModel::Flows(percent) => Some(percent.value() / 100.0),
            LossModel::GilbertElliott(chain) => Some(chain.stationary_loss()),
            LossModel::EveryNth(every) => Some(1.0 / f64::from((*every).max(1))),
            LossModel::FirstOfConnection(_) => None,
        }
    }

    /// The place in the order in which the faults on one target act: what lets the fewest packets on comes first, and
    /// what disturbs their order comes last, so that nothing behind it mends it.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Partition => 0,
            Self::Reject(_) => 1,
            Self::Reset(_) => 2,
            Self::Drop(_) => 3,
            Self::Corrupt(_) => 4,
            Self::Duplicate(_) => 5,
            Self::RateLimit(_) => 6,
            Self::Delay(_) => 7,
            Self::Reorder(_) => 8,
        }
    }
}

/// What packets wait for `reorder` by a gap when no later ones come and the fault doesn't say.
pub const REORDER_PATIENCE: Duration = Duration::from_millis(100);

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    pub model: LossModel,
    pub only: Option<Handshake>,
}

impl Loss {
    /// Some packets may pass while others don't.
    pub fn is_partial(&self) -> bool {
        match self.model {
            LossModel::Percent(percent) => {
                percent.value() > 0.0 && (percent.value() < 100.0 || self.only.is_some())
            }
            LossModel::Flows(percent) => percent.value() > 0.0 && self.only.is_some(),
            LossModel::GilbertElliott(_) | LossModel::EveryNth(_) | LossModel::FirstOfConnection(_) => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossModel {
    /// Each wire packet with this probability, independently. Stationary loss: the percentage.
    Percent(Percent),
    /// A chain of a good and a bad state, one step a wire packet. `burst` is one of these.
    GilbertElliott(GilbertElliott),
    /// Every n-th wire packet. Stationary loss: 1/n.
    EveryNth(u32),
    /// The first n wire packets of each connection, in each direction. No stationary loss.
    FirstOfConnection(u32),
    /// All packets of a stable share of the connections. Stationary loss: that share of the connections.
    Flows(Percent),
}

/// Packets that open a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// SYN without ACK.
    Syn,
    /// SYN, and SYN with ACK.
    Both,
}

/// Each wire packet with a payload is changed with this probability: some bits of one byte of the payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrupt {
    pub percent: Percent,
    pub kind: CorruptKind,
    /// 1 to 8 bits, all in one byte.
    pub bits: u8,
    /// Bytes of the transport's payload among which the byte is chosen: the first, and the one behind the last.
    pub offset: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorruptKind {
    /// The checksum is made valid: the application sees the change.
    Payload,
    /// The checksum stays as it was: the receiver's stack rejects the packet.
    Wire,
}

/// Each wire packet is sent `copies` times more with this probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    pub percent: Percent,
    pub copies: u8,
    /// How much later the copies go; zero: at once.
    pub delay: Duration,
}

/// Each wire packet is held back with this probability until later ones have passed it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    pub percent: Percent,
    /// It goes on when so many later packets of its flow have passed; `None`: by time alone.
    pub gap: Option<u32>,
    /// It goes on after this in any case.
    pub delay: Duration,
}

/// A shaper with a bucket of tokens and a queue that drops what doesn't fit at its tail, one for each target and
/// direction. It counts wire bytes (L2 without FCS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Bits per second.
    pub rate: u64,
    /// Bytes that may leave at once after a pause.
    pub burst: u32,
    pub queue: QueueBound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBound {
    /// A packet is dropped when it would wait for longer.
    Time(Duration),
    /// A packet is dropped when more bytes would wait.
    Bytes(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectCode {
    NetUnreachable,
    HostUnreachable,
    PortUnreachable,
    AdminProhibited,
}

/// Which end of the connection gets a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    Target,
    Peer,
    Both,
}

/// Each packet is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Delay {
    pub latency: Duration,
    pub jitter: Duration,
    pub distribution: Distribution,
    /// Of a packet's delay with the one before: 0 to 1, below 1.
    pub correlation: f64,
    /// A packet may overtake an earlier one of its flow that got a longer delay.
    pub allow_reorder: bool,
}

impl Delay {
    /// The longest delay that the distribution gives.
    pub fn longest(&self) -> Duration {
        match &self.distribution {
            Distribution::Table(quantiles) => quantiles.last().copied().unwrap_or_default(),
            Distribution::Uniform => self.latency.saturating_add(self.jitter),
            Distribution::Normal => self.latency.saturating_add(self.jitter.saturating_mul(6)),
            // Where the distribution is cut off, in standard deviations.
            Distribution::Pareto | Distribution::ParetoNormal => {
                self.latency.saturating_add(self.jitter.saturating_mul(120))
            }
        }
    }

    /// Every packet gets the same delay.
    pub fn is_constant(&self) -> bool {
        self.jitter.is_zero() && !matches!(self.distribution, Distribution::Table(_))
    }
}
