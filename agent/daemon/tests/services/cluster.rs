//! A node that routes to its pods and sends what goes to a Service on to one of its backends, as kube-proxy has it.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sabot_testkit::Netns;
use sabot_testkit::wait::{on_this_machine, wait_until};

use crate::ipvs::{self, Ipvs};
use crate::sockets::Balancer;

/// How often a server looks whether it is to end.
const TICK: Duration = Duration::from_millis(2);
/// The pods' gateway, the same on the node's end of each veth.
const GATEWAY: &str = "169.254.1.1";

/// Who sends what goes to a Service on to its backends.
pub(crate) enum Proxy {
    Nftables,
    Iptables,
    Ipvs(Ipvs),
    /// Nothing on the node: the client's socket is connected to a backend at once.
    Sockets(Balancer),
}

/// A Service as a proxy knows it.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) name: &'static str,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) target_port: u16,
    /// Pods by their places.
    pub(crate) backends: Vec<usize>,
}

impl Front {
    pub(crate) fn socket(&self) -> SocketAddr {
        (self.address, self.port).into()
    }
}

pub(crate) struct Cluster {
    // Dropped before the namespaces that they are in.
    servers: Vec<Server>,
    pub(crate) pods: Vec<Pod>,
    node: Netns,
    proxy: Proxy,
}

pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) address: Ipv4Addr,
}

impl Cluster {
    /// Pods on a node that routes between them, each with an address of its own and no neighbours, so that what they send
    /// to one another passes the node's rules.
    pub(crate) fn new(node: Netns, pods: u8, proxy: Proxy) -> Self {
        node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("the node routes");
        let pods = (0..pods).map(|index| make_pod(&node, index)).collect();
        Self {
            servers: Vec::new(),
            pods,
            node,
            proxy,
        }
    }

    /// The pods answer at these ports, each with its place.
    pub(crate) fn serve(&mut self, pods: &[usize], ports: &[u16]) {
        for &index in pods {
            for &port in ports {
                let server = Server::start(&self.pods[index], port, index as u8);
                self.servers.push(server);
            }
        }
    }

    /// Replaces what the proxy knows of Services.
    pub(crate) fn proxy(&mut self, fronts: &[&Front]) {
        let services: Vec<_> = fronts.iter().map(|front| self.ends(front)).collect();
        match &mut self.proxy {
            Proxy::Nftables => self.feed("nft", &["-f", "-"], &self.nftables(fronts)),
            Proxy::Iptables => {
                self.feed("iptables-nft-restore", &[], &self.iptables(fronts));
            }
            Proxy::Ipvs(ipvs) => {
                for front in fronts {
                    let line = format!("address replace {}/32 dev {}", front.address, ipvs::DEVICE);
                    ip(&self.node, &line);
                }
                ipvs.replace(services.into_iter()).expect("IPVS takes them");
            }
            Proxy::Sockets(balancer) => balancer.replace(&services).expect("the program loads"),
        }
    }

    /// The ends of a Service and of its backends.
    fn ends(&self, front: &Front) -> (SocketAddrV4, Vec<SocketAddrV4>) {
        let backends = front.backends.iter();
        let backends = backends.map(|&pod| SocketAddrV4::new(self.pods[pod].address, front.target_port));
        (SocketAddrV4::new(front.address, front.port), backends.collect())
    }

    /// One verdict map for all Services, a chain for each of them and for each backend.
    fn nftables(&self, fronts: &[&Front]) -> String {
        let mut text =
            "add table ip kube-proxy\ndelete table ip kube-proxy\ntable ip kube-proxy {\n".to_owned();
        let mut elements = Vec::new();
        for front in fronts {
            let Front {
                name, port, address, ..
            } = front;
            let mut choices = Vec::new();
            for (number, &pod) in front.backends.iter().enumerate() {
                let backend = SocketAddr::from((self.pods[pod].address, front.target_port));
                let chain = format!("endpoint-{name}-{number}");
                writeln!(text, "chain {chain} {{ meta l4proto tcp dnat to {backend}; }}").expect("text");
                choices.push(format!("{number} : goto {chain}"));
            }
            if !choices.is_empty() {
                let (count, choices) = (choices.len(), choices.join(", "));
                writeln!(
                    text,
                    "chain service-{name} {{ numgen random mod {count} vmap {{ {choices} }}; }}"
                )
                .expect("text");
                elements.push(format!("{address} . tcp . {port} : goto service-{name}"));
            }
        }
        let elements = elements.join(", ");
        writeln!(
            text,
            "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}\n\
             chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}\n\
             chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n}}"
        )
        .expect("text");
        text
    }

    /// A chain for each Service, whose rules are as likely as there are backends left.
    fn iptables(&self, fronts: &[&Front]) -> String {
        let mut chains = String::from("*nat\n:PREROUTING ACCEPT\n:KUBE-SERVICES -\n");
        let mut rules = String::from(
            "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n",
        );
        for front in fronts {
            let (name, count) = (front.name.to_uppercase(), front.backends.len());
            let Front { address, port, .. } = front;
            writeln!(chains, ":KUBE-SVC-{name} -").expect("text");
            writeln!(
                rules,
                "-A KUBE-SERVICES -d {address}/32 -p tcp -m tcp --dport {port} -j KUBE-SVC-{name}"
            )
            .expect("text");
            for (number, &pod) in front.backends.iter().enumerate() {
                let share = 1.0 / (count - number) as f64;
                let chance = if number + 1 < count {
                    format!("-m statistic --mode random --probability {share:.10} ")
                } else {
                    String::new()
                };
                let backend = SocketAddr::from((self.pods[pod].address, front.target_port));
                let chain = format!("KUBE-SEP-{name}{number}");
                writeln!(chains, ":{chain} -").expect("text");
                writeln!(rules, "-A KUBE-SVC-{name} {chance}-j {chain}").expect("text");
                writeln!(
                    rules,
                    "-A {chain} -p tcp -m tcp -j DNAT --to-destination {backend}"
                )
                .expect("text");
            }
        }
        format!("{chains}{rules}COMMIT\n")
    }

    fn feed(&self, program: &str, arguments: &[&str], input: &str) {
        let mut command = self.node.command(program);
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(
            output.status.success(),
            "{program}: {}\n{input}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Connects from a pod; the place of the pod that answers, or `None` where none does in this time.
    pub(crate) fn ask(&self, from: usize, to: SocketAddr, patience: Duration) -> Option<usize> {
        if let Proxy::Sockets(balancer) = &self.proxy {
            return self.ask_in(balancer, from, to, patience);
        }
        let patience = on_this_machine(patience);
        self.pods[from].netns.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
            stream.set_read_timeout(Some(patience)).expect("a timeout");
            let mut answer = [0];
            stream.read_exact(&mut answer).ok()?;
            Some(usize::from(answer[0]))
        })
    }

    /// The same by a process of its own, which is a member of the balancer's cgroup.
    fn ask_in(&self, balancer: &Balancer, from: usize, to: SocketAddr, patience: Duration) -> Option<usize> {
        let script = format!(
            "echo $$ > {} && exec 3<> /dev/tcp/{}/{} && exec head -c 1 <&3",
            balancer.procs().display(),
            to.ip(),
            to.port()
        );
        let mut bash = self.pods[from].netns.command("bash");
        let bash = bash
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut bash = bash.spawn().expect("bash starts");
        let has_ended = || bash.try_wait().expect("it is ours").is_some();
        if !wait_until(patience, TICK, has_ended) {
            bash.kill().expect("it is ours");
        }
        let answer = bash.wait_with_output().expect("it ends").stdout;
        answer.first().map(|&answer| usize::from(answer))
    }

    /// So many connections at once.
    pub(crate) fn ask_often(
        &self,
        from: usize,
        to: SocketAddr,
        patience: Duration,
        times: usize,
    ) -> Vec<Option<usize>> {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..times)
                .map(|_| scope.spawn(|| self.ask(from, to, patience)))
                .collect();
            asked
                .into_iter()
                .map(|thread| thread.join().expect("it asks"))
                .collect()
        })
    }

    pub(crate) fn pod_socket(&self, pod: usize, port: u16) -> SocketAddr {
        (self.pods[pod].address, port).into()
    }
}

fn ip(netns: &Netns, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    netns.ip(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
}

fn make_pod(node: &Netns, index: u8) -> Pod {
    let netns = Netns::new("sabot-pod").expect("root is needed");
    let address = Ipv4Addr::new(10, 244, 0, 10 + index);
    let port = format!("port{index}");
    ip(
        node,
        &format!("link add {port} type veth peer name eth0 netns {}", netns.name()),
    );
    ip(node, &format!("address add {GATEWAY}/32 dev {port}"));
    ip(node, &format!("link set {port} up"));
    ip(&netns, &format!("address add {address}/32 dev eth0"));
    ip(&netns, "link set eth0 up");
    ip(&netns, &format!("route add {GATEWAY} dev eth0 scope link"));
    ip(&netns, &format!("route add default via {GATEWAY} src {address}"));
    ip(node, &format!("route add {address} dev {port} scope link"));
    Pod { netns, address }
}

impl Pod {
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.into()
    }
}

/// Says one byte to each who connects.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(pod: &Pod, port: u16, answer: u8) -> Self {
        let address = pod.address;
        let listener = pod.netns.run(|| TcpListener::bind((address, port)));
        let listener = listener.expect("the port is free");
        listener.set_nonblocking(true).expect("it can wait");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Whoever asked may have gone.
                    Ok((mut stream, _)) => drop(stream.write_all(&[answer])),
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been seen by whoever asked in vain.
            drop(thread.join());
        }
    }
}
