//! Where this machine says that the API server is, for faults on the node's own devices to leave its connections alone.
//!
//! A pod's environment names the Service, the kubelet's kubeconfig what the kubelet itself connects to. Both are looked at
//! again and again: files come and go, and names change their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

const LOOK: Duration = Duration::from_secs(30);
/// For names to be looked up; what isn't found by then keeps its former addresses.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Where the kubelet's kubeconfig is, by the makers of clusters.
const KUBECONFIGS: [&str; 6] = [
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubelet/kubeconfig",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    "/var/lib/k0s/kubelet.conf",
];
/// The node's own files, where a daemon in a container sees the node's first process.
const NODE_ROOT: &str = "/proc/1/root";

/// Addresses of servers by what names them, as `HOST:PORT`.
type Known = BTreeMap<String, BTreeSet<SocketAddr>>;

/// Begins to look; must be called inside a tokio runtime. `named` are those that the configuration names, as `HOST:PORT`,
/// and `kubeconfig` is the daemon's own.
pub fn watch_api_servers(
    named: Vec<String>,
    kubeconfig: Option<PathBuf>,
) -> watch::Receiver<BTreeSet<SocketAddr>> {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    tokio::spawn(look(named, kubeconfig, sender));
    receiver
}

async fn look(named: Vec<String>, kubeconfig: Option<PathBuf>, sender: watch::Sender<BTreeSet<SocketAddr>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::new();
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = ticks.tick() => {}
        }
        let mut servers: BTreeSet<String> = named.iter().cloned().collect();
        servers.extend(service());
        let own = kubeconfig.clone();
        let read = move || kubeconfigs(Path::new(NODE_ROOT), own.as_deref());
        let configured = tokio::task::spawn_blocking(read).await;
        servers.extend(configured.unwrap_or_default());
        known = addresses(servers, known).await;
        let found = known.values().flatten().copied().collect();
        sender.send_if_modified(|told| {
            let is_new = *told != found;
            *told = found;
            is_new
        });
    }
}

/// What every container's environment says.
fn service() -> Option<String> {
    let host = env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
    Some(if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

/// A name that can't be looked up keeps the addresses that it had.
async fn addresses(servers: BTreeSet<String>, mut former: Known) -> Known {
    let mut known = Known::new();
    for server in servers {
        let found = match timeout(LOOK_UP, lookup_host(&server)).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                tracing::debug!(server, %error, "the API server's name can't be looked up");
                former.remove(&server).unwrap_or_default()
            }
            Err(_) => former.remove(&server).unwrap_or_default(),
        };
        known.insert(server, found);
    }
    known
}

/// The servers that the kubelet's kubeconfigs name, here and on the node, and our own.
fn kubeconfigs(node_root: &Path, own: Option<&Path>) -> BTreeSet<String> {
    let here = KUBECONFIGS.iter().map(PathBuf::from);
    let on_node = KUBECONFIGS
        .iter()
        .map(|path| node_root.join(path.trim_start_matches('/')));
    let paths = here.chain(on_node).chain(own.map(Path::to_owned));
    // Those that aren't there are of other makers.
    let texts = paths.filter_map(|path| fs::read_to_string(path).ok());
    texts.flat_map(|text| servers_of(&text)).collect()
}

/// `HOST:PORT` of each server of a kubeconfig; one that can't be read has none.
fn servers_of(text: &str) -> Vec<String> {
    let config = match Kubeconfig::from_yaml(text) {
        Ok(config) => config,
        Err(error) => {
            tracing::debug!(%error, "a kubeconfig can't be read");
            return Vec::new();
        }
    };
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters
        .filter_map(|cluster| host_port(cluster.server.as_deref()?))
        .collect()
}

/// Of a URL.
fn host_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    if authority.is_empty() {
        return None;
    }
    // Behind the bracket of an IPv6 address.
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    Some(match scheme {
        _ if has_port => authority.to_owned(),
        "http" => format!("{authority}:80"),
        _ => format!("{authority}:443"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_a_kubeconfig_are_hosts_with_ports() {
        let text = "
apiVersion: v1
kind: Config
clusters:
- {name: a, cluster: {server: 'https://172.18.0.2:6443', certificate-authority-data: eA==}}
- {name: b, cluster: {server: 'https://api.example.org'}}
- {name: c, cluster: {server: 'http://[fd00::1]/base?x=1'}}
- {name: d, cluster: {server: 'https://[fd00::1]:6443'}}
users: []
";
        let expected = [
            "172.18.0.2:6443",
            "api.example.org:443",
            "[fd00::1]:80",
            "[fd00::1]:6443",
        ];
        assert_eq!(servers_of(text), expected);
        assert!(servers_of("clusters: 7").is_empty());
        assert!(servers_of("clusters: [{name: a, cluster: {server: nonsense}}]").is_empty());
    }

    #[test]
    fn kubeconfigs_are_found_on_the_node() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("etc/kubernetes");
        fs::create_dir_all(&folder).expect("it is made");
        let text = "clusters: [{name: a, cluster: {server: 'https://10.0.0.1:6443'}}]";
        fs::write(folder.join("kubelet.conf"), text).expect("it is written");
        assert!(kubeconfigs(root.path(), None).contains("10.0.0.1:6443"));
        let own = root.path().join("own.conf");
        fs::write(&own, text.replace("10.0.0.1", "10.0.0.2")).expect("it is written");
        assert!(kubeconfigs(root.path(), Some(&own)).contains("10.0.0.2:6443"));
    }

    #[tokio::test]
    async fn named_servers_are_watched_from_the_start() {
        let mut servers = watch_api_servers(vec!["192.0.2.1:6443".into(), "[2001:db8::1]:6443".into()], None);
        let known = servers
            .wait_for(|known| !known.is_empty())
            .await
            .expect("it looks");
        for server in ["192.0.2.1:6443", "[2001:db8::1]:6443"] {
            assert!(known.contains(&server.parse().expect("an address")), "{known:?}");
        }
    }
}
