//! Where the engine's knowledge of the world comes from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::targets::{TargetsHandle, Wanted, WorldUpdate};

/// The targets room, as the engine sees it.
pub trait WorldSource: Send + Sync + 'static {
    /// The world as it is now, and its changes.
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>>;

    /// Says which namespaces and devices to look at from now on.
    fn want(&self, wanted: Wanted);

    /// Like [`Self::want`]; resolves once the watch holds a world in which they were looked at.
    fn refresh(&self, wanted: Wanted) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl WorldSource for TargetsHandle {
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>> {
        Self::watch(self)
    }

    fn want(&self, wanted: Wanted) {
        Self::want(self, wanted);
    }

    fn refresh(&self, wanted: Wanted) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let handle = self.clone();
        Box::pin(async move { drop(Self::refresh(&handle, wanted).await) })
    }
}
