//! The calls of the Container Runtime Interface, and what their messages are about.

use super::message::Message;

/// As it is said of a call whose name isn't known.
pub const UNKNOWN: &str = "unknown";
/// A call of CRI that is newer than this list.
const OTHER: &str = "other";

const SERVICES: [(&str, &[&str]); 2] = [
    (
        "RuntimeService",
        &[
            "Attach",
            "CheckpointContainer",
            "ContainerStats",
            "ContainerStatus",
            "CreateContainer",
            "Exec",
            "ExecSync",
            "GetContainerEvents",
            "ListContainerStats",
            "ListContainers",
            "ListMetricDescriptors",
            "ListPodSandbox",
            "ListPodSandboxMetrics",
            "ListPodSandboxStats",
            "PodSandboxStats",
            "PodSandboxStatus",
            "PortForward",
            "RemoveContainer",
            "RemovePodSandbox",
            "ReopenContainerLog",
            "RunPodSandbox",
            "RuntimeConfig",
            "StartContainer",
            "Status",
            "StopContainer",
            "StopPodSandbox",
            "UpdateContainerResources",
            "UpdatePodSandboxResources",
            "UpdateRuntimeConfig",
            "Version",
        ],
    ),
    (
        "ImageService",
        &[
            "ImageFsInfo",
            "ImageStatus",
            "ListImages",
            "PullImage",
            "RemoveImage",
        ],
    ),
];

/// What a path of HTTP/2 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// A call of CRI, by its name.
    Operation(&'static str),
    /// The runtime serves other things on the same socket.
    Foreign,
}

impl Method {
    /// `/runtime.v1.RuntimeService/RunPodSandbox`, of any version.
    pub(super) fn of_path(path: &str) -> Self {
        let parts = path
            .strip_prefix("/runtime.v1")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(_, rest)| rest.split_once('/'));
        let Some((service, call)) = parts else {
            return Self::Foreign;
        };
        match SERVICES.iter().find(|(name, _)| *name == service) {
            Some((_, calls)) => Self::Operation(calls.iter().find(|name| **name == call).unwrap_or(&OTHER)),
            None => Self::Foreign,
        }
    }
}

/// Whether a call only asks for the state of things: such calls are made all the time.
pub(super) fn is_poll(operation: &str) -> bool {
    operation.starts_with("List")
        || operation.ends_with("Status")
        || operation.ends_with("Stats")
        || ["GetContainerEvents", "ImageFsInfo", "RuntimeConfig", "Version"].contains(&operation)
}

/// What a call is about, as far as its messages say; empty where they don't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) sandbox: String,
    pub(super) container: String,
    pub(super) container_name: String,
    pub(super) image: String,
    /// Namespace and name.
    pub(super) pod: Option<(String, String)>,
}

impl Subject {
    /// `answer` is `None` where the call failed.
    pub(super) fn of(operation: &str, request: Option<Message<'_>>, answer: Option<Message<'_>>) -> Self {
        let text =
            |message: Option<Message<'_>>| message.and_then(|m| m.text(1)).unwrap_or_default().to_owned();
        let part = |number| request.and_then(|request| request.message(number));
        match operation {
            "RunPodSandbox" => Self {
                sandbox: text(answer),
                pod: part(1).and_then(pod),
                ..Self::default()
            },
            "CreateContainer" => Self {
                sandbox: text(request),
                container: text(answer),
                container_name: text(part(2).and_then(|config| config.message(1))),
                image: text(part(2).and_then(|config| config.message(2))),
                pod: part(3).and_then(pod),
            },
            "PullImage" => Self {
                image: text(part(1)),
                pod: part(3).and_then(pod),
                ..Self::default()
            },
            "ImageStatus" | "RemoveImage" => Self {
                image: text(part(1)),
                ..Self::default()
            },
            "StopPodSandbox"
            | "RemovePodSandbox"
            | "PodSandboxStatus"
            | "PodSandboxStats"
            | "PortForward"
            | "UpdatePodSandboxResources" => Self {
                sandbox: text(request),
                ..Self::default()
            },
            "StartContainer"
            | "StopContainer"
            | "RemoveContainer"
            | "ContainerStatus"
            | "ContainerStats"
            | "UpdateContainerResources"
            | "ReopenContainerLog"
            | "CheckpointContainer"
            | "ExecSync"
            | "Exec"
            | "Attach" => Self {
                container: text(request),
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

/// Namespace and name in a sandbox's configuration.
fn pod(config: Message<'_>) -> Option<(String, String)> {
    let metadata = config.message(1)?;
    Some((metadata.text(3)?.to_owned(), metadata.text(1)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use sabot_proto::runtime::v1::StartContainerRequest;

    use super::super::testing::{ID, create, encoded};
    use super::*;

    #[test]
    fn paths_are_calls_of_any_version_or_foreign() {
        let operation = Method::Operation;
        for (path, method) in [
            (
                "/runtime.v1.RuntimeService/RunPodSandbox",
                operation("RunPodSandbox"),
            ),
            ("/runtime.v1alpha2.ImageService/PullImage", operation("PullImage")),
            ("/runtime.v1.RuntimeService/FlyToTheMoon", operation(OTHER)),
            ("/runtime.v1.ImageService/RunPodSandbox", operation(OTHER)),
            ("/containerd.services.images.v1.Images/List", Method::Foreign),
            ("/runtime.v1.Sorcery/List", Method::Foreign),
            ("", Method::Foreign),
        ] {
            assert_eq!(Method::of_path(path), method, "{path}");
        }
    }

    #[test]
    fn what_only_asks_is_a_poll() {
        let polls: Vec<_> = SERVICES
            .iter()
            .flat_map(|(_, calls)| calls.iter())
            .filter(|call| is_poll(call))
            .collect();
        assert_eq!(polls.len(), 17, "{polls:?}");
        for call in ["RunPodSandbox", "StopContainer", "PullImage", "ExecSync", UNKNOWN] {
            assert!(!is_poll(call), "{call}");
        }
    }

    #[test]
    fn subjects_come_from_the_request_and_from_the_answer() {
        let (request, answer) = (
            encoded(&create()),
            encoded(&StartContainerRequest {
                container_id: "made".into(),
            }),
        );
        let subject = Subject::of("CreateContainer", Some(Message(&request)), Some(Message(&answer)));
        assert_eq!(
            subject,
            Subject {
                sandbox: ID.into(),
                container: "made".into(),
                container_name: "main".into(),
                image: "busybox:1".into(),
                pod: Some(("team-a".into(), "web".into())),
            }
        );
        let failed = Subject::of("CreateContainer", Some(Message(&request)), None);
        assert_eq!((failed.container.as_str(), failed.sandbox.as_str()), ("", ID));
        assert_eq!(
            Subject::of("Version", Some(Message(&answer)), None),
            Subject::default()
        );
        assert_eq!(
            Subject::of("StartContainer", Some(Message(&answer)), None).container,
            "made"
        );
    }
}
