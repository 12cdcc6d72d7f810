//! Where the engine's knowledge of the world comes from.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use sabot_core::model::TargetDevice;
use tokio::sync::watch;

use crate::kernel::nsfs;
use crate::targets::{TargetsHandle, Wanted, WorldUpdate};

/// The targets room, as the engine sees it.
pub trait WorldSource: Send + Sync + 'static {
    /// The world as it is now, and its changes.
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>>;

    /// Whether these devices are still those of the namespace at that path, and not of a former one.
    fn is_current(&self, path: &Path, devices: &[TargetDevice]) -> bool;

    /// Says which namespaces and devices to look at from now on, and which names to learn.
    fn want(&self, wanted: Wanted);

    /// Like [`Self::want`]; resolves once the watch holds a world in which these namespaces and all devices were looked at.
    fn refresh(
        &self,
        wanted: Wanted,
        namespaces: BTreeSet<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl WorldSource for TargetsHandle {
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>> {
        Self::watch(self)
    }

    fn is_current(&self, path: &Path, devices: &[TargetDevice]) -> bool {
        let now = nsfs::netns_id(path);
        devices.iter().all(|device| Some(device.key.netns) == now)
    }

    fn want(&self, wanted: Wanted) {
        Self::want(self, wanted);
    }

    fn refresh(
        &self,
        wanted: Wanted,
        namespaces: BTreeSet<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let handle = self.clone();
        Box::pin(async move { drop(Self::refresh(&handle, wanted, namespaces).await) })
    }
}
