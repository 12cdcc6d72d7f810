//! A runtime's description of a pod: what is made of it is what stands in it.

use std::net::IpAddr;
use std::path::PathBuf;

use prost::Message;
use sabot_core::model::Pod;
use sabot_proto::runtime::v1::{NamespaceMode, PodSandboxState, PodSandboxStatus, PodSandboxStatusResponse};
use sabotd::fuzzing::cri_pods::describe;
use serde_json::Value;

/// # Panics
///
/// A pod is made that isn't the one in the answer, or a refusal says what isn't so.
pub fn check(bytes: &[u8]) {
    let Some(answer) = read(bytes) else {
        return;
    };
    let said = answer.clone();
    let info = said
        .info
        .get("info")
        .map(|info| serde_json::from_str::<Value>(info));
    let is_of_node = said.status.as_ref().is_some_and(is_of_node);
    match describe(answer) {
        Ok((pod, paths)) => {
            let status = said.status.expect("a pod has a status");
            assert_eq!(pod.host_network, is_of_node);
            described(&pod, &status);
            let info = info.and_then(Result::ok).unwrap_or_default();
            placed(&pod, &paths, &info);
        }
        Err(reason) => {
            let Some(status) = said.status else {
                return assert!(reason.contains("`status`"), "{reason}");
            };
            let is_ready = status.state() == PodSandboxState::SandboxReady;
            let is_named = status.metadata.is_some();
            assert!(!is_ready || !is_named || !is_of_node, "{reason}");
            let blamed = [
                ("ready", !is_ready),
                ("`metadata`", !is_named),
                ("`info`", info.is_none()),
                ("JSON", true),
            ];
            let is_true = |(word, holds): &(&str, bool)| reason.contains(word) && *holds;
            assert!(blamed.iter().any(is_true), "{reason}");
        }
    }
}

/// An answer, and in front of it the JSON in it with its length, which a mutation of the whole seldom reaches.
fn read(bytes: &[u8]) -> Option<PodSandboxStatusResponse> {
    let (&length, rest) = bytes.split_first_chunk()?;
    let (info, rest) = rest.split_at_checked(u16::from_be_bytes(length).into())?;
    let mut answer = PodSandboxStatusResponse::decode(rest).ok()?;
    if !info.is_empty() {
        let info = std::str::from_utf8(info).ok()?;
        answer.info.insert("info".to_owned(), info.to_owned());
    }
    Some(answer)
}

fn is_of_node(status: &PodSandboxStatus) -> bool {
    let linux = status.linux.as_ref();
    let options = linux.and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    options.is_some_and(|options| options.network == NamespaceMode::Node as i32)
}

fn described(pod: &Pod, status: &PodSandboxStatus) {
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    let metadata = status.metadata.as_ref().expect("a pod has a name");
    assert_eq!(
        [&pod.name, &pod.namespace, &pod.uid, &pod.sandbox],
        [&metadata.name, &metadata.namespace, &metadata.uid, &status.id]
    );
    assert_eq!(pod.labels, status.labels.clone().into_iter().collect());
    for (key, value) in &status.annotations {
        let is_ours = key.starts_with("sabot.dev/");
        assert_eq!(pod.annotations.get(key), Some(value).filter(|_| is_ours));
    }
    let network = status.network.clone().unwrap_or_default();
    let addresses: Vec<IpAddr> = std::iter::once(&network.ip)
        .chain(network.additional_ips.iter().map(|ip| &ip.ip))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    assert_eq!(pod.addresses, addresses);
    assert!(pod.devices.is_empty() && pod.netns_path.is_none());
}

/// Where its namespace is, read from any JSON.
fn placed(pod: &Pod, paths: &[PathBuf], info: &Value) {
    let pid = info["pid"].as_u64().filter(|pid| *pid != 0);
    if pod.host_network {
        return assert!(paths.is_empty(), "{paths:?}");
    }
    assert_eq!(pod.process.map(u64::from), pid);
    let namespaces = info
        .pointer("/runtimeSpec/linux/namespaces")
        .and_then(Value::as_array);
    let mounted = namespaces.into_iter().flatten().filter_map(|namespace| {
        let path = namespace["path"].as_str().filter(|path| !path.is_empty())?;
        (namespace["type"] == "network").then(|| PathBuf::from(path))
    });
    let expected: Vec<_> = mounted
        .chain(pid.map(|pid| format!("/proc/{pid}/ns/net").into()))
        .collect();
    assert_eq!(paths, expected);
}
