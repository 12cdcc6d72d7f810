//! The quick forms of a fault, as the manifests that they stand for.

use std::time::{Duration, SystemTime};

use sabot_core::quick::LengthForm;
use sabot_core::spec::{
    API_VERSION, Action, Corrupt, Delay, Direction, Drop, Duplicate, FaultSpec, Flows, KIND, Manifest,
    Metadata, Nth, Packets, Partition, Pick, RateLimit, Reject, Reorder, Reset, Target,
};

use crate::args::{
    CorruptArgs, DelayArgs, DirectionArg, DropArgs, DuplicateArgs, EndForm, FaultArgs, HowArgs, PickArg,
    QuickCommand, RateLimitArgs, ReorderArgs,
};
use crate::error::CliError;
use crate::name::{self, FaultRef};

/// What a quick form describes: one fault, or one for each of two ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quick {
    One(Box<Manifest>),
    Ends(Box<[Manifest; 2]>),
}

/// `now` is what `--starts-in` counts from.
pub(crate) fn faults(command: &QuickCommand, now: SystemTime) -> Result<(Quick, HowArgs), CliError> {
    let (action, args) = parts(command);
    if let QuickCommand::Partition(partition) = command
        && let (Some(between), Some(and)) = (&partition.between, &partition.and)
    {
        let ends = both_ends(args, &action, [between, and], now)?;
        return Ok((Quick::Ends(Box::new(ends)), args.how));
    }
    Ok((Quick::One(Box::new(manifest(args, action, now)?)), args.how))
}

/// Each end is a target once and the other's peer once: whichever daemon has one of them cuts there.
fn both_ends(
    args: &FaultArgs,
    action: &Action,
    ends: [&EndForm; 2],
    now: SystemTime,
) -> Result<[Manifest; 2], CliError> {
    let both = metadata(args, action, &ends[0].target)?;
    let one = |end: &EndForm, other: &EndForm, suffix| -> Result<Manifest, CliError> {
        let metadata = Metadata {
            name: format!("{}-{suffix}", both.name),
            ..both.clone()
        };
        let mut fault = described(args, action.clone(), *end.target.clone(), metadata, now)?;
        fault.spec.peers = vec![*other.peer.clone()];
        Ok(fault)
    };
    let [a, b] = ends;
    Ok([one(a, b, "a")?, one(b, a, "b")?])
}

/// The action, and the rest of the fault.
fn parts(command: &QuickCommand) -> (Action, &FaultArgs) {
    let mut action = Action::default();
    let args = match command {
        QuickCommand::Partition(args) => {
            action.partition = Some(Partition {});
            &args.fault
        }
        QuickCommand::Drop(args) => {
            action.drop = Some(drop(args));
            &args.fault
        }
        QuickCommand::Delay(args) => {
            action.delay = Some(delay(args));
            &args.fault
        }
        QuickCommand::Corrupt(args) => {
            action.corrupt = Some(corrupt(args));
            &args.fault
        }
        QuickCommand::Duplicate(args) => {
            action.duplicate = Some(duplicate(args));
            &args.fault
        }
        QuickCommand::Reorder(args) => {
            action.reorder = Some(reorder(args));
            &args.fault
        }
        QuickCommand::RateLimit(args) => {
            action.rate_limit = Some(rate_limit(args));
            &args.fault
        }
        QuickCommand::Reject { code, fault } => {
            action.reject = Some(Reject { code: code.clone() });
            fault
        }
        QuickCommand::Reset { to, fault } => {
            action.reset = Some(Reset { to: to.clone() });
            fault
        }
    };
    (action, args)
}

fn drop(args: &DropArgs) -> Drop {
    let nth = args.every.is_some() || args.first.is_some();
    Drop {
        percent: args.percent.map(|percent| percent.0),
        gilbert_elliott: args.gilbert_elliott.as_ref().map(|form| form.0.clone()),
        burst: args.burst.as_ref().map(|form| form.0.clone()),
        nth: nth.then_some(Nth {
            every: args.every,
            first: args.first,
        }),
        flows: args.flows.map(|percent| Flows { percent: percent.0 }),
        only: args.only.clone(),
    }
}

fn delay(args: &DelayArgs) -> Delay {
    Delay {
        latency: args.latency,
        jitter: args.jitter,
        distribution: args.distribution.clone(),
        quantiles: args.quantiles.clone(),
        correlation: args.correlation.map(|percent| percent.0),
        allow_reorder: args.allow_reorder.then_some(true),
    }
}

fn corrupt(args: &CorruptArgs) -> Corrupt {
    Corrupt {
        kind: args.kind.clone(),
        percent: args.percent.0,
        bits: args.bits,
        offset: args.offset.as_ref().map(|form| form.0.clone()),
    }
}

fn duplicate(args: &DuplicateArgs) -> Duplicate {
    Duplicate {
        percent: args.percent.0,
        copies: args.copies,
        delay: args.delay,
    }
}

fn reorder(args: &ReorderArgs) -> Reorder {
    Reorder {
        percent: args.percent.0,
        gap: args.gap,
        delay: args.delay,
    }
}

fn rate_limit(args: &RateLimitArgs) -> RateLimit {
    RateLimit {
        rate: args.rate.0.clone(),
        burst: args.burst.as_ref().map(|form| form.0.clone()),
        queue_bytes: args.queue_bytes.as_ref().map(|form| form.0.clone()),
        queue_time: args.queue_time,
    }
}

/// The part of the traffic filter that is about the IP header.
fn packets(args: &FaultArgs) -> Option<Packets> {
    if args.dscp.is_empty() && args.length.is_none() {
        return None;
    }
    let LengthForm(min_length, max_length) = args.length.unwrap_or(LengthForm(None, None));
    Some(Packets {
        dscp: args.dscp.iter().map(|form| form.0).collect(),
        min_length,
        max_length,
    })
}

fn manifest(args: &FaultArgs, action: Action, now: SystemTime) -> Result<Manifest, CliError> {
    let target = target(args)?;
    let metadata = metadata(args, &action, &target)?;
    described(args, action, target, metadata, now)
}

/// What the fault is called, as given or made up.
fn metadata(args: &FaultArgs, action: &Action, target: &Target) -> Result<Metadata, CliError> {
    let namespace = args.namespace.as_deref();
    let FaultRef { namespace, name } = match &args.name {
        Some(name) => FaultRef::parse(name, namespace)?,
        None => FaultRef {
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name::generate(action, target),
        },
    };
    Ok(Metadata { name, namespace })
}

fn described(
    args: &FaultArgs,
    action: Action,
    target: Target,
    metadata: Metadata,
    now: SystemTime,
) -> Result<Manifest, CliError> {
    let starts_at = match args.starts_in {
        Some(ahead) => Some(start(now, ahead)?),
        None => args.starts_at,
    };
    Ok(Manifest {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata,
        spec: FaultSpec {
            duration: Some(args.duration),
            starts_at,
            target,
            peers: args.peers.iter().map(|p| p.0.clone()).collect(),
            direction: match args.direction {
                DirectionArg::Both => None,
                DirectionArg::Egress => Some(Direction::Egress),
                DirectionArg::Ingress => Some(Direction::Ingress),
            },
            ports: args.ports.iter().map(|p| p.0.clone()).collect(),
            spare_node: args.no_spare_node.then_some(false),
            allow_control_plane: args.allow_control_plane.then_some(true),
            sample_every: args.sample_every,
            packets: packets(args),
            seed: args.seed,
            pulse: args.pulse.as_ref().map(|form| form.0.clone()),
            ramp: args.ramp.as_ref().map(|form| form.0.clone()),
            action,
        },
    })
}

fn start(now: SystemTime, ahead: Duration) -> Result<SystemTime, CliError> {
    now.checked_add(ahead).ok_or_else(|| {
        CliError::Usage(format!(
            "--starts-in {} is beyond what a clock can show",
            humantime::format_duration(ahead)
        ))
    })
}

fn target(args: &FaultArgs) -> Result<Target, CliError> {
    let Some(form) = &args.target else {
        return Err(CliError::Usage("--target is missing".to_owned()));
    };
    let mut target = form.0.clone();
    let Some(pick) = args.pick else {
        return Ok(target);
    };
    let place = match (target.pods.as_mut(), target.service.as_mut()) {
        (Some(pods), _) => &mut pods.pick,
        (None, Some(service)) => &mut service.pick,
        (None, None) => {
            return Err(CliError::Usage(format!(
                "--pick takes some of several pods, but --target is {form}"
            )));
        }
    };
    let (count, percent) = match pick {
        PickArg::Count(count) => (Some(count), None),
        PickArg::Percent(percent) => (None, Some(percent)),
    };
    *place = Some(Pick {
        count,
        percent,
        seed: args.seed.unwrap_or_default(),
    });
    Ok(target)
}

#[cfg(test)]
mod tests;
