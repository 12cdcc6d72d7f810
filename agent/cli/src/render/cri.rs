//! Calls of the container runtime, and what it tells of its containers, as people read them.

use crate::view::{ContainerDoc, CriDoc, PodDoc};

/// `cri RunPodSandbox team-a/web by kubelet[11] = OK in 420ms`; ids are shortened as the runtimes' clients do.
pub(super) fn line(call: &CriDoc) -> String {
    let mut line = format!("cri {}", call.operation);
    line.push_str(&subject(call.pod.as_ref(), &call.sandbox, &call.container));
    if !call.image.is_empty() {
        line.push_str(&format!(" image {}", call.image));
    }
    if !call.process.is_empty() {
        line.push_str(&format!(" by {}[{}]", call.process, call.pid));
    }
    line.push_str(&format!(" = {}", call.outcome));
    if let Some(took) = &call.duration {
        line.push_str(&format!(" in {took}"));
    }
    if !call.message.is_empty() {
        line.push_str(&format!(": {}", call.message));
    }
    line
}

/// `container stopped team-a/web sandbox 5f2c8e0b7a6d4 container 19ab04c1`, and `sandbox stopped ...` of the sandbox itself.
pub(super) fn container_line(told: &ContainerDoc) -> String {
    let what = if told.container.is_empty() {
        "sandbox"
    } else {
        "container"
    };
    let subject = subject(told.pod.as_ref(), &told.sandbox, &told.container);
    format!("{what} {}{subject}", told.change)
}

fn subject(pod: Option<&PodDoc>, sandbox: &str, container: &str) -> String {
    const SHORT: usize = 13;
    let mut text = pod.map_or_else(String::new, |pod| format!(" {}/{}", pod.namespace, pod.name));
    for (what, id) in [("sandbox", sandbox), ("container", container)] {
        if !id.is_empty() {
            text.push_str(&format!(" {what} {}", id.chars().take(SHORT).collect::<String>()));
        }
    }
    text
}
