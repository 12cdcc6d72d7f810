//! `cargo xtask e2e`: the whole on a real cluster: installation from the chart's manifests, faults as resources and by the
//! client, Services, restarts, roles, uninstallation.
//!
//! Any cluster from Kubernetes 1.27 on that KUBECONFIG names will do, if its nodes can have the image; with `--kind` it is
//! made and removed here. Everything lies in two namespaces of its own, and goes at the end, also of a failed run.

mod checks;
mod kind;
mod kubectl;
mod workload;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use sabot_deploy::chart::Release;
use sabot_deploy::{image, manifests};
use serde_json::{Value, json};

use self::checks::{CHECKS, Scene};
use self::kind::Kind;
use self::kubectl::Kubectl;
use crate::process;
use crate::ui::{self, Step};

/// The oldest version whose API has all that is used.
const OLDEST: (u64, u64) = (1, 27);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Make a cluster with kind (which needs Docker), load the image into it, and remove it at the end
    #[arg(long)]
    kind: bool,
    /// The image that the cluster's nodes can have, as REPOSITORY:TAG; with --kind it is made here
    #[arg(long, value_name = "REPOSITORY:TAG", required_unless_present = "kind")]
    image: Option<String>,
    /// The container runtime's directory on the nodes
    #[arg(long, value_name = "FOLDER", default_value = "/run/containerd")]
    runtime_directory: String,
    /// An image with busybox, for the pods that are disturbed
    #[arg(long, value_name = "IMAGE", default_value = "busybox:1.36")]
    workload_image: String,
    /// Take sabotd and sabot from this folder instead of building them
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// Leave everything as it is at the end
    #[arg(long)]
    keep: bool,
}

/// Installs, checks and uninstalls; ends with a line `N passed, N failed` on standard output.
///
/// # Errors
///
/// The cluster can't be used, or a check failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let kind = arguments.kind.then(|| Kind::create(arguments)).transpose()?;
    let kubectl = match &kind {
        Some(kind) => Kubectl::new(Some(kind.kubeconfig()))?,
        None => Kubectl::new(None)?,
    };
    let version = kubectl.server_version()?;
    ensure!(
        version >= OLDEST,
        "the cluster has Kubernetes {}.{}; {}.{} and later are supported",
        version.0,
        version.1,
        OLDEST.0,
        OLDEST.1
    );
    let name = arguments.image.clone().unwrap_or_else(image::default_name);
    let installation = installation(&name, &arguments.runtime_directory)?;
    let guard = Installed {
        kubectl: &kubectl,
        manifests: &installation,
        keep: arguments.keep,
    };
    install(&kubectl, &installation, &arguments.workload_image)?;
    let mut failed = check(&kubectl);
    // Sabot goes while a fault is in force.
    if !arguments.keep {
        let step = Step::start("uninstall under a fault");
        match guard.remove_daemons() {
            Ok(()) => step.done("the traffic flows, and nothing is left"),
            Err(error) => {
                step.failed(&format!("{error:#}"));
                failed += 1;
            }
        }
    }
    let total = CHECKS.len() + usize::from(!arguments.keep);
    drop(guard);
    println!("{} passed, {failed} failed", total - failed);
    if failed > 0 {
        bail!("{failed} of {total} checks failed");
    }
    Ok(())
}

/// The manifests that are installed.
fn installation(image: &str, runtime_directory: &str) -> Result<Vec<Value>> {
    let (repository, tag) = image
        .rsplit_once(':')
        .with_context(|| format!("--image: `{image}` has no tag; REPOSITORY:TAG is needed"))?;
    let values = json!({
        "image": {"repository": repository, "tag": tag},
        "runtime": {"directory": runtime_directory},
    });
    manifests::installation(&process::root(), &Release::standard("e2e"), &values)
}

fn install(kubectl: &Kubectl, installation: &[Value], workload_image: &str) -> Result<()> {
    let step = Step::start("install from the chart");
    kubectl.apply(installation)?;
    kubectl.run(&[
        "-n",
        "sabot",
        "rollout",
        "status",
        "daemonset/sabot",
        "--timeout=180s",
    ])?;
    step.done("every node has its daemon");
    let step = Step::start("pods to disturb");
    kubectl.apply(&workload::manifests(workload_image))?;
    for name in workload::DEPLOYMENTS {
        let deployment = format!("deployment/{name}");
        let namespace = workload::NAMESPACE;
        kubectl.run(&[
            "-n",
            namespace,
            "rollout",
            "status",
            &deployment,
            "--timeout=180s",
        ])?;
    }
    step.done(&workload::DEPLOYMENTS.join(", "));
    Ok(())
}

/// Makes every check, also after one has failed; says how many did.
fn check(kubectl: &Kubectl) -> usize {
    let scene = Scene::new(kubectl);
    let mut failed = 0;
    for (title, check) in CHECKS {
        let step = Step::start(title);
        match check(&scene) {
            Ok(()) => step.done("as expected"),
            Err(error) => {
                step.failed(&format!("{error:#}"));
                failed += 1;
            }
        }
        // What a check left must not be the next one's trouble.
        if let Err(error) = scene.clear() {
            ui::missing("taking faults away", &format!("{error:#}"));
        }
    }
    failed
}

/// What is in the cluster because of us; dropping it takes it away.
struct Installed<'a> {
    kubectl: &'a Kubectl,
    manifests: &'a [Value],
    keep: bool,
}

impl Installed<'_> {
    /// Uninstalls Sabot while the pods to disturb are there, with a fault in force.
    fn remove_daemons(&self) -> Result<()> {
        let scene = Scene::new(self.kubectl);
        scene.cut_off()?;
        self.kubectl.delete(self.manifests)?;
        scene.expect_reached("server")?;
        let left = self.kubectl.run(&[
            "get",
            "crd,clusterrole,clusterrolebinding",
            "--output=name",
            "--selector=app.kubernetes.io/name=sabot",
        ])?;
        ensure!(left.trim().is_empty(), "still there: {left}");
        Ok(())
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let step = Step::start("taking everything away");
        // Both are tried, and both are gone already after a good run.
        let results = [
            self.kubectl.delete(&workload::manifests("none")),
            self.kubectl.delete(self.manifests),
        ];
        match results.into_iter().collect::<Result<()>>() {
            Ok(()) => step.done("done"),
            Err(error) => step.failed(&format!("{error:#}")),
        }
    }
}
