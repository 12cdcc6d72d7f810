//! Fields of protobuf messages, also of messages whose end is missing.

/// A field's value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    /// A text or another message; cut off where the message is.
    Bytes(&'a [u8]),
    /// Of fixed width, which CRI's interesting fields aren't.
    Other,
}

/// The fields of a message, in their order, up to the first that makes no sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a>(pub(super) &'a [u8]);

impl<'a> Message<'a> {
    /// What a gRPC message holds; `None` where it is compressed or nothing of it is there.
    pub(super) fn of_grpc(data: &'a [u8]) -> Option<Self> {
        const PREFIX: usize = 5;
        match data.split_at_checked(PREFIX)? {
            ([0, ..], message) => Some(Self(message)),
            _ => None,
        }
    }

    pub(super) fn fields(self) -> impl Iterator<Item = (u64, Value<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || next(&mut rest))
    }

    /// The last one of this number, as protobuf has it.
    fn field(self, number: u64) -> Option<Value<'a>> {
        self.fields()
            .filter(|&(found, _)| found == number)
            .last()
            .map(|(_, value)| value)
    }

    pub(super) fn number(self, number: u64) -> Option<u64> {
        match self.field(number)? {
            Value::Number(value) => Some(value),
            Value::Bytes(_) | Value::Other => None,
        }
    }

    pub(super) fn message(self, number: u64) -> Option<Self> {
        match self.field(number)? {
            Value::Bytes(bytes) => Some(Self(bytes)),
            Value::Number(_) | Value::Other => None,
        }
    }

    /// The first of several: of a list whose end may be missing, it is whole more often than the last.
    pub(super) fn first_message(self, number: u64) -> Option<Self> {
        let (_, value) = self.fields().find(|&(found, _)| found == number)?;
        match value {
            Value::Bytes(bytes) => Some(Self(bytes)),
            Value::Number(_) | Value::Other => None,
        }
    }

    /// A text that isn't empty.
    pub(super) fn text(self, number: u64) -> Option<&'a str> {
        let Self(bytes) = self.message(number)?;
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty() && !text.contains(|c: char| c.is_control()))
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => Value::Number(varint(rest)?),
        1 => {
            *rest = rest.get(8..)?;
            Value::Other
        }
        2 => {
            let length = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
            let (bytes, after) = rest.split_at(length.min(rest.len()));
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => {
            *rest = rest.get(4..)?;
            Value::Other
        }
        _ => return None,
    };
    (key >> 3 != 0).then_some((key >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sabot_proto::runtime::v1::{
        ImageSpec, PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest, StopContainerRequest,
    };

    use super::super::testing::encoded;
    use super::*;

    fn request() -> Vec<u8> {
        encoded(&RunPodSandboxRequest {
            config: Some(PodSandboxConfig {
                metadata: Some(PodSandboxMetadata {
                    name: "web".into(),
                    uid: "u-1".into(),
                    namespace: "team-a".into(),
                    attempt: 3,
                }),
                hostname: "h".repeat(300),
                ..PodSandboxConfig::default()
            }),
            runtime_handler: "kata".into(),
        })
    }

    #[test]
    fn fields_are_found_by_their_way() {
        let request = request();
        let message = Message(&request);
        let metadata = message.message(1).and_then(|config| config.message(1)).unwrap();
        assert_eq!(
            (metadata.text(1), metadata.text(3), metadata.number(4)),
            (Some("web"), Some("team-a"), Some(3))
        );
        assert_eq!(message.text(2), Some("kata"));
        assert_eq!((message.number(1), message.text(9)), (None, None));
        let stop = encoded(&StopContainerRequest {
            container_id: "c".into(),
            timeout: -1,
        });
        assert_eq!(Message(&stop).number(2), Some(u64::MAX));
        let image = encoded(&ImageSpec {
            image: "docker.io/library/busybox:1".into(),
        });
        assert_eq!(Message(&image).text(1), Some("docker.io/library/busybox:1"));
    }

    #[test]
    fn a_message_without_its_end_tells_what_is_there() {
        let request = request();
        let cut = Message(&request[..60]);
        let metadata = cut.message(1).and_then(|config| config.message(1)).unwrap();
        assert_eq!(metadata.text(3), Some("team-a"));
        assert_eq!(cut.text(2), None);
    }

    #[test]
    fn only_plain_messages_are_read() {
        assert!(Message::of_grpc(&[0, 0, 0, 0]).is_none());
        assert!(Message::of_grpc(&[1, 0, 0, 0, 1, 7]).is_none());
        assert_eq!(
            Message::of_grpc(&[0, 0, 0, 0, 2, 8, 7]).unwrap().number(1),
            Some(7)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert!(Message(&bytes).fields().count() <= bytes.len());
        }
    }
}
