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
    assert_eq!(detail(find(&events, "unshare"), "flags"), Some("0x1"));
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

/// A call by its number, on paths that aren't there.
fn call(number: libc::c_long, arguments: [usize; 5]) -> libc::c_long {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the tests give strings and structs that live as long as the call, and null where there is none.
    unsafe { libc::syscall(number, a, b, c, d, e) }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_removals_name_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let missing = CString::new(folder.path().join("missing").to_str().unwrap()).unwrap();
    let path = missing.as_ptr() as usize;
    let here = libc::AT_FDCWD as usize;
    let program = std::path::Path::new("/bin/true");
    let events = traced(|| {
        assert_eq!(call(libc::SYS_execve, [path, 0, 0, 0, 0]), -1);
        assert_eq!(call(libc::SYS_execveat, [here, path, 0, 0, 0]), -1);
        assert_eq!(
            call(
                libc::SYS_unlinkat,
                [here, path, libc::AT_REMOVEDIR as usize, 0, 0]
            ),
            -1
        );
        assert!(std::fs::remove_file(folder.path().join("missing")).is_err());
        // Its child has the thread's name until it becomes the program.
        assert!(std::process::Command::new(program).status().unwrap().success());
    })
    .await;
    let missing = missing.to_str().unwrap();
    for syscall in ["execve", "execveat", "unlinkat", "unlink"] {
        let call = find(&events, syscall);
        assert_eq!(
            (detail(call, "path"), call.errno),
            (Some(missing), Some("ENOENT")),
            "{call:#?}"
        );
    }
    assert_eq!(detail(find(&events, "unlinkat"), "flags"), Some("AT_REMOVEDIR"));
    let became = events
        .iter()
        .find(|call| call.syscall == "execve" && call.result == 0);
    let became = became.unwrap_or_else(|| panic!("no program was begun in {events:#?}"));
    assert_eq!(detail(became, "path"), program.to_str(), "{became:#?}");
    assert_eq!(became.comm, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_calls_of_mounts_are_told() {
    let missing = c"/no/such/tree".as_ptr() as usize;
    let here = libc::AT_FDCWD as usize;
    let how: [u64; 3] = [libc::O_CLOEXEC as u64, 0, 0x4];
    let attributes: [u64; 4] = [1, 2, 0, 0];
    let events = traced(|| {
        assert_eq!(
            call(libc::SYS_openat2, [here, missing, how.as_ptr() as usize, 24, 0]),
            -1
        );
        assert_eq!(
            call(libc::SYS_fsopen, [c"nofs".as_ptr() as usize, 1, 0, 0, 0]),
            -1
        );
        let key = c"source".as_ptr() as usize;
        let value = c"/dev/none".as_ptr() as usize;
        assert_eq!(call(libc::SYS_fsconfig, [usize::MAX, 1, key, value, 0]), -1);
        assert_eq!(call(libc::SYS_fsmount, [usize::MAX, 0, 0x8, 0, 0]), -1);
        assert_eq!(call(libc::SYS_open_tree, [here, missing, 1, 0, 0]), -1);
        assert_eq!(call(libc::SYS_move_mount, [here, missing, here, missing, 4]), -1);
        let recursive = libc::AT_RECURSIVE as usize;
        assert_eq!(
            call(
                libc::SYS_mount_setattr,
                [here, missing, recursive, attributes.as_ptr() as usize, 32]
            ),
            -1
        );
        // The bit is a namespace here, and a part of a signal's number in `clone`.
        assert_eq!(call(libc::SYS_unshare, [0x81, 0, 0, 0, 0]), -1);
    })
    .await;
    let said = |syscall: &str| {
        let details = find(&events, syscall).detail.iter();
        let details = details.map(|(name, value)| format!("{name}={value}"));
        details.collect::<Vec<_>>().join(" ")
    };
    for (syscall, expected) in [
        (
            "openat2",
            "path=/no/such/tree flags=O_RDONLY|O_CLOEXEC resolve=RESOLVE_NO_SYMLINKS",
        ),
        ("fsopen", "filesystem=nofs flags=FSOPEN_CLOEXEC"),
        (
            "fsconfig",
            "fd=-1 key=source value=/dev/none command=FSCONFIG_SET_STRING",
        ),
        ("fsmount", "flags=MOUNT_ATTR_NOEXEC fd=-1"),
        ("open_tree", "path=/no/such/tree flags=OPEN_TREE_CLONE"),
        (
            "move_mount",
            "from=/no/such/tree to=/no/such/tree flags=MOVE_MOUNT_F_EMPTY_PATH",
        ),
        (
            "mount_setattr",
            "path=/no/such/tree flags=AT_RECURSIVE set=MOUNT_ATTR_RDONLY clear=MOUNT_ATTR_NOSUID",
        ),
        ("unshare", "flags=CLONE_NEWTIME|0x1"),
    ] {
        assert_eq!(said(syscall), expected, "{syscall}");
    }
}
