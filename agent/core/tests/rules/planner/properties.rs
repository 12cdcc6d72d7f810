//! Whatever happens in whatever order: the kernel ends up holding what is desired, and nothing else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabot_core::model::{
    Action, BootTime, Direction, Fault, LossModel, ObjectName, Peer, Pod, PodSelector, PortRef, Pulse, Ramp,
    Service, TargetDevice, TargetSelector, World,
};
use sabot_core::plan::{Observed, Policy};

use super::simulation::{POLICY, Simulation};
use crate::fixtures::{backend, cidr, device, every_action, fault, front, labelled, pod, pods_target};

const NETNS: &str = "/run/netns/lab";
const HOST: &str = "api.example.com";
/// Its pods are on the node's network.
const ON_NODE: u8 = 5;
/// Its device has no MAC header.
const HEADERLESS: u8 = 4;
/// Its device can't have a delay line.
const LINELESS: u8 = 3;

#[derive(Clone, Debug)]
enum Event {
    Apply {
        name: u8,
        shape: Shape,
    },
    Delete {
        name: u8,
    },
    PodUp {
        index: u8,
    },
    PodDown {
        index: u8,
    },
    PodRestart {
        index: u8,
    },
    Netns {
        exists: bool,
    },
    Pass {
        millis: u64,
    },
    Finish {
        which: usize,
        success: bool,
    },
    FailQuick {
        count: u32,
    },
    /// A lookup of the name is answered with these addresses, or its answers run out.
    Answer {
        addresses: Vec<u8>,
    },
    /// The cluster says which pods are behind the Service, by their indices, and at which port; none: it is gone.
    Service {
        backends: Option<Vec<u8>>,
        port: u16,
    },
}

#[derive(Clone, Debug)]
struct Shape {
    target: u8,
    action: usize,
    direction: u8,
    peers: u8,
    seconds: u64,
    starts_in: u64,
    /// A ramp, a pulse, or a range of lengths.
    course: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        0..6_u8,
        0..100_usize,
        0..3_u8,
        0..10_u8,
        1..20_u64,
        prop_oneof![4 => Just(0), 1 => 1..4_u64],
        0..8_u8,
    )
        .prop_map(
            |(target, action, direction, peers, seconds, starts_in, course)| Shape {
                target,
                action,
                direction,
                peers,
                seconds,
                starts_in,
                course,
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_u8, shape()).prop_map(|(name, shape)| Event::Apply { name, shape }),
        2 => (0..4_u8).prop_map(|name| Event::Delete { name }),
        3 => (0..6_u8).prop_map(|index| Event::PodUp { index }),
        2 => (0..6_u8).prop_map(|index| Event::PodDown { index }),
        1 => (0..6_u8).prop_map(|index| Event::PodRestart { index }),
        1 => any::<bool>().prop_map(|exists| Event::Netns { exists }),
        3 => (1..4000_u64).prop_map(|millis| Event::Pass { millis }),
        6 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(which, success)| Event::Finish { which, success }),
        1 => (1..3_u32).prop_map(|count| Event::FailQuick { count }),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(|addresses| Event::Answer { addresses }),
        2 => (prop::option::weighted(0.8, prop::collection::vec(0..6_u8, 0..4)), 80..82_u16)
            .prop_map(|(backends, port)| Event::Service { backends, port }),
    ]
}

fn build(name: u8, shape: &Shape, now: BootTime) -> Fault {
    let starts_at = now.after(Duration::from_secs(shape.starts_in));
    let mut built = fault(&format!("fault-{name}"), starts_at);
    built.duration = Duration::from_secs(shape.seconds);
    built.expires_at = starts_at.after(built.duration);
    built.target = match shape.target {
        0 | 1 => pods_target("web"),
        2 => pods_target("db"),
        3 => TargetSelector::Pods {
            selector: PodSelector {
                name: Some("web-2".to_owned()),
                ..labelled("web")
            },
            pick: None,
        },
        4 => TargetSelector::Service {
            name: service_name(),
            pick: None,
        },
        _ => TargetSelector::Netns(NETNS.into()),
    };
    let actions = every_action();
    built.action = actions[shape.action % actions.len()].clone();
    // A ramp makes a share that is whole at its end a partial one on its way.
    let is_share = matches!(&built.action, Action::Drop(loss) if matches!(loss.model, LossModel::Percent(_)));
    built.ramp = (shape.course == 1 && is_share).then_some(Ramp {
        over: Duration::from_secs(1),
        from: 0.0,
        to: 1.0,
    });
    built.pulse = (shape.course == 2).then_some(Pulse {
        on: Duration::from_secs(1),
        off: Duration::from_millis(500),
    });
    if shape.course == 3 {
        built.packets.least_length = 100;
    }
    built.seed = u64::from(shape.course);
    built.direction = [Direction::Both, Direction::Egress, Direction::Ingress][usize::from(shape.direction)];
    built.peers = match shape.peers {
        0 | 1 => Vec::new(),
        2 => vec![cidr("10.0.0.0/8", &["10.1.0.0/16"])],
        3 => vec![cidr("10.0.0.0/9", &[]), cidr("10.1.0.0/16", &["10.1.1.0/24"])],
        4 => vec![Peer::Pods(labelled("db"))],
        5 => vec![Peer::Pods(labelled("web")), cidr("10.0.0.0/8", &["10.1.0.3/32"])],
        6 => vec![Peer::Host(HOST.to_owned())],
        7 => vec![through_service(None)],
        8 => vec![
            through_service(Some(PortRef::Number(80))),
            cidr("10.1.0.0/16", &["10.1.1.2/32"]),
        ],
        _ => vec![Peer::Address("192.0.2.1".parse().expect("an address"))],
    };
    built
}

fn service_name() -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: "front".to_owned(),
    }
}

fn through_service(port: Option<PortRef>) -> Peer {
    Peer::Service {
        name: service_name(),
        port,
    }
}

fn make_pod(index: u8, generation: u64) -> Pod {
    let mut pod = pod(
        index,
        if index.is_multiple_of(2) { "web" } else { "db" },
        generation,
    );
    pod.host_network = index == ON_NODE;
    pod.devices[0].mac_header = index != HEADERLESS;
    pod
}

/// The devices that a fault means, read from the fixtures' world without the crate's selectors.
pub(crate) fn devices_meant<'a>(fault: &Fault, world: &'a World) -> Vec<&'a TargetDevice> {
    match &fault.target {
        TargetSelector::Pods { selector, .. } => {
            let app = selector.labels.to_string();
            let meant = |pod: &&Pod| {
                app == format!("app={}", pod.labels["app"])
                    && !pod.host_network
                    && selector.name.as_deref().is_none_or(|name| name == pod.name)
            };
            world
                .pods
                .values()
                .filter(meant)
                .flat_map(|pod| &pod.devices)
                .collect()
        }
        TargetSelector::Netns(path) => world.namespaces.get(path).into_iter().flatten().collect(),
        TargetSelector::Interface(name) => world.interfaces.get(name).into_iter().collect(),
        TargetSelector::Service { name, .. } => {
            let endpoints = world.cluster.services.get(name).map(|service| &service.endpoints);
            let pods: Vec<_> = endpoints.into_iter().flatten().flat_map(|e| &e.pod).collect();
            let meant = |pod: &&Pod| !pod.host_network && pods.iter().any(|name| name.name == pod.name);
            let meant = world.pods.values().filter(meant);
            meant.flat_map(|pod| &pod.devices).collect()
        }
        TargetSelector::Node(_) => world.node.devices.iter().collect(),
    }
}

/// Its pods are of the first generation, whose addresses may be those of pods that are there.
fn service(backends: &[u8], port: u16) -> Service {
    let pods = backends.iter().map(|index| make_pod(*index, 1));
    Service {
        endpoints: pods.map(|pod| backend(&pod, port)).collect(),
        ..front("10.96.0.1", port)
    }
}

struct Story {
    simulation: Simulation,
    generation: u64,
}

impl Story {
    fn new(policy: Policy) -> Self {
        Self {
            simulation: Simulation::new(policy),
            generation: 1,
        }
    }

    fn pod_down(&mut self, index: u8) {
        self.simulation
            .world
            .pods
            .retain(|_, pod| pod.uid != format!("uid-{index}"));
    }

    fn pod_up(&mut self, index: u8) {
        let pods = &mut self.simulation.world.pods;
        if !pods.values().any(|pod| pod.uid == format!("uid-{index}")) {
            let pod = make_pod(index, self.generation);
            if index == LINELESS {
                self.simulation.lineless.insert(pod.devices[0].key.clone());
            }
            pods.insert(pod.sandbox.clone(), pod);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Apply { name, shape } => self.simulation.apply(build(name, &shape, self.simulation.now)),
            Event::Delete { name } => self
                .simulation
                .faults
                .retain(|key, _| key.name != format!("fault-{name}")),
            Event::PodUp { index } => self.pod_up(index),
            Event::PodDown { index } => self.pod_down(index),
            Event::PodRestart { index } => {
                self.pod_down(index);
                self.generation += 1;
                self.pod_up(index);
            }
            Event::Netns { exists: true } => {
                let devices = vec![device(7, "veth0"), device(7, "veth1")];
                self.simulation.world.namespaces.insert(NETNS.into(), devices);
            }
            Event::Netns { exists: false } => self.simulation.world.namespaces.clear(),
            Event::Pass { millis } => self.simulation.pass(Duration::from_millis(millis)),
            Event::Finish { which, success } => {
                let busy = self.simulation.in_flight();
                if let Some(target) = busy.get(which % busy.len().max(1)) {
                    self.simulation.finish(*target, success);
                }
            }
            Event::FailQuick { count } => self.simulation.fail_quick = count,
            Event::Answer { addresses } => {
                let addresses = addresses
                    .into_iter()
                    .map(|last| IpAddr::from([203, 0, 113, last]));
                let names = &mut self.simulation.world.names;
                names.insert(HOST.to_owned(), addresses.collect());
            }
            Event::Service { backends, port } => {
                let services = &mut self.simulation.world.cluster.services;
                match backends {
                    Some(backends) => {
                        services.insert_mut(service_name(), Arc::new(service(&backends, port)));
                    }
                    None => drop(services.remove_mut(&service_name())),
                }
            }
        }
        self.simulation.converge();
    }

    /// Everything goes: nothing may stay in the kernel or in the planner's memory of it.
    fn end(mut self) {
        self.simulation.faults.clear();
        self.simulation.quiesce();
        assert!(self.simulation.kernel.rules.is_empty(), "rules without a fault");
        assert!(self.simulation.kernel.peers.is_empty(), "peers without a fault");
        self.simulation.world = World::default();
        self.simulation.quiesce();
        assert!(
            self.simulation.kernel.targets.is_empty(),
            "targets without a device"
        );
        let left = Observed {
            cooling: Default::default(),
            ..self.simulation.observed
        };
        assert_eq!(left, Observed::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_ends_in_the_desired_state(
        events in prop::collection::vec(event(), 1..60),
        eagerly in any::<bool>(),
    ) {
        let mut story = Story::new(Policy { attach_eagerly: eagerly, ..POLICY });
        for event in events {
            story.happen(event);
        }
        story.simulation.quiesce();
        story.simulation.check_desired();
        story.end();
    }

    #[test]
    fn full_tables_refuse_but_never_break(
        events in prop::collection::vec(event(), 1..60),
        max_slots in 1..4_u32,
        max_targets in 1..4_u32,
        max_slots_per_target in 1..3_usize,
        eagerly in any::<bool>(),
    ) {
        let tight = Policy { max_slots, max_targets, max_slots_per_target, attach_eagerly: eagerly, ..POLICY };
        let mut story = Story::new(tight);
        for event in events {
            story.happen(event);
            let simulation = &story.simulation;
            prop_assert!(simulation.kernel.owners.keys().all(|slot| slot.0 < max_slots));
            prop_assert!(simulation.kernel.targets.keys().all(|target| target.0 < max_targets));
            prop_assert!(simulation.kernel.targets.values().all(|t| t.slots.len() <= max_slots_per_target));
        }
        story.end();
    }
}
