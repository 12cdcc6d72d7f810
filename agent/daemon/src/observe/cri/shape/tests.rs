use sabot_proto::runtime::v1::{
    Container, ContainerStatusRequest, ExecSyncRequest, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
    VersionRequest, VersionResponse,
};

use super::super::operations::Subject;
use super::super::testing::{ID, create, encoded, pod, sandbox};
use super::*;

const OTHER_ID: &str = "0f2c8e0b7a6d4c3b2a190f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5a4";

fn shape(message: &impl prost::Message) -> Option<&'static str> {
    by_shape(Some(Message(&encoded(message))), None)
}

#[test]
fn shapes_that_are_unique_name_the_call() {
    let run = RunPodSandboxRequest {
        config: sandbox(),
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
        config: sandbox(),
        runtime_handler: String::new(),
    });
    let mut pull = vec![0x0a, 11, 0x0a, 9];
    pull.extend(b"busybox:1");
    assert_eq!(by_shape(Some(Message(&pull)), None), None);
    pull.push(0x1a);
    pull.extend(&image[1..]);
    assert_eq!(by_shape(Some(Message(&pull)), None), Some("PullImage"));
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

fn text(number: u8, text: &str) -> Vec<u8> {
    message(number, text.as_bytes())
}

fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short one");
    let head = if length < 0x80 {
        vec![length]
    } else {
        vec![length, 1]
    };
    [&[number << 3 | 2], &head[..], content].concat()
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn answered(request: &[u8], answer: &[u8]) -> Option<&'static str> {
    by_shape(Some(Message(request)), Some(Message(answer)))
}

#[test]
fn answers_about_sandboxes_name_the_call_together_with_the_request() {
    let item = PodSandbox {
        id: ID.into(),
        metadata: Some(pod()),
        created_at: 1_700_000_000_000_000_000,
        ..PodSandbox::default()
    };
    let list = encoded(&ListPodSandboxResponse {
        items: vec![item.clone(), item],
    });
    let all = encoded(&ListPodSandboxRequest::default());
    let one = encoded(&PodSandboxStatusRequest {
        pod_sandbox_id: ID.into(),
        verbose: false,
    });
    assert_eq!(answered(&all, &list), Some("ListPodSandbox"));
    // What comes after the first item may be missing.
    assert_eq!(answered(&all, &list[..list.len() - 9]), Some("ListPodSandbox"));
    assert_eq!(answered(&all, &list[..40]), None);
    let filtered = encoded(&ListPodSandboxRequest {
        filter: Some(PodSandboxFilter {
            id: ID.into(),
            ..PodSandboxFilter::default()
        }),
    });
    assert_eq!(answered(&filtered, &list), Some("ListPodSandbox"));
    let status = encoded(&PodSandboxStatusResponse {
        status: Some(PodSandboxStatus {
            id: ID.into(),
            metadata: Some(pod()),
            created_at: 1_700_000_000_000_000_000,
            ..PodSandboxStatus::default()
        }),
        ..PodSandboxStatusResponse::default()
    });
    assert_eq!(answered(&one, &status), Some("PodSandboxStatus"));
    let attributes = [text(1, ID), message(2, &encoded(&pod()))].concat();
    let stats = message(1, &[message(1, &attributes), message(2, &[])].concat());
    assert_eq!(answered(&[], &stats), Some("ListPodSandboxStats"));
    assert_eq!(answered(&one, &stats), Some("PodSandboxStats"));
}

#[test]
fn answers_about_containers_name_the_call_together_with_the_request() {
    let image = message(4, &text(1, "busybox:1"));
    let listed = encoded(&ListContainersResponse {
        containers: vec![Container {
            id: ID.into(),
            pod_sandbox_id: OTHER_ID.into(),
            metadata: create().config.and_then(|config| config.metadata),
            ..Container::default()
        }],
    });
    assert_eq!(answered(&[], &listed), None, "a container has an image");
    let item = [Message(&listed).first_message(1).unwrap().0, &image].concat();
    assert_eq!(answered(&[], &message(1, &item)), Some("ListContainers"));
    let one = text(1, ID);
    let named = message(2, &text(1, "main"));
    let status = [
        text(1, ID),
        named.clone(),
        number(4, 77),
        message(8, &text(1, "busybox:1")),
    ]
    .concat();
    assert_eq!(answered(&one, &message(1, &status)), Some("ContainerStatus"));
    assert_eq!(answered(&[], &message(1, &status)), None);
    let stats = message(
        1,
        &[message(1, &[text(1, ID), named].concat()), message(2, &[])].concat(),
    );
    assert_eq!(answered(&[], &stats), Some("ListContainerStats"));
    assert_eq!(answered(&one, &stats), Some("ContainerStats"));
}

#[test]
fn answers_about_the_runtime_and_its_images_name_the_call() {
    let version = VersionResponse {
        version: "0.1.0".into(),
        runtime_name: "containerd".into(),
        runtime_version: "1.7.24".into(),
        runtime_api_version: "v1".into(),
    };
    assert_eq!(answered(&[], &encoded(&version)), Some("Version"));
    let condition = |what: &str| message(1, &[text(1, what), number(2, 1)].concat());
    let status = [condition("RuntimeReady"), condition("NetworkReady")].concat();
    assert_eq!(answered(&[], &message(1, &status)), Some("Status"));
    assert_eq!(answered(&[], &message(1, &condition("NetworkReady"))), None);
    let usage = [
        number(1, 9),
        message(2, &text(1, "/var/lib")),
        message(3, &number(1, 5)),
    ]
    .concat();
    assert_eq!(answered(&[], &message(1, &usage)), Some("ImageFsInfo"));
    let image = message(1, &[text(1, "sha256:ab"), number(4, 100)].concat());
    let spec = message(1, &text(1, "busybox:1"));
    assert_eq!(answered(&spec, &image), Some("ImageStatus"));
    assert_eq!(answered(&[], &image), Some("ListImages"));
    assert_eq!(answered(&message(1, &spec), &image), Some("ListImages"));
}

#[test]
fn answers_that_several_calls_share_name_none() {
    // Started, stopped, removed; and lists without an item.
    assert_eq!(answered(&text(1, ID), &[]), None);
    assert_eq!(answered(&[], &[]), None);
    // Of containerd's own service on the same socket: an id, labels, an image, a runtime.
    let foreign = [
        text(1, ID),
        message(2, &text(1, "a")),
        text(3, "busybox:1"),
        message(4, &text(1, "io.containerd.runc.v2")),
    ];
    let foreign = message(1, &foreign.concat());
    assert_eq!(answered(&[], &foreign), None);
    assert_eq!(answered(&text(1, ID), &foreign), None);
}
