//! Exit codes: 0 done, 1 failed, 2 usage.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sabotd::app::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
