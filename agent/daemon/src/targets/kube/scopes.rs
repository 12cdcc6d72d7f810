//! Which lists and watches answer what is wanted.

use std::collections::BTreeSet;
use std::fmt;

use sabot_core::model::{ClusterWanted, ObjectName, PodSelector};

/// Pods that have finished hold no addresses.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// What the slices of a Service are labelled with.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Pods,
    Services,
    EndpointSlices,
    Nodes,
    ServiceCidrs,
}

impl Resource {
    fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
            Self::ServiceCidrs => "servicecidrs",
        }
    }

    /// Whether something may wait for it. Servers before 1.33 have no ServiceCIDRs, and do well without.
    pub(super) fn is_needed(self) -> bool {
        self != Self::ServiceCidrs
    }
}

/// The objects of one list and one watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    pub(super) resource: Resource,
    /// `None`: all namespaces, or none at all.
    pub(super) namespace: Option<String>,
    pub(super) labels: String,
    pub(super) fields: String,
}

impl Scope {
    /// The pods of one node.
    pub(super) fn pods_of(node: &str) -> Self {
        Self {
            resource: Resource::Pods,
            namespace: None,
            labels: String::new(),
            fields: format!("spec.nodeName={node},{UNFINISHED}"),
        }
    }

    pub(super) fn pods(selector: &PodSelector) -> Self {
        let name = selector
            .name
            .as_ref()
            .map(|name| format!("metadata.name={name},"));
        Self {
            resource: Resource::Pods,
            namespace: Some(selector.namespace.clone()),
            labels: selector.labels.to_string(),
            fields: format!("{}{UNFINISHED}", name.unwrap_or_default()),
        }
    }

    pub(super) fn service(name: &ObjectName) -> Self {
        Self {
            resource: Resource::Services,
            namespace: Some(name.namespace.clone()),
            labels: String::new(),
            fields: format!("metadata.name={}", name.name),
        }
    }

    pub(super) fn endpoints(service: &ObjectName) -> Self {
        Self {
            resource: Resource::EndpointSlices,
            namespace: Some(service.namespace.clone()),
            labels: format!("{SERVICE_NAME}={}", service.name),
            fields: String::new(),
        }
    }

    pub(super) fn services_in(namespace: &str) -> Self {
        Self {
            resource: Resource::Services,
            namespace: Some(namespace.to_owned()),
            labels: String::new(),
            fields: String::new(),
        }
    }

    /// Slices that belong to no Service aren't in it.
    pub(super) fn endpoints_in(namespace: &str) -> Self {
        Self {
            resource: Resource::EndpointSlices,
            namespace: Some(namespace.to_owned()),
            labels: SERVICE_NAME.to_owned(),
            fields: String::new(),
        }
    }

    pub(super) fn node(name: &str) -> Self {
        Self {
            resource: Resource::Nodes,
            namespace: None,
            labels: String::new(),
            fields: format!("metadata.name={name}"),
        }
    }

    pub(super) fn nodes() -> Self {
        Self {
            resource: Resource::Nodes,
            namespace: None,
            labels: String::new(),
            fields: String::new(),
        }
    }

    /// The ranges that Services have their addresses of.
    pub(super) fn service_ranges() -> Self {
        Self {
            resource: Resource::ServiceCidrs,
            namespace: None,
            labels: String::new(),
            fields: String::new(),
        }
    }

    /// The other one may be left once this one was read: both may hold the same objects, or two halves of the same one. A
    /// Service's slices are none without the Service.
    pub(super) fn may_follow(&self, other: &Self) -> bool {
        let both = match self.resource {
            Resource::Pods | Resource::ServiceCidrs => false,
            Resource::Nodes => other.resource == Resource::Nodes,
            Resource::Services | Resource::EndpointSlices => {
                matches!(other.resource, Resource::Services | Resource::EndpointSlices)
            }
        };
        both && self.namespace == other.namespace
    }

    /// Everything that is to be followed for what is wanted.
    pub(super) fn wanted(wanted: &ClusterWanted) -> BTreeSet<Self> {
        let mut scopes: BTreeSet<_> = wanted.pods.iter().map(Self::pods).collect();
        for namespace in &wanted.service_namespaces {
            scopes.extend([Self::services_in(namespace), Self::endpoints_in(namespace)]);
        }
        let is_covered = |name: &ObjectName| wanted.service_namespaces.contains(&name.namespace);
        for service in wanted.services.iter().filter(|name| !is_covered(name)) {
            scopes.extend([Self::service(service), Self::endpoints(service)]);
        }
        if wanted.all_nodes {
            scopes.insert(Self::nodes());
        } else {
            scopes.extend(wanted.nodes.iter().map(|name| Self::node(name)));
        }
        scopes
    }

    /// Where the API server has it.
    pub(super) fn path(&self) -> String {
        let group = match self.resource {
            Resource::Pods | Resource::Services | Resource::Nodes => "/api/v1",
            Resource::EndpointSlices => "/apis/discovery.k8s.io/v1",
            Resource::ServiceCidrs => "/apis/networking.k8s.io/v1",
        };
        let plural = self.resource.plural();
        match &self.namespace {
            Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
            None => format!("{group}/{plural}"),
        }
    }
}

/// As in `endpointslices of shop (kubernetes.io/service-name=web)`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource.plural())?;
        if let Some(namespace) = &self.namespace {
            write!(f, " of {namespace}")?;
        }
        match (self.labels.as_str(), self.fields.as_str()) {
            ("", "") => Ok(()),
            (labels, "") => write!(f, " ({labels})"),
            ("", fields) => write!(f, " ({fields})"),
            (labels, fields) => write!(f, " ({labels}; {fields})"),
        }
    }
}
