//! The observers of drops and of DNS queries; a machine that can't have one does without.

use std::fmt::Display;
use std::sync::Arc;

use crate::kernel::Injector;
use crate::kernel::features::Feature;
use crate::observe::drops::{self, DropObserver, DropsConfig};
use crate::observe::event::EventHub;
use crate::observe::identity::Identities;
use crate::observe::queries::{self, QueriesConfig, QueryObserver};

pub(super) fn start_drops(
    identities: &Identities,
    hub: &EventHub,
    injector: &Arc<Injector>,
) -> (Option<DropObserver>, Feature) {
    let (observer, feature) = tried(
        "drop_reasons",
        drops::start(&DropsConfig::default(), identities, hub.clone()),
        describe_drops,
        "what the kernel drops is not observed",
    );
    let injector = Arc::clone(injector);
    (observer.map(|observer| observer.with_line(injector)), feature)
}

pub(super) fn start_queries(identities: &Identities, hub: &EventHub) -> (Option<QueryObserver>, Feature) {
    tried(
        "dns_queries",
        queries::start(&QueriesConfig::default(), identities, hub.clone()),
        |_| {
            (
                "queries over UDP are seen at their sockets, and over TCP those that a segment holds as a whole; the others are counted as unread".to_owned(),
                String::new(),
            )
        },
        "DNS queries are not observed",
    )
}

fn describe_drops(observer: &DropObserver) -> (String, String) {
    if observer.has_reasons() {
        ("the kernel says why it drops a packet".to_owned(), String::new())
    } else {
        (
            "drops are seen; kernels before 5.17 don't say why".to_owned(),
            "the reason of every drop is `unknown`, and packets that were not dropped may be among them"
                .to_owned(),
        )
    }
}

/// `describe` says what was found and what is missing nevertheless.
fn tried<T, E: Display>(
    name: &'static str,
    result: Result<T, E>,
    describe: impl FnOnce(&T) -> (String, String),
    consequence: &str,
) -> (Option<T>, Feature) {
    match result {
        Ok(observer) => {
            let (detail, consequence) = describe(&observer);
            let feature = Feature {
                name,
                available: consequence.is_empty(),
                detail,
                consequence,
            };
            (Some(observer), feature)
        }
        Err(error) => {
            tracing::warn!(%error, "{consequence}");
            (None, Feature::new(name, Err(error.to_string()), consequence))
        }
    }
}
