use std::collections::BTreeSet;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::{Fixture, next};

const SERVICES: [&str; 4] = [
    "",
    "sabot.v1.FaultService",
    "sabot.v1.NodeService",
    "sabot.v1.ObserveService",
];

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn health_is_told_by_service_until_the_end() {
    let mut fixture = Fixture::start().await;
    let mut client = HealthClient::new(fixture.channel.clone());
    let mut watches = Vec::new();
    for service in SERVICES {
        let answer = client.check(check(service)).await.expect("it is known");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        let mut watch = client.watch(check(service)).await.expect("a stream").into_inner();
        assert_eq!(next(&mut watch).await.status(), ServingStatus::Serving);
        watches.push(watch);
    }
    let status = client
        .check(check("sabot.v1.Nothing"))
        .await
        .expect_err("it is unknown");
    assert_eq!(status.code(), Code::NotFound);

    fixture.shut_down();
    for watch in &mut watches {
        assert_eq!(next(watch).await.status(), ServingStatus::NotServing);
    }
    // A watch of health never ends by itself; it must not hold up the daemon's end.
    let served = tokio::time::timeout(super::PATIENCE, fixture.server)
        .await
        .expect("it ends");
    served
        .expect("the server doesn't panic")
        .expect("and ends without an error");
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_them() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let fixture = Fixture::start().await;
    let mut client = ServerReflectionClient::new(fixture.channel.clone());
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("sabot.v1.FaultService".into()),
    ]
    .map(|request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    });
    let mut answers = client
        .server_reflection_info(futures::stream::iter(requests))
        .await
        .expect("a stream")
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = next(&mut answers).await.message_response else {
        panic!("services were asked for");
    };
    let names: BTreeSet<_> = list.service.into_iter().map(|s| s.name).collect();
    for service in SERVICES
        .into_iter()
        .filter(|s| !s.is_empty())
        .chain(["grpc.health.v1.Health"])
    {
        assert!(names.contains(service), "{service} is missing in {names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(files)) = next(&mut answers).await.message_response
    else {
        panic!("a symbol was asked for");
    };
    let fault = files.file_descriptor_proto.first().expect("its file");
    assert!(
        fault.windows(20).any(|w| w == b"sabot/v1/fault.proto"),
        "the file that defines it is given"
    );
}

#[tokio::test]
async fn reflection_answers_older_clients_too() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let fixture = Fixture::start().await;
    let mut client = ServerReflectionClient::new(fixture.channel.clone());
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .expect("a stream")
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = next(&mut answers).await.message_response else {
        panic!("services were asked for");
    };
    assert!(list.service.iter().any(|s| s.name == "sabot.v1.FaultService"));
}
