use std::process::Command;

use super::*;

fn kernel() -> Btf {
    Btf::kernel().expect("the kernel describes its types")
}

/// What bpftool prints of the same description, which shares no code with this reader.
fn bpftool() -> Vec<String> {
    let output = Command::new("bpftool")
        .args(["btf", "dump", "file", KERNEL])
        .output()
        .expect("bpftool runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .expect("bpftool prints text")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The lines of one type's members or values.
fn body<'a>(dump: &'a [String], head: &str) -> impl Iterator<Item = &'a String> {
    let start = dump
        .iter()
        .position(|line| line.contains(head))
        .unwrap_or_else(|| panic!("bpftool knows {head}"));
    dump[start + 1..].iter().take_while(|line| line.starts_with('\t'))
}

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.split(&format!("{key}=")).nth(1)?;
    rest.split_whitespace().next()
}

#[test]
fn members_are_where_bpftool_says() {
    let (btf, dump) = (kernel(), bpftool());
    for structure in ["sock", "net", "sk_buff", "tcp_sock", "net_device", "task_struct"] {
        let mut checked = 0;
        for line in body(&dump, &format!("STRUCT '{structure}' ")) {
            let name = value(line, "").unwrap_or_default();
            let quoted = line.trim().split('\'').nth(1).unwrap_or(name);
            let bits: u32 = value(line, "bits_offset")
                .and_then(|bits| bits.parse().ok())
                .expect("an offset");
            if quoted == "(anon)" || line.contains("bitfield_size") {
                continue;
            }
            assert_eq!(
                btf.offset(structure, quoted).unwrap(),
                bits / 8,
                "{structure}.{quoted}"
            );
            checked += 1;
        }
        assert!(checked > 10, "{structure}: {checked}");
    }
}

#[test]
fn enumerations_are_as_bpftool_says() {
    let expected: Vec<_> = body(&bpftool(), "ENUM 'skb_drop_reason' ")
        .map(|line| {
            let name = line.split('\'').nth(1).expect("a name").to_owned();
            let number: i64 = value(line, "val")
                .and_then(|value| value.parse().ok())
                .expect("a value");
            (name, number)
        })
        .collect();
    assert!(expected.len() > 50);
    assert_eq!(kernel().enumerators("skb_drop_reason").unwrap(), expected);
}

#[test]
fn a_path_goes_through_what_is_embedded_named_or_not() {
    let btf = kernel();
    let common = btf.offset("sock", "__sk_common").unwrap();
    let net = btf.offset("sock", "__sk_common.skc_net.net").unwrap();
    assert_eq!(net, common + btf.offset("sock_common", "skc_net").unwrap());
    // In an anonymous structure in an anonymous union.
    let address = btf.offset("sock_common", "skc_daddr").unwrap();
    let receiver = btf.offset("sock_common", "skc_rcv_saddr").unwrap();
    assert_eq!(address.abs_diff(receiver), 4);
    assert!(btf.offset("sock_common", "skc_num").unwrap() < btf.size("sock_common").unwrap());
}

#[test]
fn what_is_not_there_is_named() {
    let btf = kernel();
    let message = |result: Result<u32, BtfError>| result.unwrap_err().to_string();
    assert_eq!(
        message(btf.offset("sock", "__sk_common.skc_nothing")),
        "this kernel's `sock` has no member `__sk_common.skc_nothing`"
    );
    assert_eq!(message(btf.size("sabot")), "this kernel has no structure `sabot`");
    // A pointer isn't followed, and a bit field has no place of its own.
    assert!(btf.offset("sock", "sk_socket.file").is_err());
    assert!(btf.offset("tcp_sock", "nonagle").is_err());
    assert!(btf.enumerators("sock").is_err());
}

#[test]
fn every_cut_of_the_data_is_refused_or_read_without_panic() {
    let whole = fs::read(KERNEL).unwrap();
    for length in [0, 1, 23, 24, 1000, whole.len() / 2, whole.len() - 1] {
        assert!(Btf::parse(whole[..length].to_vec()).is_err(), "{length}");
    }
    let mut other = whole;
    other[0] ^= 1;
    assert!(matches!(Btf::parse(other), Err(BtfError::Malformed(_))));
}
