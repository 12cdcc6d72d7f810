use std::sync::Arc;

use super::*;
use crate::observe::identity::containers::Container;

#[tokio::test]
async fn a_container_is_found_by_name_by_id_and_by_its_pod() {
    const ID: &str = "5f2c8e0b7a6d4c3b2a19";
    let fixture = Fixture::start().await;
    let pod = |name: &str| v1::PodRef {
        namespace: "team-a".into(),
        name: name.into(),
    };
    let of = |container: &str| v1::WatchEventsRequest {
        container: Some(container.into()),
        ..v1::WatchEventsRequest::default()
    };
    let of_pod = |name: &str| v1::WatchEventsRequest {
        pod: Some(pod(name)),
        ..v1::WatchEventsRequest::default()
    };
    let within = |name: &str| Event {
        time: SystemTime::now(),
        container: Some(Arc::new(Container {
            id: ID.into(),
            name: name.into(),
            pod_namespace: "team-a".into(),
            pod_name: "web".into(),
        })),
        kind: syscall("runc", 900, None),
    };
    let short = &ID[..12];
    let cases = [
        (of("main"), true),
        (of(short), true),
        (of(&short[..11]), false),
        (of("sidecar"), false),
        (of_pod("web"), true),
        (of_pod("db"), false),
    ];
    for (request, expected) in cases {
        let mut stream = watch(&fixture, request.clone()).await;
        publish(&fixture, syscall("kubelet", 900, None));
        fixture.events.publish(within("main"));
        publish(
            &fixture,
            EventKind::Lost {
                stream: "tcp",
                count: 1,
            },
        );
        let first = next(&mut stream).await.event.expect("an event");
        assert_eq!(
            matches!(first.kind, Some(Kind::Syscall(_))),
            expected,
            "{request:?}"
        );
        let expected = expected.then(|| v1::ContainerRef {
            name: "main".into(),
            id: ID.into(),
            pod: Some(pod("web")),
        });
        assert_eq!(first.container_ref, expected, "{request:?}");
    }
}
