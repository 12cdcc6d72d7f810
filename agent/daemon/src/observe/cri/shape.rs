//! Calls that are known by the shape of their messages, where no other call's could have it.

use super::message::{Message, Value};

/// An id of a sandbox or a container, as all runtimes write them: hexadecimal digits.
const ID_LENGTH: usize = 64;

/// The operation of a call; `answer` is what came before its end.
pub(super) fn by_shape(request: Option<Message<'_>>, answer: Option<Message<'_>>) -> Option<&'static str> {
    by_request(request?).or_else(|| by_answer(request?, answer?))
}

/// The operation that a request must be.
fn by_request(request: Message<'_>) -> Option<&'static str> {
    if request.message(1).is_some_and(is_sandbox_config) {
        return Some("RunPodSandbox");
    }
    if request.message(1).is_some_and(is_image) && request.message(3).is_some_and(is_sandbox_config) {
        return Some("PullImage");
    }
    request.text(1)?;
    if request.message(2).is_some_and(is_container_config) {
        return Some("CreateContainer");
    }
    // Where others have a flag, which is 0 or 1, there are seconds.
    if request.number(2)? > 1 && request.fields().all(|(number, _)| number <= 2) {
        return Some("StopContainer");
    }
    None
}

/// The operation that an answer must be to. Where an answer is to one thing what another one is to a list of such, the
/// request tells: who asks for one thing gives its id.
fn by_answer(request: Message<'_>, answer: Message<'_>) -> Option<&'static str> {
    if is_version(answer) {
        return Some("Version");
    }
    let item = answer.first_message(1)?;
    let asks_for_one = request.text(1).is_some();
    if is_runtime_status(item) {
        return Some("Status");
    }
    if is_filesystem(item) {
        return Some("ImageFsInfo");
    }
    if is_stored_image(item) {
        let asks_for_an_image = request.message(1).is_some_and(is_image);
        return Some(if asks_for_an_image {
            "ImageStatus"
        } else {
            "ListImages"
        });
    }
    if is_container(item) {
        return Some("ListContainers");
    }
    if is_container_status(item) {
        return asks_for_one.then_some("ContainerStatus");
    }
    if is_sandbox(item) {
        return Some(if asks_for_one {
            "PodSandboxStatus"
        } else {
            "ListPodSandbox"
        });
    }
    let (of_one, of_all) = match stats(item)? {
        Kind::Sandbox => ("PodSandboxStats", "ListPodSandboxStats"),
        Kind::Container => ("ContainerStats", "ListContainerStats"),
    };
    Some(if asks_for_one { of_one } else { of_all })
}

fn is_sandbox_config(message: Message<'_>) -> bool {
    let is_metadata = |metadata: Message<'_>| [1, 2, 3].iter().all(|&field| metadata.text(field).is_some());
    message.message(1).is_some_and(is_metadata)
}

fn is_container_config(message: Message<'_>) -> bool {
    let is_metadata = |metadata: Message<'_>| metadata.text(1).is_some();
    message.message(1).is_some_and(is_metadata) && message.message(2).is_some_and(is_image)
}

fn is_image(message: Message<'_>) -> bool {
    message.text(1).is_some()
}

/// Names and versions, of which the first is that of the kubelet's old API.
fn is_version(answer: Message<'_>) -> bool {
    let is_api = |version: &str| version.starts_with("v1");
    (1..=4).all(|field| answer.text(field).is_some())
        && answer.text(4).is_some_and(is_api)
        && answer.fields().all(|(number, _)| number <= 4)
}

fn is_runtime_status(status: Message<'_>) -> bool {
    status.fields().any(|(number, value)| match value {
        Value::Bytes(condition) => number == 1 && Message(condition).text(1) == Some("RuntimeReady"),
        Value::Number(_) | Value::Other => false,
    })
}

/// How full it is: when, where, and how many bytes.
fn is_filesystem(usage: Message<'_>) -> bool {
    let is_path = |id: Message<'_>| id.text(1).is_some_and(|path| path.starts_with('/'));
    usage.number(1).is_some() && usage.message(2).is_some_and(is_path) && usage.message(3).is_some()
}

/// By its digest, with its size.
fn is_stored_image(image: Message<'_>) -> bool {
    let is_digest = |id: &str| id.starts_with("sha256:");
    image.text(1).is_some_and(is_digest) && image.number(4).is_some()
}

/// Its own id and its sandbox's, its name, and its image.
fn is_container(container: Message<'_>) -> bool {
    has_id(container, 1)
        && has_id(container, 2)
        && kind(container, 3) == Some(Kind::Container)
        && container.message(4).is_some_and(is_image)
}

/// Its id, its name, when it was made, and its image.
fn is_container_status(status: Message<'_>) -> bool {
    has_id(status, 1)
        && kind(status, 2) == Some(Kind::Container)
        && status.number(4).is_some()
        && status.message(8).is_some_and(is_image)
}

/// Its id, what its pod is called, and when it was made: as in a list, so in its status.
fn is_sandbox(sandbox: Message<'_>) -> bool {
    has_id(sandbox, 1) && kind(sandbox, 2) == Some(Kind::Sandbox) && sandbox.number(4).is_some()
}

/// What they are of: an id with a name, which are a message by themselves there.
fn stats(stats: Message<'_>) -> Option<Kind> {
    let attributes = stats.message(1)?;
    kind(attributes, 2).filter(|_| has_id(attributes, 1) && stats.message(2).is_some())
}

fn has_id(message: Message<'_>, number: u64) -> bool {
    let is_id = |id: &str| id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    message.text(number).is_some_and(is_id)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sandbox,
    Container,
}

/// Whose name stands there: a container has one, a sandbox has those of its pod, which has a uid and a namespace.
fn kind(message: Message<'_>, number: u64) -> Option<Kind> {
    let metadata = message.message(number)?;
    metadata.text(1)?;
    match (metadata.text(2), metadata.text(3)) {
        (Some(_), Some(_)) => Some(Kind::Sandbox),
        (None, None) => Some(Kind::Container),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
