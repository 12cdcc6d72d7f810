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
use crate::targets::kube::{Lack, Lacks, reason};

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
pub(super) fn start(client: &Client, lacks: &Lacks) -> mpsc::Receiver<Seen> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for kind in Kind::ALL {
        let lack = lacks.of(kind.plural().to_owned());
        tokio::spawn(follow(client.clone(), kind, lack, sender.clone()));
    }
    receiver
}

async fn follow(client: Client, kind: Kind, lack: Lack, seen: mpsc::Sender<Seen>) {
    let api: Api<DynamicObject> = Api::all_with(client, &api_resource(kind));
    let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
    let mut listed = BTreeSet::new();
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
                let error = why(&error);
                if lack.is(error.clone()) {
                    tracing::warn!(%kind, error, "the API server doesn't say which resources there are; trying again");
                }
                continue;
            }
        };
        if lack.is_not() {
            tracing::info!(%kind, "the API server says again which resources there are");
        }
        if let Some(said) = said
            && seen.send(said).await.is_err()
        {
            return;
        }
    }
}

/// The server's own words, where there are any.
fn why(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => reason(error),
        error => error.to_string(),
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
