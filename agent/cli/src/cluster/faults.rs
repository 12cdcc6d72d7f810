//! Applying faults on all nodes: checked everywhere before anything is done anywhere.

use std::time::{Duration, Instant, SystemTime};

use sabot_core::spec::Manifest;

use super::Fleet;
use super::answers::{Answers, Outcome};
use super::live;
use crate::args::HowArgs;
use crate::client::Client;
use crate::commands::apply::{self, WATCH_INTERVAL};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::render;
use crate::view::{FaultDoc, OnNode, PreviewDoc, full_name};

/// How far ahead a common start lies at least.
const LEAD: Duration = Duration::from_secs(2);

/// When the faults begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// As each of them says: at once, or at its `startsAt`.
    AsSaid,
    /// At one moment on all nodes, soon; those that say when keep to that.
    Common,
}

/// Nothing is applied where any daemon refuses. Daemons that can't be reached are reported, and the others go on.
pub(super) async fn apply(
    fleet: Fleet,
    output: Output,
    mut manifests: Vec<Manifest>,
    how: HowArgs,
    start: Start,
) -> Result<(), CliError> {
    let began = Instant::now();
    let checked = fleet
        .each(async |client: &Client| check(client, &manifests).await)
        .await;
    let refused = checked.failed.iter().any(|(_, error)| !is_unreachable(error));
    if refused || how.dry_run || checked.answered.is_empty() {
        let (previews, outcome) = checked.merged("previews", |previews| previews);
        if how.dry_run && !previews.items.is_empty() {
            output.document(&previews, render::previews_on_nodes)?;
        }
        return outcome.refused(if how.dry_run { "" } else { "nothing was applied" });
    }
    if start == Start::Common {
        begin_together(&mut manifests, SystemTime::now(), began.elapsed());
    }
    let Answers { failed, .. } = checked;
    let total = fleet.daemons.len();
    let fleet = fleet.without(failed.iter().map(|(node, _)| node.as_str()));
    let mut applied = fleet
        .each(async |client: &Client| apply_all(client, &manifests, how).await)
        .await;
    applied.failed.extend(failed);
    applied.failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (faults, mut outcome) = applied.merged("faults", |faults| faults);
    outcome.total = total;
    output.document(&faults, |f| render::faults_on_nodes(&f.items, SystemTime::now()))?;
    let judged = judge(&faults.items, how, SystemTime::now());
    finish(outcome, judged)?;
    if how.watch {
        live::watch(&fleet, output, &apply::scope(&manifests), WATCH_INTERVAL).await?;
    }
    Ok(())
}

fn is_unreachable(error: &CliError) -> bool {
    error.exit_code() == Exit::NotReachable
}

async fn check(client: &Client, manifests: &[Manifest]) -> Result<Vec<PreviewDoc>, CliError> {
    let mut previews = Vec::new();
    for manifest in manifests {
        previews.push(apply::preview(client, manifest).await?);
    }
    Ok(previews)
}

async fn apply_all(client: &Client, manifests: &[Manifest], how: HowArgs) -> Result<Vec<FaultDoc>, CliError> {
    let mut applied = Vec::new();
    for manifest in manifests {
        applied.push(apply::apply(client, manifest, how).await?);
    }
    Ok(applied)
}

/// Far enough ahead for every daemon to know by then: applying takes about as long as checking took.
fn begin_together(manifests: &mut [Manifest], now: SystemTime, checked_in: Duration) {
    let lead = LEAD.max(checked_in.saturating_mul(2));
    for manifest in manifests {
        // Beyond what a clock can show there is no common start, but a check doesn't take that long.
        manifest.spec.starts_at = manifest.spec.starts_at.or(now.checked_add(lead));
    }
}

/// A node without targets has nothing to do; it is a failure only where somebody waits and no node has any.
fn judge(faults: &[OnNode<FaultDoc>], how: HowArgs, now: SystemTime) -> Result<(), CliError> {
    let has_targets = |on: &&OnNode<FaultDoc>| !on.document.status.targets.is_empty();
    for on in faults.iter().filter(has_targets) {
        apply::judge(&on.document, how, now)
            .map_err(|error| CliError::Failed(format!("node {}: {error}", on.node)))?;
    }
    for on in faults.iter().filter(|on| !has_targets(on)) {
        let name = full_name(&on.document.metadata);
        let elsewhere = faults
            .iter()
            .filter(has_targets)
            .any(|other| full_name(&other.document.metadata) == name);
        if !elsewhere {
            apply::judge(&on.document, how, now)?;
        }
    }
    Ok(())
}

/// Both are told; the nodes' failures decide the code.
fn finish(outcome: Outcome, judged: Result<(), CliError>) -> Result<(), CliError> {
    if outcome.failed.is_empty() {
        return judged;
    }
    if let Err(error) = judged {
        error.report();
    }
    outcome.finish("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixtures;
    use crate::view::Phase;

    fn how(wait: u64) -> HowArgs {
        HowArgs {
            dry_run: false,
            wait: Some(Duration::from_secs(wait)),
            watch: false,
        }
    }

    fn on(node: &str, phase: Phase, targets: bool) -> OnNode<FaultDoc> {
        let mut document = fixtures::fault();
        document.status.phase = phase;
        if !targets {
            document.status.targets.clear();
        }
        OnNode {
            node: node.to_owned(),
            document,
        }
    }

    #[test]
    fn nodes_without_targets_are_not_waited_for() {
        let now = fixtures::now();
        let some = [on("a", Phase::Injected, true), on("b", Phase::Pending, false)];
        judge(&some, how(1), now).expect("it is in force where it has targets");
        let none = [on("a", Phase::Pending, false), on("b", Phase::Pending, false)];
        judge(&none, how(1), now).expect_err("somebody waits for it");
        judge(&none, how(0), now).expect("nobody waits");
        let failed = [on("a", Phase::Injected, true), on("b", Phase::Failed, true)];
        let error = judge(&failed, how(0), now).expect_err("it failed on a node");
        assert!(error.to_string().starts_with("node b: "), "{error}");
    }

    #[test]
    fn a_common_start_leaves_room_for_every_node() {
        let now = fixtures::now();
        let manifest = || {
            sabot_core::manifest::parse_manifests(
                "{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {name: a}, \
             spec: {target: {}, action: {}}}",
            )
        };
        let mut manifests = manifest().expect("a manifest");
        begin_together(&mut manifests, now, Duration::from_millis(10));
        assert_eq!(manifests[0].spec.starts_at, Some(now + LEAD));
        let mut manifests = manifest().expect("a manifest");
        begin_together(&mut manifests, now, Duration::from_secs(5));
        assert_eq!(manifests[0].spec.starts_at, Some(now + Duration::from_secs(10)));
        begin_together(&mut manifests, now + LEAD, Duration::ZERO);
        assert_eq!(
            manifests[0].spec.starts_at,
            Some(now + Duration::from_secs(10)),
            "what is said stays"
        );
    }
}
