//! A cluster of kind's, for the time of the run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Arguments;
use crate::ui::{self, Step};
use crate::{build, image, process};

const NAME: &str = "sabot-e2e";
/// Two nodes, so that something can be on the other one.
const CONFIGURATION: &str =
    "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n- role: worker\n";

/// The cluster; dropping it removes it, unless it is to be kept.
pub(super) struct Kind {
    folder: TempDir,
    keep: bool,
}

impl Kind {
    /// Makes the cluster and loads the image into it.
    ///
    /// # Errors
    ///
    /// There is no kind or no Docker, or one of them fails; with what it said.
    pub(super) fn create(arguments: &Arguments) -> Result<Self> {
        for (program, what) in [
            ("kind", "`go install sigs.k8s.io/kind@latest`"),
            ("docker", "Debian's package docker.io"),
        ] {
            ensure!(
                process::find_program(program).is_some(),
                "--kind needs `{program}` on the PATH ({what})"
            );
        }
        let kind = Self {
            folder: tempfile::tempdir().context("no temporary folder")?,
            keep: arguments.keep,
        };
        let archive = kind.folder.path().join("sabot.tar");
        let binaries = build::find_or_build(arguments.binaries.as_deref(), true)?;
        let name = match &arguments.image {
            Some(name) => name.clone(),
            None => sabot_deploy::image::default_name(),
        };
        image::write(&binaries, &name, &archive)?;
        let configuration = kind.folder.path().join("kind.yaml");
        std::fs::write(&configuration, CONFIGURATION).context("writing kind's configuration")?;
        let step = Step::start("a cluster by kind");
        let mut create = Command::new("kind");
        create
            .args(["create", "cluster", "--name", NAME, "--wait", "180s"])
            .arg("--config")
            .arg(&configuration)
            .arg("--kubeconfig")
            .arg(kind.kubeconfig());
        process::run_quietly(&step, &mut create)?;
        step.done(NAME);
        let step = Step::start("the image on its nodes");
        let mut load = Command::new("kind");
        load.args(["load", "image-archive", "--name", NAME]).arg(&archive);
        process::run_quietly(&step, &mut load)?;
        step.done(&name);
        if kind.keep {
            ui::found("kept", &format!("`kind delete cluster --name {NAME}` removes it"));
        }
        Ok(kind)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let mut delete = Command::new("kind");
        delete.args(["delete", "cluster", "--name", NAME]);
        if !process::succeeds(&mut delete) {
            ui::missing("kind", &format!("`kind delete cluster --name {NAME}` failed"));
        }
    }
}
