//! Answers byte by byte. The expected bytes were computed by another program.

use proptest::prelude::*;
use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS};
use sabot_core::action::{RejectCode, ResetTo};

use super::{End, reset, unreachable};

/// `02:..:01` sends to `02:..:02`, slot 5, egress.
const UDP: &str = "020000000002 020000000001 8100 0005 8100 0000 0800 \
    4500001f 00074000 401125c5 0a000001 0a000102 03e80035 000b0000 616263";
const SYN_V6: &str = "020000000002 020000000001 8100 0005 8100 0000 86dd \
    60000000 00140640 fd000000000000000000000000000001 fd000000000000000000000000000002 \
    9c4001bb 01020304 00000000 5002faf0 18ec0000";
/// Ingress.
const DATA: &str = "020000000002 020000000001 8100 8005 8100 0000 0800 \
    4500002d 00094000 400625c0 0a000001 0a000102 9c400050 fffffff0 11223344 501801f4 74170000 68656c6c6f";

const CODES: [RejectCode; 4] = [
    RejectCode::NetUnreachable,
    RejectCode::HostUnreachable,
    RejectCode::PortUnreachable,
    RejectCode::AdminProhibited,
];
/// Where the packets above have their IP header.
const IP: usize = 22;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn rejected(frame: &[u8], code: RejectCode) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let answered = unreachable(frame, code, &mut out);
    assert_eq!(answered, !out.is_empty());
    answered.then_some(out)
}

fn was_reset(frame: &[u8], end: End) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let answered = reset(frame, end, &mut out);
    assert_eq!(answered, !out.is_empty());
    answered.then_some(out)
}

/// The frame with other bytes at some offset of its IP packet.
fn patched(text: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = hex(text);
    frame[IP + at..IP + at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// One's complement sum; 0xffff over anything with a right checksum in it.
fn ones_sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16
}

/// Panics unless lengths and checksums of an answer are right.
fn assert_sound(answer: &[u8]) {
    let packet = &answer[IP..];
    if packet[0] >> 4 == 4 {
        assert_eq!(ones_sum(&[&packet[..20]]), 0xffff, "IPv4 header");
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            packet.len()
        );
        let length = (packet.len() - 20) as u16;
        let pseudo = [&packet[12..20], &[0, packet[9]], &length.to_be_bytes()].concat();
        match packet[9] {
            1 => assert_eq!(ones_sum(&[&packet[20..]]), 0xffff, "ICMP"),
            _ => assert_eq!(ones_sum(&[&pseudo, &packet[20..]]), 0xffff, "TCP"),
        }
    } else {
        let length = (packet.len() - 40) as u16;
        assert_eq!(packet[4..6], length.to_be_bytes());
        let pseudo = [&packet[8..40], &length.to_be_bytes(), &[0, packet[6]]].concat();
        assert_eq!(ones_sum(&[&pseudo, &packet[40..]]), 0xffff);
    }
}

#[test]
fn an_icmp_error_quotes_the_packet_to_its_sender() {
    let expected = "020000000001 020000000002 8100 9005 8100 0000 0800 \
        45c0003b 00004000 40012500 0a000102 0a000001 03033472 00000000 \
        4500001f 00074000 401125c5 0a000001 0a000102 03e80035 000b0000 616263";
    assert_eq!(
        rejected(&hex(UDP), RejectCode::PortUnreachable),
        Some(hex(expected))
    );
}

#[test]
fn an_icmpv6_error_quotes_the_packet_to_its_sender() {
    let expected = "020000000001 020000000002 8100 9005 8100 0000 86dd \
        60000000 00443a40 fd000000000000000000000000000002 fd000000000000000000000000000001 \
        01019e41 00000000 \
        60000000 00140640 fd000000000000000000000000000001 fd000000000000000000000000000002 \
        9c4001bb 01020304 00000000 5002faf0 18ec0000";
    assert_eq!(
        rejected(&hex(SYN_V6), RejectCode::AdminProhibited),
        Some(hex(expected))
    );
}

#[test]
fn each_code_has_its_number_in_each_family() {
    let code = |text: &str, at: usize, code| rejected(&hex(text), code).map(|answer| answer[IP + at]);
    assert_eq!(CODES.map(|each| code(UDP, 21, each)), [0, 1, 3, 13].map(Some));
    assert_eq!(CODES.map(|each| code(SYN_V6, 41, each)), [0, 3, 4, 1].map(Some));
}

#[test]
fn a_syn_is_refused_as_by_a_closed_port() {
    let expected = "020000000001 020000000002 8100 9005 8100 0000 86dd \
        60000000 00140640 fd000000000000000000000000000002 fd000000000000000000000000000001 \
        01bb9c40 00000000 01020305 50140000 13ca0000";
    assert_eq!(was_reset(&hex(SYN_V6), End::Sender), Some(hex(expected)));
    assert_eq!(
        was_reset(&hex(SYN_V6), End::Receiver),
        None,
        "it has no connection yet"
    );
}

#[test]
fn both_ends_of_a_connection_get_the_number_that_they_wait_for() {
    let to_sender = "020000000001 020000000002 8100 1005 8100 0000 0800 \
        45000028 00004000 400625ce 0a000102 0a000001 00509c40 11223344 00000000 50040000 b9e70000";
    let to_receiver = "020000000002 020000000001 8100 9005 8100 0000 0800 \
        45000028 00004000 400625ce 0a000001 0a000102 9c400050 fffffff0 11223344 50140000 b9e60000";
    assert_eq!(was_reset(&hex(DATA), End::Sender), Some(hex(to_sender)));
    assert_eq!(was_reset(&hex(DATA), End::Receiver), Some(hex(to_receiver)));
}

#[test]
fn a_segment_without_acknowledgement_is_acknowledged_whole() {
    // FIN and five bytes, sequence numbers that wrap.
    let answer = was_reset(&patched(DATA, 33, &[0x01]), End::Sender).expect("an answer");
    assert_eq!(answer[IP + 24..IP + 34], hex("00000000 fffffff6 5014")[..]);
    assert_sound(&answer);
    // A super-packet's payload is all that the frame has; what its header says is more than fits one packet.
    let mut frame = patched(DATA, 33, &[0x02]);
    frame[IP + 2..IP + 4].copy_from_slice(&60_000u16.to_be_bytes());
    frame.resize(IP + 60_000, 7);
    let answer = was_reset(&frame, End::Sender).expect("an answer");
    let acknowledged = 0xffff_fff0u32.wrapping_add(60_000 - 40 + 1);
    assert_eq!(answer[IP + 28..IP + 32], acknowledged.to_be_bytes());
    assert_eq!(answer.len(), IP + 40);
}

#[test]
fn padding_is_no_payload() {
    let mut frame = patched(DATA, 33, &[0x02]);
    frame.extend([0; 9]);
    let answer = was_reset(&frame, End::Sender).expect("an answer");
    assert_eq!(answer[IP + 28..IP + 32], hex("fffffff6")[..]);
    let quote = rejected(&frame, RejectCode::NetUnreachable).expect("an answer");
    assert_eq!(quote.len(), IP + 28 + 45);
}

#[test]
fn resets_are_not_answered_by_resets() {
    for flags in [0x04, 0x14] {
        let frame = patched(DATA, 33, &[flags]);
        assert_eq!(was_reset(&frame, End::Sender), None);
        assert_eq!(was_reset(&frame, End::Receiver), None);
        assert!(rejected(&frame, RejectCode::PortUnreachable).is_some());
    }
    assert_eq!(was_reset(&hex(UDP), End::Sender), None);
}

#[test]
fn quotes_are_as_long_as_every_host_takes() {
    let mut frame = hex(UDP);
    frame[IP + 2..IP + 4].copy_from_slice(&9000u16.to_be_bytes());
    frame.resize(IP + 9000, 1);
    let answer = rejected(&frame, RejectCode::NetUnreachable).expect("an answer");
    assert_eq!(answer.len(), IP + 576);
    assert_sound(&answer);
    let mut frame = hex(SYN_V6);
    frame[IP + 4..IP + 6].copy_from_slice(&8961u16.to_be_bytes());
    frame.resize(IP + 9001, 1);
    let answer = rejected(&frame, RejectCode::NetUnreachable).expect("an answer");
    assert_eq!(answer.len(), IP + 1280);
    assert_sound(&answer);
}

#[test]
fn errors_fragments_and_groups_are_not_answered() {
    let refused = |frame: Vec<u8>, what: &str| {
        assert_eq!(rejected(&frame, RejectCode::PortUnreachable), None, "{what}");
    };
    for kind in [3, 4, 5, 11, 12] {
        let mut frame = patched(UDP, 20, &[kind, 0]);
        frame[IP + 9] = 1;
        refused(frame, "an ICMP error");
    }
    for kind in [1, 2, 3, 4, 127, 137] {
        let mut frame = patched(SYN_V6, 40, &[kind, 0]);
        frame[IP + 6] = 58;
        refused(frame, "an ICMPv6 error");
    }
    let mut echo = patched(UDP, 20, &[8, 0]);
    echo[IP + 9] = 1;
    assert!(rejected(&echo, RejectCode::PortUnreachable).is_some());
    refused(patched(UDP, 6, &[0x20, 0x01]), "a later fragment");
    assert!(rejected(&patched(UDP, 6, &[0x20, 0x00]), RejectCode::PortUnreachable).is_some());
    for source in [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
        [240, 0, 0, 1],
    ] {
        refused(patched(UDP, 12, &source), "a source that is no host");
    }
    for destination in [[224, 0, 0, 251], [255; 4]] {
        refused(patched(UDP, 16, &destination), "a group");
    }
    refused(patched(SYN_V6, 8, &[0xff, 0x02]), "a multicast source");
    refused(patched(SYN_V6, 24, &[0xff, 0x02]), "a multicast destination");
    refused(patched(SYN_V6, 8, &[0; 16]), "an unspecified source");
    let mut broadcast = hex(UDP);
    broadcast[..6].fill(0xff);
    refused(broadcast, "a broadcast frame");
    refused(patched(UDP, 0, &[0x65]), "another version");
    refused(patched(UDP, 0, &[0x44]), "a short header");
    let mut arp = hex(UDP);
    arp[20..22].copy_from_slice(&[0x08, 0x06]);
    refused(arp, "no IP");
}

/// Hop-by-hop options and a first fragment stand before the transport header.
#[test]
fn extension_headers_are_looked_behind() {
    let mut frame = hex(SYN_V6);
    let extensions = hex("2c00 010400000000 0600 0001 00000001");
    frame.splice(IP + 40..IP + 40, extensions);
    frame[IP + 5] = 0x14 + 16;
    frame[IP + 6] = 0;
    let answer = was_reset(&frame, End::Sender).expect("an answer");
    assert_eq!(answer[IP + 6], 6);
    assert_eq!(answer[IP + 48..IP + 52], hex("01020305")[..]);
    assert_sound(&answer);
    frame[IP + 51] = 0x09;
    assert_eq!(was_reset(&frame, End::Sender), None, "a later fragment");
}

#[test]
fn the_packets_own_tag_goes_back_with_the_answer() {
    let mut frame = hex(UDP);
    frame.splice(20..20, hex("8100 0064"));
    let answer = rejected(&frame, RejectCode::NetUnreachable).expect("an answer");
    assert_eq!(answer[12..26], hex("8100 9005 8100 0000 8100 0064 0800")[..]);
}

#[test]
fn ends_are_named_by_the_targets_direction() {
    use End::{Receiver, Sender};
    for (to, egress, ingress) in [
        (ResetTo::Target, [Some(Sender), None], [Some(Receiver), None]),
        (ResetTo::Peer, [Some(Receiver), None], [Some(Sender), None]),
        (
            ResetTo::Both,
            [Some(Sender), Some(Receiver)],
            [Some(Receiver), Some(Sender)],
        ),
    ] {
        assert_eq!(End::chosen(to, DIRECTION_EGRESS), egress);
        assert_eq!(End::chosen(to, DIRECTION_INGRESS), ingress);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_soundly_or_not_at_all(
        base in prop::sample::select(vec![UDP, SYN_V6, DATA]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        longer in 0usize..2000,
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut frame = hex(base);
        frame.resize(frame.len() + longer, 0x5a);
        for (at, value) in changes {
            let at = at.index(100.min(frame.len()));
            // The TAP's frames have our tag and no other.
            if !(12..22).contains(&at) {
                frame[at] = value;
            }
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        let mut noisy = hex(base);
        noisy.truncate(IP);
        noisy.extend(&noise);
        for frame in [&frame, &noisy, &noise] {
            let answers = CODES.map(|code| rejected(frame, code)).into_iter();
            let resets = [End::Sender, End::Receiver].map(|end| was_reset(frame, end));
            for answer in answers.chain(resets).flatten() {
                assert_sound(&answer);
                prop_assert!(answer.len() <= IP + 1280);
            }
        }
    }
}
