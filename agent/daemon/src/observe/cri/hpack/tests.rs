use loona_hpack::Encoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::testing::{self, field, unseen};
use super::*;

fn fresh() -> Decoder {
    let mut decoder = Decoder::joined();
    decoder.begin();
    decoder
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The requests of RFC 7541, C.4: three blocks on one connection, with Huffman coding.
const REQUESTS: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

#[test]
fn the_requests_of_the_rfc_are_read() {
    let mut decoder = fresh();
    let blocks = REQUESTS.map(|block| decoder.decode(&bytes(block)).unwrap());
    let common = |scheme, path| {
        vec![
            field(":method", "GET"),
            field(":scheme", scheme),
            field(":path", path),
            field(":authority", "www.example.com"),
        ]
    };
    assert_eq!(blocks[0], common("http", "/"));
    assert_eq!(blocks[1][..4], common("http", "/"));
    assert_eq!(blocks[1][4], field("cache-control", "no-cache"));
    assert_eq!(blocks[2][..4], common("https", "/index.html"));
    assert_eq!(blocks[2][4], field("custom-key", "custom-value"));
}

#[test]
fn who_joins_late_knows_what_was_added_since_and_leaves_the_rest_open() {
    let mut decoder = Decoder::joined();
    // The second block names the authority by its place in the table, which the first one put there.
    let second = decoder.decode(&bytes(REQUESTS[1])).unwrap();
    assert_eq!(second[3], unseen(-1));
    assert_eq!(second[4], field("cache-control", "no-cache"));
    let third = decoder.decode(&bytes(REQUESTS[2])).unwrap();
    assert_eq!(third[3], unseen(-1), "the same field is in the same place");
    assert_eq!(third[4], field("custom-key", "custom-value"));
    // Both of the entries that it saw, and the one before them.
    let places = decoder.decode(&[0xbe, 0xbf, 0xc0]).unwrap();
    assert_eq!(
        places,
        [
            field("custom-key", "custom-value"),
            field("cache-control", "no-cache"),
            unseen(-1)
        ]
    );
    // A value whose name was added before.
    let literal = decoder.decode(&bytes("00 01 61 01 62 7f81 00 01 63")).unwrap();
    assert_eq!(literal[0], field("a", "b"));
    assert_eq!(
        (literal[1].name.is_none(), literal[1].text()),
        (true, Some("c".to_owned()))
    );
}

#[test]
fn after_a_loss_places_are_others() {
    let mut decoder = Decoder::joined();
    let before = decoder.decode(&[0xbe]).unwrap();
    assert_eq!(decoder.decode(&[0xbe]).unwrap(), before);
    decoder.forget();
    assert_ne!(decoder.decode(&[0xbe]).unwrap(), before);
}

#[test]
fn what_is_no_block_is_refused() {
    for (block, error) in [
        ("80", HpackError::NoEntry),
        ("be", HpackError::NoEntry),
        ("ff ffff ffff ff0f", HpackError::TooLarge),
        ("40 05 61", HpackError::Truncated),
        ("40", HpackError::Truncated),
        ("ff", HpackError::Truncated),
        ("40 7f ffff 7f", HpackError::TooLarge),
    ] {
        assert_eq!(fresh().decode(&bytes(block)), Err(error), "{block}");
    }
}

#[test]
fn a_table_that_grows_without_end_keeps_its_newest_entries() {
    let mut decoder = fresh();
    for number in 0..5000 {
        let value = format!("{number:05}");
        let literal = [&[0x40, 6][..], b"number", &[5], value.as_bytes()].concat();
        assert_eq!(decoder.decode(&literal).unwrap(), [field("number", &value)]);
    }
    assert!(decoder.bytes <= TABLE_BYTES);
    assert_eq!(decoder.decode(&[0xbe]).unwrap(), [field("number", "04999")]);
    assert_eq!(
        decoder.decode(&bytes("ff a0 1f")).unwrap(),
        [unseen(GAP + 934)],
        "the entry is too old to be known, and may well be there"
    );
}

#[test]
fn what_is_forgotten_is_learnt_again_when_it_is_spelt_out() {
    let mut encoder = testing::Encoder::default();
    let path = (":path", "/runtime.v1.RuntimeService/StartContainer");
    encoder.encode(&[path]);
    let mut late = Decoder::joined();
    let mut spelt_out_after = None;
    for number in 0..200 {
        let timeout = format!("{number}u");
        let block = encoder.encode(&[path, ("grpc-timeout", &timeout)]);
        let fields = late.decode(&block).unwrap();
        assert_eq!(fields[1], field("grpc-timeout", &timeout));
        match &fields[0].value {
            Some(value) => {
                assert_eq!(**value, *path.1.as_bytes());
                spelt_out_after.get_or_insert(number);
            }
            None => assert_eq!(spelt_out_after, None, "what was learnt once is known"),
        }
    }
    // A timeout takes some 48 bytes of the table's 4096.
    assert!(
        spelt_out_after.is_some_and(|calls| (60..100).contains(&calls)),
        "{spelt_out_after:?}"
    );
}

fn header() -> impl Strategy<Value = (String, String)> {
    // A few names and values, so that they come again.
    (
        prop_oneof!["[a-c]", Just(":path".to_owned()), Just(":method".to_owned())],
        "[a-d]{0,3}",
    )
}

proptest! {
    #[test]
    fn blocks_of_encoders_are_read(blocks in vec(vec(header(), 0..8), 1..20), joined in 0_usize..20, abbreviates: bool) {
        let (mut encoder, mut own) = (Encoder::new(), testing::Encoder::default());
        let mut whole = fresh();
        let mut late = Decoder::joined();
        for (number, headers) in blocks.iter().enumerate() {
            let pairs = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let block = if abbreviates {
                let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                own.encode(&pairs)
            } else {
                encoder.encode(pairs)
            };
            let expected: Vec<_> = headers.iter().map(|(name, value)| field(name, value)).collect();
            prop_assert_eq!(&whole.decode(&block).unwrap(), &expected);
            if number >= joined {
                let seen = late.decode(&block).unwrap();
                prop_assert_eq!(seen.len(), expected.len());
                // What it says is true, or it says nothing.
                for (seen, expected) in seen.iter().zip(&expected) {
                    prop_assert!(seen.name.is_none() || seen.name == expected.name);
                    prop_assert!(seen.value.is_none() || seen.value == expected.value);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(block in vec(any::<u8>(), 0..200), joined: bool) {
        let mut decoder = if joined { Decoder::joined() } else { fresh() };
        let _ = decoder.decode(&block);
    }
}
