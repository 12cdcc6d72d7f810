//! Admission guards: which pods may have a fault, and how many of them at once.
//!
//! A guard refuses a fault as it comes ([`Guards::check`]), and keeps watching while it is in force ([`Guards::apply`]): a
//! pod that becomes protected leaves its faults, and pods that come beyond a share get none.

mod shares;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use self::shares::{Owners, Room};
use crate::model::{ClusterPod, Fault, LabelSelector, Percent, Pod, World};
use crate::quick::parse_selector;
use crate::resolve::{Resolution, resolve};
use crate::validate::{self, Violation, names};

/// What the annotations begin with that mean something to Sabot.
pub const ANNOTATIONS: &str = "sabot.dev/";
/// A pod that carries it with the value `true` has no faults.
pub const PROTECTED: &str = "sabot.dev/protected";
/// Protected unless other namespaces are named.
pub const DEFAULT_NAMESPACE: &str = "kube-system";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// The pod's namespace is protected.
    ProtectedNamespace,
    /// The pod's annotation protects it.
    ProtectedPod,
    /// Only pods with certain labels may have faults, and it lacks them.
    OptIn,
    /// Others of its workload may have faults, and these are all that may.
    WorkloadShare,
    /// So many pods of its namespace have faults already.
    NamespaceShare,
    /// So many pods of the node have faults already.
    NodeShare,
}

impl Guard {
    pub const ALL: [Self; 6] = [
        Self::ProtectedNamespace,
        Self::ProtectedPod,
        Self::OptIn,
        Self::WorkloadShare,
        Self::NamespaceShare,
        Self::NodeShare,
    ];

    /// As refusals name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProtectedNamespace => "protected-namespace",
            Self::ProtectedPod => "protected-pod",
            Self::OptIn => "opt-in",
            Self::WorkloadShare => "workload-share",
            Self::NamespaceShare => "namespace-share",
            Self::NodeShare => "node-share",
        }
    }

    /// It is about the pod itself, whatever other pods have.
    pub fn is_protection(self) -> bool {
        !matches!(self, Self::NamespaceShare | Self::NodeShare)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// That a guard refuses something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub guard: Guard,
    pub reason: String,
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (guard {})", self.reason, self.guard)
    }
}

/// The guards' settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Guards {
    /// Pods of these namespaces have no faults.
    pub protected_namespaces: BTreeSet<String>,
    /// Only pods that match may have faults; `None`: all.
    pub opt_in: Option<LabelSelector>,
    /// Of the pods that one controller manages in the whole cluster, at most this share may have faults, rounded down: the
    /// first ones of one ranking, so that all nodes agree on them.
    pub workload_share: Percent,
    /// Of the pods of one namespace on this node, at most this share may have faults at once, rounded down.
    pub namespace_share: Percent,
    /// Of all pods on this node.
    pub node_share: Percent,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            protected_namespaces: BTreeSet::from([DEFAULT_NAMESPACE.to_owned()]),
            opt_in: None,
            workload_share: Percent(100.0),
            namespace_share: Percent(100.0),
            node_share: Percent(100.0),
        }
    }
}

impl Guards {
    /// Nothing is guarded.
    pub fn none() -> Self {
        Self {
            protected_namespaces: BTreeSet::new(),
            ..Self::default()
        }
    }

    /// Whether all pods of a workload have to be known before one of them may have a fault.
    pub fn limit_workloads(&self) -> bool {
        self.workload_share.value() < 100.0
    }

    /// Whether what is guarded depends on the faults.
    pub fn limit_shares(&self) -> bool {
        self.namespace_share.value() < 100.0 || self.node_share.value() < 100.0
    }

    /// Fills in which pods may not have a fault. Where more pods are meant than a share allows, those in `standing` come
    /// first, which are the ones that had faults before; returns the ones that do now, by their sandboxes.
    pub fn apply<'a>(
        &self,
        world: &mut World,
        faults: impl IntoIterator<Item = &'a Fault>,
        standing: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        self.protect(world);
        if !self.limit_shares() {
            return BTreeSet::new();
        }
        let owners = Owners::of(world);
        let meant: BTreeSet<String> = faults
            .into_iter()
            .flat_map(|fault| owners.meant(&resolve(fault, world)))
            .map(str::to_owned)
            .collect();
        let mut ranked: Vec<&String> = meant.iter().collect();
        ranked.sort_by_key(|sandbox| (!standing.contains(*sandbox), *sandbox));
        let mut room = Room::of(self, world);
        let (mut kept, mut withheld) = (BTreeSet::new(), BTreeMap::new());
        for sandbox in ranked {
            let namespace = &world.pods[sandbox].namespace;
            match room.take(namespace) {
                Ok(()) => drop(kept.insert(sandbox.clone())),
                Err(full) => drop(withheld.insert(sandbox.clone(), full)),
            }
        }
        world.guarded.extend(withheld);
        kept
    }

    /// Fills in the pods that may not have a fault, whatever faults there are.
    fn protect(&self, world: &mut World) {
        let protections = self.protections();
        let protected = world.pods.iter().filter_map(|(sandbox, pod)| {
            let guarded = protections.of(&pod.into())?;
            Some((sandbox.clone(), guarded))
        });
        world.guarded = protected.collect();
        world.guarded_elsewhere.clear();
        if *world.protections != protections {
            world.protections = Arc::new(protections);
        }
        if self.limit_workloads() {
            workloads::withhold(world, self.workload_share);
        }
    }

    /// Whether a new fault, or an edit of the one of its name, may be in force beside the `others`. `world` is one that
    /// [`Self::apply`] has seen.
    ///
    /// # Errors
    /// The guard that refuses it, and why.
    pub fn check<'a>(
        &self,
        fault: &Fault,
        world: &World,
        others: impl IntoIterator<Item = &'a Fault>,
    ) -> Result<(), Guarded> {
        if let Some(namespace) = fault.target.namespace()
            && self.protected_namespaces.contains(namespace)
        {
            return Err(protected_namespace(namespace));
        }
        if let Some(full) = workloads::exceeded(fault, world) {
            return Err(full.clone());
        }
        let resolution = resolve(fault, world);
        // Where others remain, the protected ones are just left out.
        if resolution.targets.is_empty()
            && resolution.pending.is_none()
            && let Some(guarded) = protection_of(&resolution, world)
        {
            return Err(guarded.clone());
        }
        if self.limit_shares() {
            self.check_shares(&resolution, world, others)?;
        }
        Ok(())
    }

    fn check_shares<'a>(
        &self,
        resolution: &Resolution,
        world: &World,
        others: impl IntoIterator<Item = &'a Fault>,
    ) -> Result<(), Guarded> {
        let owners = Owners::of(world);
        let new = owners.meant(resolution);
        let mut room = Room::of(self, world);
        let taken: BTreeSet<String> = others
            .into_iter()
            .flat_map(|other| {
                owners
                    .in_force(&resolve(other, world))
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        for sandbox in &taken {
            // They are there, whatever is allowed by now.
            let _ = room.take(&world.pods[sandbox].namespace);
        }
        for sandbox in new {
            if !taken.contains(sandbox) {
                room.take(&world.pods[sandbox].namespace)?;
            }
        }
        Ok(())
    }

    /// Those that are about the pods themselves.
    pub fn protections(&self) -> Protections {
        Protections {
            namespaces: self.protected_namespaces.clone(),
            opt_in: self.opt_in.clone(),
            whole_workloads: self.limit_workloads(),
        }
    }
}

/// Which pods may not have faults, whatever other pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protections {
    namespaces: BTreeSet<String>,
    opt_in: Option<LabelSelector>,
    /// It matters how many pods the targets' workloads have, wherever they are.
    pub whole_workloads: bool,
}

impl Protections {
    /// Whether a pod of another node may have faults.
    pub fn spare(&self, pod: &ClusterPod) -> bool {
        self.of(&pod.into()).is_some()
    }

    fn of(&self, pod: &Described<'_>) -> Option<Guarded> {
        if self.namespaces.contains(pod.namespace) {
            return Some(protected_namespace(pod.namespace));
        }
        let name = || format!("{}/{}", pod.namespace, pod.name);
        if pod
            .annotations
            .get(PROTECTED)
            .is_some_and(|value| value == "true")
        {
            return Some(Guarded {
                guard: Guard::ProtectedPod,
                reason: format!("the pod {} carries the annotation {PROTECTED}: \"true\"", name()),
            });
        }
        let wanted = self.opt_in.as_ref()?;
        (!wanted.matches(pod.labels)).then(|| Guarded {
            guard: Guard::OptIn,
            reason: format!(
                "the pod {} doesn't match {wanted}, as pods with faults must",
                name()
            ),
        })
    }
}

/// What a protection goes by, of a pod of this node or of another one.
struct Described<'a> {
    namespace: &'a str,
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Pod> for Described<'a> {
    fn from(pod: &'a Pod) -> Self {
        Self {
            namespace: &pod.namespace,
            name: &pod.name,
            labels: &pod.labels,
            annotations: &pod.annotations,
        }
    }
}

impl<'a> From<&'a ClusterPod> for Described<'a> {
    fn from(pod: &'a ClusterPod) -> Self {
        Self {
            namespace: &pod.namespace,
            name: &pod.name,
            labels: &pod.labels,
            annotations: &pod.annotations,
        }
    }
}

fn protected_namespace(namespace: &str) -> Guarded {
    Guarded {
        guard: Guard::ProtectedNamespace,
        reason: format!("the namespace {namespace} is protected"),
    }
}

/// What protects the first of the pods that are refused because they are protected.
fn protection_of<'a>(resolution: &Resolution, world: &'a World) -> Option<&'a Guarded> {
    let is_refused = |pod: &Pod| {
        let refused = resolution
            .refused
            .iter()
            .filter_map(|refused| refused.pod.as_ref());
        refused.into_iter().any(|refused| refused.uid == pod.uid)
    };
    let guarded = world
        .guarded
        .iter()
        .filter(|(_, guarded)| guarded.guard.is_protection());
    guarded
        .filter(|(sandbox, _)| world.pods.get(*sandbox).is_some_and(is_refused))
        .map(|(_, guarded)| guarded)
        .next()
}

/// Whether a namespace may have this name.
pub fn is_namespace(text: &str) -> bool {
    names::is_label(text)
}

/// Reads labels as kubectl writes them.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn parse_labels(text: &str) -> Result<LabelSelector, String> {
    let written = parse_selector(text).map_err(|error| error.to_string())?;
    validate::plain_labels(&written).map_err(|violations| {
        let texts: Vec<_> = violations.iter().map(Violation::description).collect();
        texts.join("; ")
    })
}
