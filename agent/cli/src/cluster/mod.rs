//! Sabot in a cluster: every node's daemon is asked, each through its pod, and the answers are told as one.

mod answers;
mod commands;
mod daemons;
mod exec;
mod faults;
mod live;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;

use self::answers::Answers;
pub(crate) use self::commands::run;
use self::daemons::Daemon;
pub(crate) use self::exec::{Ending, ExecStream};

/// Daemons that are asked, or connected to, at the same time: each is a connection to the API server.
const AT_ONCE: usize = 16;

/// The daemons that a command is about.
pub(crate) struct Fleet {
    pods: Api<Pod>,
    daemons: Vec<Daemon>,
    namespace: String,
    timeout: Duration,
}

impl Fleet {
    /// # Errors
    /// The cluster can't be asked for its daemons, or doesn't have those that are named.
    pub(crate) async fn find(global: &Global) -> Result<Self, CliError> {
        let args = &global.cluster;
        let search = async {
            let pods = daemons::api(args).await?;
            let daemons = daemons::find(&pods, args).await?;
            Ok((pods, daemons))
        };
        let searched = tokio::time::timeout(global.timeout, search).await;
        let (pods, daemons) = searched.unwrap_or_else(|_| {
            Err(CliError::Cluster {
                what: "finding the daemons".to_owned(),
                why: format!(
                    "the API server didn't answer within {}; --timeout gives it longer",
                    humantime::format_duration(global.timeout)
                ),
                refused: false,
            })
        })?;
        Ok(Self {
            pods,
            daemons,
            namespace: args.namespace().to_owned(),
            timeout: global.timeout,
        })
    }

    /// The same without the daemons of these nodes.
    pub(crate) fn without<'a>(mut self, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        let nodes: Vec<_> = nodes.into_iter().collect();
        self.daemons
            .retain(|daemon| !nodes.contains(&daemon.node.as_str()));
        self
    }

    /// The only daemon, where one node is named or there is but one.
    pub(crate) async fn only(&self) -> Result<Client, CliError> {
        match self.daemons.as_slice() {
            [daemon] => self.connect(daemon).await,
            several => Err(CliError::Usage(format!(
                "this command is about one node, and there are {}; name one by --on-node",
                several.len()
            ))),
        }
    }

    /// Asks every daemon, some at a time, on a connection that ends with the answer.
    pub(crate) async fn each<T>(&self, ask: impl AsyncFn(&Client) -> Result<T, CliError>) -> Answers<T> {
        let ask = &ask;
        self.gather(async |daemon| ask(&self.connect(daemon).await?).await)
            .await
    }

    /// Connections to all daemons, which stay open.
    pub(crate) async fn connect_all(&self) -> Answers<Client> {
        self.gather(async |daemon| self.connect(daemon).await).await
    }

    async fn gather<T>(&self, ask: impl AsyncFn(&Daemon) -> Result<T, CliError>) -> Answers<T> {
        let ask = &ask;
        let asked = self
            .daemons
            .iter()
            .map(|daemon| async move { (daemon.node.clone(), ask(daemon).await) });
        let answers = stream::iter(asked).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
        Answers::new(answers.await)
    }

    async fn connect(&self, daemon: &Daemon) -> Result<Client, CliError> {
        let place = format!("the pod {}/{}", self.namespace, daemon.pod);
        if let Some(trouble) = &daemon.trouble {
            return Err(CliError::Pod {
                place,
                why: trouble.clone(),
            });
        }
        let what = format!("running the bridge in {place}");
        let connection = async {
            let (stream, ending) = exec::open(&self.pods, daemon)
                .await
                .map_err(|e| daemons::api_error(what, e))?;
            Client::over(stream, ending, place.clone(), self.timeout).await
        };
        tokio::time::timeout(self.timeout, connection)
            .await
            .unwrap_or_else(|_| {
                let after = humantime::format_duration(self.timeout);
                Err(CliError::Pod {
                    place: place.clone(),
                    why: format!("no connection within {after}; --timeout gives it longer"),
                })
            })
    }
}
