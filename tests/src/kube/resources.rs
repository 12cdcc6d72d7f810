//! The resources that the server knows, and what a path means.

use axum::http::Method;

/// A kind of object and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
    /// Writes of the object leave its status alone, and the other way round.
    pub(super) has_status: bool,
}

impl Resource {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            namespaced: true,
            has_status: false,
        }
    }

    const fn of_cluster(self) -> Self {
        Self {
            namespaced: false,
            ..self
        }
    }

    const fn with_status(self) -> Self {
        Self {
            has_status: true,
            ..self
        }
    }

    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Events are the same objects in both of their groups.
pub(super) const RESOURCES: [Resource; 10] = [
    Resource::new("", "v1", "Pod", "pods"),
    Resource::new("", "v1", "Service", "services"),
    Resource::new("", "v1", "Node", "nodes").of_cluster(),
    Resource::new("", "v1", "Namespace", "namespaces").of_cluster(),
    Resource::new("", "v1", "Event", "events"),
    Resource::new("events.k8s.io", "v1", "Event", "events"),
    Resource::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Resource::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs").of_cluster(),
    Resource::new("sabot.dev", "v1alpha1", "NetworkFault", "networkfaults").with_status(),
    Resource::new(
        "sabot.dev",
        "v1alpha1",
        "ClusterNetworkFault",
        "clusternetworkfaults",
    )
    .of_cluster()
    .with_status(),
];

/// What is asked for, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Patch,
    Delete,
}

/// The object or objects that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) resource: &'static Resource,
    /// `None`: all namespaces, or none at all.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Place {
    /// `None`: no resource is there.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, rest) = rest.split_first()?;
        let mut resources = RESOURCES.iter();
        let resource = resources.find(|r| r.group == group && r.version == version && r.plural == *plural)?;
        if rest.len() > 2 || (namespace.is_some() && !resource.namespaced) {
            return None;
        }
        Some(Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: rest.first().map(|&name| name.to_owned()),
            subresource: rest.get(1).map(|&name| name.to_owned()),
        })
    }

    pub(super) fn verb(&self, method: &Method, watches: bool) -> Option<Verb> {
        Some(match (method.as_str(), &self.name) {
            ("GET", Some(_)) => Verb::Get,
            ("GET", None) if watches => Verb::Watch,
            ("GET", None) => Verb::List,
            ("POST", None) => Verb::Create,
            ("PATCH", Some(_)) => Verb::Patch,
            ("DELETE", Some(_)) => Verb::Delete,
            _ => return None,
        })
    }
}
