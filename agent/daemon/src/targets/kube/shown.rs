//! The part of the world that isn't pods, put together from what the scopes hold: a Service with its endpoints, nodes, and what
//! of the wanted things was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sabot_core::model::{Cluster, ClusterWanted, ObjectName, Service};

use super::Following;
use super::objects::Item;
use super::scopes::{Resource, Scope};
use super::table::{Change, One, Table};

type Scopes = BTreeMap<Scope, Following>;

/// What the last world said, and what has moved since.
#[derive(Debug, Default)]
pub(super) struct Shown {
    cluster: Cluster,
    /// Any Service or node may be another one.
    all: bool,
    services: BTreeSet<ObjectName>,
    nodes: bool,
    ranges: bool,
}

impl Shown {
    pub(super) fn all_moved(&mut self) {
        self.all = true;
    }

    /// Something has changed in a scope of such objects.
    pub(super) fn moved(&mut self, resource: Resource, change: &Change) {
        match (resource, change) {
            (Resource::Pods, _) | (_, Change::Nothing) => {}
            (Resource::Nodes, _) => self.nodes = true,
            (Resource::ServiceCidrs, _) => self.ranges = true,
            (_, Change::All) => self.all = true,
            (_, Change::One(one)) => {
                let One { name, before, after } = &**one;
                let service = |item: &Item| match item {
                    Item::Service(_) => Some(name.clone()),
                    Item::Endpoints(service, _) => Some(ObjectName {
                        namespace: name.namespace.clone(),
                        name: service.clone(),
                    }),
                    Item::Pod(_) | Item::Node(_) | Item::ServiceRanges(_) => None,
                };
                let both = before.iter().chain(after);
                self.services.extend(both.filter_map(service));
            }
        }
    }

    pub(super) fn update(&mut self, wanted: &ClusterWanted, scopes: &Scopes) -> Cluster {
        self.cluster.known = Arc::new(part(wanted, |scope| read(scopes, scope).is_some()));
        let is_answered = |scope: &Scope| scopes.get(scope).is_some_and(|f| f.table.is_answered());
        self.cluster.answered = Arc::new(part(wanted, is_answered));
        let pods = wanted.pods.iter().filter_map(|selector| {
            let following = scopes.get(&Scope::pods(selector))?;
            let is_known = following.table.is_known;
            is_known.then(|| (selector.clone(), Arc::clone(&following.pods)))
        });
        self.cluster.pods = pods.collect();
        let all = std::mem::take(&mut self.all);
        let mut services = std::mem::take(&mut self.services);
        if all {
            services.extend(self.cluster.services.keys().cloned());
            services.extend(wanted.services.iter().cloned());
            let namespaces = wanted.service_namespaces.iter();
            let tables = namespaces.filter_map(|namespace| read(scopes, &Scope::services_in(namespace)));
            services.extend(tables.flat_map(|table| table.items().map(|(name, _)| name.clone())));
        }
        for name in services {
            self.show_service(name, wanted, scopes);
        }
        if std::mem::take(&mut self.nodes) || all {
            self.show_nodes(wanted, scopes);
        }
        if std::mem::take(&mut self.ranges) {
            self.show_ranges(scopes);
        }
        self.cluster.clone()
    }

    fn show_service(&mut self, name: ObjectName, wanted: &ClusterWanted, scopes: &Scopes) {
        let shown = &mut self.cluster.services;
        match service(&name, wanted, scopes) {
            Some(service) if shown.get(&name).is_some_and(|known| **known == service) => {}
            Some(service) => shown.insert_mut(name, Arc::new(service)),
            None => drop(shown.remove_mut(&name)),
        }
    }

    fn show_nodes(&mut self, wanted: &ClusterWanted, scopes: &Scopes) {
        let scopes = scopes
            .iter()
            .filter(|(scope, _)| scope.resource == Resource::Nodes);
        let tables = scopes.map(|(_, following)| &following.table);
        let items = tables.filter(|table| table.is_known).flat_map(Table::items);
        let is_wanted = |name: &str| wanted.all_nodes || wanted.nodes.contains(name);
        let nodes = items.filter_map(|(name, item)| match item {
            Item::Node(addresses) if is_wanted(&name.name) => Some((name.name.clone(), addresses.clone())),
            Item::Node(_)
            | Item::Pod(_)
            | Item::Service(_)
            | Item::Endpoints(..)
            | Item::ServiceRanges(_) => None,
        });
        let nodes = nodes.collect();
        if *self.cluster.nodes != nodes {
            self.cluster.nodes = Arc::new(nodes);
        }
    }

    fn show_ranges(&mut self, scopes: &Scopes) {
        let items = read(scopes, &Scope::service_ranges()).map(Table::items);
        let ranges = items.into_iter().flatten().filter_map(|(_, item)| match item {
            Item::ServiceRanges(ranges) => Some(ranges),
            Item::Pod(_) | Item::Service(_) | Item::Endpoints(..) | Item::Node(_) => None,
        });
        self.cluster.service_ranges = Arc::new(ranges.flatten().copied().collect());
    }
}

fn read<'a>(scopes: &'a Scopes, scope: &Scope) -> Option<&'a Table> {
    let table = &scopes.get(scope)?.table;
    table.is_known.then_some(table)
}

/// All Services of a namespace, and all endpoints, where both were read.
fn whole<'a>(scopes: &'a Scopes, namespace: &str) -> Option<(&'a Table, &'a Table)> {
    let services = read(scopes, &Scope::services_in(namespace))?;
    Some((services, read(scopes, &Scope::endpoints_in(namespace))?))
}

/// The tables that hold a Service and its endpoints, where both were read.
fn tables<'a>(scopes: &'a Scopes, name: &ObjectName) -> Option<(&'a Table, &'a Table)> {
    let one = || {
        let service = read(scopes, &Scope::service(name))?;
        Some((service, read(scopes, &Scope::endpoints(name))?))
    };
    whole(scopes, &name.namespace).or_else(one)
}

/// A Service with all its endpoints; `None` if there is none, it isn't wanted, or not all of it is known.
fn service(name: &ObjectName, wanted: &ClusterWanted, scopes: &Scopes) -> Option<Service> {
    if !(wanted.services.contains(name) || wanted.service_namespaces.contains(&name.namespace)) {
        return None;
    }
    let (services, slices) = tables(scopes, name)?;
    let Some(Item::Service(service)) = services.item(name) else {
        return None;
    };
    let mut service = service.clone();
    for (slice, item) in slices.items() {
        if let Item::Endpoints(owner, endpoints) = item
            && *owner == name.name
            && slice.namespace == name.namespace
        {
            service.endpoints.extend(endpoints.iter().cloned());
        }
    }
    Some(service)
}

/// What of the wanted things has all its scopes among those that `are` so.
fn part(wanted: &ClusterWanted, are: impl Fn(&Scope) -> bool) -> ClusterWanted {
    let ClusterWanted {
        pods,
        services,
        service_namespaces,
        nodes,
        all_nodes,
    } = wanted;
    let every_node = are(&Scope::nodes());
    let is_whole =
        |namespace: &str| are(&Scope::services_in(namespace)) && are(&Scope::endpoints_in(namespace));
    let is_service = |name: &ObjectName| {
        is_whole(&name.namespace) || are(&Scope::service(name)) && are(&Scope::endpoints(name))
    };
    let pods = pods.iter().filter(|selector| are(&Scope::pods(selector)));
    let services = services.iter().filter(|name| is_service(name));
    let namespaces = service_namespaces.iter().filter(|namespace| is_whole(namespace));
    let nodes = nodes.iter().filter(|name| every_node || are(&Scope::node(name)));
    ClusterWanted {
        pods: pods.cloned().collect(),
        services: services.cloned().collect(),
        service_namespaces: namespaces.cloned().collect(),
        nodes: nodes.cloned().collect(),
        all_nodes: *all_nodes && every_node,
    }
}
