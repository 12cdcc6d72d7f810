//! What events say of their calls.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use sabotd::observe::event::SyscallEvent;

use crate::rig::{detail, observe, on_thread_named, open_missing, receive, unique_name};

/// Runs `body` as a traced process, each of whose calls is slow.
async fn traced(body: impl FnOnce() + Send) -> Vec<SyscallEvent> {
    let name = unique_name();
    let (_observer, mut events) = observe(&name, Some(Duration::ZERO));
    on_thread_named(&name, || {
        body();
        open_missing(1);
    });
    let is_last = |call: &SyscallEvent| detail(call, "path") == Some("/no/such/file");
    receive(&mut events, |received| received.last().is_some_and(is_last)).await
}

fn find<'a>(events: &'a [SyscallEvent], syscall: &str) -> &'a SyscallEvent {
    events
        .iter()
        .find(|call| call.syscall == syscall)
        .unwrap_or_else(|| panic!("no {syscall} in {events:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_flags_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let missing = folder.path().join("missing");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let long = CString::new(format!("/{}", "x".repeat(250))).unwrap();
    let events = traced(|| {
        File::create(&one).unwrap();
        std::fs::rename(&one, &other).unwrap();
        assert_eq!(
            mount(
                Some(&missing),
                &missing,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>
            ),
            Err(Errno::ENOENT)
        );
        assert_eq!(unshare(CloneFlags::from_bits_retain(1)), Err(Errno::EINVAL));
        let file = File::open(&other).unwrap();
        assert_eq!(setns(&file, CloneFlags::CLONE_NEWNET), Err(Errno::EINVAL));
        // SAFETY: the path is a valid string.
        assert_eq!(unsafe { libc::access(long.as_ptr(), 0) }, -1);
    })
    .await;

    let create = find(&events, "openat");
    assert_eq!(detail(create, "path"), Some(text(&one).as_str()));
    assert_eq!(
        detail(create, "flags"),
        Some("O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC")
    );
    let rename = find(&events, "rename");
    assert_eq!(detail(rename, "from"), Some(text(&one).as_str()));
    assert_eq!(detail(rename, "to"), Some(text(&other).as_str()));
    let mount = find(&events, "mount");
    assert_eq!(mount.errno, Some("ENOENT"));
    assert_eq!(detail(mount, "target"), Some(text(&missing).as_str()));
    assert_eq!(detail(mount, "flags"), Some("MS_BIND|MS_REC"));
    assert_eq!(detail(find(&events, "unshare"), "flags"), Some("0x0"));
    assert_eq!(detail(find(&events, "setns"), "flags"), Some("CLONE_NEWNET"));
    let cut = detail(find(&events, "access"), "path").unwrap();
    assert!(cut.ends_with("x…") && cut.len() < 240, "{cut}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_tell_their_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let address6 = six.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    let events = traced(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        let _stream6 = TcpStream::connect(address6).unwrap();
        let mut client = UnixStream::connect(path).unwrap();
        let (server, _) = unix.accept().unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    })
    .await;

    let connects: Vec<_> = events
        .iter()
        .filter(|call| call.syscall == "connect")
        .map(|call| (detail(call, "fd_type").unwrap(), detail(call, "address").unwrap()))
        .collect();
    let (four, six) = (address.to_string(), address6.to_string());
    assert_eq!(
        connects,
        [("tcp", four.as_str()), ("tcp", six.as_str()), ("unix", path)]
    );
    let reads: Vec<_> = events
        .iter()
        .filter(|call| call.syscall == "recvfrom" || call.syscall == "read")
        .collect();
    assert_eq!(detail(reads[0], "peer"), Some(four.as_str()), "{reads:#?}");
    assert!(detail(reads[0], "local").unwrap().starts_with("127.0.0.1:"));
    let shutdown = find(&events, "shutdown");
    assert_eq!(detail(shutdown, "local"), Some(four.as_str()));
    assert_eq!(detail(shutdown, "fd_type"), Some("tcp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_writes_to_a_disk_name_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let name = unique_name();
    let (observer, mut events) = observe(&name, Some(Duration::ZERO));
    let calls = ["pwrite64", "fdatasync", "fsync", "sync_file_range"];
    let (_, file) = on_thread_named(&name, || {
        let file = File::create(&path).unwrap();
        for offset in 0..3 {
            nix::sys::uio::pwrite(&file, b"entry", offset * 5).unwrap();
            nix::unistd::fdatasync(&file).unwrap();
        }
        nix::unistd::fsync(&file).unwrap();
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, 0) }, 0);
        file
    });
    let received = receive(&mut events, |received| {
        received
            .iter()
            .filter(|call| calls.contains(&call.syscall))
            .count()
            == 8
    })
    .await;
    for call in received.iter().filter(|call| calls.contains(&call.syscall)) {
        let fd = file.as_raw_fd().to_string();
        assert_eq!(detail(call, "fd"), Some(fd.as_str()), "{call:#?}");
        assert_eq!(detail(call, "fd_type"), Some("file"));
        assert_eq!(detail(call, "file"), Some("wal"));
        assert_eq!(call.comm, name);
    }
    let snapshot = observer.snapshot().unwrap();
    for (syscall, count) in [
        ("pwrite64", 3),
        ("fdatasync", 3),
        ("fsync", 1),
        ("sync_file_range", 1),
    ] {
        let stats = &snapshot.calls[&(std::sync::Arc::from(name.as_str()), syscall)];
        assert_eq!(stats.calls(), count, "{syscall}");
        // What the events say one by one is what the histogram has counted.
        let durations = received
            .iter()
            .filter(|call| call.syscall == syscall)
            .map(|call| call.duration);
        assert_eq!(durations.sum::<Duration>(), stats.total(), "{syscall}");
    }
}
