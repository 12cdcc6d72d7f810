//! Calls that fail.

use sabot_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, PodSandboxStatusRequest,
    StartContainerRequest,
};
use sabot_testkit::cri::{Cri, PodSpec};
use tonic::Status;

use crate::scene::Scene;

/// As long as a real one.
const NO_ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn failures_are_told_and_counted_with_their_codes() {
    let scene = Scene::start();
    let pod = scene
        .containerd
        .run_pod(&PodSpec::idle("team-a", "web"))
        .expect("the pod runs");
    assert_eq!(scene.events.of("StartContainer")["outcome"], "OK");

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
    let message = event["message"].as_str().expect("the runtime says why");
    let status: &Status = said.downcast_ref().expect("the runtime refused it");
    assert_eq!(message, status.message());
    assert!(event.get("pod").is_none(), "{event}");

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
        sandbox_config: None,
    };
    let refused = scene
        .containerd
        .call("CreateContainer", |mut cri: Cri| async move {
            cri.create_container(request).await
        });
    refused.expect_err("there is no such image");
    let event = scene.events.of("CreateContainer");
    assert_eq!(event["image"], "sabot.test/none:latest", "{event}");
    // The request doesn't name the pod: its sandbox does.
    assert_eq!(
        (&event["sandbox"], &event["pod"]["name"]),
        (&pod.sandbox.as_str().into(), &"web".into()),
        "{event}"
    );

    // A call that only asks is told when it fails.
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: NO_ID.into(),
        verbose: false,
    };
    let refused = scene
        .containerd
        .call("PodSandboxStatus", |mut cri: Cri| async move {
            cri.pod_sandbox_status(request).await
        });
    refused.expect_err("there is no such sandbox");
    assert_eq!(scene.events.of("PodSandboxStatus")["outcome"], "NotFound");

    scene.containerd.stop_pod(&pod).expect("the pod ends");
    scene.assert_all_counted();
    let failed = scene.daemon.scrape().expect("metrics are served").value(
        "sabot_cri_operations_total",
        &[("operation", "StartContainer"), ("outcome", "NotFound")],
    );
    assert_eq!(failed, Some(1.0));
}
