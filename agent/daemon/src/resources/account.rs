//! What resources have asked of this node, as the audit log has it.

use sabot_core::spec::FaultSpec;
use tonic::Status;

use super::object::Resource;
use crate::audit::{Asked, AuditLog, Outcome, Who};
use crate::engine::handle::EngineError;

/// Notes what a resource has asked for and what became of it; a refusal that is the same as before is noted once.
pub(super) fn applied(
    log: &AuditLog,
    resource: &Resource,
    spec: &FaultSpec,
    result: Result<&str, &EngineError>,
) {
    let outcome = match result {
        Ok(message) => Outcome::Done {
            message: message.to_owned(),
        },
        Err(error) => Outcome::from(&Status::from(error.clone())),
    };
    note(log, "ApplyResource", resource, Some(spec), &outcome);
}

/// The resource is gone, or says something else by now.
pub(super) fn revoked(log: &AuditLog, resource: &Resource) {
    let outcome = Outcome::Done {
        message: String::new(),
    };
    note(log, "RevokeResource", resource, None, &outcome);
}

fn note(log: &AuditLog, method: &str, resource: &Resource, spec: Option<&FaultSpec>, outcome: &Outcome) {
    let who = Who::Resource {
        resource: resource.key.kind.to_string(),
        namespace: resource.key.namespace.clone(),
        name: resource.key.name.clone(),
        uid: resource.uid.clone(),
        manager: resource.manager.clone(),
    };
    let asked = Asked {
        method,
        fault: Some(resource.key.fault().to_string()),
        spec,
    };
    log.asked(&who, &asked, outcome);
}
