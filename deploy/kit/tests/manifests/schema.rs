//! Manifests against Kubernetes' own types: whatever a type doesn't have is found by reading the manifest as that type,
//! writing it again and looking for what is gone.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Says what is wrong with a manifest.
pub(crate) fn check(document: &Value) -> Result<(), String> {
    let text = |field: &str| document[field].as_str().unwrap_or_default();
    let known = match (text("apiVersion"), text("kind")) {
        ("v1", "Namespace") => again::<Namespace>(document),
        ("v1", "Service") => again::<Service>(document),
        ("v1", "ServiceAccount") => again::<ServiceAccount>(document),
        ("apps/v1", "DaemonSet") => again::<DaemonSet>(document),
        ("apps/v1", "Deployment") => again::<Deployment>(document),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<ClusterRole>(document),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => again::<ClusterRoleBinding>(document),
        ("rbac.authorization.k8s.io/v1", "Role") => again::<Role>(document),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<RoleBinding>(document),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            again::<CustomResourceDefinition>(document)
        }
        // Of Prometheus' operator, whose types aren't here; how it fits is tested by itself.
        ("monitoring.coreos.com/v1", "ServiceMonitor") => Ok(document.clone()),
        (version, kind) => Err(format!("no type is known for {version} {kind}")),
    }?;
    let mut gone = Vec::new();
    compare(document, &known, "", &mut gone);
    if gone.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{} {} has unknown fields: {}",
            text("kind"),
            document["metadata"]["name"],
            gone.join(", ")
        ))
    }
}

fn again<T: Serialize + DeserializeOwned>(document: &Value) -> Result<Value, String> {
    let typed = serde_json::from_value::<T>(document.clone())
        .map_err(|error| format!("{} {}: {error}", document["kind"], document["metadata"]["name"]))?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// The paths that one value has and the other one hasn't, or has otherwise.
fn compare(given: &Value, known: &Value, path: &str, gone: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match known.get(key) {
                    Some(known) => compare(value, known, &path, gone),
                    None => gone.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) if given.len() == known.len() => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{index}]"), gone);
            }
        }
        // Some types have every number as a float.
        (Value::Number(given), Value::Number(known)) if given.as_f64() == known.as_f64() => {}
        (given, known) if given == known => {}
        _ => gone.push(path.to_owned()),
    }
}
