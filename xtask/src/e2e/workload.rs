//! The pods that are disturbed: a client, a Service with three backends, and another one that must not notice.

use serde_json::{Value, json};

pub(super) const NAMESPACE: &str = "sabot-e2e";
pub(super) const DEPLOYMENTS: [&str; 3] = ["client", "server", "other"];
pub(super) const PORT: u16 = 8080;

/// Serves the pod's own name.
const SERVE: &str = "mkdir -p /tmp/www && hostname >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www";
/// A process that can be told to end at once.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";

/// The namespace with everything in it.
pub(super) fn manifests(image: &str) -> Vec<Value> {
    let mut all = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    all.push(deployment("client", 1, IDLE, image));
    for (name, replicas) in [("server", 3), ("other", 1)] {
        all.push(deployment(name, replicas, SERVE, image));
        all.push(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "targetPort": PORT}],
            },
        }));
    }
    for role in ["viewer", "operator"] {
        all.push(json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": role, "namespace": NAMESPACE},
        }));
        all.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": NAMESPACE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": format!("sabot-{role}"),
            },
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": NAMESPACE}],
        }));
    }
    all
}

fn deployment(name: &str, replicas: u32, script: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main",
                        "image": image,
                        "command": ["sh", "-c", script],
                        "ports": if name == "client" { json!([]) } else { json!([{"containerPort": PORT}]) },
                    }],
                },
            },
        },
    })
}
