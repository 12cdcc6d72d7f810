//! What a daemon may say while it is tormented.

use std::collections::BTreeSet;

/// Warnings that follow from what is done to it: pods that go while they are looked at, a machine that is too busy, and
/// daemons that are stopped.
const EXPECTED: [&str; 4] = [
    "failed operation=",
    "the delay line stood still",
    "cannot sweep",
    "not available feature=",
];

/// # Panics
///
/// It panicked, said that something is wrong, or warned of what wasn't done to it.
pub(super) fn assert_expected(log: &str) {
    let unexpected: BTreeSet<&str> = log.lines().filter(|line| is_unexpected(line)).collect();
    assert!(unexpected.is_empty(), "sabotd says: {unexpected:#?}");
}

fn is_unexpected(line: &str) -> bool {
    let is_warning = line.contains(" WARN ");
    let is_expected = EXPECTED.iter().any(|expected| line.contains(expected));
    line.contains("panicked") || line.contains(" ERROR ") || is_warning && !is_expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_panics_and_other_warnings_are_unexpected() {
        assert!(is_unexpected("2026-01-01T00:00:00Z ERROR sabotd::app: ending"));
        assert!(is_unexpected("thread 'main' panicked at src/main.rs:1:1:"));
        assert!(is_unexpected(
            "2026-01-01T00:00:00Z  WARN sabotd::audit: something"
        ));
        assert!(!is_unexpected(
            "2026-01-01T00:00:00Z  WARN sabotd::line: the delay line stood still; packets"
        ));
        assert!(!is_unexpected("2026-01-01T00:00:00Z  INFO sabotd: ready"));
    }
}
