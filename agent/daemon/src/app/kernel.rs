//! The kernel's part at start: what the machine can do, what a former daemon left, the fault object.

use std::io;
use std::sync::Arc;

use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::{Config, Hook};
use crate::kernel::features::{Feature, Features};
use crate::kernel::reaper::Reaper;
use crate::kernel::{HookKind, Injector, InjectorOptions, LoadError, Taps, probe, sweep};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("this kernel lets sabotd load no programs: {0}")]
    NoBpf(String),
    #[error("--hook {hook} can't be had: {reason}")]
    NoSuchHook { hook: &'static str, reason: String },
    #[error("programs can't be attached to devices here: {0}")]
    NoHook(String),
    #[error(transparent)]
    Load(#[from] LoadError),
}

pub(super) struct Kernel {
    pub(super) injector: Arc<Injector>,
    pub(super) taps: Taps,
    pub(super) features: Features,
    /// Removes what is attached if this process is killed; under tcx nothing stays that it could remove.
    pub(super) reaper: Option<Reaper>,
}

/// Blocks for some hundred milliseconds.
pub(super) fn load(config: &Config) -> Result<Kernel, KernelError> {
    let features = probe::probe();
    for Feature { name, detail, .. } in features.list.iter().filter(|feature| !feature.available) {
        tracing::warn!(feature = name, detail, "not available");
    }
    if let Some(bpf) = features.get("bpf").filter(|bpf| !bpf.available) {
        return Err(KernelError::NoBpf(bpf.detail.clone()));
    }
    let hook = hook(config.hook, &features)?;
    let swept = sweep::sweep();
    if swept > 0 {
        tracing::info!(swept, "filters of a former daemon were removed");
    }
    let options = InjectorOptions {
        hook,
        line_bytes: usize::try_from(config.delay_line_bytes).unwrap_or(usize::MAX),
        line_bytes_total: usize::try_from(config.delay_line_total_bytes).unwrap_or(usize::MAX),
        line_real_time: config.delay_line_real_time,
        departures: features.has("departures"),
    };
    let reaper = match hook {
        HookKind::Tcx => None,
        HookKind::Clsact => reaper(),
    };
    let (injector, taps) = Injector::load(&options)?;
    tracing::info!(
        kernel = features.kernel_release,
        ?hook,
        "the fault programs are loaded"
    );
    Ok(Kernel {
        injector,
        taps,
        features,
        reaper,
    })
}

/// Without one, filters outlive a kill until the next start.
fn reaper() -> Option<Reaper> {
    let started = Reaper::start();
    started
        .inspect_err(|error| tracing::warn!(%error, "filters will stay after a kill: there is no reaper"))
        .ok()
}

fn hook(wanted: Hook, features: &Features) -> Result<HookKind, KernelError> {
    let reason = |name: &str| {
        features
            .get(name)
            .map_or_else(String::new, |feature| feature.detail.clone())
    };
    let exactly = |hook: &'static str, kind| {
        if features.has(hook) {
            Ok(kind)
        } else {
            Err(KernelError::NoSuchHook {
                hook,
                reason: reason(hook),
            })
        }
    };
    match wanted {
        Hook::Auto => probe::best_hook(features).ok_or_else(|| {
            KernelError::NoHook(format!("tcx: {}; clsact: {}", reason("tcx"), reason("clsact")))
        }),
        Hook::Tcx => exactly("tcx", HookKind::Tcx),
        Hook::Clsact => exactly("clsact", HookKind::Clsact),
    }
}

/// Brings the programs' own log into the daemon's, for as long as the runtime lives.
///
/// # Errors
/// When the programs' ring can't be polled.
pub(super) fn forward_log(logger: EbpfLogger<&'static dyn log::Log>) -> io::Result<()> {
    // SAFETY: the logger owns its ring's descriptor, always gives the same one, and is owned by the `AsyncFd` from here on.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
    tokio::spawn(async move {
        loop {
            match logger.readable_mut().await {
                Ok(mut guard) => {
                    guard.get_inner_mut().flush();
                    guard.clear_ready();
                }
                Err(error) => {
                    tracing::warn!(%error, "the programs' log is no longer read");
                    return;
                }
            }
        }
    });
    Ok(())
}
