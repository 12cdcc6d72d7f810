//! The runtime's event stream: to the list of pods a reason to look at once, never a source of truth. Who observes containers
//! is told of each event.

use std::sync::Arc;
use std::time::Duration;

use sabot_proto::runtime::v1::{ContainerEventResponse, GetEventsRequest};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, Streaming};

use super::endpoint::Client;

/// A Go server sends no headers before the first event, so that silence for this long is how an accepted subscription
/// looks. A refusal comes at once.
const REFUSAL_WITHIN: Duration = Duration::from_millis(500);
/// Between subscriptions, where the runtime knows the call but ends the stream.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the runtime says of its own accord.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// From now on events come. What happened between two such beginnings and wasn't told never will be.
    Begun,
    Event(Box<ContainerEventResponse>),
}

/// What follows the events of one connection.
pub(super) struct Follower {
    pub(super) client: Client,
    /// Says whether events arrive now.
    pub(super) offered: watch::Sender<bool>,
    /// Poked on every event.
    pub(super) poke: Arc<Notify>,
    /// Nobody may listen.
    pub(super) listener: Option<mpsc::Sender<Told>>,
}

impl Follower {
    /// Subscribes, again and again. Returns when the runtime doesn't know the call.
    pub(super) async fn run(mut self) {
        loop {
            let ended = self.stream().await;
            // A broken stream is often the first sign of a runtime that went away: the look tells.
            self.offered.send_replace(false);
            self.poke.notify_one();
            match ended {
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::info!("the runtime offers no events; its sandboxes are polled");
                    return;
                }
                Err(status) => tracing::debug!(%status, "the runtime's event stream failed"),
                Ok(()) => tracing::debug!("the runtime's event stream ended"),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn stream(&mut self) -> Result<(), Status> {
        let mut events = self.subscribe().await?.into_inner();
        self.begin().await;
        while let Some(event) = events.message().await? {
            tracing::trace!(container = event.container_id, kind = ?event.container_event_type(), "runtime event");
            self.poke.notify_one();
            self.tell(Told::Event(Box::new(event))).await;
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<Response<Streaming<ContainerEventResponse>>, Status> {
        let mut client = self.client.clone();
        let call = client.get_container_events(GetEventsRequest {});
        tokio::pin!(call);
        if let Ok(answer) = timeout(REFUSAL_WITHIN, &mut call).await {
            return answer;
        }
        self.begin().await;
        call.await
    }

    async fn begin(&self) {
        if !self.offered.send_replace(true) {
            self.tell(Told::Begun).await;
        }
        // What happened before the subscription was in force is not among its events.
        self.poke.notify_one();
    }

    async fn tell(&self, told: Told) {
        if let Some(listener) = &self.listener {
            // Who listens no more misses nothing.
            let _ = listener.send(told).await;
        }
    }
}
