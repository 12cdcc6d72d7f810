//! Floods of calls, many at once, among them such as must be refused.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sabot_proto::sabot::v1::{Action, Peer, Port, Pulse, Target, target};
use sabot_proto::sabot::v1::{
    ApplyFaultRequest, DeleteFaultRequest, FaultSpec, GetFaultRequest, GetNodeRequest, GetSnapshotRequest,
    ListFaultsRequest, ListTargetsRequest, Metadata, PreviewFaultRequest, WatchEventsRequest,
    WatchFaultsRequest, action, peer,
};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

use super::Seen;
use crate::daemon::{Client, Daemon};
use crate::dice::Dice;

/// Calls at once.
const WAVE: u64 = 64;
const STREAM: Duration = Duration::from_millis(50);

/// What became of the calls.
#[derive(Default)]
pub(super) struct Flooded {
    calls: usize,
    refused: usize,
}

impl Flooded {
    pub(super) fn add_to(&self, seen: &mut Seen) {
        seen.calls += self.calls;
        seen.refused += self.refused;
    }
}

/// How a call must be answered.
type Answer = Pin<Box<dyn Future<Output = (&'static str, Option<Code>, Result<(), Status>)> + Send>>;

/// Wave after wave, each over a connection of its own, until the time is over.
pub(super) fn calls(daemon: &Daemon, dice: &mut Dice, until: Instant) -> Flooded {
    let mut flooded = Flooded::default();
    while Instant::now() < until {
        let client = daemon.client().expect("the daemon answers");
        let wave: Vec<Answer> = (0..1 + dice.roll(WAVE)).map(|_| call(&client, dice)).collect();
        for (what, expected, result) in client.wait(join_all(wave)) {
            flooded.calls += 1;
            let code = result.as_ref().err().map(Status::code);
            assert_eq!(code, expected, "{what}: {result:?}");
            flooded.refused += usize::from(code.is_some());
        }
        std::thread::sleep(Duration::from_millis(dice.roll(100)));
    }
    flooded
}

fn call(client: &Client, dice: &mut Dice) -> Answer {
    let (mut faults, mut nodes) = (client.faults(), client.nodes());
    let (name, namespace) = (format!("nobody-{}", dice.roll(1 << 20)), String::new());
    match dice.roll(10) {
        0 => accepted("list", async move {
            faults.list_faults(ListFaultsRequest::default()).await
        }),
        1 => accepted("node", async move { nodes.get_node(GetNodeRequest {}).await }),
        2 => accepted("targets", async move {
            nodes.list_targets(ListTargetsRequest::default()).await
        }),
        3 => refused("get", Code::NotFound, async move {
            faults.get_fault(GetFaultRequest { namespace, name }).await
        }),
        4 => refused("delete", Code::NotFound, async move {
            faults.delete_fault(DeleteFaultRequest { namespace, name }).await
        }),
        5 => streamed(client, dice),
        6 => {
            let mut observe = client.observe();
            accepted("snapshot", async move {
                observe.get_snapshot(GetSnapshotRequest::default()).await
            })
        }
        7 => {
            let (what, spec) = bad_spec(dice);
            let metadata = Some(Metadata { name, namespace });
            let request = PreviewFaultRequest { metadata, spec };
            refused(what, Code::InvalidArgument, async move {
                faults.preview_fault(request).await
            })
        }
        _ => {
            let (what, spec) = bad_spec(dice);
            let metadata = Some(Metadata { name, namespace });
            let wait = None;
            let request = ApplyFaultRequest { metadata, spec, wait };
            refused(what, Code::InvalidArgument, async move {
                faults.apply_fault(request).await
            })
        }
    }
}

/// A stream that is left alone after a moment.
fn streamed(client: &Client, dice: &mut Dice) -> Answer {
    let (mut faults, mut observe) = (client.faults(), client.observe());
    if dice.roll(2) == 0 {
        accepted("watch faults", async move {
            let request = WatchFaultsRequest {
                include_counters: true,
                ..WatchFaultsRequest::default()
            };
            let mut stream = faults.watch_faults(request).await?.into_inner();
            while let Ok(Some(message)) = timeout(STREAM, stream.next()).await {
                message?;
            }
            Ok(Response::new(()))
        })
    } else {
        accepted("watch events", async move {
            let mut stream = observe
                .watch_events(WatchEventsRequest::default())
                .await?
                .into_inner();
            for _ in 0..20 {
                match timeout(STREAM, stream.next()).await {
                    Ok(Some(message)) => drop(message?),
                    _ => break,
                }
            }
            Ok(Response::new(()))
        })
    }
}

fn accepted<T: 'static>(
    what: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Answer {
    Box::pin(async move { (what, None, call.await.map(drop)) })
}

fn refused<T: 'static>(
    what: &'static str,
    code: Code,
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Answer {
    Box::pin(async move { (what, Some(code), call.await.map(drop)) })
}

/// A fault that nobody may have, and what is wrong with it.
fn bad_spec(dice: &mut Dice) -> (&'static str, Option<FaultSpec>) {
    type Spoil = fn(&mut FaultSpec);
    const WAYS: [(&str, Spoil); 12] = [
        ("no duration", |spec| spec.duration = None),
        ("a duration of nothing", |spec| spec.duration = Some(seconds(0))),
        ("a duration below zero", |spec| spec.duration = Some(seconds(-5))),
        ("a duration beyond the most", |spec| {
            spec.duration = Some(seconds(1 << 40));
        }),
        ("no target", |spec| spec.target = None),
        ("an empty target", |spec| spec.target = Some(Target::default())),
        ("no action", |spec| spec.action = None),
        ("an empty action", |spec| spec.action = Some(Action::default())),
        ("no address", |spec| spec.peers = vec![ip("10.0.0.256")]),
        ("many wrong addresses", |spec| {
            spec.peers = vec![ip("nonsense"); 10_000];
        }),
        ("too many ports", |spec| spec.ports = vec![Port::default(); 17]),
        ("a pulse of nothing", |spec| spec.pulse = Some(Pulse::default())),
    ];
    let (what, spoil) = *dice.pick(&WAYS);
    let mut spec = FaultSpec {
        duration: Some(seconds(5)),
        target: Some(Target {
            kind: Some(target::Kind::Netns("/run/netns/nobody".to_owned())),
        }),
        action: Some(Action {
            kind: Some(action::Kind::Partition(sabot_proto::sabot::v1::Partition {})),
        }),
        ..FaultSpec::default()
    };
    spoil(&mut spec);
    (what, Some(spec))
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn ip(text: &str) -> Peer {
    Peer {
        kind: Some(peer::Kind::Ip(text.to_owned())),
        except: Vec::new(),
    }
}
