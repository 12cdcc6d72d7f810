//! The quick forms of a fault, as the manifests that they stand for.

use std::time::{Duration, SystemTime};

use sabot_core::spec::{
    API_VERSION, Action, Corrupt, Delay, Direction, Drop, FaultSpec, KIND, Manifest, Metadata, Partition,
    Pick, Target,
};

use crate::args::{DirectionArg, FaultArgs, PickArg, QuickCommand};
use crate::error::CliError;
use crate::name;

/// The action, and the rest of the fault.
pub(crate) fn parts(command: &QuickCommand) -> (Action, &FaultArgs) {
    let mut action = Action::default();
    let args = match command {
        QuickCommand::Partition(fault) => {
            action.partition = Some(Partition {});
            fault
        }
        QuickCommand::Drop { percent, fault } => {
            action.drop = Some(Drop {
                percent: Some(percent.0),
                ..Drop::default()
            });
            fault
        }
        QuickCommand::Delay {
            latency,
            jitter,
            distribution,
            fault,
        } => {
            action.delay = Some(Delay {
                latency: Some(*latency),
                jitter: *jitter,
                distribution: distribution.clone(),
                ..Delay::default()
            });
            fault
        }
        QuickCommand::Corrupt { percent, kind, fault } => {
            action.corrupt = Some(Corrupt {
                kind: kind.clone(),
                percent: percent.0,
                ..Corrupt::default()
            });
            fault
        }
    };
    (action, args)
}

/// `now` is what `--starts-in` counts from.
pub(crate) fn manifest(args: &FaultArgs, action: Action, now: SystemTime) -> Result<Manifest, CliError> {
    let target = target(args)?;
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| name::generate(&action, &target));
    let starts_at = match args.starts_in {
        Some(ahead) => Some(start(now, ahead)?),
        None => args.starts_at,
    };
    Ok(Manifest {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: Metadata {
            name,
            namespace: args.namespace.clone().unwrap_or_default(),
        },
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
            sample_every: args.sample_every,
            action,
            ..FaultSpec::default()
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
    let mut target = args.target.0.clone();
    let Some(pick) = args.pick else {
        return Ok(target);
    };
    let Some(pods) = target.pods.as_mut() else {
        return Err(CliError::Usage(format!(
            "--pick takes some of several pods, but --target is {}",
            args.target
        )));
    };
    let (count, percent) = match pick {
        PickArg::Count(count) => (Some(count), None),
        PickArg::Percent(percent) => (None, Some(percent)),
    };
    pods.pick = Some(Pick {
        count,
        percent,
        seed: args.seed,
    });
    Ok(target)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use sabot_core::manifest::parse_manifests;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &[&str]) -> Result<Manifest, CliError> {
        let cli = Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let Command::Quick(command) = cli.command else {
            panic!("{line:?} describes no fault");
        };
        let (action, args) = parts(&command);
        manifest(args, action, now)
    }

    fn assert_same(line: &[&str], spec: &str) {
        let yaml = format!(
            "apiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: cut, namespace: team-a}}\nspec:\n{spec}"
        );
        let expected = parse_manifests(&yaml).expect(spec);
        let mut full = vec!["sabot"];
        full.extend(line);
        full.extend(["--name", "cut", "-n", "team-a"]);
        assert_eq!([parse(&full).expect("a manifest")], expected[..]);
    }

    #[test]
    fn a_partition_says_the_same_as_its_manifest() {
        assert_same(
            &[
                "partition",
                "--target",
                "pods:team-a/app=web",
                "--peer",
                "pods:team-b/app=cli",
                "--peer",
                "cidr:10.0.0.0/8,except=10.1.0.0/16",
                "--port",
                "UDP:53",
                "--port",
                "8443",
                "--direction",
                "egress",
                "--for",
                "20s",
                "--no-spare-node",
                "--sample-every",
                "5",
                "--pick",
                "50%",
                "--seed",
                "7",
            ],
            "  duration: 20s
  target:
    pods: {namespace: team-a, selector: {matchLabels: {app: web}}, pick: {percent: 50, seed: 7}}
  peers:
  - pods: {namespace: team-b, selector: {matchLabels: {app: cli}}}
  - {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
  direction: egress
  ports: [{protocol: UDP, port: 53}, {port: 8443}]
  spareNode: false
  sampleEvery: 5
  action: {partition: {}}
",
        );
    }

    #[test]
    fn the_other_actions_say_the_same_as_their_manifests() {
        assert_same(
            &["drop", "20%", "--target", "interface:eth0", "--for", "1m"],
            "  duration: 1m\n  target: {interface: eth0}\n  action: {drop: {percent: 20}}\n",
        );
        assert_same(
            &[
                "delay",
                "100ms",
                "--jitter",
                "20ms",
                "--distribution",
                "uniform",
                "--target",
                "pod:team-a/web-0",
                "--for",
                "1m",
                "--starts-in",
                "10s",
            ],
            "  duration: 1m
  startsAt: 2030-03-17T17:46:50Z
  target: {pods: {namespace: team-a, name: web-0}}
  action: {delay: {latency: 100ms, jitter: 20ms, distribution: uniform}}
",
        );
        assert_same(
            &[
                "corrupt",
                "0.5",
                "--kind",
                "payload",
                "--target",
                "netns:/run/netns/x",
                "--for",
                "1m",
                "--starts-at",
                "2030-01-31T12:00:00Z",
            ],
            "  duration: 1m
  startsAt: 2030-01-31T12:00:00Z
  target: {netns: /run/netns/x}
  action: {corrupt: {kind: payload, percent: 0.5}}
",
        );
    }

    #[test]
    fn a_pick_needs_pods_to_pick_from() {
        let error = parse(&[
            "sabot",
            "partition",
            "--target",
            "interface:eth0",
            "--for",
            "5s",
            "--pick",
            "1",
        ])
        .expect_err("there is one interface");
        assert_eq!(
            error.to_string(),
            "--pick takes some of several pods, but --target is interface:eth0"
        );
    }
}
