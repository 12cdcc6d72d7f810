//! Errors as gRPC tells them.

use sabot_core::model::FaultName;
use sabot_proto::convert::FieldError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::engine::handle::EngineError;

/// What the violations of one answer may say together, in bytes. They travel in HTTP/2 headers, of which a client takes
/// 16 KiB, and do so three times: as text, in which a byte may become three, and in details with that text, in base64.
const MAX_VIOLATIONS: usize = 2048;
/// Who gives the reasons of a `google.rpc.ErrorInfo`.
const DOMAIN: &str = "sabot.dev";

/// `InvalidArgument` with each violation as a `google.rpc.BadRequest` field violation; of very many the first ones.
pub(super) fn invalid(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let mut shown: Vec<FieldViolation> = Vec::new();
    let (mut said, mut hidden) = (0, 0_usize);
    for (field, description) in violations {
        said += field.len() + description.len();
        if hidden > 0 || (said > MAX_VIOLATIONS && !shown.is_empty()) {
            hidden += 1;
        } else {
            shown.push(FieldViolation::new(field, description));
        }
    }
    if hidden > 0 {
        shown.push(FieldViolation::new(
            "spec",
            format!("{hidden} more violations of this kind or others"),
        ));
    }
    let text: Vec<_> = shown
        .iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect();
    Status::with_error_details(
        Code::InvalidArgument,
        text.join("; "),
        ErrorDetails::with_bad_request(shown),
    )
}

pub(super) fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid([(field.to_owned(), description.into())])
}

pub(super) fn invalid_fields(errors: Vec<FieldError>) -> Status {
    invalid(errors.into_iter().map(|e| (e.field, e.description)))
}

pub(super) fn not_found(name: &FaultName) -> Status {
    EngineError::NotFound(name.clone()).into()
}

impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid(violations) => {
                invalid(violations.into_iter().map(|v| (v.field, v.description)))
            }
            EngineError::NotFound(_) => Self::not_found(message),
            EngineError::NameTaken { .. } => Self::already_exists(message),
            EngineError::Held(_) => Self::failed_precondition(message),
            EngineError::Unsupported(_) => Self::failed_precondition(message),
            EngineError::Refused { guard, .. } => {
                let details = ErrorDetails::with_error_info(guard, DOMAIN, []);
                Self::with_error_details(Code::FailedPrecondition, message, details)
            }
            EngineError::Exhausted(_) => Self::resource_exhausted(message),
            EngineError::ShuttingDown => Self::unavailable(message),
            EngineError::Internal(_) => Self::internal(message),
        }
    }
}
