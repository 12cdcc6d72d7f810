//! How calls end.

use super::hpack::Field;

/// The names of gRPC's codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// As a call ends that did what it should.
pub const OK: &str = CODES[0];
/// The client took its call back, because it wanted to or because its time was over.
pub(super) const CANCELLED: &str = CODES[1];
// What gRPC has no code for is in lower case.
/// The runtime broke the call off.
pub(super) const RESET: &str = "reset";
/// The connection was closed before.
pub(super) const DISCONNECTED: &str = "disconnected";
/// It ended with a code that can't be read.
pub(super) const UNREAD: &str = "unread";
/// Whether and how it ended wasn't seen.
pub(super) const LOST: &str = "lost";

/// All ways in which a call can end.
pub const OUTCOMES: [&str; CODES.len() + 4] = {
    let mut all = [RESET; CODES.len() + 4];
    let mut place = 0;
    while place < CODES.len() {
        all[place] = CODES[place];
        place += 1;
    }
    all[place + 1] = DISCONNECTED;
    all[place + 2] = UNREAD;
    all[place + 3] = LOST;
    all
};

/// `has_answer`: a whole message came before.
pub(super) fn outcome(trailers: &[Field], has_answer: bool) -> (&'static str, String) {
    let text = |name: &str, place: usize| {
        let named = trailers.iter().find(|field| field.is(name));
        let placed = || trailers.get(place).filter(|field| field.name.is_none());
        named.or_else(placed).and_then(Field::text)
    };
    // gRPC's grammar has the status first and its message second, behind two other headers where nothing came before. That
    // tells them where their names are abbreviations from before anyone listened.
    let has_head = trailers.first().is_some_and(|field| field.is(":status"));
    let place = if has_head { 2 } else { 0 };
    let code = match text("grpc-status", place) {
        Some(status) => {
            let code = status.parse().ok().and_then(|code: usize| CODES.get(code));
            // As gRPC's libraries have it for a code that they don't know.
            code.copied().unwrap_or(CODES[2])
        }
        // A runtime sends its answer only when there is no error.
        None if has_answer => OK,
        None => UNREAD,
    };
    let message = text("grpc-message", place + 1);
    (
        code,
        message.map_or_else(String::new, |text| percent_decoded(&text)),
    )
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::testing::field;
    use super::*;

    #[test]
    fn a_status_is_named() {
        let trailers = [
            field("grpc-status", "5"),
            field("grpc-message", "no %22web%22 %C3%BC 100%"),
        ];
        assert_eq!(
            outcome(&trailers, false),
            ("NotFound", "no \"web\" ü 100%".to_owned())
        );
        assert_eq!(outcome(&[field("grpc-status", "0")], true).0, "OK");
        assert_eq!(outcome(&[field("grpc-status", "99")], false).0, "Unknown");
        assert_eq!(outcome(&[field("grpc-status", "13")], true).0, "Internal");
    }

    #[test]
    fn a_status_whose_name_is_not_known_is_told_by_its_place() {
        let unnamed = |value: &str| Field {
            name: None,
            ..field("", value)
        };
        let trailers = [unnamed("5"), unnamed("gone")];
        assert_eq!(outcome(&trailers, false), ("NotFound", "gone".to_owned()));
        let head = [field(":status", "200"), field("content-type", "application/grpc")];
        let only = [&head[..], &trailers].concat();
        assert_eq!(outcome(&only, false), ("NotFound", "gone".to_owned()));
        let without_status = [&head[..], &[field("a", "5"), unnamed("6")]].concat();
        assert_eq!(outcome(&without_status, false).0, UNREAD);
    }

    #[test]
    fn without_a_status_only_an_answer_tells() {
        let open = Field::default();
        assert_eq!(outcome(std::slice::from_ref(&open), true).0, OK);
        assert_eq!(outcome(&[open], false).0, UNREAD);
    }
}
