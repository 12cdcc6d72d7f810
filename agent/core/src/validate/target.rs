//! Targets.

use std::path::Path;

use crate::model::TargetSelector;
use crate::spec;

use super::names;
use super::pods::{self, PodFields};
use super::report::Report;
use super::services;

const FIELD: &str = "spec.target";

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, target: &spec::Target, namespace: &str) -> Option<TargetSelector> {
    let given = [
        ("pods", target.pods.is_some()),
        ("netns", target.netns.is_some()),
        ("interface", target.interface.is_some()),
        ("service", target.service.is_some()),
        ("node", target.node.is_some()),
    ];
    report.exactly_one(FIELD, &given);
    let netns = target.netns.as_deref().map(|path| netns(report, path));
    let interface = target.interface.as_deref().map(|name| interface(report, name));
    let pods = target
        .pods
        .as_ref()
        .map(|pods| target_pods(report, pods, namespace));
    let service = target
        .service
        .as_ref()
        .map(|service| target_service(report, service, namespace));
    let node = target.node.as_deref().map(|name| {
        services::node(report, &format!("{FIELD}.node"), name);
        TargetSelector::Node(name.to_owned())
    });
    pods.or(netns).or(interface).or(service).or(node)
}

fn target_service(report: &mut Report, service: &spec::TargetService, namespace: &str) -> TargetSelector {
    let field = format!("{FIELD}.service");
    TargetSelector::Service {
        name: services::name(
            report,
            &field,
            service.namespace.as_deref(),
            &service.name,
            namespace,
        ),
        pick: service
            .pick
            .as_ref()
            .and_then(|p| pods::pick(report, &format!("{field}.pick"), p)),
    }
}

fn target_pods(report: &mut Report, pods: &spec::TargetPods, namespace: &str) -> TargetSelector {
    let field = format!("{FIELD}.pods");
    let fields = PodFields {
        namespace: pods.namespace.as_deref(),
        name: pods.name.as_deref(),
        selector: pods.selector.as_ref(),
    };
    TargetSelector::Pods {
        selector: pods::selector(report, &field, &fields, namespace),
        pick: pods
            .pick
            .as_ref()
            .and_then(|p| pods::pick(report, &format!("{field}.pick"), p)),
    }
}

fn netns(report: &mut Report, path: &str) -> TargetSelector {
    if !Path::new(path).is_absolute() || path.contains('\0') {
        report.add(
            format!("{FIELD}.netns"),
            path.escape_debug(),
            "the absolute path of a network namespace, as /run/netns/web",
        );
    }
    TargetSelector::Netns(path.into())
}

fn interface(report: &mut Report, name: &str) -> TargetSelector {
    if !names::is_device(name) {
        report.add(format!("{FIELD}.interface"), name, names::DEVICE_RULE);
    }
    TargetSelector::Interface(name.to_owned())
}
