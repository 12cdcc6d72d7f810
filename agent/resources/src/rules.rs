//! What no schema of single fields says, as CEL: which fields go together, and what a kind may touch.

use serde_json::{Value, json};

use crate::Kind;

/// The longest fault that a resource can ask for; a daemon's own bound may be lower.
pub(crate) const LONGEST: &str = "24h";

/// One rule, and what a user is told who breaks it.
struct Rule {
    rule: String,
    message: String,
}

fn rule(rule: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule {
        rule: rule.into(),
        message: message.into(),
    }
}

/// Exactly one of these fields is given.
fn one_of(fields: &[String]) -> Rule {
    let given: Vec<_> = fields.iter().map(|field| has(field)).collect();
    let names = fields.join(", ");
    rule(
        format!("[{}].exists_one(given, given)", given.join(", ")),
        format!("exactly one of {names} is given"),
    )
}

fn has(field: &str) -> String {
    // A word that CEL keeps for itself is written so.
    match field {
        "namespace" => "has(self.__namespace__)".to_owned(),
        field => format!("has(self.{field})"),
    }
}

/// Adds the rules to the schema of a fault's spec.
pub(crate) fn add(spec: &mut Value, kind: Kind) {
    common(spec);
    traffic(spec);
    actions(spec);
    match kind {
        Kind::NetworkFault => own_namespace(spec),
        Kind::ClusterNetworkFault => named_namespace(spec),
    }
}

fn common(spec: &mut Value) {
    // The daemon's own type has it optional, to report its absence with all else that is wrong.
    if let Some(required) = spec["required"].as_array_mut() {
        required.insert(0, "duration".into());
    }
    let bounds = format!("duration(self) > duration('0s') && duration(self) <= duration('{LONGEST}')");
    let said = format!("a duration above 0 and up to {LONGEST}");
    put(spec, "duration", [rule(bounds, said)]);
    let times = [
        rule(
            "!has(self.pulse) || (duration(self.pulse.onTime) < duration(self.duration) && \
             duration(self.pulse.offTime) < duration(self.duration))",
            "pulse.onTime and pulse.offTime are below the fault's duration",
        ),
        rule(
            "!has(self.ramp) || duration(self.ramp.over) <= duration(self.duration)",
            "ramp.over is at most the fault's duration",
        ),
    ];
    put(spec, "", times);
    for part in ["onTime", "offTime"] {
        let least = rule("duration(self) >= duration('1ms')", "a duration from 1ms on");
        put(spec, &format!("pulse.{part}"), [least]);
    }
    let above = rule("duration(self) > duration('0s')", "a duration above 0");
    put(spec, "ramp.over", [above]);
    one(spec, "target", &[]);
    one(spec, "target.pods", &["namespace", "pick"]);
    one(spec, "target.pods.pick", &["seed"]);
    one(spec, "target.service.pick", &["seed"]);
    one(spec, "peers[]", &["except"]);
    let except = rule(
        "!has(self.except) || size(self.except) == 0 || has(self.cidr)",
        "except is given only beside cidr",
    );
    put(spec, "peers[]", [except]);
    one(spec, "peers[].pods", &["namespace"]);
    for selector in ["target.pods.selector", "peers[].pods.selector"] {
        let values = rule(
            "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)",
            "values are given with the operators In and NotIn, and with no other",
        );
        put(spec, &format!("{selector}.matchExpressions[]"), [values]);
    }
}

fn traffic(spec: &mut Value) {
    let is_icmp = "has(self.protocol) && (self.protocol == 'ICMP' || self.protocol == 'ICMPv6')";
    let ports = [
        rule(
            format!("!({is_icmp}) || !(has(self.port) || has(self.endPort) || has(self.end))"),
            "port, endPort and end are of protocols that have ports",
        ),
        rule(
            format!("({is_icmp}) || !(has(self.icmpType) || has(self.icmpCode))"),
            "icmpType and icmpCode are of ICMP and ICMPv6",
        ),
        rule(
            "!has(self.icmpCode) || has(self.icmpType)",
            "icmpCode is given only beside icmpType",
        ),
        rule(
            "has(self.port) || !(has(self.endPort) || has(self.end))",
            "endPort and end are given only beside port",
        ),
        rule(
            "!(has(self.port) && has(self.endPort)) || self.endPort >= self.port",
            "endPort is at least port",
        ),
    ];
    put(spec, "ports[]", ports);
    let lengths = rule(
        "!(has(self.minLength) && has(self.maxLength)) || self.minLength <= self.maxLength",
        "minLength is at most maxLength",
    );
    put(spec, "packets", [lengths]);
}

fn actions(spec: &mut Value) {
    one(spec, "action", &[]);
    let models: Vec<_> = properties(spec, "action.drop")
        .into_iter()
        .filter(|field| field != "only")
        .collect();
    let none: Vec<_> = models.iter().map(|model| format!("!{}", has(model))).collect();
    let one_model = one_of(&models);
    let alone = rule(
        format!("{} || (has(self.only) && {})", one_model.rule, none.join(" && ")),
        format!("{}; only may stand alone", one_model.message),
    );
    put(spec, "action.drop", [alone]);
    one(spec, "action.drop.nth", &[]);
    let range = rule(
        "!has(self.to) || self.to > (has(self.from) ? self.from : 0)",
        "to, the byte behind the last one, is above from",
    );
    put(spec, "action.corrupt.offset", [range]);
    let distance = rule("has(self.gap) || has(self.delay)", "gap, delay or both are given");
    put(spec, "action.reorder", [distance]);
    let queue = rule(
        "!(has(self.queueBytes) && has(self.queueTime))",
        "at most one of queueBytes and queueTime is given",
    );
    put(spec, "action.rateLimit", [queue]);
    let delay = [
        rule(
            "has(self.latency) != has(self.quantiles)",
            "exactly one of latency, quantiles is given",
        ),
        rule(
            "!has(self.quantiles) || !(has(self.jitter) || has(self.distribution))",
            "nothing spreads quantiles",
        ),
        rule(
            "!(has(self.latency) && has(self.jitter)) || duration(self.jitter) <= duration(self.latency)",
            "jitter is at most latency",
        ),
        rule(
            "!has(self.latency) || duration(self.latency) > duration('0s')",
            "latency is above 0",
        ),
    ];
    put(spec, "action.delay", delay);
}

/// Whoever may create faults in a namespace touches its pods only.
fn own_namespace(spec: &mut Value) {
    let cluster = Kind::ClusterNetworkFault;
    for field in properties(spec, "target") {
        let path = format!("target.{field}");
        if properties(spec, &path).iter().any(|inner| inner == "namespace") {
            let own = rule(
                "!has(self.__namespace__)",
                format!(
                    "a NetworkFault targets its own namespace, which is not repeated here; others are for a {cluster}"
                ),
            );
            put(spec, &path, [own]);
        } else {
            let message = format!("{field} is a target of the node, for a {cluster}");
            put(spec, "target", [rule(format!("!has(self.{field})"), message)]);
        }
    }
}

/// A fault without a namespace of its own says whose pods it means.
fn named_namespace(spec: &mut Value) {
    for base in ["target", "peers[]"] {
        for field in properties(spec, base) {
            let path = format!("{base}.{field}");
            if properties(spec, &path).iter().any(|inner| inner == "namespace") {
                let named = rule(
                    "has(self.__namespace__) && size(self.__namespace__) > 0",
                    "namespace is given: the fault itself is in none",
                );
                put(spec, &path, [named]);
            }
        }
    }
}

/// One of all the object's fields, apart from some.
fn one(spec: &mut Value, path: &str, apart_from: &[&str]) {
    let fields: Vec<_> = properties(spec, path)
        .into_iter()
        .filter(|field| !apart_from.contains(&field.as_str()))
        .collect();
    put(spec, path, [one_of(&fields)]);
}

/// The fields of the object at this path; none where it isn't one.
fn properties(spec: &mut Value, path: &str) -> Vec<String> {
    let fields = at(spec, path).get("properties").and_then(Value::as_object);
    fields.map_or_else(Vec::new, |fields| fields.keys().cloned().collect())
}

fn put(spec: &mut Value, path: &str, rules: impl IntoIterator<Item = Rule>) {
    let place = at(spec, path);
    for Rule { rule, message } in rules {
        let rule = json!({"rule": rule, "message": message});
        match &mut place["x-kubernetes-validations"] {
            Value::Array(rules) => rules.push(rule),
            none => *none = json!([rule]),
        }
    }
}

/// The schema at a path such as `peers[].pods`.
fn at<'a>(spec: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.')
        .filter(|part| !part.is_empty())
        .fold(spec, |schema, part| {
            let name = part.strip_suffix("[]");
            let field = &mut schema["properties"][name.unwrap_or(part)];
            if name.is_some() {
                &mut field["items"]
            } else {
                field
            }
        })
}
