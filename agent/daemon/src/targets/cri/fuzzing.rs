//! A door for the fuzz targets: what is made of a runtime's answer.

use std::path::PathBuf;

use sabot_core::model::Pod;
use sabot_proto::runtime::v1::PodSandboxStatusResponse;

use super::sandbox::Description;

/// The pod, and where its network namespace may be found.
///
/// # Errors
///
/// Why there is no pod in the answer.
pub fn describe(answer: PodSandboxStatusResponse) -> Result<(Pod, Vec<PathBuf>), String> {
    let described = Description::try_from(answer);
    described
        .map(Description::into_parts)
        .map_err(|error| error.to_string())
}
