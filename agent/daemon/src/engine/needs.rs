//! What a fault needs of the machine, refused with the reason where it is missing.

use sabot_core::equipment;
use sabot_core::model::{Action, Fault};

use super::handle::EngineError;
use crate::kernel::features::{Feature, Features};

/// Checks the machine's features against what the fault needs.
///
/// # Errors
/// `Unsupported`, with what was found instead and what doesn't work without it.
pub(super) fn check(features: &Features, fault: &Fault) -> Result<(), EngineError> {
    let needs = equipment(fault);
    let action = &fault.action;
    require(features, action, "bpf")?;
    require(features, action, "boot_clock")?;
    if !features.has("tcx") && !features.has("clsact") {
        require(features, action, "tcx")?;
        require(features, action, "clsact")?;
    }
    if needs.line {
        require(features, action, "tun")?;
    }
    if needs.segmenter {
        require(features, action, "veth")?;
    }
    Ok(())
}

fn require(features: &Features, action: &Action, name: &str) -> Result<(), EngineError> {
    match features.get(name) {
        Some(Feature {
            available: false,
            detail,
            consequence,
            ..
        }) => Err(EngineError::Unsupported(format!(
            "{} is not possible on this node: {name}: {detail}; {consequence}",
            action.name()
        ))),
        // A feature that isn't listed isn't a precondition on this build.
        Some(_) | None => Ok(()),
    }
}
