//! What strace wrote of each thread, and under which name each call was made.
//!
//! strace knows threads by their numbers, and the observer by their names. A thread has the name of the one that made it, until
//! it becomes another program or says that it is called otherwise.

use std::collections::BTreeMap;
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
    /// Begun by threads that then ended, or were killed, within the call: nobody sees a result.
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
#[derive(Clone, Debug)]
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
    pub(crate) fn counts(&self, first: u32, names: &[String]) -> Counts {
        let mut counts = Counts::new();
        let nobody = Thread {
            comm: "strace".to_owned(),
            program: "strace".to_owned(),
            is_foreign: false,
            makes_foreign: false,
        };
        let mut waiting = vec![(first, nobody)];
        let mut met = 0;
        while let Some((tid, mut thread)) = waiting.pop() {
            let calls = self
                .0
                .get(&tid)
                .unwrap_or_else(|| panic!("nothing is known of thread {tid}"));
            met += 1;
            for call in calls {
                let before = thread.comm.clone();
                if let Some(child) = thread.make(call) {
                    waiting.push(child);
                }
                // A call that ends under a name that isn't traced isn't one of a traced process.
                let is_counted = [&before, &thread.comm].iter().all(|name| names.contains(name));
                let is_counted = is_counted || call.is_exec() && names.contains(&before);
                if is_counted && !thread.is_foreign {
                    count(counts.entry((before, call.name.clone())).or_default(), call);
                }
            }
        }
        assert_eq!(met, self.0.len(), "every thread has a maker that is known");
        counts
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
        let new_pids = call.arguments.contains("CLONE_NEWPID");
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
            "unshare" | "setns" => self.makes_foreign |= new_pids,
            "clone" | "clone3" | "fork" | "vfork" => {
                let is_foreign = self.is_foreign || self.makes_foreign || new_pids;
                let child = Self {
                    comm: self.comm.clone(),
                    program: self.program.clone(),
                    is_foreign,
                    makes_foreign: false,
                };
                return Some((own_number(result), child));
            }
            _ => {}
        }
        None
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
