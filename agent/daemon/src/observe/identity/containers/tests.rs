use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::AtomicUsize;

use tokio::time::timeout;

use super::*;

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cgroup as a runtime makes one for a container. Needs root.
struct Group {
    path: PathBuf,
    outer: PathBuf,
    id: String,
    member: Option<Child>,
}

impl Group {
    fn new(digit: char) -> Self {
        let root = unified_root().expect("the unified hierarchy is mounted");
        let outer = root.join(format!("sabot-names-{}-{digit}", std::process::id()));
        let id = digit.to_string().repeat(64);
        let path = outer.join(&id);
        fs::create_dir_all(&path).expect("this test needs root for a cgroup");
        Self {
            path,
            outer,
            id,
            member: None,
        }
    }

    fn cgroup(&self) -> u64 {
        fs::metadata(&self.path).expect("it is there").ino()
    }

    /// A process in it.
    fn join(&mut self) -> u32 {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep is there");
        let pid = child.id();
        self.member = Some(child);
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("root may");
        pid
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut child) = self.member.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for path in [&self.path, &self.outer] {
            // What a killed process leaves goes a moment later.
            for _ in 0..100 {
                if fs::remove_dir(path).is_ok() || !path.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn web(name: &str) -> RuntimeContainer {
    RuntimeContainer {
        name: name.to_owned(),
        sandbox: "s1".to_owned(),
    }
}

fn listed(containers: &[(&str, &str)]) -> Arc<RuntimeContainers> {
    let containers = containers.iter();
    Arc::new(
        containers
            .map(|(id, name)| ((*id).to_owned(), web(name)))
            .collect(),
    )
}

fn pods() -> Pods {
    Box::new(|sandbox| (sandbox == "s1").then(|| ("team-a".to_owned(), "web".to_owned())))
}

struct Scene {
    containers: Containers,
    runtime: watch::Sender<Arc<RuntimeContainers>>,
    looks: Arc<AtomicUsize>,
}

impl Scene {
    fn new(containers: &[(&str, &str)]) -> Self {
        let (runtime, receiver) = watch::channel(listed(containers));
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let look = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        Self {
            containers: start(receiver, pods(), look),
            runtime,
            looks,
        }
    }

    fn name(&self, cgroup: u64, process: u32) -> Option<String> {
        let found = self.containers.of_cgroup(cgroup, process)?;
        assert_eq!(
            (found.pod_namespace.as_str(), found.pod_name.as_str()),
            ("team-a", "web")
        );
        Some(found.name.clone())
    }

    async fn wait_for(&self, cgroup: u64, name: &str) {
        let named = async {
            while self.name(cgroup, 0).as_deref() != Some(name) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, named).await.expect("it gets its name");
    }
}

#[tokio::test]
async fn a_process_leads_to_its_container_only_while_it_is_there() {
    let (mut first, mut second) = (Group::new('a'), Group::new('b'));
    // A sandbox of another one, so that nothing is read before it is asked for.
    let scene = Scene::new(&[(&first.id, "main"), (&second.id, "sidecar")]);
    let (pid, other) = (first.join(), second.join());
    assert_eq!(scene.name(first.cgroup(), pid).as_deref(), Some("main"));
    assert_eq!(scene.name(second.cgroup(), other).as_deref(), Some("sidecar"));
    assert_eq!(scene.containers.unresolved(), 0);
    // As if the id had become another process's.
    let third = Group::new('c');
    let before = scene.containers.unresolved();
    assert_eq!(scene.name(third.cgroup(), other), None);
    assert_eq!(scene.containers.unresolved(), before + 1);
}

#[tokio::test]
async fn without_a_process_a_container_is_found_by_looking_at_all_cgroups() {
    let group = Group::new('d');
    let scene = Scene::new(&[]);
    scene.runtime.send_replace(listed(&[(&group.id, "main")]));
    scene.wait_for(group.cgroup(), "main").await;
    // One that the runtime doesn't list is none, and counted; the runtime is asked.
    let unknown = Group::new('e');
    let missed = async {
        while scene.looks.load(Ordering::Relaxed) == 0 {
            assert_eq!(scene.name(unknown.cgroup(), 0), None);
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, missed).await.expect("the runtime is asked");
    assert!(scene.containers.unresolved() > 0);
}

#[tokio::test]
async fn a_container_that_went_keeps_its_name_for_a_while_and_a_new_one_has_its_own() {
    let group = Group::new('f');
    let id = group.id.clone();
    let scene = Scene::new(&[(&id, "main")]);
    scene.wait_for(group.cgroup(), "main").await;
    let cgroup = group.cgroup();
    drop(group);
    let again = Group::new('9');
    scene.runtime.send_replace(listed(&[(&again.id, "main-2")]));
    scene.wait_for(again.cgroup(), "main-2").await;
    assert_ne!(again.cgroup(), cgroup);
    assert_eq!(scene.name(cgroup, 0).as_deref(), Some("main"));
}

#[tokio::test]
async fn what_is_in_no_container_is_not_missed() {
    let mut group = Group::new('8');
    let pid = group.join();
    let plain = fs::metadata(&group.outer).expect("it is there").ino();
    let scene = Scene::new(&[]);
    fs::write(group.outer.join("cgroup.procs"), pid.to_string()).expect("root may");
    assert_eq!(scene.containers.of_cgroup(plain, pid), None);
    assert_eq!(scene.containers.of_cgroup(0, pid), None);
    assert_eq!(scene.containers.unresolved(), 0);
}

#[tokio::test]
async fn names_come_by_id_and_by_its_beginning() {
    let scene = Scene::new(&[]);
    let (one, other) = ("7".repeat(64), format!("76{}", "5".repeat(62)));
    scene.containers.learn(&one, "main", "s1");
    let name = |id: &str| scene.containers.of_id(id).map(|container| container.name.clone());
    assert_eq!(name(&one).as_deref(), Some("main"));
    assert_eq!((name("unheard"), name(""), name("s1")), (None, None, None));
    scene
        .runtime
        .send_replace(listed(&[(&one, "main"), (&other, "sidecar")]));
    let known = async {
        while name("76").as_deref() != Some("sidecar") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, known).await.expect("they become known");
    assert_eq!(name("7"), None, "two begin like this");
    assert_eq!(name("777").as_deref(), Some("main"));
}
