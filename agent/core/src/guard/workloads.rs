//! How many pods of one workload may have faults.
//!
//! A workload's pods are on many nodes, whose daemons don't talk to each other. So it isn't counted who has a fault: one
//! ranking of all the workload's pods, the same everywhere, says who may have one.

use std::collections::{BTreeMap, BTreeSet};

use super::shares::allowed;
use super::{Guard, Guarded};
use crate::model::{
    ClusterPod, Fault, ObjectName, Percent, Pick, PickShare, TargetSelector, Workload, World,
};
use crate::select;

/// Any number will do, as long as all daemons take the same.
const SEED: u64 = 0;

/// A pod that could be a target, of this node or of another one.
struct Member<'a> {
    /// `None`: it is another node's.
    sandbox: Option<&'a str>,
    uid: &'a str,
    namespace: &'a str,
    workload: &'a Workload,
    /// It is guarded already: it has no fault, and doesn't take another pod's place.
    is_protected: bool,
}

/// One namespace's workloads are told apart by their names, which begin with their kinds.
type Key<'a> = (&'a str, &'a str);

/// How many pods there are, and which of them may have faults.
struct Shared<'a> {
    pods: usize,
    chosen: BTreeSet<&'a str>,
}

/// Guards the pods that aren't among those of their workload that may have faults.
pub(super) fn withhold(world: &mut World, share: Percent) {
    let members = members(world);
    let shared = share_out(&members, share);
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for member in members.iter().filter(|member| !member.is_protected) {
        let Some(guarded) = refusal(member, &shared, share) else {
            continue;
        };
        match member.sandbox {
            Some(sandbox) => here.push((sandbox.to_owned(), guarded)),
            None => elsewhere.push((member.uid.to_owned(), guarded)),
        }
    }
    world.guarded.extend(here);
    world.guarded_elsewhere.extend(elsewhere);
}

fn members(world: &World) -> Vec<Member<'_>> {
    let here: BTreeSet<&str> = world.pods.values().map(|pod| pod.uid.as_str()).collect();
    let others = world.cluster.all_pods();
    let others = others.filter(|pod| !pod.host_network && !here.contains(pod.uid.as_str()));
    let others: BTreeMap<&str, &ClusterPod> = others.map(|pod| (pod.uid.as_str(), pod)).collect();
    let others = others.into_values().map(|pod| Member {
        sandbox: None,
        uid: &pod.uid,
        namespace: &pod.namespace,
        workload: &pod.workload,
        is_protected: world.protections.spare(pod),
    });
    let own = world.pods.values().filter(|pod| !pod.host_network);
    let own = own.map(|pod| Member {
        sandbox: Some(&pod.sandbox),
        uid: &pod.uid,
        namespace: &pod.namespace,
        workload: &pod.workload,
        is_protected: world.guarded.contains_key(&pod.sandbox),
    });
    own.chain(others).collect()
}

fn share_out<'a>(members: &[Member<'a>], share: Percent) -> BTreeMap<Key<'a>, Shared<'a>> {
    let mut workloads = BTreeMap::<Key<'_>, Vec<&Member<'_>>>::new();
    for member in members {
        if let Workload::Of(name) = member.workload {
            workloads
                .entry((member.namespace, name))
                .or_default()
                .push(member);
        }
    }
    let choose = |members: Vec<&Member<'a>>| {
        let pick = Pick {
            share: PickShare::Count(u32::try_from(allowed(members.len(), share)).unwrap_or(u32::MAX)),
            seed: SEED,
        };
        let free = members.iter().filter(|member| !member.is_protected);
        Shared {
            pods: members.len(),
            chosen: select::taken(free.map(|member| member.uid), &pick),
        }
    };
    let shared = workloads.into_iter().map(|(key, members)| (key, choose(members)));
    shared.collect()
}

fn refusal(member: &Member<'_>, shared: &BTreeMap<Key<'_>, Shared<'_>>, share: Percent) -> Option<Guarded> {
    let namespace = member.namespace;
    let reason = match member.workload {
        Workload::Alone => return None,
        Workload::Unknown => {
            "only the API server knows the workload of this pod, and it hasn't told it".to_owned()
        }
        Workload::Of(name) => {
            let shared = &shared[&(namespace, name.as_str())];
            if shared.chosen.contains(member.uid) {
                return None;
            }
            format!(
                "at most {} % of the {} pods of {name} in namespace {namespace} may have faults, which is {}",
                share.value(),
                shared.pods,
                allowed(shared.pods, share),
            )
        }
    };
    let guard = Guard::WorkloadShare;
    Some(Guarded { guard, reason })
}

/// Why the fault, which takes all pods that match, would take more of a workload than may have faults. One with a pick takes
/// what it can of those that may.
pub(super) fn exceeded<'a>(fault: &Fault, world: &'a World) -> Option<&'a Guarded> {
    let is_share = |guarded: &&Guarded| guarded.guard == Guard::WorkloadShare;
    let of_pod = |sandbox: &String| world.guarded.get(sandbox).filter(is_share);
    let of_other = |uid: &String| world.guarded_elsewhere.get(uid).filter(is_share);
    match &fault.target {
        TargetSelector::Pods { selector, pick: None } => {
            let here = world.pods.values().filter(|pod| selector.matches(pod));
            let here = here.filter_map(|pod| of_pod(&pod.sandbox)).next();
            let names = |pod: &&ClusterPod| selector.names(&pod.namespace, &pod.name, &pod.labels);
            let mut others = world.cluster.all_pods().filter(names);
            here.or_else(|| others.find_map(|pod| of_other(&pod.uid)))
        }
        TargetSelector::Service { name, pick: None } => {
            let service = world.cluster.services.get(name)?;
            let backends = service.backends().filter_map(|backend| backend.pod.as_ref());
            let backends: BTreeSet<&ObjectName> = backends.collect();
            let here = world
                .pods
                .values()
                .filter(|pod| backends.contains(&pod.object_name()));
            let here = here.filter_map(|pod| of_pod(&pod.sandbox)).next();
            let others = world.cluster.all_pods();
            let mut others = others.filter(|pod| backends.contains(&pod.object_name()));
            here.or_else(|| others.find_map(|pod| of_other(&pod.uid)))
        }
        _ => None,
    }
}
