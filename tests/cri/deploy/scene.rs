//! A node on which the chart's pod runs, from an image that was made here.

use std::env;
use std::thread;
use std::time::Duration;

use sabot_deploy::chart::{Chart, Release};
use sabot_deploy::{image, manifests};
use sabot_testkit::cri::{Containerd, ExecResult, ManifestPod, Pod};
use sabot_testkit::http::{self, HttpAnswer};
use sabot_testkit::wait::wait_for;
use sabot_testkit::{DaemonOptions, NetnsRef};
use serde_json::{Value, json};

/// Longer than a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
pub(crate) const NODE: &str = "node-a";

pub(crate) struct Scene {
    pub(crate) containerd: Containerd,
    /// The pod template that the chart rendered.
    pub(crate) template: Value,
    pub(crate) sabotd: Pod,
}

impl Scene {
    /// Starts the chart's pod with these values over the chart's own, and waits until its daemon serves.
    pub(crate) fn start(values: &Value) -> Self {
        let containerd = Containerd::start_with_shared_mounts(&env::temp_dir()).expect("containerd starts");
        import_image(&containerd);
        let template = render(&containerd, values);
        let pod = ManifestPod {
            namespace: "sabot".to_owned(),
            name: "sabot-x7k2p".to_owned(),
            node: NODE.to_owned(),
            template: template.clone(),
        };
        let sabotd = containerd.run_manifest(&pod).expect("the chart's pod runs");
        let scene = Self {
            containerd,
            template,
            sabotd,
        };
        scene.wait_serving();
        scene
    }

    pub(crate) fn container(&self) -> &Value {
        &self.template["spec"]["containers"][0]
    }

    /// `kubectl exec POD -- sabot LINE`.
    pub(crate) fn sabot(&self, line: &str) -> ExecResult {
        let argv: Vec<_> = ["/usr/bin/sabot"].into_iter().chain(line.split(' ')).collect();
        self.containerd
            .exec(&self.sabotd, &argv, PATIENCE)
            .expect("the runtime runs it")
    }

    pub(crate) fn sabot_ok(&self, line: &str) -> String {
        let result = self.sabot(line);
        assert!(result.success(), "sabot {line}: {result:?}");
        result.stdout
    }

    pub(crate) fn sabot_json(&self, line: &str) -> Value {
        let text = self.sabot_ok(&format!("{line} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("sabot {line}: {error}: {text}"))
    }

    /// Asks as the kubelet's probe of this name does.
    pub(crate) fn probe(&self, name: &str) -> HttpAnswer {
        let port = self.container()["ports"][0]["containerPort"]
            .as_u64()
            .expect("a port");
        let port = u16::try_from(port).expect("a port");
        let path = self.container()[name]["httpGet"]["path"]
            .as_str()
            .expect("a path");
        let node = NetnsRef::open(self.containerd.node_netns()).expect("the node has a namespace");
        http::get(Some(&node), ([127, 0, 0, 1], port).into(), path, "*/*").expect("the daemon answers")
    }

    fn wait_serving(&self) {
        let mut last = None;
        let serving = wait_for(PATIENCE, LOOK, || {
            let result = self.sabot("node");
            let success = result.success();
            last = Some(result);
            success.then_some(())
        });
        assert!(serving.is_some(), "the pod's daemon doesn't serve: {last:?}");
    }

    /// `wget` in one pod from the web server of another; `None`: it takes too long.
    pub(crate) fn fetch(&self, from: &Pod, to: &Pod) -> Option<String> {
        let url = format!("http://{}/", to.ip());
        let result = self
            .containerd
            .exec(from, &["wget", "-q", "-O", "-", &url], Duration::from_secs(3))
            .expect("the runtime runs it");
        (!result.timed_out()).then_some(result.stdout)
    }

    /// Waits until the one reaches the other.
    pub(crate) fn wait_reaches(&self, from: &Pod, to: &Pod) {
        let expected = Some(format!("{}\n", to.spec.name));
        let reached = wait_for(PATIENCE, LOOK, || {
            (self.fetch(from, to) == expected).then_some(())
        });
        assert!(
            reached.is_some(),
            "{} doesn't reach {}",
            from.spec.name,
            to.spec.name
        );
    }

    /// Waits until the daemon knows a pod.
    pub(crate) fn wait_known(&self, pod: &Pod) {
        let known = wait_for(PATIENCE, LOOK, || {
            let targets = self.sabot_json("targets");
            let targets = targets["targets"].as_array().expect("a list").clone();
            let is_it = |target: &Value| target["pod"]["sandbox"] == pod.sandbox.as_str();
            targets.iter().any(is_it).then_some(())
        });
        assert!(known.is_some(), "the daemon doesn't know {pod:?}");
    }
}

/// Makes the image from the binaries that the tests use, and has the runtime take it.
fn import_image(containerd: &Containerd) {
    let built = DaemonOptions::built().expect("the daemon is built");
    let content = image::Content {
        sabotd: &built.sabotd,
        sabot: &built.sabot,
        licenses: &[],
    };
    let archive = containerd.directory().join("sabot.tar");
    let name = image::default_name();
    image::write(&content, &name, false, &archive).expect("the image is made");
    containerd
        .import(&archive, &name)
        .expect("containerd takes the image");
    std::fs::remove_file(&archive).expect("it was read");
}

/// The pod template of the chart's daemon, for a runtime that isn't where it is on real nodes.
fn render(containerd: &Containerd, values: &Value) -> Value {
    let chart = manifests::repository().join(manifests::CHART);
    let directory = containerd.directory().display().to_string();
    let mut all = json!({
        "runtime": {"directory": directory, "endpoint": format!("unix://{}", containerd.socket().display())},
        "paths": {"socket": format!("{directory}/sabot"), "netns": format!("{directory}/netns")},
    });
    for (key, value) in values.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let release = Release::standard("Helm");
    let rendered = Chart::load(&chart)
        .and_then(|chart| chart.render(&release, &all))
        .expect("the chart renders");
    let mut documents = rendered.into_iter().flat_map(|file| file.documents);
    let daemon = documents.find(|document| document["kind"] == "DaemonSet");
    daemon.expect("the chart has a DaemonSet")["spec"]["template"].clone()
}

/// Runs two things at once, since each of them mostly waits.
pub(crate) fn both<T: Send>(first: impl FnOnce() -> T + Send, second: impl FnOnce() -> T + Send) -> [T; 2] {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        [
            first
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            second,
        ]
    })
}
