use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn only_who_reads_syscalls_asks_for_every_one_of_them() {
    let fixture = Fixture::start().await;
    let demand = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&demand);
    fixture.events.on_demand(move |wanted| {
        told.store(wanted, Ordering::Relaxed);
        true
    });
    let of_types = |types: &[v1::EventType]| v1::WatchEventsRequest {
        types: types.iter().map(|&kind| kind.into()).collect(),
        ..v1::WatchEventsRequest::default()
    };
    let of_a_fault = v1::WatchEventsRequest {
        fault: Some(metadata("cut")),
        ..v1::WatchEventsRequest::default()
    };
    for (request, asks) in [
        (of_types(&[]), true),
        (of_types(&[v1::EventType::Fault, v1::EventType::Syscall]), true),
        (of_types(&[v1::EventType::Fault, v1::EventType::Tcp]), false),
        (of_a_fault, false),
    ] {
        let stream = watch(&fixture, request.clone()).await;
        assert_eq!(demand.load(Ordering::Relaxed), asks, "{request:?}");
        drop(stream);
        let ends = async {
            while demand.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), ends)
            .await
            .expect("nobody reads any more");
    }
}
