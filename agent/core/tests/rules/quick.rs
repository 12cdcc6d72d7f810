use std::time::Duration;

use proptest::prelude::*;
use sabot_core::quick::{
    BurstForm, BytesForm, DscpForm, FormError, GilbertElliottForm, LengthForm, OffsetForm, PeerForm,
    PercentForm, PortForm, PulseForm, RampForm, RateForm, TargetForm, format_selector, parse_selector,
};
use sabot_core::spec::{LabelExpression, LabelSelector, Metadata};
use sabot_core::{Limits, spec, validate};

fn target(text: &str) -> spec::Target {
    text.parse::<TargetForm>()
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

fn peer(text: &str) -> spec::Peer {
    text.parse::<PeerForm>()
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

fn refusal<T: std::str::FromStr<Err = FormError> + std::fmt::Debug>(text: &str) -> String {
    text.parse::<T>().expect_err(text).to_string()
}

#[test]
fn target_forms_say_whom_they_mean() {
    let pods = target("pod:team-a/web-0").pods.expect("pods");
    assert_eq!(
        (pods.namespace.as_deref(), pods.name.as_deref()),
        (Some("team-a"), Some("web-0"))
    );
    let pods = target("pods:team-a/app.kubernetes.io/name=web,tier!=db")
        .pods
        .expect("pods");
    let selector = pods.selector.expect("a selector");
    assert_eq!(selector.match_labels["app.kubernetes.io/name"], "web");
    assert_eq!(selector.match_expressions[0].operator, "NotIn");
    assert_eq!(target("interface:eth0").interface.as_deref(), Some("eth0"));
    assert_eq!(
        target("netns:/var/run/netns/x").netns.as_deref(),
        Some("/var/run/netns/x")
    );
    assert_eq!(target("netns:x").netns.as_deref(), Some("/run/netns/x"));
}

#[test]
fn peer_forms_say_whom_they_mean() {
    assert_eq!(peer("ip:fd00::1").ip.as_deref(), Some("fd00::1"));
    let range = peer("cidr:10.0.0.0/8,except=10.1.0.0/16,except=10.2.0.0/16");
    assert_eq!(range.cidr.as_deref(), Some("10.0.0.0/8"));
    assert_eq!(range.except, ["10.1.0.0/16", "10.2.0.0/16"]);
    assert!(
        peer("pods:team-b/*")
            .pods
            .expect("pods")
            .selector
            .expect("all")
            .match_labels
            .is_empty()
    );
}

#[test]
fn selectors_are_kubectls() {
    let selector =
        parse_selector("app=web, tier != db,env in (a, b),zone notin (c),key,!other,app==x").expect("valid");
    assert_eq!(selector.match_labels["app"], "web");
    let expressions: Vec<(&str, &str, Vec<&str>)> = (selector.match_expressions.iter())
        .map(|e| {
            (
                e.key.as_str(),
                e.operator.as_str(),
                e.values.iter().map(String::as_str).collect(),
            )
        })
        .collect();
    let expected = [
        ("tier", "NotIn", vec!["db"]),
        ("env", "In", vec!["a", "b"]),
        ("zone", "NotIn", vec!["c"]),
        ("key", "Exists", vec![]),
        ("other", "DoesNotExist", vec![]),
        ("app", "In", vec!["x"]),
    ];
    assert_eq!(expressions, expected);
    for bad in [
        "",
        "app=web,",
        "=web",
        "app in a",
        "app in (a",
        "app)",
        "a b",
        "app=we b",
        "app=web=x",
        "n > 1",
    ] {
        let error = parse_selector(bad).expect_err(bad);
        assert!(error.to_string().starts_with("label selector `"), "{error}");
    }
}

#[test]
fn services_and_nodes_are_named_as_the_cluster_names_them() {
    let service = target("service:shop/payments").service.expect("a service");
    assert_eq!(
        (service.namespace.as_deref(), service.name.as_str()),
        (Some("shop"), "payments")
    );
    assert_eq!(target("node:worker-1.lan").node.as_deref(), Some("worker-1.lan"));
    assert_eq!(peer("node:worker-1").node.as_deref(), Some("worker-1"));
    let port = |text| peer(text).service.expect("a service").port;
    assert_eq!(port("service:shop/payments"), None);
    assert_eq!(
        port("service:shop/payments:8443"),
        Some(spec::PortRef::Number(8443))
    );
    assert_eq!(
        port("service:shop/payments:https"),
        Some(spec::PortRef::Name("https".to_owned()))
    );
    for text in [
        "service:shop/payments",
        "service:shop/payments:8443",
        "service:shop/payments:https",
        "node:worker-1",
    ] {
        assert_eq!(PeerForm(peer(text)).to_string(), text);
    }
    for text in ["service:shop/payments", "node:worker-1"] {
        assert_eq!(TargetForm(target(text)).to_string(), text);
    }
    // A target is whole pods.
    let error = refusal::<TargetForm>("service:shop/payments:8443");
    assert!(
        error.contains("the Service's name `payments:8443` is not"),
        "{error}"
    );
}

#[test]
fn wrong_forms_are_refused_with_what_is_allowed() {
    for text in [
        "",
        "eth0",
        "pod:web",
        "pod:/web",
        "pod:a/",
        "pods:a/",
        "pods:A/app=web",
        "interface:a/b",
        "netns:",
        "netns:a/b",
        "service:payments",
        "service:shop/",
        "service:shop/Payments",
        "node:",
        "node:a b",
        "what:ever",
    ] {
        let error = refusal::<TargetForm>(text);
        assert!(
            error.starts_with(&format!("target `{text}`: ")) && error.contains("allowed: pod:NS/NAME"),
            "{error}"
        );
    }
    for text in [
        "",
        "10.0.0.1",
        "ip:10.0.0",
        "ip:10.0.0.0/8",
        "cidr:10.0.0.1",
        "cidr:10.0.0.0/8,but=10.1.0.0/16",
        "cidr:10.0.0.0/8,except=x",
        "cidr:",
        "host:",
        "host:*.example.com",
        "host:a_b",
        "host:10.0.0.1",
        "service:payments",
        "service:shop/payments:",
        "service:shop/payments:0",
        "service:shop/payments:65536",
        "service:shop/payments:80:TCP",
        "service:shop/payments.default",
        "node:",
    ] {
        let error = refusal::<PeerForm>(text);
        assert!(
            error.starts_with(&format!("peer `{text}`: ")) && error.contains("allowed: pod:NS/NAME"),
            "{error}"
        );
    }
}

#[test]
fn wrong_ports_and_percents_are_refused() {
    for text in [
        "",
        "0",
        "65536",
        "TCP:0",
        "TCP:",
        "tcp:http",
        "GRE",
        "8443:TCP",
        "-1",
        "80-",
        "80-79",
        "80-65536",
        "TCP:80/90",
        "source:",
        "source:TCP",
        "source:ICMP:8",
        "either:80",
        "ICMP:256",
        "ICMP:8-0",
        "ICMP:8/",
        "UDP:53/0",
    ] {
        let error = refusal::<PortForm>(text);
        assert!(error.starts_with(&format!("port `{text}`: ")), "{error}");
    }
    for text in ["", "%", "-1", "100.1", "NaN", "inf", "20%%", "a"] {
        let error = refusal::<PercentForm>(text);
        assert!(error.starts_with(&format!("percent `{text}`: ")), "{error}");
    }
}

#[test]
fn ports_and_percents_read_as_written() {
    let whole = |text: &str| {
        let form: PortForm = text.parse().unwrap_or_else(|error| panic!("{error}"));
        form.0
    };
    let port = |text: &str| {
        let port = whole(text);
        (port.protocol, port.port)
    };
    let range = spec::Port {
        protocol: Some("TCP".to_owned()),
        port: Some(8000),
        end_port: Some(8099),
        end: Some("source".to_owned()),
        ..spec::Port::default()
    };
    assert_eq!(whole("source:tcp:8000-8099"), range);
    let echo = spec::Port {
        protocol: Some("ICMP".to_owned()),
        icmp_type: Some(8),
        icmp_code: Some(0),
        ..spec::Port::default()
    };
    assert_eq!(whole("icmp:8/0"), echo);
    assert_eq!(port("8443"), (None, Some(8443)));
    assert_eq!(port("tcp:8443"), (Some("TCP".to_owned()), Some(8443)));
    assert_eq!(port("UDP:53"), (Some("UDP".to_owned()), Some(53)));
    assert_eq!(port("icmpv6"), (Some("ICMPv6".to_owned()), None));
    for (text, value) in [
        ("20", 20.0),
        ("20%", 20.0),
        ("0.5%", 0.5),
        ("0", 0.0),
        ("100%", 100.0),
    ] {
        assert_eq!(text.parse::<PercentForm>().expect(text), PercentForm(value));
    }
}

#[test]
fn amounts_of_actions_and_times_read_as_written() {
    let burst: BurstForm = "2%:8".parse().expect("a burst");
    assert_eq!((burst.0.percent, burst.0.length), (2.0, 8.0));
    let chain: GilbertElliottForm = "1:25%".parse().expect("a chain");
    assert_eq!(
        (chain.0.p, chain.0.r, chain.0.loss_good, chain.0.loss_bad),
        (1.0, 25.0, None, None)
    );
    let chain: GilbertElliottForm = "1:25:0.5:90".parse().expect("a chain");
    assert_eq!((chain.0.loss_good, chain.0.loss_bad), (Some(0.5), Some(90.0)));
    let offset: OffsetForm = "8-".parse().expect("an offset");
    assert_eq!((offset.0.from, offset.0.to), (Some(8), None));
    assert_eq!("100-1500".parse(), Ok(LengthForm(Some(100), Some(1500))));
    let pulse: PulseForm = "10s/500ms".parse().expect("a pulse");
    assert_eq!(
        (pulse.0.on_time, pulse.0.off_time),
        (Duration::from_secs(10), Duration::from_millis(500))
    );
    let ramp: RampForm = "60s:50..200%".parse().expect("a ramp");
    assert_eq!(
        (ramp.0.over, ramp.0.from, ramp.0.to),
        (Duration::from_secs(60), Some(50.0), Some(200.0))
    );
    let ramp: RampForm = "1m".parse().expect("a ramp");
    assert_eq!((ramp.0.from, ramp.0.to), (None, None));
    assert_eq!("46".parse(), Ok(DscpForm(46)));
    assert_eq!("10mbit".parse(), Ok(RateForm("10mbit".to_owned())));
    assert_eq!("16KiB".parse(), Ok(BytesForm("16KiB".to_owned())));
}

#[test]
fn wrong_amounts_are_refused_with_what_is_allowed() {
    fn all<T: std::str::FromStr<Err = FormError> + std::fmt::Debug>(what: &str, texts: &[&str]) {
        for text in texts {
            let error = refusal::<T>(text);
            assert!(
                error.starts_with(&format!("{what} `{text}`: ")) && error.contains("; allowed: "),
                "{error}"
            );
        }
    }
    all::<BurstForm>("burst", &["", "2", "2:", "2:0.5", "101:8", "2:inf", "2:8:1"]);
    all::<GilbertElliottForm>("gilbert-elliott", &["", "1", "1:x", "1:101", "1:2:3:4:5"]);
    all::<OffsetForm>("offset", &["", "-", "5", "a-b", "1-2-3"]);
    all::<LengthForm>("length", &["", "-", "100", "1..2"]);
    all::<DscpForm>("dscp", &["", "64", "-1", "ef"]);
    all::<PulseForm>("pulse", &["", "10s", "10/5", "10s/", "/5s"]);
    all::<RampForm>(
        "ramp",
        &["", "60", "60s:", "60s:5", "60s:a..b", "60s:0..inf", "60s:0..."],
    );
    all::<RateForm>("rate", &["", "10mb", "fast"]);
    all::<BytesForm>("bytes", &["", "16k", "big"]);
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let key = || "([a-z]{1,5}\\.[a-z]{1,3}/)?[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,5}[a-zA-Z0-9])?";
    let value = || "([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,5}[a-zA-Z0-9])?)?";
    let expression =
        (key(), 0..4_usize, prop::collection::vec(value(), 1..4)).prop_map(|(key, operator, values)| {
            LabelExpression {
                key,
                operator: ["In", "NotIn", "Exists", "DoesNotExist"][operator].to_owned(),
                values: if operator < 2 { values } else { Vec::new() },
            }
        });
    (
        prop::collection::btree_map(key(), value(), 0..3),
        prop::collection::vec(expression, 0..3),
    )
        .prop_map(|(match_labels, match_expressions)| LabelSelector {
            match_labels,
            match_expressions,
        })
}

fn target_form() -> impl Strategy<Value = TargetForm> {
    prop_oneof![
        "pod:[a-z]{1,8}/[a-z]{1,8}-[0-9]",
        ("[a-z]{1,8}", selector()).prop_map(|(ns, s)| format!("pods:{ns}/{}", format_selector(&s))),
        "interface:[a-z]{1,8}[0-9]",
        "netns:(/run/netns/)?[a-z]{1,8}",
    ]
    .prop_map(|text| text.parse().unwrap_or_else(|error| panic!("{error}")))
}

fn peer_form() -> impl Strategy<Value = PeerForm> {
    prop_oneof![
        any::<std::net::IpAddr>().prop_map(|ip| format!("ip:{ip}")),
        "cidr:10\\.0\\.0\\.0/8(,except=10\\.[0-9]\\.0\\.0/16){0,3}",
        "pod:[a-z]{1,8}/[a-z]{1,8}",
        ("[a-z]{1,8}", selector()).prop_map(|(ns, s)| format!("pods:{ns}/{}", format_selector(&s))),
        "host:[a-z]{1,8}(\\.[a-zA-Z0-9]{1,8}){0,3}\\.?",
    ]
    .prop_map(|text| text.parse().unwrap_or_else(|error| panic!("{error}")))
}

fn port_form() -> impl Strategy<Value = String> {
    prop_oneof![
        ("((source|destination):)?((TCP|UDP|SCTP):)?", 1..=65535_u16)
            .prop_map(|(head, port)| format!("{head}{port}")),
        (
            "((source|destination):)?((TCP|UDP|SCTP):)?",
            1..=65535_u16,
            any::<u16>()
        )
            .prop_map(|(head, first, more)| format!("{head}{first}-{}", first.saturating_add(more))),
        "TCP|UDP|SCTP|ICMP|ICMPv6",
        ("ICMP|ICMPv6", any::<u8>()).prop_map(|(protocol, kind)| format!("{protocol}:{kind}")),
        ("ICMP|ICMPv6", any::<[u8; 2]>())
            .prop_map(|(protocol, [kind, code])| format!("{protocol}:{kind}/{code}")),
    ]
}

proptest! {
    #[test]
    fn selectors_round_trip(selector in selector()) {
        let text = format_selector(&selector);
        prop_assert_eq!(parse_selector(&text).map_err(|e| TestCaseError::fail(e.to_string()))?, selector);
    }

    #[test]
    fn target_forms_round_trip_and_are_valid(form in target_form()) {
        prop_assert_eq!(form.to_string().parse::<TargetForm>(), Ok(form.clone()));
        let spec = spec::FaultSpec { target: form.0, ..crate::validate::minimal() };
        let metadata = Metadata { name: "cut".to_owned(), ..Metadata::default() };
        prop_assert!(validate(&metadata, &spec, &Limits::default()).is_ok());
    }

    #[test]
    fn peer_forms_round_trip_and_are_valid(form in peer_form()) {
        prop_assert_eq!(form.to_string().parse::<PeerForm>(), Ok(form.clone()));
        let spec = spec::FaultSpec { peers: vec![form.0], ..crate::validate::minimal() };
        let metadata = Metadata { name: "cut".to_owned(), ..Metadata::default() };
        prop_assert!(validate(&metadata, &spec, &Limits::default()).is_ok());
    }

    #[test]
    fn port_forms_round_trip_and_are_valid(text in port_form()) {
        let form: PortForm = text.parse().expect("a port");
        prop_assert_eq!(form.to_string(), text);
        let spec = spec::FaultSpec { ports: vec![form.0], ..crate::validate::minimal() };
        let metadata = Metadata { name: "cut".to_owned(), ..Metadata::default() };
        prop_assert!(validate(&metadata, &spec, &Limits::default()).is_ok());
    }

    #[test]
    fn percents_round_trip(value in 0.0..=100.0_f64) {
        let percent = PercentForm(value);
        prop_assert_eq!(percent.to_string().parse::<PercentForm>(), Ok(percent));
    }

    #[test]
    fn no_text_makes_a_form_panic(text in "(pods?:|netns:|cidr:|ip:|host:|TCP:)?\\PC{0,40}") {
        let _ = (text.parse::<TargetForm>(), text.parse::<PeerForm>());
        let _ = (text.parse::<PortForm>(), text.parse::<PercentForm>(), parse_selector(&text));
        let _ = (text.parse::<BurstForm>(), text.parse::<GilbertElliottForm>(), text.parse::<OffsetForm>());
        let _ = (text.parse::<PulseForm>(), text.parse::<RampForm>(), text.parse::<LengthForm>());
        let _ = (text.parse::<DscpForm>(), text.parse::<RateForm>(), text.parse::<BytesForm>());
    }
}
