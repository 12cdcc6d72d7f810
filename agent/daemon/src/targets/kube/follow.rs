//! Following one scope: list, then watch from there on, for ever.

use std::marker::PhantomData;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::reason;
use super::gate::{Backoff, Gate, Unreachable};
use super::lacks::{Lack, Lacks, UNKNOWN_VERSION};
use super::objects::{
    Entry, Kind, NodeObject, Page, PodObject, ServiceCidrObject, ServiceObject, SliceObject,
};
use super::scopes::{Resource, Scope};
use super::table::News;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long a watch is asked to last, in seconds; the ends of many are to be spread.
const WATCH_SECONDS: Range<u32> = 240..290;
/// After its time an end that isn't told of is taken for granted.
const GRACE: Duration = Duration::from_secs(10);
/// A watch that lasted as long, or told of something, has worked.
const LASTING: Duration = Duration::from_secs(5);
/// What nobody waits for is asked for that much less often where the server doesn't have it: each five to ten minutes.
const SELDOM: u32 = 40;

/// What all followers share.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) gate: Arc<Gate>,
    pub(super) backoff: Backoff,
    pub(super) watches: OpenWatches,
    pub(super) lacks: Lacks,
}

/// How many watches are open.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenWatches(Arc<AtomicUsize>);

impl OpenWatches {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn open(&self) -> OpenWatch {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenWatch(self.0.clone())
    }
}

struct OpenWatch(Arc<AtomicUsize>);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Api {
    async fn pass(&self) {
        let ask = || async {
            match self.client.apiserver_version().await {
                Ok(version) => Ok(version.git_version),
                // Who may not ask for the version may ask for other things.
                Err(Error::Api(status)) if status.code == 403 => Ok(UNKNOWN_VERSION.to_owned()),
                Err(error) => Err(Unreachable(reason(&error))),
            }
        };
        self.gate.pass(ask).await;
    }
}

/// Why a list or a watch is over.
#[derive(Debug)]
enum Ended {
    /// The server doesn't know the version any more: everything is to be read again.
    Gone,
    /// Nobody listens any more.
    Unwanted,
    /// Others would fail too.
    Unreachable(String),
    /// This scope alone has failed.
    Failed(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        let reason = reason(&error);
        match error {
            Error::Api(status) => match status.code {
                410 => Self::Gone,
                401 | 429 | 500.. => Self::Unreachable(reason),
                _ => Self::Failed(reason),
            },
            Error::SerdeError(_) | Error::BuildRequest(_) => Self::Failed(reason),
            _ => Self::Unreachable(reason),
        }
    }
}

/// Tells what happens in a scope until nobody listens.
pub(super) async fn follow(api: Api, scope: Scope, id: u64, news: mpsc::Sender<(u64, News)>) {
    let teller = Teller { id, news };
    match scope.resource {
        Resource::Pods => Follower::<PodObject>::new(api, scope, teller).run().await,
        Resource::Services => Follower::<ServiceObject>::new(api, scope, teller).run().await,
        Resource::EndpointSlices => Follower::<SliceObject>::new(api, scope, teller).run().await,
        Resource::Nodes => Follower::<NodeObject>::new(api, scope, teller).run().await,
        Resource::ServiceCidrs => {
            Follower::<ServiceCidrObject>::new(api, scope, teller).run().await;
        }
    }
}

struct Teller {
    id: u64,
    news: mpsc::Sender<(u64, News)>,
}

impl Teller {
    async fn tell(&self, news: News) -> Result<(), Ended> {
        let told = self.news.send((self.id, news)).await;
        told.map_err(|_| Ended::Unwanted)
    }
}

struct Follower<K> {
    api: Api,
    scope: Scope,
    request: Request,
    teller: Teller,
    lack: Lack,
    /// Of the last list or event; `None`: everything is to be read.
    version: Option<String>,
    /// It was read once: the next time, what the server has in its cache may be older.
    was_read: bool,
    /// In a row.
    failures: u32,
    kind: PhantomData<K>,
}

impl<K: Kind> Follower<K> {
    fn new(api: Api, scope: Scope, teller: Teller) -> Self {
        Self {
            request: Request::new(scope.path()),
            lack: api.lacks.of(scope.to_string()),
            api,
            scope,
            teller,
            version: None,
            was_read: false,
            failures: 0,
            kind: PhantomData,
        }
    }

    async fn run(mut self) {
        loop {
            self.api.pass().await;
            let step = match self.version.clone() {
                None => self.list().await,
                Some(version) => self.watch(&version).await,
            };
            let Err(ended) = step else { continue };
            match ended {
                Ended::Unwanted => return,
                Ended::Gone => {
                    self.version = None;
                    self.failures += 1;
                }
                Ended::Unreachable(reason) => {
                    tracing::debug!(part = %self.scope, reason, "following a part of the cluster has stopped");
                    self.api.gate.close(reason);
                    continue;
                }
                Ended::Failed(reason) => {
                    self.failures += 1;
                    let is_new = self.lack.is(reason.clone());
                    let is_needed = self.scope.resource.is_needed();
                    if is_new && is_needed {
                        tracing::warn!(part = %self.scope, reason, "a part of the cluster can't be followed");
                    }
                    // It may have been what lies at that version.
                    self.version = None;
                    if self.teller.tell(News::Refused).await.is_err() {
                        return;
                    }
                    if !is_needed {
                        let longest = self.api.backoff.longest * SELDOM;
                        sleep(longest.mul_f64(rand::random_range(0.5..1.0))).await;
                        continue;
                    }
                }
            }
            sleep(self.api.backoff.after(self.failures)).await;
        }
    }

    async fn list(&mut self) -> Result<(), Ended> {
        let mut params = ListParams {
            label_selector: some(&self.scope.labels),
            field_selector: some(&self.scope.fields),
            ..ListParams::default()
        };
        if self.was_read {
            params.limit = Some(PAGE);
        } else {
            // From the server's cache, which spares its storage when a whole cluster's daemons start. It knows no pages.
            params.resource_version = Some("0".to_owned());
            params.version_match = Some(VersionMatch::NotOlderThan);
        }
        let mut entries = Vec::new();
        loop {
            let request = self.request.list(&params).map_err(Error::BuildRequest)?;
            let page = self.api.client.request::<Page<K>>(request).await?;
            entries.extend(page.items.into_iter().flatten().map(Entry::of));
            self.version = page
                .metadata
                .resource_version
                .filter(|version| !version.is_empty());
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break;
            }
            (params.resource_version, params.version_match) = (None, None);
        }
        if self.version.is_none() {
            return Err(Ended::Failed("the list has no version".to_owned()));
        }
        self.was_read = true;
        self.api.gate.succeeded();
        self.teller.tell(News::Listed(entries)).await
    }

    /// Watches until the watch ends, which it does in time.
    async fn watch(&mut self, from: &str) -> Result<(), Ended> {
        let seconds = rand::random_range(WATCH_SECONDS);
        let params = WatchParams {
            label_selector: some(&self.scope.labels),
            field_selector: some(&self.scope.fields),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = self.request.watch(&params, from).map_err(Error::BuildRequest)?;
        let events = self.api.client.request_events::<K>(request).await?;
        self.api.gate.succeeded();
        if self.lack.is_not() {
            tracing::info!(part = %self.scope, "a part of the cluster can be followed again");
        }
        let open = self.api.watches.open();
        let mut events = pin!(events);
        let started = Instant::now();
        let end = started + Duration::from_secs(seconds.into()) + GRACE;
        let mut heard = false;
        while let Ok(Some(event)) = timeout_at(end, events.next()).await {
            match event {
                Ok(event) => self.hear(event).await?,
                // A connection that breaks is mended by the next watch, from the same version.
                Err(Error::SerdeError(error)) => return Err(Error::SerdeError(error).into()),
                Err(error) => {
                    tracing::debug!(part = %self.scope, %error, "a watch broke");
                    break;
                }
            }
            heard = true;
            self.failures = 0;
        }
        drop(open);
        if heard || started.elapsed() >= LASTING {
            self.failures = 0;
            // Many end at once when a server does.
            sleep(self.api.backoff.first.mul_f64(rand::random_range(0.0..1.0))).await;
        } else {
            self.failures += 1;
            sleep(self.api.backoff.after(self.failures)).await;
        }
        Ok(())
    }

    async fn hear(&mut self, event: WatchEvent<K>) -> Result<(), Ended> {
        let (entry, version) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = object.meta().version().to_owned();
                (Entry::of(object), version)
            }
            WatchEvent::Deleted(object) => (Entry::gone(&object), object.meta().version().to_owned()),
            WatchEvent::Bookmark(mark) => {
                self.version = Some(mark.metadata.resource_version);
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(Error::Api(status).into()),
        };
        if !version.is_empty() {
            self.version = Some(version);
        }
        self.teller.tell(News::Changed(Box::new(entry))).await
    }
}

fn some(selector: &str) -> Option<String> {
    (!selector.is_empty()).then(|| selector.to_owned())
}
