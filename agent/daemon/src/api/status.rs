//! Errors as gRPC tells them.

use sabot_core::model::FaultName;
use sabot_proto::convert::FieldError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::engine::handle::EngineError;

/// `InvalidArgument` with each violation as a `google.rpc.BadRequest` field violation.
pub(super) fn invalid(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let violations: Vec<_> = violations
        .into_iter()
        .map(|(field, description)| FieldViolation::new(field, description))
        .collect();
    let text: Vec<_> = violations
        .iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect();
    Status::with_error_details(
        Code::InvalidArgument,
        text.join("; "),
        ErrorDetails::with_bad_request(violations),
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
            EngineError::Unsupported(_) => Self::failed_precondition(message),
            EngineError::Exhausted(_) => Self::resource_exhausted(message),
            EngineError::ShuttingDown => Self::unavailable(message),
            EngineError::Internal(_) => Self::internal(message),
        }
    }
}
