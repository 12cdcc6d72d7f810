//! CRI for tests: plain calls that block.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use sabot_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Longer than any call takes on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) type Cri = RuntimeServiceClient<Channel>;

/// A connection and the runtime that drives it; calls may come from several threads at once.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    cri: Cri,
}

impl Client {
    /// Connects when it is first used.
    pub(super) fn new(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("cri-client")
            .enable_all()
            .build()
            .context("starting a tokio runtime")?;
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let _context = runtime.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        let cri = RuntimeServiceClient::new(channel);
        Ok(Self { runtime, cri })
    }

    /// One call; the error names it.
    pub(super) fn call<T, F>(&self, name: &str, call: impl FnOnce(Cri) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(CALL_TIMEOUT, name, call)
    }

    pub(super) fn call_within<T, F>(
        &self,
        limit: Duration,
        name: &str,
        call: impl FnOnce(Cri) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = call(self.cri.clone());
        let answer = self.runtime.block_on(async { timeout(limit, answer).await });
        let answer = answer.with_context(|| format!("{name} was not answered within {limit:?}"))?;
        Ok(answer.with_context(|| format!("{name} failed"))?.into_inner())
    }
}
