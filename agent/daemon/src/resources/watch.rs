//! The resources as they come from the API server.

use std::collections::BTreeSet;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use sabot_resources::Kind;
use tokio::sync::{mpsc, watch as channel};

use super::object::{Key, Resource, api_resource};
use crate::targets::kube::KubeState;

/// Resources that may queue up before the watch has to wait.
const QUEUE: usize = 256;

/// What the API server says.
#[derive(Debug)]
pub(super) enum Seen {
    Is(Box<Resource>),
    Gone(Key),
    /// These are all that there are of a kind.
    All(Kind, BTreeSet<Key>),
}

/// Watches both kinds; ends when nobody listens any more. While the server can't be reached nothing comes, and the last
/// known resources stay.
pub(super) fn start(client: &Client, state: &channel::Receiver<KubeState>) -> mpsc::Receiver<Seen> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for kind in Kind::ALL {
        let api = Api::all_with(client.clone(), &api_resource(kind));
        tokio::spawn(follow(api, kind, state.clone(), sender.clone()));
    }
    receiver
}

async fn follow(
    api: Api<DynamicObject>,
    kind: Kind,
    mut state: channel::Receiver<KubeState>,
    seen: mpsc::Sender<Seen>,
) {
    let events = || Box::pin(watch(api.clone(), watcher::Config::default()).default_backoff());
    let mut stream = events();
    let mut listed = BTreeSet::new();
    let mut is_down = false;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            // A pause that has grown long is over as soon as the server answers somebody: a fault that was deleted in the
            // meantime is waiting for its end.
            () = answers(&mut state), if is_down => {
                stream = events();
                continue;
            }
        };
        let Some(event) = event else { return };
        let said = match event {
            // It is about to be asked, and may still fail.
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(Key::of(kind, &object));
                said(kind, &object)
            }
            Ok(Event::InitDone) => Seen::All(kind, std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => said(kind, &object),
            Ok(Event::Delete(object)) => Seen::Gone(Key::of(kind, &object)),
            Err(error) => {
                // Once for each time that it goes away, not for each try.
                if !is_down {
                    state.mark_unchanged();
                    tracing::warn!(%kind, %error, "the API server doesn't say which resources there are; trying again");
                }
                is_down = true;
                continue;
            }
        };
        if std::mem::take(&mut is_down) {
            tracing::info!(%kind, "the API server says again which resources there are");
        }
        if seen.send(said).await.is_err() {
            return;
        }
    }
}

/// Waits until the server answers again; for ever where nobody would say so.
async fn answers(state: &mut channel::Receiver<KubeState>) {
    loop {
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if matches!(*state.borrow_and_update(), KubeState::Ready { .. }) {
            return;
        }
    }
}

fn said(kind: Kind, object: &DynamicObject) -> Seen {
    let resource = Resource::read(kind, object);
    if resource.leaving {
        Seen::Gone(resource.key)
    } else {
        Seen::Is(Box::new(resource))
    }
}
