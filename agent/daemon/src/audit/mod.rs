//! The audit log: who asked for what, what became of it, and when it ended, as JSON lines.
//!
//! Calls that only read aren't in it, but for those that were denied.

mod endings;
mod file;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sabot_core::model::FaultName;
use sabot_core::spec::FaultSpec;
use serde::Serialize;
use tonic::Status;
use tonic_types::StatusExt as _;

use self::endings::Ending;
pub use self::endings::Endings;
use self::file::LogFile;
use crate::api::Caller;
use crate::config::AuditPlace;

#[derive(Debug, thiserror::Error)]
#[error("the audit log {} can't be written: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// A cheap clone for each user; without a place it writes nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    node: String,
    sink: Mutex<Sink>,
}

#[derive(Debug)]
enum Sink {
    Stderr,
    File(LogFile),
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Who {
    /// A process of this machine, over the unix socket.
    Process {
        uid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// Its name, while it still ran.
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    Certificate {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        address: String,
    },
    /// A custom resource.
    Resource {
        resource: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        namespace: String,
        name: String,
        uid: String,
        /// Who wrote its spec last, where the API server says.
        #[serde(skip_serializing_if = "Option::is_none")]
        manager: Option<String>,
    },
    Unknown,
}

impl From<Option<&Caller>> for Who {
    fn from(caller: Option<&Caller>) -> Self {
        match caller {
            None => Self::Unknown,
            Some(Caller::Process { uid, pid }) => Self::Process {
                uid: *uid,
                pid: *pid,
                command: pid.and_then(command),
            },
            Some(Caller::Certificate { name, role, address }) => Self::Certificate {
                name: name.clone(),
                role: role.map(|role| role.to_string()),
                address: address.to_string(),
            },
        }
    }
}

fn command(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Asked<'a> {
    /// As `ApplyFault`.
    pub method: &'a str,
    /// `NAMESPACE/NAME`, or `NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<&'a FaultSpec>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "result", rename_all = "camelCase")]
pub enum Outcome {
    /// With what is to be said about it.
    Done { message: String },
    Refused {
        /// Of gRPC, as `FailedPrecondition`.
        code: String,
        /// The guard's name, where one refused it.
        #[serde(skip_serializing_if = "Option::is_none")]
        guard: Option<String>,
        message: String,
    },
}

impl From<&Status> for Outcome {
    fn from(status: &Status) -> Self {
        Self::Refused {
            code: format!("{:?}", status.code()),
            guard: status.get_details_error_info().map(|info| info.reason),
            message: status.message().to_owned(),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Record<'a> {
    Started {
        version: &'a str,
    },
    Request {
        who: &'a Who,
        #[serde(flatten)]
        asked: &'a Asked<'a>,
        #[serde(flatten)]
        outcome: &'a Outcome,
    },
    Ended(&'a Ending),
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    #[serde(flatten)]
    record: Record<'a>,
}

impl AuditLog {
    /// Opens the log and notes that the daemon has started.
    ///
    /// # Errors
    /// The file can't be made or opened.
    pub fn open(place: Option<&AuditPlace>, node: &str) -> Result<Self, AuditError> {
        let sink = match place {
            None => return Ok(Self::default()),
            Some(AuditPlace::Stderr) => Sink::Stderr,
            Some(AuditPlace::File(path)) => Sink::File(LogFile::open(path).map_err(|source| AuditError {
                path: path.clone(),
                source,
            })?),
        };
        let log = Self(Some(Arc::new(Open {
            node: node.to_owned(),
            sink: Mutex::new(sink),
        })));
        let version = env!("CARGO_PKG_VERSION");
        log.write(Record::Started { version });
        Ok(log)
    }

    /// Notes what somebody asked for and what became of it.
    pub fn asked(&self, who: &Who, asked: &Asked<'_>, outcome: &Outcome) {
        self.write(Record::Request { who, asked, outcome });
    }

    fn ended(&self, ending: &Ending) {
        self.write(Record::Ended(ending));
    }

    /// A line that can't be written is in the daemon's own log instead.
    fn write(&self, record: Record<'_>) {
        let Some(open) = &self.0 else { return };
        let line = Line {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            node: &open.node,
            record,
        };
        let line = match serde_json::to_string(&line) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(%error, "a line of the audit log can't be made");
                return;
            }
        };
        let mut sink = open.sink.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *sink {
            Sink::Stderr => eprintln!("{line}"),
            Sink::File(file) => {
                if let Err(error) = file.write(&line) {
                    tracing::error!(%error, line, "the audit log can't be written");
                }
            }
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

/// A fault's name as people write it.
pub fn fault_text(namespace: &str, name: &str) -> String {
    let name = FaultName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    name.to_string()
}

#[cfg(test)]
mod tests;
