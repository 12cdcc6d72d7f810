//! Whose syscalls are traced.

use sabot_proto::sabot::v1;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TracingDoc {
    pub(crate) processes: Vec<String>,
    /// Empty: all.
    pub(crate) syscalls: Vec<String>,
    pub(crate) cgroups: Vec<String>,
    pub(crate) containers: Vec<String>,
}

impl From<v1::Tracing> for TracingDoc {
    fn from(tracing: v1::Tracing) -> Self {
        Self {
            processes: tracing.processes,
            syscalls: tracing.syscalls,
            cgroups: tracing.cgroups,
            containers: tracing.containers,
        }
    }
}
