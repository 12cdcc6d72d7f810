//! Calls that fail.

use sabot_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxStatusRequest, StartContainerRequest,
};
use sabot_testkit::cri::{Cri, Pod, PodSpec};
use tonic::Status;

use crate::scene::Scene;

/// As long as a real one.
const NO_ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn scene_with_a_pod() -> (Scene, Pod) {
    let scene = Scene::start();
    let pod = scene
        .containerd
        .run_pod(&PodSpec::idle("team-a", "web"))
        .expect("the pod runs");
    assert_eq!(scene.events.of("StartContainer")["outcome"], "OK");
    (scene, pod)
}

#[test]
fn a_container_that_is_not_there_is_not_found() {
    let (scene, _pod) = scene_with_a_pod();
    let request = StartContainerRequest {
        container_id: NO_ID.into(),
    };
    let refused = scene
        .containerd
        .call("StartContainer", |mut cri: Cri| async move {
            cri.start_container(request).await
        });
    let said = refused.expect_err("there is no such container");
    let event = scene.events.of("StartContainer");
    assert_eq!(
        (&event["outcome"], &event["container"]),
        (&"NotFound".into(), &NO_ID.into()),
        "{event}"
    );
    let status: &Status = said.downcast_ref().expect("the runtime refused it");
    assert_eq!(event["message"], status.message());
    assert!(event.get("pod").is_none(), "{event}");
    scene.assert_all_counted();
    let failed = scene.daemon.scrape().expect("metrics are served").value(
        "sabot_cri_operations_total",
        &[("operation", "StartContainer"), ("outcome", "NotFound")],
    );
    assert_eq!(failed, Some(1.0));
}

#[test]
fn a_container_without_an_image_fails_in_its_pod() {
    let (scene, pod) = scene_with_a_pod();
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.sandbox.clone(),
        config: Some(ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "second".into(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: "sabot.test/none:latest".into(),
            }),
            ..ContainerConfig::default()
        }),
        // The runtime takes it for granted.
        sandbox_config: Some(PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.spec.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.spec.namespace.clone(),
                attempt: pod.attempt,
            }),
            ..PodSandboxConfig::default()
        }),
    };
    let refused = scene
        .containerd
        .call("CreateContainer", |mut cri: Cri| async move {
            cri.create_container(request).await
        });
    refused.expect_err("there is no such image");
    let event = scene.events.of("CreateContainer");
    assert_ne!(event["outcome"], "OK", "{event}");
    assert_eq!(event["image"], "sabot.test/none:latest", "{event}");
    assert_eq!(
        (&event["sandbox"], &event["pod"]["name"]),
        (&pod.sandbox.as_str().into(), &"web".into()),
        "{event}"
    );
    scene.assert_all_counted();
}

#[test]
fn a_call_that_only_asks_is_told_when_it_fails() {
    let (scene, pod) = scene_with_a_pod();
    let status = |id: &str| {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        scene
            .containerd
            .call("PodSandboxStatus", |mut cri: Cri| async move {
                cri.pod_sandbox_status(request).await
            })
    };
    status(&pod.sandbox).expect("the sandbox is there");
    status(NO_ID).expect_err("there is no such sandbox");
    assert_eq!(scene.events.of("PodSandboxStatus")["outcome"], "NotFound");
    scene.assert_all_counted();
}
