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

/// The operation that a request must be by its shape alone, where no other call's request could have it.
pub(super) fn by_shape(request: Message<'_>) -> Option<&'static str> {
    if request.message(1).is_some_and(is_sandbox_config) {
        return Some("RunPodSandbox");
    }
    if request.message(1).is_some_and(is_image) && request.message(3).is_some_and(is_sandbox_config) {
        return Some("PullImage");
    }
    request.text(1)?;
    if request.message(2).is_some_and(is_container_config) {
        return Some("CreateContainer");
    }
    // Where others have a flag, which is 0 or 1, there are seconds.
    if request.number(2)? > 1 && request.fields().all(|(number, _)| number <= 2) {
        return Some("StopContainer");
    }
    None
}

fn is_sandbox_config(message: Message<'_>) -> bool {
    let is_metadata = |metadata: Message<'_>| [1, 2, 3].iter().all(|&field| metadata.text(field).is_some());
    message.message(1).is_some_and(is_metadata)
}

fn is_container_config(message: Message<'_>) -> bool {
    let is_metadata = |metadata: Message<'_>| metadata.text(1).is_some();
    message.message(1).is_some_and(is_metadata) && message.message(2).is_some_and(is_image)
}

fn is_image(message: Message<'_>) -> bool {
    message.text(1).is_some()
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
    use sabot_proto::runtime::v1::{
        ContainerConfig, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest,
        ImageSpec, ListContainersRequest, ListPodSandboxRequest, PodSandboxConfig, PodSandboxFilter,
        PodSandboxMetadata, PodSandboxState, PodSandboxStateValue, PodSandboxStatusRequest,
        RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
        VersionRequest,
    };

    use super::super::testing::encoded;
    use super::*;

    const ID: &str = "5f2c8e0b7a6d4c3b2a190f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5a4";

    fn config() -> Option<PodSandboxConfig> {
        Some(PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "team-a".into(),
                attempt: 0,
            }),
            ..PodSandboxConfig::default()
        })
    }

    fn create() -> CreateContainerRequest {
        CreateContainerRequest {
            pod_sandbox_id: ID.into(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "main".into(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: "busybox:1".into(),
                }),
                ..ContainerConfig::default()
            }),
            sandbox_config: config(),
        }
    }

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

    fn shape(message: &impl prost::Message) -> Option<&'static str> {
        by_shape(Message(&encoded(message)))
    }

    #[test]
    fn shapes_that_are_unique_name_the_call() {
        let run = RunPodSandboxRequest {
            config: config(),
            runtime_handler: String::new(),
        };
        assert_eq!(shape(&run), Some("RunPodSandbox"));
        assert_eq!(shape(&create()), Some("CreateContainer"));
        let stop = |timeout| StopContainerRequest {
            container_id: ID.into(),
            timeout,
        };
        assert_eq!(shape(&stop(30)), Some("StopContainer"));
        assert_eq!(shape(&stop(1)), None, "it may be a status, with details");
        // PullImage is of a service that isn't in our file: an image, and the sandbox's configuration.
        let image = encoded(&RunPodSandboxRequest {
            config: config(),
            runtime_handler: String::new(),
        });
        let mut pull = vec![0x0a, 11, 0x0a, 9];
        pull.extend(b"busybox:1");
        assert_eq!(by_shape(Message(&pull)), None);
        pull.push(0x1a);
        pull.extend(&image[1..]);
        assert_eq!(by_shape(Message(&pull)), Some("PullImage"));
        let subject = Subject::of("PullImage", Some(Message(&pull)), None);
        assert_eq!(
            (subject.image.as_str(), subject.pod),
            ("busybox:1", Some(("team-a".to_owned(), "web".to_owned())))
        );
    }

    #[test]
    fn shapes_that_several_calls_share_name_none() {
        let id = || ID.to_owned();
        assert_eq!(shape(&StartContainerRequest { container_id: id() }), None);
        assert_eq!(shape(&RemovePodSandboxRequest { pod_sandbox_id: id() }), None);
        assert_eq!(shape(&VersionRequest { version: "v1".into() }), None);
        assert_eq!(shape(&ListContainersRequest::default()), None);
        let status = ContainerStatusRequest {
            container_id: id(),
            verbose: true,
        };
        assert_eq!(shape(&status), None);
        let status = PodSandboxStatusRequest {
            pod_sandbox_id: id(),
            verbose: true,
        };
        assert_eq!(shape(&status), None);
        let exec = ExecSyncRequest {
            container_id: id(),
            cmd: vec!["ls".into()],
            timeout: 10,
        };
        assert_eq!(shape(&exec), None);
        let list = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                id: id(),
                state: Some(PodSandboxStateValue {
                    state: PodSandboxState::SandboxNotready.into(),
                }),
                label_selector: [("a".to_owned(), "b".to_owned())].into(),
            }),
        };
        assert_eq!(shape(&list), None);
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
