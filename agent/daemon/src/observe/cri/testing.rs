//! What the tests of this room share.

use std::collections::VecDeque;

use loona_hpack::encoder::encode_integer;
use sabot_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, PodSandboxConfig,
    PodSandboxMetadata,
};

use super::hpack::{Field, STATIC, STATIC_ENTRIES};

/// As runtimes make them.
pub(super) const ID: &str = "5f2c8e0b7a6d4c3b2a190f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5a4";

/// Encodes headers as Go's gRPC does: everything that is sent goes into the table, and is a number when it's sent again.
#[derive(Default)]
pub(super) struct Encoder {
    /// The newest one first.
    table: VecDeque<(String, String)>,
}

impl Encoder {
    pub(super) fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for &(name, value) in headers {
            let known = self.table.iter().position(|(n, v)| n == name && v == value);
            if let Some(index) = known {
                append(&mut block, 0x80, 7, STATIC_ENTRIES + 1 + index);
                continue;
            }
            let place = STATIC.iter().position(|(n, _)| *n == name);
            append(&mut block, 0x40, 6, place.map_or(0, |index| index + 1));
            let name_too = if place.is_none() { Some(name) } else { None };
            for text in name_too.into_iter().chain([value]) {
                append(&mut block, 0, 7, text.len());
                block.extend(text.as_bytes());
            }
            self.table.push_front((name.to_owned(), value.to_owned()));
            while self
                .table
                .iter()
                .map(|(n, v)| n.len() + v.len() + 32)
                .sum::<usize>()
                > 4096
            {
                self.table.pop_back();
            }
        }
        block
    }
}

fn append(block: &mut Vec<u8>, pattern: u8, prefix: u8, value: usize) {
    let mut bytes = encode_integer(value, prefix);
    bytes[0] |= pattern;
    block.extend(bytes);
}

/// A message as it is on the wire.
pub(super) fn encoded(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

pub(super) fn field(name: &str, value: &str) -> Field {
    Field {
        name: Some(name.as_bytes().into()),
        value: Some(value.as_bytes().into()),
        place: None,
    }
}

/// A field that was sent before anyone listened.
pub(super) fn unseen(place: i64) -> Field {
    Field {
        place: Some(place),
        ..Field::default()
    }
}

/// What the pod `team-a/web` is called.
pub(super) fn pod() -> PodSandboxMetadata {
    PodSandboxMetadata {
        name: "web".into(),
        uid: "u-1".into(),
        namespace: "team-a".into(),
        attempt: 0,
    }
}

pub(super) fn sandbox() -> Option<PodSandboxConfig> {
    Some(PodSandboxConfig {
        metadata: Some(pod()),
        ..PodSandboxConfig::default()
    })
}

pub(super) fn create() -> CreateContainerRequest {
    CreateContainerRequest {
        pod_sandbox_id: ID.into(),
        config: Some(ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "main".into(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: "busybox:1".into(),
            }),
            ..ContainerConfig::default()
        }),
        sandbox_config: sandbox(),
    }
}
