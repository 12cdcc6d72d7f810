//! What is traced, asked for and replaced.

use sabot_proto::sabot::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::Fixture;

fn tracing(processes: &[&str]) -> v1::Tracing {
    v1::Tracing {
        processes: processes.iter().map(|&name| name.to_owned()).collect(),
        syscalls: vec!["fsync".into()],
        cgroups: vec!["/kubepods.slice".into()],
        containers: vec!["kube-system/etcd".into()],
    }
}

async fn get(fixture: &Fixture) -> Option<v1::Tracing> {
    let answer = fixture.observe().get_tracing(v1::GetTracingRequest {}).await;
    answer.expect("an answer").into_inner().tracing
}

#[tokio::test]
async fn what_is_set_is_traced() {
    let fixture = Fixture::start().await;
    assert_eq!(get(&fixture).await, Some(v1::Tracing::default()));
    let request = v1::SetTracingRequest {
        tracing: Some(tracing(&["etcd", "kubelet"])),
    };
    let answer = fixture.observe().set_tracing(request.clone()).await;
    assert_eq!(answer.expect("an answer").into_inner().tracing, request.tracing);
    assert_eq!(get(&fixture).await, request.tracing);
}

#[tokio::test]
async fn what_is_wrong_is_said_by_field_and_nothing_changes() {
    let fixture = Fixture::start().await;
    for (asked, field) in [
        (None, "tracing"),
        (Some(tracing(&["kubelet", ""])), "tracing.processes[1]"),
    ] {
        let request = v1::SetTracingRequest { tracing: asked };
        let status = fixture.observe().set_tracing(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status
            .get_details_bad_request()
            .expect("violations")
            .field_violations;
        assert_eq!(violations[0].field, field);
        assert!(violations[0].description.contains("allowed"), "{violations:?}");
    }
    assert_eq!(get(&fixture).await, Some(v1::Tracing::default()));
}
