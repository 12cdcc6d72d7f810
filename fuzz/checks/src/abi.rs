//! What the kernel tells: each entry's bytes against what stands at its fields' places, and texts against their own bytes.

mod dns;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sabot_abi::{PacketEvent, SYSCALL_TEXT_LENGTH, SyscallEvent, Tag};
use sabot_core::model::FaultName;
use sabot_core::plan::{Slot, TargetId};
use sabotd::fuzzing;
use sabotd::observe::event::EventKind;
use sabotd::observe::packets::{Enricher, Place};

/// Knows every slot and target, by their numbers.
struct Everything;

impl Enricher for Everything {
    fn place(&mut self, slot: Slot, target: TargetId) -> Option<Arc<Place>> {
        Some(Arc::new(Place {
            fault: FaultName {
                namespace: String::new(),
                name: slot.0.to_string(),
            },
            pod_namespace: String::new(),
            pod_name: target.0.to_string(),
            device: "eth0".to_owned(),
        }))
    }
}

/// # Panics
///
/// Something is told that isn't there.
pub fn check(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 5 {
        0 => packet(bytes),
        1 => syscall(bytes),
        2 => tag(bytes),
        3 => dns::answer(bytes, kind & 8 != 0),
        _ => dns::question(bytes),
    }
}

/// An entry of a ring that begins with these bytes.
fn entry<T>(bytes: &[u8]) -> Vec<u8> {
    let mut entry = bytes.to_vec();
    entry.resize(size_of::<T>(), 0);
    entry
}

fn packet(bytes: &[u8]) {
    let bytes = entry::<PacketEvent>(bytes);
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
    let address = |at: usize| -> IpAddr {
        match <[u8; 16]>::try_from(&bytes[at..at + 16]).expect("16 bytes") {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
            octets => Ipv6Addr::from(octets).into(),
        }
    };
    let [slot, target, direction, outcome] = [8, 12, 16, 20].map(word);
    let protocol = word(60);
    let names = [
        "passed",
        "dropped",
        "bypassed",
        "delayed",
        "corrupted",
        "duplicated",
        "rejected",
    ];
    let named = outcome
        .checked_sub(1)
        .and_then(|outcome| names.get(outcome as usize));
    let is_known = direction < 2 && protocol < 256 && named.is_some();
    let told = fuzzing::packet(&bytes, &mut Everything);
    assert_eq!(told.is_some(), is_known, "{bytes:?}");
    let Some(told) = told else { return };
    let EventKind::Packet(told) = told.kind else {
        panic!("a packet became something else");
    };
    assert_eq!(
        (told.fault.name, told.pod_name),
        (slot.to_string(), target.to_string())
    );
    assert_eq!((told.egress, Some(&told.outcome)), (direction == 0, named));
    assert_eq!((told.source, told.destination), (address(24), address(40)));
    assert_eq!((told.source_port, told.destination_port), (half(56), half(58)));
    assert_eq!(u32::from(told.protocol), protocol);
    assert_eq!((told.wire_packets, told.wire_bytes), (word(64), word(68)));
}

/// What is told stands in the event.
fn syscall(bytes: &[u8]) {
    let bytes = entry::<SyscallEvent>(bytes);
    // SAFETY: there are as many bytes as the type has, which is plain data that takes every bit pattern, and the read needs
    // no alignment.
    let event = unsafe { bytes.as_ptr().cast::<SyscallEvent>().read_unaligned() };
    let told = fuzzing::syscall(&bytes).expect("an entry of the right size is read");
    let texts: Vec<String> = (event.texts.iter().zip(event.text_lengths))
        .filter_map(|(text, length)| text.get(..(length as usize).checked_sub(1)?))
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let mut names = Vec::new();
    for (name, text) in &told {
        assert!(!names.contains(name), "{name} is told twice");
        names.push(name);
        match *name {
            "path" | "file" | "from" | "to" | "source" | "target" | "new_root" | "put_old" | "filesystem"
            | "key" | "value" => {
                let is_full = |length: &u32| *length as usize == SYSCALL_TEXT_LENGTH;
                let is_cut = text.ends_with('…') && event.text_lengths.iter().any(is_full);
                let text = text.strip_suffix('…').filter(|_| is_cut).unwrap_or(text);
                assert!(texts.iter().any(|known| known == text), "{name}: {text:?}");
            }
            "fd" => assert_eq!(text.parse(), Ok(event.arguments[0] as i32)),
            "address" | "local" | "peer" => socket(&bytes, text),
            _ => assert!(!text.is_empty(), "{name} is empty"),
        }
    }
}

/// An address and its port stand in the event.
fn socket(bytes: &[u8], text: &str) {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return;
    };
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let stands = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(stands(&octets), "{text}");
    // A socket's own one is in host byte order.
    let port = address.port();
    assert!(
        stands(&port.to_be_bytes()) || stands(&port.to_ne_bytes()),
        "{text}"
    );
}

/// A tag comes back from its 16 bits; bits that no tag has don't.
fn tag(bytes: &[u8]) {
    let Some(&bytes) = bytes.first_chunk() else {
        return;
    };
    let tci = u16::from_be_bytes(bytes);
    let tag = Tag::from_tci(tci);
    assert_eq!(
        (tag.slot, tag.direction),
        (u32::from(tci & 0xfff), u32::from(tci >> 15))
    );
    assert_eq!(Tag::from_tci(tag.tci()), tag);
    assert_eq!(tag.tci() & !tci, 0, "bits came that weren't there");
}
