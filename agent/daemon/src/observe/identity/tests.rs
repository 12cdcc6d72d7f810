use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use sabot_core::model::World;
use tokio::sync::watch;

use super::*;
use crate::engine::handle::RuntimeState;
use crate::targets::kube::KubeState;
use crate::targets::test_netns::TestNetns;

const PATIENCE: Duration = Duration::from_secs(10);

fn pod(name: &str, netns: Option<&Path>) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        sandbox: format!("sandbox-{name}"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        addresses: Vec::new(),
        host_network: netns.is_none(),
        workload: Default::default(),
        netns_path: netns.map(Path::to_owned),
        process: None,
        devices: Vec::new(),
    }
}

fn world(pods: impl IntoIterator<Item = Pod>) -> World {
    World {
        pods: pods.into_iter().map(|pod| (pod.sandbox.clone(), pod)).collect(),
        ..World::default()
    }
}

fn named(owners: &Owners) -> Vec<String> {
    owners.iter().map(|owner| owner.identity.to_string()).collect()
}

fn number(owners: &Owners, name: &str) -> u32 {
    let found = owners.iter().find(|owner| owner.identity.to_string() == name);
    found.unwrap_or_else(|| panic!("{name} among {owners:?}")).number
}

#[test]
fn every_namespace_has_a_cookie_of_its_own() {
    let (one, other) = (TestNetns::new(), TestNetns::new());
    let mut cookies = Cookies::default();
    let mut of = |path: &Path| cookies.of_path(path).expect("it is there");
    let all = [of(one.path()), of(other.path()), of(OWN_NETNS.as_ref())];
    assert!(
        all[0] != all[1] && all[1] != all[2] && all[0] != all[2],
        "{all:?}"
    );
    assert_eq!(of(one.path()), all[0]);
    assert_eq!(cookies.of_path("/run/netns/missing".as_ref()), None);
}

#[test]
fn another_namespace_behind_the_same_path_is_another_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("netns");
    let mut cookies = Cookies::default();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        // The one before is gone, and its inode's number may be given to this one.
        let netns = TestNetns::new();
        symlink(netns.path(), &path).expect("a link");
        let cookie = cookies.of_path(&path).expect("it is there");
        assert_eq!(cookies.of_path(&path), Some(cookie));
        assert!(seen.insert(cookie), "{seen:?}");
        drop(netns);
        assert_eq!(cookies.of_path(&path), None);
        fs::remove_file(&path).expect("the link goes");
    }
}

#[test]
fn a_number_is_never_used_twice() {
    let mut registry = Registry::default();
    let (one, other) = (TestNetns::new(), TestNetns::new());
    let owners = registry.owners(&world([pod("a", Some(one.path()))]));
    assert_eq!(named(&owners), ["node", "shop/a"]);
    assert_eq!(number(&owners, "node"), NODE_OWNER);
    let first = number(&owners, "shop/a");

    let owners = registry.owners(&world([]));
    assert_eq!(named(&owners), ["node"]);

    // Another sandbox of the same pod, in the same namespace even, is somebody else.
    let again = Pod {
        sandbox: "sandbox-of-the-next".to_owned(),
        ..pod("a", Some(one.path()))
    };
    let owners = registry.owners(&world([again.clone(), pod("b", Some(other.path()))]));
    assert!(number(&owners, "shop/a") > first && number(&owners, "shop/b") > first);
    // Those who stay keep theirs.
    let later = registry.owners(&world([again]));
    assert_eq!(number(&later, "shop/a"), number(&owners, "shop/a"));
}

#[test]
fn a_path_that_leads_to_a_pod_or_to_the_node_names_nobody_new() {
    let mut registry = Registry::default();
    let (of_pod, other) = (TestNetns::new(), TestNetns::new());
    let mut world = world([pod("a", Some(of_pod.path()))]);
    for path in [of_pod.path(), other.path(), OWN_NETNS.as_ref()] {
        world.namespaces.insert(path.to_owned(), Vec::new());
    }
    let owners = registry.owners(&world);
    let netns = format!("netns:{}", other.path().display());
    assert_eq!(
        named(&owners),
        ["node".to_owned(), "shop/a".to_owned(), netns.clone()]
    );
    let found = owners.find(&Identity::Netns(other.path().to_owned()));
    assert_eq!(found, Some(number(&owners, &netns)));
    for (path, name) in [
        (of_pod.path(), "shop/a"),
        (other.path(), netns.as_str()),
        (OWN_NETNS.as_ref(), "node"),
    ] {
        assert_eq!(owners.find_netns(path), Some(number(&owners, name)), "{name}");
    }
    assert_eq!(owners.find_netns("/run/netns/missing".as_ref()), None);
    assert_eq!(owners.keys().count(), 3);
}

#[test]
fn a_pod_without_a_namespace_and_without_cgroups_owns_nothing() {
    let mut registry = Registry::default();
    let owners = registry.owners(&world([
        pod("on-the-node", None),
        pod("gone", Some("/run/netns/missing".as_ref())),
    ]));
    assert_eq!(named(&owners), ["node"]);
}

#[tokio::test]
async fn who_went_is_still_known_for_a_while() {
    let netns = TestNetns::new();
    let update = |world| {
        Arc::new(WorldUpdate {
            world,
            runtime: RuntimeState::Absent(String::new()),
            kubernetes: KubeState::Absent(String::new()),
            netns_failures: BTreeMap::new(),
            interface_failures: BTreeMap::new(),
        })
    };
    let (sender, receiver) = watch::channel(update(world([pod("a", Some(netns.path()))])));
    let identities = start(receiver);
    let mut owners = identities.watch();
    let seen = async |owners: &mut watch::Receiver<Arc<Owners>>, count: usize| {
        let wanted = owners.wait_for(|owners| owners.iter().count() == count);
        let found = tokio::time::timeout(PATIENCE, wanted).await;
        Arc::clone(&found.expect("in time").expect("the task runs"))
    };
    let first = number(&*seen(&mut owners, 2).await, "shop/a");
    sender.send_replace(update(world([])));
    seen(&mut owners, 1).await;
    let who = identities.get(first).expect("it is remembered");
    assert_eq!(who.to_string(), "shop/a");
    assert_eq!(identities.get(first + 1), None);
}

#[test]
fn what_went_long_ago_is_forgotten() {
    let owner = |number| Owner {
        number,
        identity: Arc::new(Identity::Node),
        keys: Vec::new(),
        paths: Vec::new(),
    };
    let (nobody, start) = (Owners::default(), Instant::now());
    let mut gone = Gone::default();
    gone.follow(&Owners::new([owner(1)]), &nobody, start);
    assert!(gone.get(1).is_some());
    gone.follow(&Owners::new([owner(2)]), &nobody, start + REMEMBERED);
    assert!(gone.get(1).is_none() && gone.get(2).is_some());
}
