use domain::base::MessageBuilder;
use domain::base::iana::{Class, Rcode};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Name, Record as Owned, Ttl};
use proptest::prelude::*;

use super::*;

type Built = AnswerBuilder<Vec<u8>>;

fn name(text: &str) -> Name<Vec<u8>> {
    text.parse().expect("a name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A response to a question.
fn response(question: &str, qtype: Rtype, rcode: Rcode) -> Built {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_qr(true);
    builder.header_mut().set_rcode(rcode);
    let mut builder = builder.question();
    builder.push((name(question), qtype)).expect("it fits");
    builder.answer()
}

fn alias(built: &mut Built, owner: &str, ttl: u32, target: &str) {
    let record = Owned::new(
        name(owner),
        Class::IN,
        Ttl::from_secs(ttl),
        Cname::new(name(target)),
    );
    built.push(record).expect("it fits");
}

fn address(built: &mut Built, owner: &str, ttl: u32, address: &str) {
    let (owner, ttl) = (name(owner), Ttl::from_secs(ttl));
    match ip(address) {
        IpAddr::V4(v4) => built.push(Owned::new(owner, Class::IN, ttl, A::new(v4))),
        IpAddr::V6(v6) => built.push(Owned::new(owner, Class::IN, ttl, Aaaa::new(v6))),
    }
    .expect("it fits");
}

fn understood(built: Built) -> Answer {
    read(&built.finish(), false)
        .expect("a message")
        .expect("an answer")
}

/// An answer with an alias and two addresses, in both families.
fn example() -> Vec<u8> {
    let mut built = response("www.shop.test", Rtype::ANY, Rcode::NOERROR);
    alias(&mut built, "www.shop.test", 60, "edge.test");
    address(&mut built, "edge.test", 30, "192.0.2.1");
    address(&mut built, "edge.test", 40, "2001:db8::1");
    built.finish()
}

#[test]
fn addresses_belong_to_the_name_that_was_asked_for() {
    let mut built = response("API.Shop.test", Rtype::A, Rcode::NOERROR);
    address(&mut built, "api.shop.TEST", 30, "192.0.2.1");
    address(&mut built, "api.shop.test", 40, "192.0.2.2");
    address(&mut built, "other.test", 50, "192.0.2.3");
    let answer = understood(built);
    assert_eq!(answer.names, [("api.shop.test".to_owned(), Duration::MAX)]);
    assert_eq!(
        answer.addresses,
        [(ip("192.0.2.1"), seconds(30)), (ip("192.0.2.2"), seconds(40))]
    );
    assert!(!answer.is_partial);
}

#[test]
fn aliases_are_followed_whatever_their_order_and_hold_as_long_as_the_shortest() {
    let mut built = response("www.test", Rtype::AAAA, Rcode::NOERROR);
    address(&mut built, "edge3.test", 100, "2001:db8::3");
    alias(&mut built, "edge2.test", 20, "edge3.test");
    alias(&mut built, "www.test", 50, "edge1.test");
    alias(&mut built, "edge1.test", 200, "edge2.test");
    let answer = understood(built);
    let expected = [
        ("www.test", seconds(20)),
        ("edge1.test", seconds(20)),
        ("edge2.test", seconds(20)),
        ("edge3.test", Duration::MAX),
    ];
    assert_eq!(
        answer.names,
        expected.map(|(name, holds)| (name.to_owned(), holds))
    );
    assert_eq!(answer.addresses, [(ip("2001:db8::3"), seconds(100))]);
}

#[test]
fn aliases_in_a_circle_lead_nowhere() {
    let mut built = response("a.test", Rtype::A, Rcode::NOERROR);
    alias(&mut built, "a.test", 60, "b.test");
    alias(&mut built, "b.test", 60, "a.test");
    address(&mut built, "a.test", 60, "192.0.2.1");
    let answer = understood(built);
    assert_eq!((answer.names.len(), answer.addresses.len()), (MAX_CHAIN, 0));
}

#[test]
fn what_is_no_answer_about_addresses_says_nothing() {
    let with = |qtype, rcode| {
        let mut built = response("a.test", qtype, rcode);
        address(&mut built, "a.test", 60, "192.0.2.1");
        built
    };
    let silent = |built: Built| assert_eq!(read(&built.finish(), false), Ok(None));
    silent(with(Rtype::A, Rcode::NXDOMAIN));
    silent(with(Rtype::A, Rcode::SERVFAIL));
    silent(with(Rtype::MX, Rcode::NOERROR));
    let mut query = with(Rtype::A, Rcode::NOERROR);
    query.header_mut().set_qr(false);
    silent(query);
    let mut update = with(Rtype::A, Rcode::NOERROR);
    update.header_mut().set_opcode(Opcode::UPDATE);
    silent(update);
}

#[test]
fn a_lifetime_beyond_31_bits_is_none() {
    let mut built = response("a.test", Rtype::A, Rcode::NOERROR);
    address(&mut built, "a.test", 0x7fff_ffff, "192.0.2.1");
    address(&mut built, "a.test", 0x8000_0000, "192.0.2.2");
    let answer = understood(built);
    assert_eq!(
        answer.addresses,
        [
            (ip("192.0.2.1"), seconds(0x7fff_ffff)),
            (ip("192.0.2.2"), Duration::ZERO)
        ]
    );
}

#[test]
fn what_is_missing_is_said_and_what_is_there_is_learnt() {
    let whole = example();
    // In the middle of the last record.
    let start = &whole[..whole.len() - 5];
    assert!(
        read(start, false).is_err(),
        "nobody has cut it, so it is malformed"
    );
    let answer = read(start, true).expect("a message").expect("an answer");
    assert!(answer.is_partial);
    assert_eq!(answer.names[0], ("www.shop.test".to_owned(), seconds(60)));
    assert_eq!(answer.addresses, [(ip("192.0.2.1"), seconds(30))]);

    let mut shortened = response("a.test", Rtype::A, Rcode::NOERROR);
    shortened.header_mut().set_tc(true);
    address(&mut shortened, "a.test", 60, "192.0.2.1");
    let answer = understood(shortened);
    assert!(answer.is_partial);
    assert_eq!(answer.addresses, [(ip("192.0.2.1"), seconds(60))]);
}

#[test]
fn a_message_without_one_question_is_malformed() {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_qr(true);
    assert!(read(&builder.finish(), false).is_err());
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_qr(true);
    let mut builder = builder.question();
    builder.push((name("a.test"), Rtype::A)).expect("it fits");
    builder.push((name("b.test"), Rtype::A)).expect("it fits");
    assert!(read(&builder.finish(), false).is_err());
    assert!(read(&[], false).is_err());
}

#[test]
fn what_lies_behind_the_answer_does_not_matter() {
    let mut bytes = example();
    let before = read(&bytes, false);
    bytes.extend([0xff; 40]);
    assert_eq!(read(&bytes, false), before);
    // A further section that is announced and can't be read.
    bytes[9] = 3;
    assert_eq!(read(&bytes, false), before);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut: bool) {
        let _ = read(&bytes, cut);
    }

    #[test]
    fn no_damage_makes_it_panic(
        damage in prop::collection::vec((0..200usize, any::<u8>()), 1..12),
        length in 0..200usize,
        cut: bool,
    ) {
        let mut bytes = example();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(length);
        let _ = read(&bytes, cut);
    }

    /// What is learnt of the start of a message is a part of what the whole one says.
    #[test]
    fn a_cut_message_says_nothing_else(length in 12..200usize) {
        let whole = example();
        let all = read(&whole, false).expect("a message").expect("an answer");
        let start = &whole[..length.min(whole.len())];
        if let Ok(Some(part)) = read(start, true) {
            prop_assert!(part.addresses.iter().all(|address| all.addresses.contains(address)));
            prop_assert!(part.names.iter().all(|(name, _)| all.names.iter().any(|(other, _)| other == name)));
        }
    }
}
