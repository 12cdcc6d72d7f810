//! What a query asks for.

use domain::base::{Message, Rtype};
use sabot_abi::DNS_HEADER;

/// The name, without its last dot, and the type as it is written. `question` is what stands behind a message's header.
/// `None` when it breaks the format.
pub(crate) fn read_question(question: &[u8]) -> Option<(String, String)> {
    // A header that says that there is one question.
    let mut message = vec![0; DNS_HEADER];
    message[5] = 1;
    message.extend_from_slice(question);
    let message = Message::from_octets(message.as_slice()).ok()?;
    let question = message.sole_question().ok()?;
    let name = question.qname().to_string();
    let kind: Rtype = question.qtype();
    Some((name.trim_end_matches('.').to_ascii_lowercase(), kind.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_type_are_read_and_what_follows_is_left_alone() {
        let mut question = b"\x03Www\x07example\x00\x00\x1c\x00\x01".to_vec();
        let expected = ("www.example".to_owned(), "AAAA".to_owned());
        assert_eq!(read_question(&question).as_ref(), Some(&expected));
        question.extend([0, 0, 41, 4, 208, 0, 0]);
        assert_eq!(read_question(&question), Some(expected));
    }

    #[test]
    fn what_breaks_the_format_is_nothing() {
        assert_eq!(read_question(b""), None);
        assert_eq!(read_question(b"\x03ww"), None);
        assert_eq!(read_question(b"\x03www\x00\x00"), None);
        assert_eq!(
            read_question(&[0xc0, 0x0c, 0, 1, 0, 1]),
            None,
            "it points at itself"
        );
    }
}
