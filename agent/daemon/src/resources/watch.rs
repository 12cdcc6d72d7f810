//! The resources as they come from the API server.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use sabot_resources::Kind;
use tokio::sync::mpsc;

use super::object::{Key, Resource, api_resource};

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
pub(super) fn start(client: &Client) -> mpsc::Receiver<Seen> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for kind in Kind::ALL {
        tokio::spawn(follow(client.clone(), kind, sender.clone()));
    }
    receiver
}

async fn follow(client: Client, kind: Kind, seen: mpsc::Sender<Seen>) {
    let api: Api<DynamicObject> = Api::all_with(client, &api_resource(kind));
    let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
    let mut listed = BTreeSet::new();
    let mut is_down = false;
    while let Some(event) = events.next().await {
        let said = match event {
            Ok(Event::Init) => {
                listed.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(Key::of(kind, &object));
                Some(said(kind, &object))
            }
            Ok(Event::InitDone) => Some(Seen::All(kind, std::mem::take(&mut listed))),
            Ok(Event::Apply(object)) => Some(said(kind, &object)),
            Ok(Event::Delete(object)) => Some(Seen::Gone(Key::of(kind, &object))),
            Err(error) => {
                // Once for each time that it goes away, not for each try.
                if !is_down {
                    tracing::warn!(%kind, %error, "the API server doesn't say which resources there are; trying again");
                }
                is_down = true;
                continue;
            }
        };
        if std::mem::take(&mut is_down) {
            tracing::info!(%kind, "the API server says again which resources there are");
        }
        if let Some(said) = said
            && seen.send(said).await.is_err()
        {
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
