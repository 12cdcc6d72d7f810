//! The daemons of a cluster: which pod is which node's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::args::ClusterArgs;
use crate::error::CliError;

/// What the manifests of `deploy/` put on the daemons' pods.
const SELECTOR: &str = "app.kubernetes.io/name=sabot,app.kubernetes.io/component=daemon";
/// The daemon's container, where a pod has several.
const CONTAINER: &str = "sabotd";
/// Pods in one answer of the API server.
const PAGE: u32 = 500;

/// One node's daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) node: String,
    pub(crate) pod: String,
    pub(super) container: Option<String>,
    /// Why nothing can be run in its pod; absent where it runs.
    pub(super) trouble: Option<String>,
}

/// Pods in the daemons' namespace, by the kubeconfig that is named or found.
///
/// # Errors
/// No kubeconfig, or one that can't be read or doesn't have what is named.
pub(super) async fn api(args: &ClusterArgs) -> Result<Api<Pod>, CliError> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let wrong = |error: &dyn std::error::Error| CliError::Usage(format!("the kubeconfig: {}", chain(error)));
    let config = match (&args.kubeconfig, &args.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|e| wrong(&e))?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|e| wrong(&e))?,
        (None, None) => Config::infer().await.map_err(|e| wrong(&e))?,
    };
    let client = Client::try_from(config).map_err(|e| api_error("connecting to the cluster", e))?;
    Ok(Api::namespaced(client, args.namespace()))
}

/// The daemon of every node, or of those that are named; by node.
///
/// # Errors
/// The API server's, no daemon at all, or a name of a node that has none.
pub(super) async fn find(pods: &Api<Pod>, args: &ClusterArgs) -> Result<Vec<Daemon>, CliError> {
    let namespace = args.namespace();
    let mut found = BTreeMap::new();
    let mut params = ListParams::default().labels(SELECTOR).limit(PAGE);
    loop {
        let what = format!("listing the daemons in the namespace {namespace}");
        let page = pods.list(&params).await.map_err(|e| api_error(what, e))?;
        for pod in page.items {
            add(&mut found, pod);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    if found.is_empty() {
        return Err(CliError::Cluster {
            what: "finding the daemons".to_owned(),
            why: format!(
                "no pod in the namespace {namespace} has the labels {SELECTOR}\n\
                 hint: is Sabot installed there? If in another namespace, name it by --sabot-namespace"
            ),
            refused: false,
        });
    }
    chosen(found, &args.nodes)
}

fn chosen(mut found: BTreeMap<String, Daemon>, nodes: &[String]) -> Result<Vec<Daemon>, CliError> {
    if let Some(unknown) = nodes.iter().find(|node| !found.contains_key(*node)) {
        let mut known: Vec<_> = found.keys().take(10).map(String::as_str).collect();
        if found.len() > known.len() {
            known.push("…");
        }
        return Err(CliError::Usage(format!(
            "--on-node: no daemon runs on `{unknown}`; there is one on {}",
            known.join(", ")
        )));
    }
    if !nodes.is_empty() {
        found.retain(|node, _| nodes.contains(node));
    }
    Ok(found.into_values().collect())
}

/// While a daemon is replaced, its node has two pods: the one that runs counts.
fn add(found: &mut BTreeMap<String, Daemon>, pod: Pod) {
    let name = pod.metadata.name.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    let trouble = if pod.metadata.deletion_timestamp.is_some() {
        Some("it is being deleted".to_owned())
    } else if phase == "Running" {
        None
    } else {
        Some(format!("it is {phase}"))
    };
    // A pod that isn't scheduled has no node yet.
    let node = spec.node_name.unwrap_or_else(|| format!("(pod {name})"));
    let named = spec.containers.iter().find(|c| c.name == CONTAINER);
    let container = named.or(spec.containers.first()).map(|c| c.name.clone());
    let daemon = Daemon {
        node: node.clone(),
        pod: name,
        container,
        trouble,
    };
    match found.get(&node) {
        Some(other) if other.trouble.is_none() || daemon.trouble.is_some() => {}
        _ => {
            found.insert(node, daemon);
        }
    }
}

/// What the API server, or the way to it, has against it.
pub(super) fn api_error(what: impl Into<String>, error: kube::Error) -> CliError {
    let (why, refused) = match &error {
        kube::Error::Api(status) => (status.message.clone(), matches!(status.code, 401 | 403)),
        other => (chain(other), false),
    };
    CliError::Cluster {
        what: what.into(),
        why,
        refused,
    }
}

/// An error with its causes, as far as they say something new.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Exit;

    fn pod(name: &str, node: &str, phase: &str, deleted: bool) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "proxy"}, {"name": "sabotd"}]},
            "status": {"phase": phase},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn found(pods: impl IntoIterator<Item = Pod>) -> BTreeMap<String, Daemon> {
        let mut found = BTreeMap::new();
        for pod in pods {
            add(&mut found, pod);
        }
        found
    }

    #[test]
    fn the_pod_that_runs_is_a_nodes_daemon() {
        let old = || pod("old", "a", "Running", true);
        let new = || pod("new", "a", "Running", false);
        for pods in [[old(), new()], [new(), old()]] {
            let found = found(pods);
            assert_eq!(found["a"].pod, "new");
            assert_eq!(found["a"].trouble, None);
            assert_eq!(found["a"].container.as_deref(), Some("sabotd"));
        }
        let waiting = found([pod("new", "a", "Pending", false)]);
        assert_eq!(waiting["a"].trouble.as_deref(), Some("it is Pending"));
    }

    #[test]
    fn nodes_that_are_named_must_have_a_daemon() {
        let all = || found(["a", "b", "c"].map(|node| pod(&format!("on-{node}"), node, "Running", false)));
        let names = |daemons: Vec<Daemon>| daemons.into_iter().map(|d| d.node).collect::<Vec<_>>();
        assert_eq!(names(chosen(all(), &[]).expect("all")), ["a", "b", "c"]);
        let two = ["c".to_owned(), "a".to_owned()];
        assert_eq!(names(chosen(all(), &two).expect("two")), ["a", "c"]);
        let error = chosen(all(), &["x".to_owned()]).expect_err("it isn't there");
        assert_eq!(error.exit_code(), Exit::Usage);
        assert!(
            error.to_string().contains("`x`") && error.to_string().contains("a, b, c"),
            "{error}"
        );
    }
}
