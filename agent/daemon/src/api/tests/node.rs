use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::target_info::Kind;

use super::Fixture;
use super::engine::pod;
use crate::engine::handle::RuntimeState;

async fn node(fixture: &Fixture) -> v1::Node {
    let answer = fixture
        .node()
        .get_node(v1::GetNodeRequest {})
        .await
        .expect("the node");
    answer.into_inner().node.expect("with its description")
}

#[tokio::test]
async fn the_node_says_what_works_and_what_does_not() {
    let fixture = Fixture::start().await;
    let described = node(&fixture).await;
    assert_eq!(
        (
            described.version.as_str(),
            described.name.as_str(),
            described.kernel_release.as_str()
        ),
        ("1.2.3", "node-1", "6.18.0")
    );
    assert_eq!(described.active_faults, 0);
    assert!(described.started_at.is_some() && described.uptime.is_some());
    let tun = described
        .features
        .iter()
        .find(|f| f.name == "tun")
        .expect("it is listed");
    assert!(!tun.available);
    assert_eq!(tun.consequence, "delay is refused");
    let limits = described.limits.expect("the limits");
    assert_eq!(limits.max_duration.map(|d| d.seconds), Some(3600));
    assert_eq!(limits.max_faults, 4096);
    let runtime = described.runtime.expect("the runtime");
    assert_eq!(runtime.state(), v1::RuntimeState::Absent);
    assert_eq!(runtime.message, "no CRI socket was found");
    assert_eq!(in_use(&runtime), [("calls", false), ("events", false)]);

    fixture.apply("cut").await;
    fixture.engine.change(|s| {
        s.runtime = RuntimeState::Ready {
            name: "containerd".into(),
            version: "1.6.20".into(),
            events: true,
        };
    });
    let described = node(&fixture).await;
    assert_eq!(described.active_faults, 1);
    let runtime = described.runtime.expect("the runtime");
    assert_eq!(runtime.state(), v1::RuntimeState::Ready);
    assert_eq!(
        (runtime.name.as_str(), runtime.version.as_str()),
        ("containerd", "1.6.20")
    );
    assert!(runtime.events);
    assert_eq!(in_use(&runtime), [("calls", false), ("events", true)]);
    assert!(
        runtime
            .sources
            .iter()
            .all(|source| !source.blind_spots.is_empty())
    );
}

fn in_use(runtime: &v1::RuntimeStatus) -> Vec<(&str, bool)> {
    let sources = runtime.sources.iter();
    sources
        .map(|source| (source.name.as_str(), source.in_use))
        .collect()
}

#[tokio::test]
async fn targets_are_listed_with_what_speaks_against_them() {
    let fixture = Fixture::start().await;
    fixture.engine.change(|s| {
        let mut world = s.world.as_ref().clone();
        let web = pod("web", false);
        world.interfaces.insert("eth1".into(), web.devices[0].clone());
        world.namespaces.insert("/run/netns/empty".into(), Vec::new());
        world.pods = [("a".to_owned(), web), ("b".to_owned(), pod("agent", true))].into();
        s.world = world.into();
    });
    let list = async |namespace: Option<&str>| {
        let request = v1::ListTargetsRequest {
            namespace: namespace.map(str::to_owned),
        };
        let answer = fixture.node().list_targets(request).await.expect("a list");
        answer.into_inner().targets
    };
    let targets = list(None).await;
    assert_eq!(targets.len(), 4);
    let Some(Kind::Pod(agent)) = &targets[0].kind else {
        panic!("pods come first, by name");
    };
    assert!(agent.host_network);
    assert!(targets[0].refusal.contains("node's own network"));
    let Some(Kind::Pod(web)) = &targets[1].kind else {
        panic!("pods come first, by name");
    };
    assert_eq!(web.name, "web");
    assert_eq!(web.labels["app"], "web");
    assert_eq!(web.addresses, ["10.0.0.7"]);
    assert_eq!(targets[1].refusal, "");
    assert_eq!(targets[1].devices[0].name, "eth0");
    assert!(targets[1].devices[0].mac_header);
    assert_eq!(targets[2].kind, Some(Kind::Netns("/run/netns/empty".into())));
    assert!(!targets[2].refusal.is_empty());
    assert_eq!(targets[3].kind, Some(Kind::Interface("eth1".into())));

    assert_eq!(list(Some("team-a")).await.len(), 2);
    assert_eq!(list(Some("team-b")).await, []);
}
