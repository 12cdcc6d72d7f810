use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::sync::Barrier;

use super::super::{BindError, bind_socket};
use super::Fixture;

fn mode(path: &std::path::Path) -> u32 {
    fs::symlink_metadata(path)
        .expect("it exists")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test]
async fn the_socket_is_for_root_alone_and_goes_with_its_guard() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let parent = directory.path().join("run/sabot");
    let path = parent.join("sabotd.sock");
    let (listener, guard) = bind_socket(&path).expect("the path is free");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&parent), 0o755);
    drop(listener);
    drop(guard);
    let left: Vec<_> = fs::read_dir(&parent).expect("the directory stays").collect();
    assert!(left.is_empty(), "{left:?} is left");
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let fixture = Fixture::start().await;
    let error = bind_socket(&fixture.socket).expect_err("the first one runs");
    let expected = format!(
        "another sabotd is running on this node: process {} serves {}",
        std::process::id(),
        fixture.socket.display()
    );
    assert_eq!(error.to_string(), expected);
    fixture.apply("still-served").await;
}

#[tokio::test]
async fn whoever_answers_without_the_lock_is_respected() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("sabotd.sock");
    let _other = UnixListener::bind(&path).expect("the path is free");
    let error = bind_socket(&path).expect_err("somebody answers");
    assert!(matches!(error, BindError::AlreadyRunning(_)), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_stale_socket_and_a_stale_lock_are_replaced() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("sabotd.sock");
    drop(UnixListener::bind(&path).expect("the path is free"));
    fs::write(directory.path().join("sabotd.sock.lock"), "999999\n").expect("a lock that nobody holds");
    assert!(path.exists(), "a dead listener leaves its socket");
    let (_listener, _guard) = bind_socket(&path).expect("nobody answers");
    std::os::unix::net::UnixStream::connect(&path).expect("the new one does");
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("sabotd.sock");
    fs::write(&path, "precious").expect("a file");
    let error = bind_socket(&path).expect_err("it is no socket");
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(fs::read(&path).expect("it is still there"), b"precious");
}

#[tokio::test]
async fn a_guard_leaves_a_socket_that_is_not_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("sabotd.sock");
    let (_listener, guard) = bind_socket(&path).expect("the path is free");
    fs::remove_file(&path).expect("somebody removes it");
    let _other = UnixListener::bind(&path).expect("and takes its place");
    drop(guard);
    assert!(path.exists());
}

#[tokio::test]
async fn of_daemons_that_start_at_once_exactly_one_wins() {
    const DAEMONS: usize = 8;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("sabotd.sock");
    let runtime = tokio::runtime::Handle::current();
    for _ in 0..20 {
        let barrier = Barrier::new(DAEMONS);
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..DAEMONS)
                .map(|_| {
                    scope.spawn(|| {
                        let _runtime = runtime.enter();
                        barrier.wait();
                        bind_socket(&path)
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        let winners = results.iter().filter(|r| r.is_ok()).count();
        assert_eq!(winners, 1, "{results:?}");
        for error in results.iter().filter_map(|r| r.as_ref().err()) {
            assert!(matches!(error, BindError::AlreadyRunning(_)), "{error}");
        }
    }
}
