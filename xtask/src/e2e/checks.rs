//! What is looked at on the cluster. Each check begins without a fault.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::kubectl::Kubectl;
use super::workload::NAMESPACE;

/// Until something that takes seconds at most is so.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);
/// As many fetches through a Service meet every backend, nearly always.
const FETCHES: usize = 8;

type Check = fn(&Scene<'_>) -> Result<()>;

/// In this order.
pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a fault on a Service", service),
    ("backends that come later", scaling),
    ("a restart of the daemons", restart),
    ("a deadline", deadline),
    ("a fault by the client", client),
    ("a fault without a duration", refusal),
    ("roles", roles),
    ("a Service as the target", target_service),
];

/// The cluster with everything installed.
pub(super) struct Scene<'a> {
    kubectl: &'a Kubectl,
}

impl<'a> Scene<'a> {
    pub(super) fn new(kubectl: &'a Kubectl) -> Self {
        Self { kubectl }
    }

    /// Takes every fault away.
    pub(super) fn clear(&self) -> Result<()> {
        self.kubectl.run(&[
            "-n",
            NAMESPACE,
            "delete",
            "networkfaults",
            "--all",
            "--timeout=60s",
        ])?;
        for daemon in self.daemons()? {
            self.sabot(&daemon.name, &["delete", "--all"])?;
        }
        Ok(())
    }

    /// Cuts the client off from the Service, until somebody ends it.
    pub(super) fn cut_off(&self) -> Result<()> {
        self.apply("cut", &cut("5m"))?;
        self.wait_phase("cut", "Injected")?;
        self.expect_cut("server")
    }

    /// Declares a fault.
    fn apply(&self, name: &str, spec: &Value) -> Result<()> {
        self.kubectl.apply(&[json!({
            "apiVersion": "sabot.dev/v1alpha1",
            "kind": "NetworkFault",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        })])
    }

    fn status(&self, name: &str) -> Result<Value> {
        let fault = self
            .kubectl
            .json(&["-n", NAMESPACE, "get", "networkfault", name])?;
        Ok(fault["status"].clone())
    }

    fn wait_phase(&self, name: &str, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        let reached = wait(|| {
            last = self.status(name)?;
            Ok(last["phase"] == phase)
        })?;
        ensure!(reached, "{name} didn't become {phase}: {last:#}");
        Ok(last)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.kubectl
            .run(&["-n", NAMESPACE, "delete", "networkfault", name, "--timeout=60s"])
            .map(drop)
    }

    /// What the client gets from a Service; `None`: nothing, in time.
    fn fetch(&self, service: &str) -> Option<String> {
        let url = format!("http://{service}/");
        let exec = ["-n", NAMESPACE, "exec", "deployment/client", "--"];
        let wget = ["timeout", "3", "wget", "-q", "-O", "-", &url];
        self.kubectl.run(&[exec.as_slice(), &wget].concat()).ok()
    }

    pub(super) fn expect_reached(&self, service: &str) -> Result<()> {
        let reached = wait(|| Ok(self.fetch(service).is_some()))?;
        ensure!(reached, "the client doesn't reach {service}");
        Ok(())
    }

    fn expect_cut(&self, service: &str) -> Result<()> {
        for _ in 0..FETCHES {
            if let Some(name) = self.fetch(service) {
                bail!("the client reaches {service}, through {}", name.trim());
            }
        }
        Ok(())
    }

    fn daemons(&self) -> Result<Vec<Daemon>> {
        let selector = "--selector=app.kubernetes.io/name=sabot,app.kubernetes.io/component=daemon";
        let pods = self.kubectl.json(&["-n", "sabot", "get", "pods", selector])?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        pods.iter()
            .map(|pod| {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let name = text(&pod["metadata"]["name"]).context("a pod without a name")?;
                let node = text(&pod["spec"]["nodeName"]).context("a pod without a node")?;
                Ok(Daemon { name, node })
            })
            .collect()
    }

    /// Runs the client in a daemon's pod.
    fn sabot(&self, pod: &str, arguments: &[&str]) -> Result<String> {
        let exec = ["-n", "sabot", "exec", pod, "--", "sabot"];
        self.kubectl.run(&[exec.as_slice(), arguments].concat())
    }

    /// The daemon of the node that the client runs on.
    fn clients_daemon(&self) -> Result<Daemon> {
        let pods = self
            .kubectl
            .json(&["-n", NAMESPACE, "get", "pods", "--selector=app=client"])?;
        let node = &pods["items"][0]["spec"]["nodeName"];
        let daemons = self.daemons()?;
        let found = daemons.into_iter().find(|daemon| *node == daemon.node);
        found.with_context(|| format!("the node {node} has no daemon"))
    }

    fn can(&self, account: &str, verb: &str, resource: &str) -> bool {
        let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        self.kubectl
            .run(&["-n", NAMESPACE, "auth", "can-i", verb, resource, &who])
            .is_ok()
    }
}

struct Daemon {
    name: String,
    node: String,
}

/// Cuts the client off from the Service `server`.
fn cut(duration: &str) -> Value {
    json!({
        "duration": duration,
        "target": {"pods": {"selector": {"matchLabels": {"app": "client"}}}},
        "peers": [{"service": {"name": "server"}}],
        "action": {"partition": {}},
    })
}

fn service(scene: &Scene<'_>) -> Result<()> {
    scene.expect_reached("server")?;
    scene.expect_reached("other")?;
    scene.cut_off()?;
    scene.expect_reached("other")?;
    scene.delete("cut")?;
    scene.expect_reached("server")
}

fn scaling(scene: &Scene<'_>) -> Result<()> {
    scene.apply("cut", &cut("5m"))?;
    scene.wait_phase("cut", "Injected")?;
    let scale = |replicas: &str| -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        scene
            .kubectl
            .run(&["-n", NAMESPACE, "scale", "deployment/server", &replicas])?;
        let wait = ["rollout", "status", "deployment/server", "--timeout=120s"];
        scene
            .kubectl
            .run(&[["-n", NAMESPACE].as_slice(), &wait].concat())?;
        Ok(())
    };
    scale("5")?;
    // Within a second of its event, and the event itself takes a moment.
    thread::sleep(Duration::from_secs(2));
    let result = scene.expect_cut("server");
    scale("3")?;
    result
}

fn restart(scene: &Scene<'_>) -> Result<()> {
    scene.apply("cut", &cut("10m"))?;
    let before = scene.wait_phase("cut", "Injected")?;
    let daemonset = "daemonset/sabot";
    scene
        .kubectl
        .run(&["-n", "sabot", "rollout", "restart", daemonset])?;
    scene
        .kubectl
        .run(&["-n", "sabot", "rollout", "status", daemonset, "--timeout=180s"])?;
    let is_cut = wait(|| Ok(scene.fetch("server").is_none()))?;
    ensure!(is_cut, "the fault isn't in force again");
    let after = scene.wait_phase("cut", "Injected")?;
    scene.expect_cut("server")?;
    ensure!(
        before["expiresAt"] == after["expiresAt"] && before["expiresAt"].is_string(),
        "its deadline was {} and is {}",
        before["expiresAt"],
        after["expiresAt"]
    );
    Ok(())
}

fn deadline(scene: &Scene<'_>) -> Result<()> {
    scene.apply("short", &cut("15s"))?;
    scene.wait_phase("short", "Injected")?;
    scene.wait_phase("short", "Expired")?;
    scene.expect_reached("server")
}

fn client(scene: &Scene<'_>) -> Result<()> {
    let daemon = scene.clients_daemon()?;
    let target = format!("pods:{NAMESPACE}/app=client");
    let peer = format!("service:{NAMESPACE}/server");
    let quick = [
        "partition",
        "--name",
        "quick",
        "--target",
        &target,
        "--peer",
        &peer,
        "--for",
        "5m",
    ];
    scene.sabot(&daemon.name, &quick)?;
    scene.expect_cut("server")?;
    scene.expect_reached("other")?;
    scene.sabot(&daemon.name, &["delete", "quick"])?;
    scene.expect_reached("server")
}

fn refusal(scene: &Scene<'_>) -> Result<()> {
    let mut spec = cut("5m");
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("duration");
    }
    let Err(error) = scene.apply("endless", &spec) else {
        bail!("a fault without a duration was accepted")
    };
    let text = format!("{error:#}");
    ensure!(text.contains("duration"), "refused for another reason: {text}");
    Ok(())
}

fn roles(scene: &Scene<'_>) -> Result<()> {
    for (account, verb, resource, expected) in [
        ("viewer", "list", "networkfaults.sabot.dev", true),
        ("viewer", "create", "networkfaults.sabot.dev", false),
        ("operator", "create", "networkfaults.sabot.dev", true),
        ("operator", "create", "clusternetworkfaults.sabot.dev", false),
        ("operator", "create", "pods/exec", false),
    ] {
        let can = scene.can(account, verb, resource);
        ensure!(
            can == expected,
            "{account} may {verb} {resource}: {can}, and not {expected}"
        );
    }
    Ok(())
}

fn target_service(scene: &Scene<'_>) -> Result<()> {
    let spec = json!({
        "duration": "5m",
        "target": {"service": {"name": "server"}},
        "action": {"partition": {}},
    });
    scene.apply("hole", &spec)?;
    let status = scene.wait_phase("hole", "Injected")?;
    ensure!(
        status["targets"] == 3,
        "the Service has three backends: {status:#}"
    );
    scene.expect_cut("server")?;
    scene.expect_reached("other")
}

/// Asks until it is so; `false`: it isn't in time.
fn wait(mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if is_so()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}
