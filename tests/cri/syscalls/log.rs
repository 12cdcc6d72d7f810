//! What strace wrote of each thread, and under which name each call was made.
//!
//! strace knows threads by their numbers, and the observer by their names. A thread has the name of the one that made it, until
//! it becomes another program or says that it is called otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Bytes of a name that the kernel keeps.
const COMM: usize = 15;

/// How often something was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// Whose end was seen.
    pub(crate) ended: u64,
    /// Those of them that failed.
    pub(crate) failed: u64,
    /// Begun by threads that then ended, or were killed, within the call (nobody sees a result), or made by threads that may have
    /// been called so.
    pub(crate) open: u64,
}

/// By process name and syscall.
pub(crate) type Counts = BTreeMap<(String, String), Made>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    name: String,
    arguments: String,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Done { result: String },
    Failed,
    Unseen,
}

/// Who a thread is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    comm: String,
    /// The name of the program's file.
    program: String,
    /// In the pid namespace of a container.
    is_foreign: bool,
    /// Its children will be.
    makes_foreign: bool,
}

/// All threads of a run of `strace -ff -o PREFIX`, by their number.
#[derive(Debug)]
pub(crate) struct Log(BTreeMap<u32, Vec<Call>>);

impl Log {
    /// Reads `PREFIX.TID` of every thread.
    pub(crate) fn read(prefix: &Path) -> Self {
        let folder = prefix.parent().expect("it is in a folder");
        let start = format!(
            "{}.",
            prefix.file_name().expect("it has a name").to_string_lossy()
        );
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(tid) = name.strip_prefix(&start) {
                let text = fs::read(entry.path()).expect("the file is there");
                let calls = String::from_utf8_lossy(&text).lines().filter_map(call).collect();
                threads.insert(tid.parse().expect("a thread's number"), calls);
            }
        }
        Self(threads)
    }

    /// The calls that threads of these names made outside of containers.
    ///
    /// A thread that is ended within a call that makes a thread leaves one that strace saw, by a maker it doesn't tell. Any such
    /// call may be its origin, so its calls are a bound, like those without a result.
    pub(crate) fn counts(&self, first: u32, names: &[String]) -> Counts {
        let nobody = Thread {
            comm: "strace".to_owned(),
            program: "strace".to_owned(),
            is_foreign: false,
            makes_foreign: false,
        };
        let mut walk = Walk {
            log: self,
            names,
            counts: Counts::new(),
            met: BTreeSet::new(),
            unfinished: BTreeSet::new(),
        };
        walk.from(first, nobody, true);
        for &orphan in self.0.keys() {
            if walk.met.contains(&orphan) {
                continue;
            }
            let makers = walk.unfinished.clone();
            assert!(!makers.is_empty(), "nobody can have made thread {orphan}");
            for maker in makers {
                walk.from(orphan, maker, false);
            }
        }
        walk.counts
    }
}

struct Walk<'a> {
    log: &'a Log,
    names: &'a [String],
    counts: Counts,
    met: BTreeSet<u32>,
    /// What threads would be whose making has no end.
    unfinished: BTreeSet<Thread>,
}

impl Walk<'_> {
    /// Counts the calls of a thread and of those it made.
    fn from(&mut self, tid: u32, thread: Thread, is_sure: bool) {
        let mut waiting = vec![(tid, thread)];
        while let Some((tid, mut thread)) = waiting.pop() {
            let calls = self.log.0.get(&tid);
            let calls = calls.unwrap_or_else(|| panic!("nothing is known of thread {tid}"));
            self.met.insert(tid);
            for call in calls {
                let before = thread.comm.clone();
                if let Some(child) = thread.make(call) {
                    waiting.push(child);
                }
                if call.makes_a_thread() && call.end == End::Unseen {
                    self.unfinished.insert(thread.child(call));
                }
                // A call that ends under a name that isn't traced isn't one of a traced process.
                let is_counted = [&before, &thread.comm]
                    .iter()
                    .all(|name| self.names.contains(name));
                let is_counted = is_counted || call.is_exec() && self.names.contains(&before);
                if is_counted && !thread.is_foreign {
                    let made = self.counts.entry((before, call.name.clone())).or_default();
                    match is_sure {
                        true => count(made, call),
                        false => made.open += 1,
                    }
                }
            }
        }
    }
}

fn count(made: &mut Made, call: &Call) {
    match call.end {
        End::Done { .. } => made.ended += 1,
        End::Failed => {
            made.ended += 1;
            made.failed += 1;
        }
        End::Unseen => made.open += 1,
    }
}

impl Call {
    fn is_exec(&self) -> bool {
        self.name.starts_with("execve") && matches!(self.end, End::Done { .. })
    }

    fn makes_a_thread(&self) -> bool {
        ["clone", "clone3", "fork", "vfork"].contains(&self.name.as_str())
    }

    fn makes_pids(&self) -> bool {
        self.arguments.contains("CLONE_NEWPID")
    }

    /// The name of the file whose descriptor is the first argument, as `6</usr/sbin/runc>`: what a thread is called since Linux
    /// 6.14 that becomes a program by its descriptor.
    fn file_name(&self) -> &str {
        let (_, path) = self.arguments.split_once('<').expect("descriptors are decoded");
        let path = path
            .split('>')
            .next()
            .unwrap_or_default()
            .trim_end_matches(" (deleted)");
        match path.strip_prefix("/memfd:") {
            Some(_) => &path[1..],
            None => path.rsplit('/').next().unwrap_or_default(),
        }
    }

    /// The first text among the arguments.
    fn text(&self) -> &str {
        let (_, rest) = self.arguments.split_once('"').expect("an argument is a text");
        rest.split('"').next().unwrap_or_default()
    }
}

impl Thread {
    /// What a call makes of the thread, and the thread that it makes.
    fn make(&mut self, call: &Call) -> Option<(u32, Self)> {
        let End::Done { result } = &call.end else {
            return None;
        };
        if call.makes_a_thread() {
            return Some((own_number(result), self.child(call)));
        }
        match call.name.as_str() {
            "execve" => {
                let name = call.text().rsplit('/').next().unwrap_or_default();
                if call.text() != "/proc/self/exe" {
                    name.clone_into(&mut self.program);
                }
                self.rename(name);
            }
            "execveat" => match call.file_name() {
                // runc mounts itself somewhere and takes the mount away again, which leaves a file without a path.
                "" => self.rename(&self.program.clone()),
                name => self.rename(name),
            },
            "prctl" if call.arguments.starts_with("PR_SET_NAME") => self.rename(call.text()),
            "unshare" | "setns" => self.makes_foreign |= call.makes_pids(),
            _ => {}
        }
        None
    }

    fn child(&self, call: &Call) -> Self {
        Self {
            comm: self.comm.clone(),
            program: self.program.clone(),
            is_foreign: self.is_foreign || self.makes_foreign || call.makes_pids(),
            makes_foreign: false,
        }
    }

    fn rename(&mut self, name: &str) {
        self.comm = name.chars().take(COMM).collect();
    }
}

/// `7 /* 1234 in strace's PID NS */` of a thread that counts otherwise than strace, or just `1234`.
fn own_number(result: &str) -> u32 {
    let number = match result.split_once("/* ") {
        Some((_, translated)) => translated,
        None => result,
    };
    let number = number.split(' ').next().unwrap_or_default();
    number
        .parse()
        .unwrap_or_else(|_| panic!("no thread's number: {result}"))
}

/// `None` for a line about a signal or a thread's end.
fn call(line: &str) -> Option<Call> {
    if line.starts_with("---") || line.starts_with("+++") {
        return None;
    }
    let (name, rest) = line.split_once('(').unwrap_or_else(|| panic!("no call: {line}"));
    let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
    let result = result.trim();
    let end = if rest.contains("<unfinished ...>") || result == "?" || result.starts_with("? <unavailable>") {
        End::Unseen
    } else if result.starts_with("-1 ") || result.starts_with("? ") {
        // An error, or the kernel's own code for a call that a signal interrupted.
        End::Failed
    } else {
        End::Done {
            result: result.to_owned(),
        }
    };
    Some(Call {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        end,
    })
}

#[test]
fn lines_of_strace_are_calls_with_their_ends() {
    let end = |line: &str| call(line).map(|call| (call.name, call.end));
    let done = |result: &str| End::Done {
        result: result.to_owned(),
    };
    for (line, name, expected) in [
        (r#"openat(AT_FDCWD, "a = b", O_RDONLY) = 3"#, "openat", done("3")),
        (
            r#"access("/no", F_OK)              = -1 ENOENT (No such file or directory)"#,
            "access",
            End::Failed,
        ),
        (
            "futex(0x1, FUTEX_WAIT_PRIVATE, 0, NULL) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)",
            "futex",
            End::Failed,
        ),
        (
            "futex(0x1, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>) = ?",
            "futex",
            End::Unseen,
        ),
        ("exit_group(0) = ?", "exit_group", End::Unseen),
        ("close(3)    = ? <unavailable>", "close", End::Unseen),
        (
            "clone(child_stack=NULL, flags=SIGCHLD) = 7 /* 1234 in strace's PID NS */",
            "clone",
            done("7 /* 1234 in strace's PID NS */"),
        ),
    ] {
        assert_eq!(end(line), Some((name.to_owned(), expected)), "{line}");
    }
    assert_eq!(end("--- SIGURG {si_signo=SIGURG} ---"), None);
    assert_eq!(end("+++ exited with 0 +++"), None);
    assert_eq!(own_number("7 /* 1234 in strace's PID NS */"), 1234);
    assert_eq!(own_number("1234"), 1234);
    for (line, name) in [
        (
            r#"execveat(6</usr/sbin/runc>, "", ["runc"], 0x1 /* 3 vars */, AT_EMPTY_PATH) = 0"#,
            "runc",
        ),
        (
            r#"execveat(6</memfd:a:/b (deleted)>, "", [], 0x1, AT_EMPTY_PATH) = 0"#,
            "memfd:a:/b",
        ),
        (r#"execveat(6</>, "", [], 0x1, AT_EMPTY_PATH) = 0"#, ""),
    ] {
        assert_eq!(call(line).expect("a call").file_name(), name);
    }
}

#[test]
fn a_thread_whose_making_has_no_end_has_one_of_the_makers_without_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |tid: u32, text: &str| {
        fs::write(folder.path().join(format!("log.{tid}")), text).expect("it is written");
    };
    write(
        1,
        "execve(\"/bin/runc\", [], 0x1) = 0\nclone(flags=CLONE_THREAD) = 2\nclone(flags=CLONE_THREAD <unfinished ...>) = ?\n",
    );
    write(2, "getpid() = 1\n");
    write(3, "getpid() = 1\ngetpid() = 1\n");
    let counts = Log::read(&folder.path().join("log")).counts(1, &["runc".to_owned()]);
    let of = |syscall: &str| counts[&("runc".to_owned(), syscall.to_owned())];
    let (ended, failed, open) = (1, 0, 2);
    assert_eq!(of("getpid"), Made { ended, failed, open });
    assert_eq!(
        of("clone"),
        Made {
            ended,
            failed,
            open: 1
        }
    );
}
