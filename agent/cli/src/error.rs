//! What can go wrong, what is said about it, and which exit code it has.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    /// The command line or the fault is wrong.
    Usage = 2,
    NotReachable = 3,
    /// This machine can't do it, a guard forbids it, a limit is reached, or the caller may not do it.
    Refused = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    /// What is wrong with a fault, one line each: `spec.duration: …`.
    #[error("{what} is invalid:\n{}", lines(.violations))]
    Invalid { what: String, violations: Vec<String> },
    #[error("{}", unreachable(.socket, .source))]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error(
        "can't reach sabotd on {server}: {source}\nhint: is --listen of sabotd this address, and are both certificates valid?"
    )]
    Remote { server: String, source: io::Error },
    #[error(
        "sabotd accepted the connection on {} but didn't answer within {}\n\
         hint: is it stopped or overloaded? --timeout gives it longer",
        .place, humantime::format_duration(*.after)
    )]
    NoAnswer { place: String, after: Duration },
    /// The way through the daemon's pod can't be opened, or has ended.
    #[error("can't reach sabotd in {place}: {why}")]
    Pod { place: String, why: String },
    /// The cluster's API server can't be asked, or refuses.
    #[error("{what}: {why}")]
    Cluster {
        what: String,
        why: String,
        refused: bool,
    },
    #[error("{}", refused(.what, .status))]
    Status { what: String, status: Box<Status> },
    #[error("{0}")]
    Failed(String),
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing the output: {0}")]
    Write(#[from] io::Error),
    /// Each has been reported where it happened.
    #[error("{failed} of {total} failed{}{effect}", if .effect.is_empty() { "" } else { ": " })]
    Several {
        failed: usize,
        total: usize,
        /// What that means for the rest; may be empty.
        effect: &'static str,
        exit: Exit,
    },
    /// Each has been reported.
    #[error("{failed} of {total} nodes failed{}{effect}", if .effect.is_empty() { "" } else { ": " })]
    Nodes {
        failed: usize,
        total: usize,
        effect: &'static str,
        exit: Exit,
    },
}

impl CliError {
    /// `what` was to be done: `applying team-a/cut`.
    pub(crate) fn status(what: impl Into<String>, status: Status) -> Self {
        Self::Status {
            what: what.into(),
            status: Box::new(status),
        }
    }

    pub(crate) fn exit_code(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Invalid { .. } => Exit::Usage,
            Self::Cluster { refused: true, .. } => Exit::Refused,
            Self::Unreachable { .. }
            | Self::Remote { .. }
            | Self::NoAnswer { .. }
            | Self::Pod { .. }
            | Self::Cluster { .. } => Exit::NotReachable,
            Self::Status { status, .. } => match status.code() {
                Code::InvalidArgument => Exit::Usage,
                Code::Unavailable => Exit::NotReachable,
                Code::FailedPrecondition | Code::ResourceExhausted | Code::PermissionDenied => Exit::Refused,
                _ => Exit::Failed,
            },
            Self::Failed(_) | Self::Read { .. } | Self::Write(_) => Exit::Failed,
            Self::Several { exit, .. } | Self::Nodes { exit, .. } => *exit,
        }
    }

    /// Whoever reads our output has had enough: `sabot get | head -1`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// There is no such fault.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.code() == Code::NotFound)
    }

    pub(crate) fn report(&self) {
        eprintln!("error: {self}");
    }
}

fn lines(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

/// The violations one a line where there are any, otherwise the message.
fn refused(what: &str, status: &Status) -> String {
    let violations: Vec<_> = status
        .get_details_bad_request()
        .map(|details| details.field_violations)
        .unwrap_or_default()
        .into_iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect();
    if violations.is_empty() {
        format!("{what}: {}", status.message())
    } else {
        format!("{what}: sabotd refuses it:\n{}", lines(&violations))
    }
}

fn unreachable(socket: &std::path::Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "is sabotd running on this node? If it serves another socket, name it by --socket or SABOT_SOCKET"
        }
        io::ErrorKind::ConnectionRefused => "sabotd was here but is gone; start it again",
        io::ErrorKind::PermissionDenied => "the socket is for root alone; try again as root",
        _ => "is that the socket of sabotd?",
    };
    format!(
        "can't reach sabotd on {}: {error}\nhint: {hint}",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::Failed),
            (Code::Internal, Exit::Failed),
            (Code::DeadlineExceeded, Exit::Failed),
            (Code::Unavailable, Exit::NotReachable),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::ResourceExhausted, Exit::Refused),
            (Code::PermissionDenied, Exit::Refused),
        ] {
            let error = CliError::status("applying cut", Status::new(code, "why"));
            assert_eq!(error.exit_code(), exit, "{code:?}");
            assert_eq!(error.to_string(), "applying cut: why");
        }
        assert_eq!(Exit::Failed as u8, 1);
        assert_eq!(Exit::Usage as u8, 2);
        assert_eq!(Exit::NotReachable as u8, 3);
        assert_eq!(Exit::Refused as u8, 4);
    }

    #[test]
    fn violations_are_printed_one_a_line() {
        let violations = [("spec.duration", "2h given"), ("spec.peers[0].cidr", "x given")]
            .map(|(field, description)| FieldViolation::new(field, description));
        let details = ErrorDetails::with_bad_request(violations.to_vec());
        let status = Status::with_error_details(Code::InvalidArgument, "all of it", details);
        let error = CliError::status("applying team-a/cut", status);
        assert_eq!(
            error.to_string(),
            "applying team-a/cut: sabotd refuses it:\n  spec.duration: 2h given\n  spec.peers[0].cidr: x given"
        );
        assert_eq!(error.exit_code(), Exit::Usage);
    }

    #[test]
    fn an_unreachable_daemon_comes_with_a_hint() {
        for (kind, hint) in [
            (io::ErrorKind::NotFound, "is sabotd running"),
            (io::ErrorKind::ConnectionRefused, "start it again"),
            (io::ErrorKind::PermissionDenied, "as root"),
        ] {
            let error = CliError::Unreachable {
                socket: "/run/x.sock".into(),
                source: kind.into(),
            };
            let text = error.to_string();
            assert!(text.contains("/run/x.sock") && text.contains(hint), "{text}");
            assert_eq!(error.exit_code(), Exit::NotReachable);
        }
    }
}
