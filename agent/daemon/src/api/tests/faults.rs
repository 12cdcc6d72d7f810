use std::net::Ipv6Addr;
use std::time::Duration;

use sabot_proto::MAX_MESSAGE_BYTES;
use sabot_proto::sabot::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Fixture, metadata, spec};

fn apply(name: &str) -> v1::ApplyFaultRequest {
    v1::ApplyFaultRequest {
        metadata: Some(metadata(name)),
        spec: Some(spec()),
        wait: None,
    }
}

fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status
        .get_details_bad_request()
        .expect("a BadRequest comes with it");
    details
        .field_violations
        .into_iter()
        .map(|v| (v.field, v.description))
        .collect()
}

#[tokio::test]
async fn an_applied_fault_is_answered_listed_and_deleted() {
    let fixture = Fixture::start().await;
    let applied = fixture.apply("cut").await;
    assert_eq!(applied.metadata, Some(metadata("cut")));
    assert_eq!(applied.spec, Some(spec()));
    let status = applied.status.expect("with its status");
    assert_eq!(status.phase(), v1::Phase::Injected);
    let span = status.expires_at.expect("its end").seconds - status.starts_at.expect("its start").seconds;
    assert!((60..=61).contains(&span), "60 s asked, {span} s answered");
    assert_eq!(status.targets.len(), 2);
    assert_eq!(status.targets[0].phase(), v1::TargetPhase::Injected);
    let target = status.targets[0].target.clone().expect("whom it means");
    assert_eq!(
        (target.pod_name.as_str(), target.device.as_str(), target.ifindex),
        ("web", "eth0", 2)
    );
    assert_eq!(target.netns, 4_026_532_000);
    assert_eq!(status.targets[1].phase(), v1::TargetPhase::Refused);
    assert_eq!(status.targets[1].reason, "it is on the node's network");

    fixture.engine.count("cut", 7);
    let got = fixture
        .faults()
        .get_fault(v1::GetFaultRequest {
            namespace: "team-a".into(),
            name: "cut".into(),
        })
        .await
        .expect("it exists")
        .into_inner();
    let ledgers = got.fault.and_then(|f| f.status).expect("with its status").ledgers;
    assert_eq!(ledgers.len(), 1);
    assert_eq!(ledgers[0].direction(), v1::Direction::Egress);
    let ledger = ledgers[0].ledger.expect("with its counters");
    assert_eq!(
        ledger.dropped,
        Some(v1::Tally {
            packets: 7,
            bytes: 700
        })
    );
    assert_eq!(ledger.passed, Some(v1::Tally::default()));

    let deleted = fixture
        .faults()
        .delete_fault(v1::DeleteFaultRequest {
            namespace: "team-a".into(),
            name: "cut".into(),
        })
        .await
        .expect("it is deleted")
        .into_inner();
    let status = deleted
        .fault
        .and_then(|f| f.status)
        .expect("with its last status");
    assert_eq!(status.phase(), v1::Phase::Deleted);
    assert_eq!(status.ledgers.len(), 1, "the last counters come with it");
    assert!(status.ended_at.is_some());
}

#[tokio::test]
async fn lists_are_filtered_by_namespace_and_activity() {
    let fixture = Fixture::start().await;
    fixture.apply("one").await;
    fixture.apply("two").await;
    fixture.engine.count("two", 3);
    let list = async |request: v1::ListFaultsRequest| {
        let answer = fixture.faults().list_faults(request).await.expect("a list");
        answer.into_inner().faults
    };
    let all = list(v1::ListFaultsRequest::default()).await;
    let names: Vec<_> = all
        .iter()
        .filter_map(|f| f.metadata.clone())
        .map(|m| m.name)
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert!(
        all.iter()
            .all(|f| f.status.as_ref().is_some_and(|s| s.ledgers.is_empty()))
    );

    let other = list(v1::ListFaultsRequest {
        namespace: Some("team-b".into()),
        ..v1::ListFaultsRequest::default()
    })
    .await;
    assert_eq!(other, []);

    let cleared = fixture
        .faults()
        .delete_all_faults(v1::DeleteAllFaultsRequest {
            namespace: Some("team-b".into()),
        })
        .await
        .expect("nothing is there to delete");
    assert_eq!(cleared.into_inner().faults, []);
    let cleared = fixture
        .faults()
        .delete_all_faults(v1::DeleteAllFaultsRequest { namespace: None })
        .await
        .expect("both are deleted")
        .into_inner();
    assert_eq!(cleared.faults.len(), 2);
    let active = list(v1::ListFaultsRequest {
        active_only: true,
        ..v1::ListFaultsRequest::default()
    })
    .await;
    assert_eq!(active, []);
    let ended = list(v1::ListFaultsRequest {
        include_counters: true,
        ..v1::ListFaultsRequest::default()
    })
    .await;
    assert_eq!(ended.len(), 2);
    assert_eq!(ended[1].status.as_ref().expect("a status").ledgers.len(), 1);
}

#[tokio::test]
async fn a_preview_tells_and_does_nothing() {
    let fixture = Fixture::start().await;
    let preview = fixture
        .faults()
        .preview_fault(v1::PreviewFaultRequest {
            metadata: Some(metadata("cut")),
            spec: Some(spec()),
        })
        .await
        .expect("a preview")
        .into_inner();
    assert_eq!(preview.targets.len(), 2);
    assert_eq!(preview.peers, ["10.0.0.1"]);
    assert_eq!(preview.warnings, ["the node is spared"]);
    let list = fixture
        .faults()
        .list_faults(v1::ListFaultsRequest::default())
        .await
        .expect("a list");
    assert_eq!(list.into_inner().faults, []);
}

#[tokio::test]
async fn each_error_has_its_code() {
    let fixture = Fixture::start().await;
    for (name, code, message) in [
        (
            "unsupported",
            Code::FailedPrecondition,
            "delay needs /dev/net/tun, which is missing",
        ),
        ("exhausted", Code::ResourceExhausted, "all 4096 slots are in use"),
        ("shutting-down", Code::Unavailable, "the daemon is shutting down"),
        ("internal", Code::Internal, "a map is gone"),
    ] {
        let status = fixture
            .faults()
            .apply_fault(apply(name))
            .await
            .expect_err("it is refused");
        assert_eq!((status.code(), status.message()), (code, message));
    }
    let missing = v1::GetFaultRequest {
        namespace: String::new(),
        name: "nobody".into(),
    };
    let status = fixture
        .faults()
        .get_fault(missing)
        .await
        .expect_err("it doesn't exist");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no fault named nobody")
    );
    let missing = v1::DeleteFaultRequest {
        namespace: "team-a".into(),
        name: "nobody".into(),
    };
    let status = fixture
        .faults()
        .delete_fault(missing)
        .await
        .expect_err("it doesn't exist");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no fault named team-a/nobody")
    );
}

#[tokio::test]
async fn violations_name_their_fields() {
    let fixture = Fixture::start().await;
    let status = fixture
        .faults()
        .apply_fault(apply("invalid"))
        .await
        .expect_err("the engine refuses it");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        violations(&status),
        [
            (
                "spec.duration".to_owned(),
                "2h is above the maximum of 1h".to_owned()
            ),
            (
                "spec.peers[0].cidr".to_owned(),
                "10.0.0.0/99 is not a network".to_owned()
            ),
        ]
    );

    let mut request = apply("cut");
    request.spec.as_mut().expect("a spec").duration = Some(prost_types::Duration {
        seconds: -5,
        nanos: 0,
    });
    let status = fixture
        .faults()
        .apply_fault(request)
        .await
        .expect_err("no such duration");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(violations(&status)[0].0, "spec.duration");

    let nameless = v1::DeleteFaultRequest::default();
    let status = fixture
        .faults()
        .delete_fault(nameless)
        .await
        .expect_err("no name");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        violations(&status),
        [("name".to_owned(), "is required".to_owned())]
    );
}

#[tokio::test]
async fn of_very_many_violations_the_first_are_told_and_the_others_counted() {
    let fixture = Fixture::start().await;
    let status = fixture
        .faults()
        .apply_fault(apply("wholly-invalid"))
        .await
        .expect_err("the engine refuses it");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let found = violations(&status);
    assert_eq!(found[0].0, "spec.peers[0].ip");
    let (field, description) = found.last().expect("the rest");
    let hidden = 150_000 - (found.len() - 1);
    assert_eq!(field, "spec");
    assert_eq!(
        *description,
        format!("{hidden} more violations of this kind or others")
    );
    assert!(
        found.len() > 20 && status.message().ends_with(description.as_str()),
        "{status}"
    );
}

#[tokio::test]
async fn a_fault_may_have_150_000_peers() {
    let fixture = Fixture::start().await;
    let mut request = apply("large");
    let peers = (0..150_000_u128).map(|n| v1::Peer {
        kind: Some(v1::peer::Kind::Ip(Ipv6Addr::from(u128::MAX - n).to_string())),
        except: Vec::new(),
    });
    request.spec.as_mut().expect("a spec").peers = peers.collect();
    let mut client = fixture.faults().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let applied = client.apply_fault(request.clone()).await.expect("it is applied");
    let fault = applied.into_inner().fault.expect("with the fault");
    assert_eq!(
        fault.spec.map(|spec| spec.peers),
        request.spec.map(|spec| spec.peers)
    );
    let get = v1::GetFaultRequest {
        namespace: "team-a".into(),
        name: "large".into(),
    };
    let refused = fixture
        .faults()
        .get_fault(get)
        .await
        .expect_err("gRPC's own bound is 4 MiB");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[tokio::test]
async fn the_seed_and_the_expected_loss_are_told() {
    let fixture = Fixture::start().await;
    let status = fixture.apply("cut").await.status.expect("a status");
    assert_eq!((status.seed, status.expected_loss), (Some(7), None));
    let status = fixture.apply("lossy").await.status.expect("a status");
    assert_eq!((status.seed, status.expected_loss), (Some(7), Some(0.05)));
}

#[tokio::test]
async fn the_wait_is_passed_on_within_its_bound() {
    let fixture = Fixture::start().await;
    fixture.apply("cut").await;
    assert_eq!(fixture.engine.last_wait(), Some(Duration::from_secs(5)));
    let with_wait = |seconds| v1::ApplyFaultRequest {
        wait: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..apply("cut")
    };
    fixture
        .faults()
        .apply_fault(with_wait(0))
        .await
        .expect("no wait at all");
    assert_eq!(fixture.engine.last_wait(), Some(Duration::ZERO));
    let status = fixture
        .faults()
        .apply_fault(with_wait(301))
        .await
        .expect_err("above the bound");
    assert_eq!(
        violations(&status),
        [("wait".to_owned(), "5m 1s is above the maximum of 5m".to_owned())]
    );
}
