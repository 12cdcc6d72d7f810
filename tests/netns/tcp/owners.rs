//! Whose a connection is, and that nothing of those who went stays.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sabot_abi::{CONNECTION_OPENED, NODE_OWNER};
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Netns, NetnsRef};
use sabotd::observe::flows::{FlowOrder, FlowQuery};
use sabotd::observe::identity::Owners;
use sabotd::observe::tcp::DEFAULTS;

use crate::scene::{Scene, Sink, connect, key, owner, pod, send};

const ROUNDS: u32 = 200;

/// One connection inside a namespace.
fn connect_within(netns: &NetnsRef) {
    netns.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an address");
        let address = listener.local_addr().expect("an address");
        let mut connection = TcpStream::connect(address).expect("it is accepted");
        let (accepted, _) = listener.accept().expect("a connection");
        send(&mut connection, 100);
        drop(connection);
        drop(accepted);
    });
}

#[test]
fn an_owner_that_comes_and_goes_leaves_nothing() {
    let lasting = Netns::new("sabot-lasting").expect("root is needed");
    let scene = Scene::new(&[&lasting]);
    for round in 0..ROUNDS {
        let netns = Netns::new("sabot-passing").expect("a namespace can be made");
        let number = round + 2;
        scene.tell(vec![pod(1, &lasting), pod(number, &netns)]);
        connect_within(&netns);
        assert_eq!(scene.totals(number).connections(CONNECTION_OPENED), 1);
        scene.tell(vec![pod(1, &lasting)]);
        assert!(
            scene
                .observer
                .totals(number)
                .expect("the maps can be read")
                .is_none()
        );
    }
    assert_eq!(scene.observer.entries().expect("the maps can be read"), [1, 1, 1]);
    assert_eq!(scene.followed(), [0; 0]);
    assert_eq!(
        scene
            .observer
            .snapshot()
            .expect("the maps can be read")
            .owners
            .len(),
        1
    );
}

#[test]
fn what_happens_before_an_owner_is_known_is_counted_as_nobodys() {
    let netns = Netns::new("sabot-late").expect("root is needed");
    let scene = Scene::with(Owners::default(), DEFAULTS.ring_bytes);
    let before = scene.observer.unresolved();
    let listener = netns
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .expect("an address");
    let address = listener.local_addr().expect("an address");
    let mut connection = connect(&netns, address);
    let (accepted, _) = listener.accept().expect("a connection");
    assert!(scene.observer.unresolved() >= before + 2);
    // The connection goes on as the owner's once it is known; what was sent meanwhile is not lost.
    send(&mut connection, 1000);
    scene.tell(vec![pod(9, &netns)]);
    send(&mut connection, 1000);
    drop((connection, accepted));
    let totals = scene.settled(9);
    assert_eq!(totals.connections(CONNECTION_OPENED), 0);
    assert!(totals.bytes_sent >= 2000, "{}", totals.bytes_sent);
}

/// A cgroup of our own as a pod's, and one in it as a container's, for a process that is to start there.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| path.to_owned())
        });
        let root = root.expect("the unified hierarchy is mounted");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(root).join(format!("sabot-test-{}-{number}", std::process::id()));
        let group = Self(path);
        fs::create_dir_all(group.inner()).expect("a cgroup can be made");
        group
    }

    fn inner(&self) -> PathBuf {
        self.0.join("container/init")
    }

    /// A process in it, which connects to a port of its namespace. Its end of the connection is 3.
    fn connect(&self, netns: &Netns, port: u16, then: &str) -> Child {
        let procs = self.inner().join("cgroup.procs").display().to_string();
        let script = format!("echo $$ > {procs}; exec 3<>/dev/tcp/127.0.0.1/{port}; {then}; exec 3>&-");
        let mut command = netns.command("bash");
        let child = command.args(["-c", &script]).stdin(Stdio::piped()).spawn();
        child.expect("bash starts")
    }

    fn id(&self) -> u64 {
        fs::metadata(&self.0).expect("it is there").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in self.inner().ancestors().take(3) {
            // What has ended leaves its group a moment later.
            let is_gone = || fs::remove_dir(path).is_ok();
            if !wait_until(PATIENCE, Duration::from_millis(10), is_gone) {
                eprintln!("{} can't be removed", path.display());
            }
        }
    }
}

#[test]
fn pods_on_the_nodes_network_are_told_apart_by_their_cgroup() {
    let node = Netns::new("sabot-node").expect("root is needed");
    let group = Cgroup::new();
    let owners = [
        owner(NODE_OWNER, vec![key(&node, 0)]),
        owner(5, vec![key(&node, group.id())]),
    ];
    let scene = Scene::with(Owners::new(owners), DEFAULTS.ring_bytes);
    let listener = node
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .expect("an address");
    let port = listener.local_addr().expect("an address").port();
    let status = group.connect(&node, port, "true").wait();
    assert!(status.expect("it is ours").success());
    drop(listener.accept().expect("a connection"));
    connect_within(&node);
    let (pods, nodes) = (scene.settled(5), scene.settled(NODE_OWNER));
    assert_eq!(pods.connections(CONNECTION_OPENED), 1);
    assert_eq!(nodes.connections(CONNECTION_OPENED), 1);
}

#[test]
fn a_connection_of_the_node_is_its_pods_as_soon_as_that_is_known() {
    let node = Netns::new("sabot-node").expect("root is needed");
    let group = Cgroup::new();
    let of_node = owner(NODE_OWNER, vec![key(&node, 0)]);
    let scene = Scene::with(Owners::new([of_node.clone()]), DEFAULTS.ring_bytes);
    let listener = node
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .expect("an address");
    let port = listener.local_addr().expect("an address").port();
    let mut client = group.connect(&node, port, "read; printf %05000d 0 >&3; read");
    let (mut accepted, _) = listener.accept().expect("a connection");
    let opened = || scene.totals(NODE_OWNER).connections(CONNECTION_OPENED) == 1;
    assert!(wait_until(PATIENCE, Duration::from_millis(10), opened));

    scene.tell(vec![of_node, owner(5, vec![key(&node, group.id())])]);
    let mut stdin = client.stdin.take().expect("it is piped");
    writeln!(stdin).expect("it reads");
    let mut bytes = vec![0; 5000];
    accepted.read_exact(&mut bytes).expect("it writes");
    drop(stdin);
    assert!(client.wait().expect("it is ours").success());
    drop(accepted);
    let sent = || scene.totals(5).bytes_sent >= 5000;
    assert!(wait_until(PATIENCE, Duration::from_millis(10), sent));
    assert!(
        scene.settled(NODE_OWNER).bytes_sent < 5000,
        "they aren't the node's"
    );
}

#[test]
fn the_busiest_connection_comes_first() {
    let namespaces = [1, 2].map(|_| Netns::new("sabot-flows").expect("root is needed"));
    let scene = Scene::new(&[&namespaces[0], &namespaces[1]]);
    let sinks = [0, 1].map(|which| Sink::start(&namespaces[which], Ipv4Addr::LOCALHOST.into(), 2));
    let open = |which: usize, bytes| {
        let mut connection = connect(&namespaces[which], sinks[which].address);
        send(&mut connection, bytes);
        connection
    };
    let mut connections = [open(0, 400_000), open(0, 5_000), open(1, 90_000), open(1, 100)];
    for number in [1, 2] {
        scene.settled(number);
    }
    // A connection is known as of the segment before the last one.
    for connection in &mut connections {
        send(connection, 1);
    }
    for number in [1, 2] {
        scene.settled(number);
    }
    let ask = |owner: Option<u32>, limit| {
        let owners = scene.observer.snapshot().expect("the maps can be read").owners;
        let query = FlowQuery {
            owner: owner.map(|number| (*owners[number as usize - 1].0).clone()),
            order: FlowOrder::Bytes,
            limit,
        };
        scene.flows(&query)
    };
    let both_ends: Vec<u16> = ask(None, 2).iter().map(|flow| flow.local_port).collect();
    let busiest = connections[0].local_addr().expect("an address").port();
    assert!(both_ends.contains(&busiest) && both_ends.contains(&sinks[0].address.port()));
    let seconds = ask(Some(2), 100);
    assert_eq!(seconds.len(), 4);
    assert!(seconds.iter().all(|flow| &*flow.owner.label() == "pod-2"));
    let top = seconds
        .iter()
        .find(|flow| flow.bytes_sent > 0)
        .expect("the sender's end");
    assert!((90_000..=90_001).contains(&top.bytes_sent), "{top:?}");
    assert_eq!(SocketAddr::new(top.remote, top.remote_port), sinks[1].address);
    assert_eq!(top.peer, "loopback");
    drop(connections);
    for sink in sinks {
        sink.finish();
    }
    // The last segments of an end come after it is told.
    let none_is_left = || ask(None, 100).is_empty();
    assert!(wait_until(PATIENCE, Duration::from_millis(10), none_is_left));
}
