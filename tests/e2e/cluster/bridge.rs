//! `sabotd bridge` alone: gRPC over its standard input and output.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sabot_proto::MAX_MESSAGE_BYTES;
use sabot_proto::sabot::v1::fault_service_client::FaultServiceClient;
use sabot_proto::sabot::v1::node_service_client::NodeServiceClient;
use sabot_proto::sabot::v1::{Action, Partition, peer, target};
use sabot_proto::sabot::v1::{FaultSpec, GetNodeRequest, Metadata, Peer, PreviewFaultRequest, Target};
use sabot_testkit::{Daemon, DaemonOptions};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::scene::{PATIENCE, code, sabotd, stderr, stdout};

/// More than all buffers on the way hold together.
const MANY: u32 = 100_000;

fn bridge(socket: &Path) -> Command {
    let mut command = Command::new(sabotd());
    command
        .arg("bridge")
        .env("SABOT_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A channel over a bridge's standard input and output.
async fn channel(child: &mut Child) -> Channel {
    let output = child.stdout.take().expect("it is piped");
    let input = child.stdin.take().expect("it is piped");
    let stream = Arc::new(Mutex::new(Some(tokio::io::join(output, input))));
    let connector = service_fn(move |_| {
        let stream = stream.lock().expect("nobody panics").take();
        async move {
            let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
            stream.map(TokioIo::new).ok_or_else(gone)
        }
    });
    let endpoint = Endpoint::from_static("http://sabotd");
    endpoint
        .connect_with_connector(connector)
        .await
        .expect("it is connected")
}

fn daemon() -> Daemon {
    let mut options = DaemonOptions::built().expect("the daemon is built");
    options.node_name = "behind-a-bridge".to_owned();
    let netns = sabot_testkit::Netns::new("sabot-bridge").expect("root is needed");
    let daemon = Daemon::start(options.netns(&netns)).expect("the daemon starts");
    drop(netns);
    daemon
}

#[tokio::test]
async fn grpc_passes_a_bridge_which_ends_with_its_input() {
    let daemon = daemon();
    let mut child = bridge(&daemon.socket()).spawn().expect("it starts");
    let channel = channel(&mut child).await;
    let answer = NodeServiceClient::new(channel.clone())
        .get_node(GetNodeRequest {})
        .await;
    let node = answer.expect("it answers").into_inner().node.expect("a node");
    assert_eq!(node.name, "behind-a-bridge");

    // Megabytes there and back, both ways at once.
    let peers = (0..MANY).map(|number| Peer {
        kind: Some(peer::Kind::Ip(
            std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(),
        )),
        ..Peer::default()
    });
    let request = PreviewFaultRequest {
        metadata: Some(Metadata {
            name: "many".to_owned(),
            namespace: String::new(),
        }),
        spec: Some(FaultSpec {
            duration: Duration::from_secs(5).try_into().ok(),
            target: Some(Target {
                kind: Some(target::Kind::Interface("lo".to_owned())),
            }),
            peers: peers.collect(),
            action: Some(Action {
                kind: Some(sabot_proto::sabot::v1::action::Kind::Partition(Partition {})),
            }),
            ..FaultSpec::default()
        }),
    };
    let preview = |channel: &Channel| {
        let mut faults =
            FaultServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request = request.clone();
        async move {
            faults
                .preview_fault(request)
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let (one, two) = tokio::join!(preview(&channel), preview(&channel));
    for preview in [one, two] {
        assert_eq!(preview.expect("it is valid").peers.len(), MANY as usize);
    }

    drop(channel);
    let ended = timeout(PATIENCE, child.wait_with_output()).await;
    let ended = ended.expect("it ends with its input").expect("it was there");
    assert_eq!(code(&ended), Some(0), "{}", stderr(&ended));
    assert!(stderr(&ended).is_empty(), "{}", stderr(&ended));
}

#[tokio::test]
async fn a_bridge_ends_with_its_daemon() {
    let mut daemon = daemon();
    let mut child = bridge(&daemon.socket()).spawn().expect("it starts");
    // Held open: it isn't the input that ends it.
    let channel = channel(&mut child).await;
    let answer = NodeServiceClient::new(channel.clone())
        .get_node(GetNodeRequest {})
        .await;
    answer.expect("it answers");
    daemon.terminate().expect("it ends");
    let ended = timeout(PATIENCE, child.wait()).await;
    let ended = ended.expect("it ends with its daemon").expect("it was there");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn without_a_daemon_it_says_so() {
    let child = bridge(Path::new("/nonexistent/sabotd.sock")).output();
    let ended = timeout(PATIENCE, child)
        .await
        .expect("it ends")
        .expect("it starts");
    assert_eq!(code(&ended), Some(1));
    assert!(stdout(&ended).is_empty(), "only the daemon speaks there");
    assert!(
        stderr(&ended).contains("/nonexistent/sabotd.sock"),
        "{}",
        stderr(&ended)
    );
}
