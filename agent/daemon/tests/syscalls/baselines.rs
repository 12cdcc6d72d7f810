//! Counts beside those of strace, taken of the same calls.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use sabotd::observe::syscalls::{SyscallSnapshot, Tracing};

use crate::rig::{Program, observe, unique_name};

/// Calls and errors by syscall.
type Counts = BTreeMap<String, (u64, u64)>;

fn ours(snapshot: &SyscallSnapshot) -> Counts {
    let mut counts = Counts::new();
    for ((_, syscall), stats) in &snapshot.calls {
        counts.entry((*syscall).to_owned()).or_default().0 += stats.calls();
    }
    for (((_, syscall), _), count) in &snapshot.errors {
        counts.entry((*syscall).to_owned()).or_default().1 += count;
    }
    counts
}

/// Of a summary with the columns calls, errors, name.
fn of_strace(summary: &str) -> Counts {
    summary
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let calls = fields.first()?.parse().ok()?;
            let (errors, name) = match fields[1..] {
                [errors, name] => (errors.parse().ok()?, name),
                [name] => (0, name),
                _ => return None,
            };
            (name != "total").then(|| (name.to_owned(), (calls, errors)))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_strace_with_short_lived_children() {
    let (parent, child) = (unique_name(), unique_name());
    let (observer, _events) = observe(&parent, None);
    observer
        .set_tracing(&Tracing::of_processes([&parent, &child]))
        .unwrap();
    let (shell, tool) = (Program::named(&parent), Program::named(&child));
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary");
    // Children that succeed, fail, and can't even be executed, and work of the shell itself.
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8; do {tool} cat /etc/hostname /no/$i; {tool} true; /no/such/program; test -e /no; done",
        tool = tool.path.display()
    );
    let status = Command::new("strace")
        .args(["-f", "-c", "--summary-columns=calls,errors,name", "-o"])
        .arg(&summary)
        .arg(&shell.path)
        .args(["sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace is needed: install Debian's package `strace`");
    assert_eq!(status.code(), Some(1));

    let mut expected = of_strace(&fs::read_to_string(&summary).unwrap());
    // The first call is strace's own child's: it becomes the shell by it. And the end of a signal handler has no result.
    expected.get_mut("execve").expect("programs were executed").0 -= 1;
    expected.remove("rt_sigreturn");
    assert!(
        expected.values().map(|(calls, _)| calls).sum::<u64>() > 200,
        "{expected:?}"
    );
    assert_eq!(
        expected["execve"].0,
        8 * 2 + expected["execve"].1,
        "all programs were executed"
    );
    let snapshot = observer.snapshot().unwrap();
    assert_eq!(ours(&snapshot), expected);
    assert_eq!(snapshot.losses, [0; 4]);
    // Each name has its own.
    let of = |name: &str, syscall: Option<&str>| {
        let calls = snapshot.calls.iter();
        calls
            .filter(|((process, found), _)| {
                **process == *name && syscall.is_none_or(|syscall| *found == syscall)
            })
            .map(|(_, stats)| stats.calls())
            .sum::<u64>()
    };
    assert_eq!(of(&parent, Some("execve")), expected["execve"].0);
    assert_eq!(of(&child, Some("execve")), 0);
    assert!(of(&child, None) > 50 && of(&parent, None) > 50, "{snapshot:?}");
}
