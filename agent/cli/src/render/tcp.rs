//! TCP connections and flows of UDP as people read them.

use super::{bytes, or_dash, table};
use crate::text;
use crate::view::{FlowDoc, FlowsDoc, PodDoc, TcpDoc};

pub(crate) fn flows(flows: &FlowsDoc) -> String {
    let told = if flows.flows.is_empty() {
        "no open connections".to_owned()
    } else {
        rows(&flows.flows)
    };
    let missing = flows.missing.iter().map(|what| format!("\nmissing: {what}"));
    told + &missing.collect::<String>()
}

fn rows(flows: &[FlowDoc]) -> String {
    table(
        [
            "POD",
            "PROTOCOL",
            "LOCAL",
            "REMOTE",
            "PEER",
            "SENT",
            "RECEIVED",
            "PACKETS",
            "RETRANSMITS",
            "RTT",
        ],
        flows.iter().map(flow_row),
    )
}

fn flow_row(flow: &FlowDoc) -> [String; 10] {
    [
        owner(flow.pod.as_ref()),
        flow.protocol.clone(),
        text::endpoint(&flow.local, flow.local_port),
        text::endpoint(&flow.remote, flow.remote_port),
        flow.peer.clone(),
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
        (u64::from(flow.packets_sent) + u64::from(flow.packets_received)).to_string(),
        or_dash(
            flow.retransmits
                .map(|count| count.to_string())
                .unwrap_or_default(),
        ),
        or_dash(flow.rtt.map(|rtt| rtt.to_string()).unwrap_or_default()),
    ]
}

pub(super) fn event_line(event: &TcpDoc) -> String {
    let errno = event
        .errno
        .as_ref()
        .map(|errno| format!(" {errno}"))
        .unwrap_or_default();
    // A reset that answers a segment of no connection has no ends.
    let ends = if event.remote_port == 0 && event.local_port == 0 {
        String::new()
    } else {
        format!(
            " {} -> {}",
            text::endpoint(&event.local, event.local_port),
            text::endpoint(&event.remote, event.remote_port)
        )
    };
    format!(
        "tcp {}{errno} at {}{ends}",
        event.change,
        owner(event.pod.as_ref())
    )
}

pub(super) fn owner(pod: Option<&PodDoc>) -> String {
    match pod {
        None => "node".to_owned(),
        Some(pod) if pod.namespace.is_empty() => pod.name.clone(),
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
    }
}

#[cfg(test)]
mod tests {
    use sabot_proto::sabot::v1;

    use super::*;
    use crate::view::FlowsDoc;

    fn answer() -> v1::ListFlowsResponse {
        let flow = v1::Flow {
            pod: Some(v1::PodRef {
                namespace: "shop".into(),
                name: "web".into(),
            }),
            local: "10.0.0.1".into(),
            remote: "fd00::2".into(),
            local_port: 40_000,
            remote_port: 443,
            peer: "service".into(),
            bytes_sent: 4200,
            bytes_received: 7,
            packets_sent: 3,
            packets_received: 4,
            retransmits: 1,
            rtt: Some(prost_types::Duration {
                seconds: 0,
                nanos: 1_250_000,
            }),
            protocol: String::new(),
        };
        let node = v1::Flow {
            pod: None,
            rtt: None,
            retransmits: 0,
            protocol: "UDP".into(),
            ..flow.clone()
        };
        v1::ListFlowsResponse {
            time: None,
            flows: vec![flow, node],
            missing: vec!["3 packets".into()],
        }
    }

    #[test]
    fn flows_are_a_row_each() {
        let text = flows(&FlowsDoc::try_from(answer()).expect("it is understood"));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "shop/web",
                "TCP",
                "10.0.0.1:40000",
                "[fd00::2]:443",
                "service",
                "4.2",
                "kB",
                "7",
                "B",
                "7",
                "1",
                "1ms",
                "250us"
            ]
        );
        assert_eq!(lines[2][..2], ["node", "UDP"]);
        assert_eq!(lines[2][lines[2].len() - 2..], ["-", "-"]);
        assert_eq!(lines[3], ["missing:", "3", "packets"]);
        let none = FlowsDoc {
            time: None,
            flows: Vec::new(),
            missing: Vec::new(),
        };
        assert_eq!(flows(&none), "no open connections");
    }

    #[test]
    fn the_json_of_a_flow_names_what_it_is() {
        let document = FlowsDoc::try_from(answer()).expect("it is understood");
        let json = serde_json::to_value(&document.flows[0]).expect("JSON");
        assert_eq!(json["pod"]["name"], "web");
        assert_eq!(json["bytesSent"], 4200);
        assert_eq!(json["rtt"], "1ms 250us");
        assert_eq!(
            (&json["protocol"], &json["retransmits"]),
            (&"TCP".into(), &1.into())
        );
        let json = serde_json::to_value(&document.flows[1]).expect("JSON");
        assert_eq!(
            (&json["protocol"], json.get("retransmits")),
            (&"UDP".into(), None)
        );
    }
}
