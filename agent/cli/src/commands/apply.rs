//! Applying faults, from quick forms and from files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sabot_core::manifest::parse_manifests;
use sabot_core::spec::Manifest;
use sabot_proto::convert::{duration_to_proto, metadata_to_proto, spec_to_proto};
use sabot_proto::sabot::v1;

use super::watch::{self, Scope};
use crate::args::{Format, HowArgs};
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::view::{FaultDoc, FaultsDoc, Phase, PreviewDoc, full_name};

/// What the daemon waits where nothing else is asked for.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Every document of a file, or of the standard input where it is `-`.
pub(crate) fn read(file: &Path) -> Result<Vec<Manifest>, CliError> {
    let failed = |source| CliError::Read {
        path: file.to_owned(),
        source,
    };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(failed)?;
        text
    } else {
        fs::read_to_string(file).map_err(failed)?
    };
    let manifests =
        parse_manifests(&text).map_err(|e| CliError::Usage(format!("{}: {e}", file.display())))?;
    check_unique(&manifests)?;
    Ok(manifests)
}

fn check_unique(manifests: &[Manifest]) -> Result<(), CliError> {
    let mut seen = BTreeSet::new();
    for manifest in manifests {
        let name = full_name(&manifest.metadata);
        if !seen.insert(name.clone()) {
            return Err(CliError::Usage(format!(
                "{name} is there twice; which one is meant can't be told"
            )));
        }
    }
    Ok(())
}

pub(super) async fn one(
    client: &Client,
    output: Output,
    manifest: Manifest,
    how: HowArgs,
) -> Result<(), CliError> {
    if how.dry_run {
        let preview = preview(client, &manifest).await?;
        return output.document(&preview, render::preview);
    }
    let fault = apply(client, &manifest, how).await?;
    output.document(&fault, |f| render::applied(f, SystemTime::now()))?;
    judge(&fault, how, SystemTime::now())?;
    follow(client, output, &[manifest], how).await
}

/// All or nothing as far as that can be known before: first the daemon checks every document.
pub(super) async fn several(
    client: &Client,
    output: Output,
    manifests: Vec<Manifest>,
    how: HowArgs,
) -> Result<(), CliError> {
    let mut previews = Vec::new();
    let mut failures = Failures::default();
    for manifest in &manifests {
        match preview(client, manifest).await {
            Ok(preview) => previews.push(preview),
            Err(error) => failures.add(error),
        }
    }
    failures.finish(manifests.len(), "nothing was applied")?;
    if how.dry_run {
        for preview in &previews {
            output.item(preview, |p| format!("{}\n", render::preview(p)))?;
        }
        return Ok(());
    }
    let mut applied = Vec::new();
    for manifest in &manifests {
        match apply(client, manifest, how).await {
            Ok(fault) => {
                let now = SystemTime::now();
                output.remark(&render::applied(&fault, now))?;
                if let Err(error) = judge(&fault, how, now) {
                    failures.add(error);
                }
                applied.push(fault);
            }
            Err(error) => failures.add(error),
        }
    }
    if output.format != Format::Table {
        output.document(&FaultsDoc { faults: applied }, |_| String::new())?;
    }
    failures.finish(manifests.len(), "")?;
    follow(client, output, &manifests, how).await
}

async fn follow(
    client: &Client,
    output: Output,
    manifests: &[Manifest],
    how: HowArgs,
) -> Result<(), CliError> {
    if !how.watch {
        return Ok(());
    }
    watch::follow(client, output, &scope(manifests), WATCH_INTERVAL).await
}

/// These faults, to be followed.
pub(crate) fn scope(manifests: &[Manifest]) -> Scope {
    let faults = manifests.iter().map(|m| FaultRef {
        namespace: m.metadata.namespace.clone(),
        name: m.metadata.name.clone(),
    });
    Scope::Faults(faults.collect())
}

pub(crate) fn to_wire(manifest: &Manifest) -> Result<v1::FaultSpec, CliError> {
    spec_to_proto(&manifest.spec).map_err(|errors| CliError::Invalid {
        what: full_name(&manifest.metadata),
        violations: errors.iter().map(ToString::to_string).collect(),
    })
}

pub(crate) async fn preview(client: &Client, manifest: &Manifest) -> Result<PreviewDoc, CliError> {
    let request = v1::PreviewFaultRequest {
        metadata: Some(metadata_to_proto(&manifest.metadata)),
        spec: Some(to_wire(manifest)?),
    };
    let what = format!("checking {}", full_name(&manifest.metadata));
    let answer = client
        .answer(what, client.faults().preview_fault(request))
        .await?;
    PreviewDoc::new(manifest.metadata.clone(), manifest.spec.clone(), answer)
}

pub(crate) async fn apply(client: &Client, manifest: &Manifest, how: HowArgs) -> Result<FaultDoc, CliError> {
    let request = v1::ApplyFaultRequest {
        metadata: Some(metadata_to_proto(&manifest.metadata)),
        spec: Some(to_wire(manifest)?),
        wait: how.wait.map(duration_to_proto),
    };
    let what = format!("applying {}", full_name(&manifest.metadata));
    let extra = how.wait.unwrap_or(DEFAULT_WAIT);
    let answer = client
        .slow_answer(what, extra, client.faults().apply_fault(request))
        .await?;
    FaultDoc::try_from(answer.fault.unwrap_or_default())
}

/// An error where the fault isn't in force although it should be: it failed, or somebody waited for it.
pub(crate) fn judge(fault: &FaultDoc, how: HowArgs, now: SystemTime) -> Result<(), CliError> {
    let ahead = fault.status.starts_at.is_some_and(|t| t.0 > now);
    let waited = how.wait.is_some_and(|w| !w.is_zero()) && !ahead;
    let failed = match fault.status.phase {
        Phase::Failed => true,
        Phase::Pending | Phase::Partial => waited,
        Phase::Unknown | Phase::Injected | Phase::Expired | Phase::Deleted => false,
    };
    if failed {
        return Err(CliError::Failed(format!(
            "{} is not in force on all its targets",
            full_name(&fault.metadata)
        )));
    }
    Ok(())
}

/// Failures of several things, each reported as it happens; the first one decides the exit code.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: usize,
    first: Option<Exit>,
}

impl Failures {
    pub(super) fn add(&mut self, error: CliError) {
        error.report();
        self.count += 1;
        self.first.get_or_insert(error.exit_code());
    }

    /// An error if there was any; `effect` says what that means for the rest.
    pub(super) fn finish(&self, total: usize, effect: &'static str) -> Result<(), CliError> {
        match self.first {
            None => Ok(()),
            Some(exit) => Err(CliError::Several {
                failed: self.count,
                total,
                effect,
                exit,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixtures;

    fn how(wait: Option<u64>) -> HowArgs {
        HowArgs {
            dry_run: false,
            wait: wait.map(Duration::from_secs),
            watch: false,
        }
    }

    #[test]
    fn a_fault_that_is_not_in_force_fails_whoever_waited_for_it() {
        let now = fixtures::now();
        for (phase, wait, ok) in [
            (Phase::Injected, Some(1), true),
            (Phase::Failed, None, false),
            (Phase::Pending, None, true),
            (Phase::Pending, Some(0), true),
            (Phase::Pending, Some(1), false),
            (Phase::Partial, Some(1), false),
        ] {
            let mut fault = fixtures::fault();
            fault.status.phase = phase;
            assert_eq!(judge(&fault, how(wait), now).is_ok(), ok, "{phase:?} {wait:?}");
        }
        let mut fault = fixtures::fault();
        fault.status.phase = Phase::Pending;
        fault.status.starts_at = Some(crate::view::Time(now + Duration::from_secs(9)));
        assert!(judge(&fault, how(Some(1)), now).is_ok(), "its start lies ahead");
    }

    #[test]
    fn the_first_failure_decides_the_exit_code() {
        let mut failures = Failures::default();
        failures.finish(3, "").expect("nothing failed");
        failures.add(CliError::status(
            "a",
            tonic::Status::failed_precondition("no tun"),
        ));
        failures.add(CliError::Usage("b".into()));
        let error = failures.finish(3, "nothing was applied").expect_err("two failed");
        assert_eq!(error.exit_code(), Exit::Refused);
        assert_eq!(error.to_string(), "2 of 3 failed: nothing was applied");
    }

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("faults.yaml");
        let document = |name: &str, extra: &str| {
            format!(
                "apiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: {name}}}\n\
                 spec:\n  duration: 5s\n  target: {{interface: eth0}}\n  action: {{partition: {{}}}}\n{extra}---\n"
            )
        };
        let parse = |text: String| {
            fs::write(&path, text).expect("a file");
            read(&path)
        };
        let both = parse(document("a", "") + &document("b", "")).expect("two faults");
        assert_eq!(both.len(), 2);
        let unknown =
            parse(document("a", "") + &document("b", "  surprise: 1\n")).expect_err("an unknown field");
        assert!(unknown.to_string().contains("surprise"), "{unknown}");
        assert_eq!(unknown.exit_code(), Exit::Usage);
        let twice = parse(document("a", "") + &document("a", "")).expect_err("the same twice");
        assert!(twice.to_string().contains("twice"), "{twice}");
        let missing = read(&directory.path().join("missing.yaml")).expect_err("no such file");
        assert_eq!(missing.exit_code(), Exit::Failed);
    }
}
