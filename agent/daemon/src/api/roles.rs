//! Who may call what: a role is looked up once, when a client connects, and checked with every call.

use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::caller::Caller;
use crate::audit::{Asked, AuditLog, Outcome, Who};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May look.
    Viewer,
    /// May do everything.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        })
    }
}

/// Methods that change nothing. What isn't listed is for operators, so that a new one is until somebody thinks of it.
const READING: [&str; 12] = [
    "/sabot.v1.FaultService/GetFault",
    "/sabot.v1.FaultService/ListFaults",
    "/sabot.v1.FaultService/PreviewFault",
    "/sabot.v1.FaultService/WatchFaults",
    "/sabot.v1.NodeService/GetNode",
    "/sabot.v1.NodeService/ListTargets",
    "/sabot.v1.NodeService/WatchTargets",
    "/sabot.v1.ObserveService/GetSnapshot",
    "/sabot.v1.ObserveService/GetTimeline",
    "/sabot.v1.ObserveService/GetTracing",
    "/sabot.v1.ObserveService/ListFlows",
    "/sabot.v1.ObserveService/WatchEvents",
];
const READING_SERVICES: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Whether the caller may call the method, by its path.
///
/// # Errors
/// `PermissionDenied`, which names role and method.
fn authorize(caller: Option<&Caller>, path: &str) -> Result<(), Status> {
    let is_reading =
        || READING.contains(&path) || READING_SERVICES.iter().any(|service| path.starts_with(service));
    let denied = |why: String| Err(Status::permission_denied(why));
    let method = path.trim_start_matches('/');
    match caller {
        None => denied(format!("nobody is known to call {method}")),
        Some(caller) => match caller.role() {
            Some(Role::Operator) => Ok(()),
            Some(Role::Viewer) if is_reading() => Ok(()),
            Some(role @ Role::Viewer) => denied(format!(
                "{caller} has the role {role}, which may not call {method}"
            )),
            None => denied(format!(
                "{caller} has no role here, so that it may not call {method}"
            )),
        },
    }
}

/// Checks every request before its service sees it.
#[derive(Clone, Debug)]
pub(super) struct RolesLayer {
    audit: AuditLog,
}

impl RolesLayer {
    /// What is denied is noted there.
    pub(super) fn new(audit: AuditLog) -> Self {
        Self { audit }
    }
}

impl<S> Layer<S> for RolesLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized {
            inner,
            audit: self.audit.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Authorized<S> {
    inner: S,
    audit: AuditLog,
}

impl<S, B> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (caller, path) = (request.extensions().get(), request.uri().path());
        match authorize(caller, path) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => {
                let asked = Asked {
                    method: path.rsplit('/').next().unwrap_or_default(),
                    ..Asked::default()
                };
                self.audit
                    .asked(&Who::from(caller), &asked, &Outcome::from(&status));
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sabot_proto::FILE_DESCRIPTOR_SET;
    use tonic::Code;

    use super::*;

    fn holder(role: Option<Role>) -> Caller {
        Caller::Certificate {
            name: "alice".into(),
            role,
            address: ([192, 0, 2, 1], 40_000).into(),
        }
    }

    #[test]
    fn a_viewer_may_call_what_reads_and_nothing_else() {
        let viewer = holder(Some(Role::Viewer));
        for path in READING.into_iter().chain([
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ]) {
            assert!(authorize(Some(&viewer), path).is_ok(), "{path}");
        }
        for method in ["ApplyFault", "DeleteFault", "DeleteAllFaults", "Unheard"] {
            let path = format!("/sabot.v1.FaultService/{method}");
            let status = authorize(Some(&viewer), &path).expect_err(method);
            assert_eq!(status.code(), Code::PermissionDenied);
            let said = status.message();
            assert!(said.contains("alice") && said.contains("viewer"), "{said}");
            assert!(
                said.contains(&format!("sabot.v1.FaultService/{method}")),
                "{said}"
            );
        }
        assert!(authorize(Some(&viewer), "/sabot.v1.ObserveService/SetTracing").is_err());
    }

    #[test]
    fn an_operator_and_a_process_of_this_machine_may_call_everything() {
        let process = Caller::Process { uid: 0, pid: Some(7) };
        for caller in [holder(Some(Role::Operator)), process] {
            assert!(authorize(Some(&caller), "/sabot.v1.FaultService/ApplyFault").is_ok());
        }
    }

    #[test]
    fn who_has_no_role_may_call_nothing() {
        for caller in [Some(holder(None)), None] {
            for path in [
                "/sabot.v1.FaultService/ListFaults",
                "/grpc.health.v1.Health/Check",
            ] {
                let status = authorize(caller.as_ref(), path).expect_err(path);
                assert_eq!(status.code(), Code::PermissionDenied);
            }
        }
    }

    #[test]
    fn every_listed_method_exists() {
        let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
        for path in READING {
            let method = path.rsplit('/').next().expect("it has one");
            assert!(text.contains(method), "{path}");
        }
    }
}
