//! Calls of the container runtime as people read them.

use crate::view::CriDoc;

/// `cri RunPodSandbox team-a/web by kubelet[11] = OK in 420ms`; ids are shortened as the runtimes' clients do.
pub(super) fn line(call: &CriDoc) -> String {
    const SHORT: usize = 13;
    let short = |id: &str| id.chars().take(SHORT).collect::<String>();
    let mut line = format!("cri {}", call.operation);
    if let Some(pod) = &call.pod {
        line.push_str(&format!(" {}/{}", pod.namespace, pod.name));
    }
    for (what, text) in [
        ("sandbox", short(&call.sandbox)),
        ("container", short(&call.container)),
        ("image", call.image.clone()),
    ] {
        if !text.is_empty() {
            line.push_str(&format!(" {what} {text}"));
        }
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
