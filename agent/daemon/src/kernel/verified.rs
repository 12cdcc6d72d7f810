//! What it took to load a program: what the verifier went through, and for how long.

use std::time::Instant;

use aya::programs::{ProgramError, ProgramInfo};

/// Loads a program and tells the log what that took. The kernel gives up after a million instructions; it says how many it
/// went through from 5.16 on.
pub(super) fn load<P>(
    name: &'static str,
    program: &mut P,
    load: impl FnOnce(&mut P) -> Result<(), ProgramError>,
    info: impl FnOnce(&P) -> Result<ProgramInfo, ProgramError>,
) -> Result<(), ProgramError> {
    let started = Instant::now();
    load(program)?;
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    if tracing::enabled!(tracing::Level::DEBUG) {
        let instructions = info(program)?.verified_instruction_count().unwrap_or_default();
        tracing::debug!(program = name, instructions, micros, "loaded");
    }
    Ok(())
}
