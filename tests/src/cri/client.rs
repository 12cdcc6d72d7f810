//! CRI for tests: plain calls that block.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use sabot_proto::runtime::v1::PullImageRequest;
use sabot_proto::runtime::v1::image_service_client::ImageServiceClient;
use sabot_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// Longer than any call takes on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

pub type Cri = RuntimeServiceClient<Channel>;

/// A call that has ended, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// As `RunPodSandbox`.
    pub name: String,
    pub took: Duration,
    pub code: Code,
}

/// A connection and the runtime that drives it; calls may come from several threads at once.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    cri: Cri,
    images: ImageServiceClient<Channel>,
    records: Mutex<Vec<CallRecord>>,
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
        Ok(Self {
            runtime,
            cri: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            records: Mutex::default(),
        })
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
        self.wait(limit, name, call(self.cri.clone()))
    }

    pub(super) fn pull(&self, request: PullImageRequest) -> Result<String> {
        let mut images = self.images.clone();
        let answer = self.wait(CALL_TIMEOUT, "PullImage", images.pull_image(request))?;
        Ok(answer.image_ref)
    }

    /// Every call that was answered so far.
    pub(super) fn records(&self) -> Vec<CallRecord> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn wait<T>(
        &self,
        limit: Duration,
        name: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        let begin = Instant::now();
        let answer = self.runtime.block_on(async { timeout(limit, answer).await });
        let answer = answer.with_context(|| format!("{name} was not answered within {limit:?}"))?;
        let record = CallRecord {
            name: name.to_owned(),
            took: begin.elapsed(),
            code: answer.as_ref().map_or_else(Status::code, |_| Code::Ok),
        };
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record);
        Ok(answer.with_context(|| format!("{name} failed"))?.into_inner())
    }
}
