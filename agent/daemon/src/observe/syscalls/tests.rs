use super::*;
use crate::observe::names::{errno_name, syscall_number};

fn config() -> SyscallsConfig {
    SyscallsConfig {
        tracing: Tracing::of_processes(["kubelet"]),
        ..SyscallsConfig::default()
    }
}

#[test]
fn a_ring_is_a_power_of_two_from_a_page_on() {
    for ring_bytes in [0, 1024, 12_288] {
        let config = SyscallsConfig {
            ring_bytes,
            ..config()
        };
        assert!(
            matches!(translate(&config, Watch::default()), Err(SyscallsError::RingSize { bytes, .. }) if bytes == ring_bytes)
        );
    }
}

#[test]
fn thresholds_translate() {
    let threshold = |slow_threshold| {
        let config = SyscallsConfig {
            slow_threshold,
            ..config()
        };
        translate(&config, Watch::default()).unwrap().slow_threshold_ns
    };
    assert_eq!(threshold(None), 0);
    assert_eq!(threshold(Some(Duration::ZERO)), 1);
    assert_eq!(threshold(Some(Duration::from_millis(20))), 20_000_000);
    assert_eq!(threshold(Some(Duration::MAX)), u64::MAX);
}

#[test]
fn results_are_errors_in_the_kernels_range_only() {
    assert_eq!(errno(0), None);
    assert_eq!(errno(3), None);
    assert_eq!(errno(-2), Some(2));
    assert_eq!(errno(-4095), Some(4095));
    assert_eq!(errno(-4096), None);
    assert_eq!(errno(-512), Some(EINTR));
    assert_eq!(errno(-516), Some(EINTR));
    assert_eq!(errno(i64::MIN), None);
}

#[test]
fn quantiles_are_bounds_of_buckets() {
    let mut stats = CallStats::default();
    assert_eq!(stats.quantile(0.5), None);
    for ns in [500, 1100, 1100, 1100, 9_000_000, u64::MAX] {
        stats.durations.buckets[sabot_abi::log_linear_bucket(ns)] += 1;
    }
    assert_eq!(stats.quantile(0.0), Some(Duration::from_nanos(1024)));
    assert_eq!(stats.quantile(0.5), Some(Duration::from_nanos(1280)));
    let high = stats.quantile(0.8).unwrap();
    assert!(
        high > Duration::from_millis(9) && high < Duration::from_millis(12),
        "{high:?}"
    );
    assert_eq!(
        stats.quantile(1.0),
        Some(Duration::from_nanos(1 << sabot_abi::HISTOGRAM_LAST_BIT))
    );
}

#[test]
fn an_event_is_decoded() {
    let mut texts = [[0; sabot_abi::SYSCALL_TEXT_LENGTH]; 2];
    texts[0][..4].copy_from_slice(b"/no\0");
    let event = sabot_abi::SyscallEvent {
        time: crate::kernel::boot_time().0,
        duration_ns: 1500,
        pid: 7,
        tid: 8,
        process: 1,
        syscall: syscall_number("openat").unwrap(),
        cgroup: 0,
        result: -2,
        comm: *b"kubelet\0\0\0\0\0\0\0\0\0",
        arguments: [1; 6],
        file: sabot_abi::SyscallFile::default(),
        text_lengths: [4, 0],
        texts,
    };
    let EventKind::Syscall(decoded) = decode("/system.slice", None, &event).kind else {
        panic!("a syscall event was given");
    };
    assert_eq!(
        decoded,
        SyscallEvent {
            process: "/system.slice".into(),
            comm: "kubelet".into(),
            pid: 7,
            tid: 8,
            syscall: "openat",
            duration: Duration::from_nanos(1500),
            result: -2,
            errno: Some(errno_name(2)),
            detail: vec![("path", "/no".into()), ("flags", "O_WRONLY".into())],
        }
    );
}
