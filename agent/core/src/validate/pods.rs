//! Pods: by name or by labels, as targets and as peers.

use crate::model::{LabelRequirement, LabelSelector, Pick, PickShare, PodSelector};
use crate::spec;

use super::action::percent;
use super::names;
use super::report::{Report, Violation};

/// The parts of a pod reference that targets and peers share.
pub(super) struct PodFields<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) selector: Option<&'a spec::LabelSelector>,
}

/// `fallback` is the fault's own namespace, empty where it has none.
pub(super) fn selector(
    report: &mut Report,
    field: &str,
    pods: &PodFields<'_>,
    fallback: &str,
) -> PodSelector {
    let namespace = pods.namespace.filter(|n| !n.is_empty()).unwrap_or(fallback);
    let namespace_field = format!("{field}.namespace");
    if namespace.is_empty() {
        report.missing(namespace_field, "a namespace, since the fault itself is in none");
    } else if pods.namespace.is_some_and(|n| !n.is_empty()) && !names::is_label(namespace) {
        report.add(namespace_field, namespace, names::LABEL_RULE);
    }
    report.exactly_one(
        field,
        &[
            ("name", pods.name.is_some()),
            ("selector", pods.selector.is_some()),
        ],
    );
    if let Some(name) = pods.name
        && !names::is_subdomain(name)
    {
        report.add(format!("{field}.name"), name, names::SUBDOMAIN_RULE);
    }
    let labels = pods
        .selector
        .map(|s| labels(report, &format!("{field}.selector"), s));
    PodSelector {
        namespace: namespace.to_owned(),
        name: pods.name.map(str::to_owned),
        labels: labels.unwrap_or_default(),
    }
}

/// Labels that aren't a fault's, by the same rules.
pub(crate) fn plain_labels(selector: &spec::LabelSelector) -> Result<LabelSelector, Vec<Violation>> {
    let mut report = Report::default();
    let labels = labels(&mut report, "labels", selector);
    if report.is_empty() {
        Ok(labels)
    } else {
        Err(report.into_violations())
    }
}

fn labels(report: &mut Report, field: &str, selector: &spec::LabelSelector) -> LabelSelector {
    let mut requirements = Vec::new();
    for (key, value) in &selector.match_labels {
        check_key(report, &format!("{field}.matchLabels"), key);
        check_value(report, &format!("{field}.matchLabels[{key}]"), value);
        requirements.push(LabelRequirement::In {
            key: key.clone(),
            values: [value.clone()].into(),
        });
    }
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        requirements.extend(requirement(report, &field, expression));
    }
    LabelSelector { requirements }
}

fn requirement(
    report: &mut Report,
    field: &str,
    expression: &spec::LabelExpression,
) -> Option<LabelRequirement> {
    check_key(report, &format!("{field}.key"), &expression.key);
    for (index, value) in expression.values.iter().enumerate() {
        check_value(report, &format!("{field}.values[{index}]"), value);
    }
    let key = expression.key.clone();
    let values = || expression.values.iter().cloned().collect();
    let (needs_values, requirement) = match expression.operator.as_str() {
        "In" => (
            true,
            LabelRequirement::In {
                key,
                values: values(),
            },
        ),
        "NotIn" => (
            true,
            LabelRequirement::NotIn {
                key,
                values: values(),
            },
        ),
        "Exists" => (false, LabelRequirement::Exists { key }),
        "DoesNotExist" => (false, LabelRequirement::DoesNotExist { key }),
        other => {
            report.add(
                format!("{field}.operator"),
                other,
                "In, NotIn, Exists or DoesNotExist",
            );
            return None;
        }
    };
    let operator = &expression.operator;
    let values_field = format!("{field}.values");
    if needs_values && expression.values.is_empty() {
        report.missing(
            values_field,
            format!("one value or more, since the operator is {operator}"),
        );
    } else if !needs_values && !expression.values.is_empty() {
        report.add(
            values_field,
            expression.values.join(", "),
            format!("no values, since the operator is {operator}"),
        );
    }
    Some(requirement)
}

fn check_key(report: &mut Report, field: &str, key: &str) {
    if !names::is_label_key(key) {
        report.add(field, key, names::LABEL_KEY_RULE);
    }
}

fn check_value(report: &mut Report, field: &str, value: &str) {
    if !names::is_label_value(value) {
        report.add(field, value, names::LABEL_VALUE_RULE);
    }
}

pub(super) fn pick(report: &mut Report, field: &str, pick: &spec::Pick) -> Option<Pick> {
    let given = [
        ("count", pick.count.is_some()),
        ("percent", pick.percent.is_some()),
    ];
    report.exactly_one(field, &given);
    if pick.count == Some(0) {
        report.add(format!("{field}.count"), 0, "a number of pods from 1 on");
    }
    let percent = pick
        .percent
        .and_then(|p| percent(report, &format!("{field}.percent"), p));
    let share = match (pick.count, percent) {
        (Some(count), None) => PickShare::Count(count),
        (_, Some(percent)) => PickShare::Percent(percent),
        (None, None) => return None,
    };
    Some(Pick {
        share,
        seed: pick.seed,
    })
}
