//! What all observers together know of one owner, as timelines compare it.

use sabot_abi::{CONNECTION_ACCEPTED, CONNECTION_OPENED};

use super::event::Event;
use super::identity::Identity;
use super::observers::Observers;
use super::tcp::{TcpMoments, TcpTotals};
use super::timeline::{Firsts, Measure, Reaction, Totals};

/// An observer that is absent, or can't be read now, knows nothing.
impl Measure for Observers {
    fn totals(&self, owner: u32) -> Totals {
        let mut totals = Totals::default();
        if let Some(tcp) = self.tcp_observer().and_then(|tcp| known(tcp.totals(owner))) {
            add_tcp(&mut totals, tcp);
        }
        totals
    }

    fn firsts(&self, owner: u32) -> Firsts {
        let moments = self.tcp_observer().and_then(|tcp| known(tcp.firsts(owner)));
        moments.map(Firsts::from).unwrap_or_default()
    }

    fn forget_firsts(&self, owner: u32) {
        if let Some(tcp) = self.tcp_observer()
            && let Err(error) = tcp.reset_firsts(owner)
        {
            tracing::warn!(%error, owner, "what happens first to a pod's connections can't be looked for again");
        }
    }

    fn reaction(&self, _event: &Event) -> Option<(Identity, Reaction)> {
        None
    }
}

fn known<T, E: std::fmt::Display>(read: Result<Option<T>, E>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "a pod's counters can't be read for its timeline"))
        .ok()
        .flatten()
}

fn add_tcp(totals: &mut Totals, tcp: TcpTotals) {
    totals.opened = tcp.connections(CONNECTION_OPENED);
    totals.accepted = tcp.connections(CONNECTION_ACCEPTED);
    totals.failed = tcp.failed();
    totals.lost = tcp.lost;
    totals.retransmits = tcp.retransmits + tcp.synack_retransmits;
    totals.rtos = tcp.rtos;
    totals.resets_sent = tcp.resets_sent;
    totals.resets_received = tcp.resets_received;
    totals.bytes_sent = tcp.bytes_sent;
    totals.bytes_received = tcp.bytes_received;
    totals.rtts = tcp.rtts;
    totals.handshakes = tcp.handshakes;
}

impl From<TcpMoments> for Firsts {
    fn from(moments: TcpMoments) -> Self {
        Self {
            retransmit: moments.retransmit,
            rto: moments.rto,
            reset: moments.reset,
            connect_failure: moments.connect_failure,
            connection_lost: moments.loss,
        }
    }
}
