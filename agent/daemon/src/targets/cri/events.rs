//! The runtime's event stream: a reason to look at once, never a source of truth.

use std::sync::Arc;
use std::time::Duration;

use sabot_proto::runtime::v1::{ContainerEventResponse, GetEventsRequest};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, Streaming};

use super::endpoint::Client;

/// A Go server sends no headers before the first event, so that silence for this long is how an accepted subscription
/// looks. A refusal comes at once.
const REFUSAL_WITHIN: Duration = Duration::from_millis(500);
/// Between subscriptions, where the runtime knows the call but ends the stream.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Subscribes, again and again, and pokes on every event; `offered` says whether events arrive now. Returns when the
/// runtime doesn't know the call.
pub(super) async fn follow(mut client: Client, offered: watch::Sender<bool>, poke: Arc<Notify>) {
    loop {
        let ended = stream(&mut client, &offered, &poke).await;
        // A broken stream is often the first sign of a runtime that went away: the look tells.
        offered.send_replace(false);
        poke.notify_one();
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

async fn stream(client: &mut Client, offered: &watch::Sender<bool>, poke: &Notify) -> Result<(), Status> {
    let mut events = subscribe(client, offered, poke).await?.into_inner();
    offered.send_replace(true);
    // What happened before the subscription was in force is not among its events.
    poke.notify_one();
    while let Some(event) = events.message().await? {
        tracing::trace!(container = event.container_id, kind = ?event.container_event_type(), "runtime event");
        poke.notify_one();
    }
    Ok(())
}

async fn subscribe(
    client: &mut Client,
    offered: &watch::Sender<bool>,
    poke: &Notify,
) -> Result<Response<Streaming<ContainerEventResponse>>, Status> {
    let call = client.get_container_events(GetEventsRequest {});
    tokio::pin!(call);
    if let Ok(answer) = timeout(REFUSAL_WITHIN, &mut call).await {
        return answer;
    }
    offered.send_replace(true);
    poke.notify_one();
    call.await
}
