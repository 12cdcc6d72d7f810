use super::*;

fn event(syscall: &str, arguments: [u64; 6], texts: [&[u8]; 2]) -> SyscallEvent {
    let mut event = SyscallEvent {
        time: 0,
        duration_ns: 0,
        pid: 1,
        tid: 1,
        process: 1,
        syscall: syscall_number(syscall).expect("it exists"),
        cgroup: 0,
        result: -1,
        comm: [0; 16],
        arguments,
        file: SyscallFile::default(),
        text_lengths: [0; 2],
        texts: [[b'x'; SYSCALL_TEXT_LENGTH]; 2],
    };
    for (index, text) in texts.into_iter().enumerate() {
        event.text_lengths[index] = text.len() as u32;
        event.texts[index][..text.len()].copy_from_slice(text);
    }
    event
}

fn said(event: &SyscallEvent) -> String {
    let details: Vec<_> = decode(event)
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    details.join(" ")
}

#[test]
fn paths_and_flags_are_named() {
    let open = event(
        "openat",
        [u64::MAX, 1, libc::O_WRONLY as u64, 0, 0, 0],
        [b"/a\0", b""],
    );
    assert_eq!(said(&open), "path=/a flags=O_WRONLY");
    let mount = event("mount", [1, 1, 1, libc::MS_BIND, 0, 0], [b"/a\0", b"/b\0"]);
    assert_eq!(said(&mount), "source=/a target=/b flags=MS_BIND");
    let unread = event("openat", [1, 1, 0, 0, 0, 0], [b"", b""]);
    assert_eq!(said(&unread), "flags=O_RDONLY");
    let clone = event(
        "clone3",
        [1; 6],
        [&(libc::CLONE_NEWNET as u64).to_ne_bytes(), b""],
    );
    assert_eq!(said(&clone), "flags=CLONE_NEWNET");
}

#[test]
fn the_newer_calls_of_mounts_say_what_they_do() {
    let words = |words: &[u64]| {
        words
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect::<Vec<_>>()
    };
    let how = words(&[libc::O_CLOEXEC as u64, 0, 0x8]);
    let open = event("openat2", [1, 1, 1, 24, 0, 0], [&how, b"/a\0"]);
    assert_eq!(
        said(&open),
        "path=/a flags=O_RDONLY|O_CLOEXEC resolve=RESOLVE_BENEATH"
    );
    let fsopen = event("fsopen", [1, 1, 0, 0, 0, 0], [b"overlay\0", b""]);
    assert_eq!(said(&fsopen), "filesystem=overlay flags=FSOPEN_CLOEXEC");
    let config = |key: &[u8]| said(&event("fsconfig", [5, 1, 1, 1, 0, 0], [key, b"/lower\0"]));
    assert_eq!(
        config(b"lowerdir\0"),
        "fd=5 key=lowerdir value=/lower command=FSCONFIG_SET_STRING"
    );
    assert_eq!(
        config(b"password\0"),
        "fd=5 key=password command=FSCONFIG_SET_STRING"
    );
    let attributes = words(&[1, 2, libc::MS_PRIVATE, 0]);
    let set = event(
        "mount_setattr",
        [1, 1, libc::AT_RECURSIVE as u64, 1, 32, 0],
        [&attributes, b"/a\0"],
    );
    assert_eq!(
        said(&set),
        "path=/a flags=AT_RECURSIVE set=MOUNT_ATTR_RDONLY clear=MOUNT_ATTR_NOSUID propagation=MS_PRIVATE"
    );
    let moved = event("move_mount", [3, 1, 1, 1, 4, 0], [b"\0", b"/b\0"]);
    assert_eq!(said(&moved), "from= to=/b flags=MOVE_MOUNT_F_EMPTY_PATH");
}

#[test]
fn a_call_that_became_a_program_names_it() {
    let mut exec = event("execve", [0; 6], [b"/usr/bin/runc\0", b""]);
    exec.result = 0;
    assert_eq!(said(&exec), "path=/usr/bin/runc");
    exec.text_lengths[0] = 0;
    assert_eq!(said(&exec), "");
}

#[test]
fn a_cut_path_says_so() {
    let mut cut = event("stat", [1; 6], [&[b'a'; SYSCALL_TEXT_LENGTH], b""]);
    cut.syscall = syscall_number("statx").expect("it exists");
    let text = said(&cut);
    assert!(text.starts_with("path=aaa") && text.ends_with("a…"), "{text}");
}

#[test]
fn addresses_are_read_by_their_family() {
    let inet = [2, 0, 1, 187, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(socket_address(&inet).as_deref(), Some("10.0.0.1:443"));
    let mut inet6 = vec![10, 0, 0, 53, 0, 0, 0, 0];
    inet6.extend(Ipv6Addr::LOCALHOST.octets());
    inet6.extend([0; 4]);
    assert_eq!(socket_address(&inet6).as_deref(), Some("[::1]:53"));
    assert_eq!(socket_address(b"\x01\x00/run/x\0\0").as_deref(), Some("/run/x"));
    assert_eq!(
        socket_address(b"\x01\x00\0abstract").as_deref(),
        Some("@abstract")
    );
    assert_eq!(socket_address(b"\x01\x00"), None);
    assert_eq!(socket_address(b"\x10\x00rest").as_deref(), Some("family 16"));
    assert_eq!(socket_address(b"\x02\x00\x01"), None);
}

#[test]
fn a_descriptor_is_its_files_type_and_peer() {
    let mut read = event("read", [5, 0, 0, 0, 0, 0], [b"", b""]);
    assert_eq!(said(&read), "fd=5");
    read.file = SyscallFile {
        mode: libc::S_IFSOCK | 0o777,
        socket_type: libc::SOCK_STREAM as u16,
        family: libc::AF_INET as u16,
        local_port: 40_000,
        peer_port: 443,
        ..SyscallFile::default()
    };
    read.file.peer[..4].copy_from_slice(&[10, 0, 0, 1]);
    assert_eq!(
        said(&read),
        "fd=5 fd_type=tcp local=0.0.0.0:40000 peer=10.0.0.1:443"
    );

    let mut sync = event("fsync", [3, 0, 0, 0, 0, 0], [b"", b"db\0"]);
    sync.file.mode = libc::S_IFREG | 0o644;
    assert_eq!(said(&sync), "fd=3 fd_type=file file=db");
}

#[test]
fn the_table_says_what_to_read() {
    let table = table();
    let of = |name| {
        let number = syscall_number(name).expect("it exists");
        let found = table.iter().find(|(known, _)| *known == number);
        found.map(|(_, detail)| *detail)
    };
    assert_eq!(of("openat").map(|detail| detail.texts), Some([2, 0]));
    assert_eq!(
        of("sendto").map(|detail| (detail.file, detail.memory)),
        Some((1, 5))
    );
    assert_eq!(
        of("clone3").map(|detail| detail.memory),
        Some(1 | SYSCALL_DETAIL_CLONE)
    );
    assert_eq!(of("getpid"), None);
    // A descriptor's name goes into the second text.
    assert!(
        table
            .iter()
            .all(|(_, detail)| detail.file == 0 || detail.texts == [0; 2])
    );
}
