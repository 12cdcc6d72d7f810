//! Callers whose answer depends on what the kernel holds.

use std::collections::BTreeSet;
use std::time::Duration;

use sabot_core::model::FaultName;
use sabot_core::plan::Observed;
use tokio::time::Instant;

use super::book::Run;
use super::handle::{EngineError, FaultView, Reply};
use super::store::Store;
use super::view;

/// How long the end of a fault may take to be confirmed; its deadline in the kernel stands whatever happens.
const GONE_WAIT: Duration = Duration::from_secs(10);

/// Somebody who waits for a fault to be in force.
struct Applied {
    name: FaultName,
    run: Run,
    deadline: Instant,
    reply: Reply<FaultView>,
}

/// Somebody who waits for faults to be out of the kernel.
struct Gone {
    /// As they ended.
    views: Vec<FaultView>,
    deadline: Instant,
    reply: GoneReply,
}

pub(super) enum GoneReply {
    One(Reply<FaultView>),
    All(Reply<Vec<FaultView>>),
}

impl GoneReply {
    fn send(self, result: Result<Vec<FaultView>, EngineError>) {
        // A caller that has gone needs no answer.
        match self {
            Self::One(reply) => {
                let one = result.and_then(|views| {
                    let none =
                        || EngineError::Internal("the fault that ended is not known any more".to_owned());
                    views.into_iter().next().ok_or_else(none)
                });
                let _ = reply.send(one);
            }
            Self::All(reply) => {
                let _ = reply.send(result);
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Waiters {
    applied: Vec<Applied>,
    gone: Vec<Gone>,
}

impl Waiters {
    pub(super) fn await_applied(
        &mut self,
        name: FaultName,
        run: Run,
        wait: Duration,
        reply: Reply<FaultView>,
    ) {
        self.applied.push(Applied {
            name,
            run,
            deadline: deadline(wait),
            reply,
        });
    }

    pub(super) fn await_gone(&mut self, views: Vec<FaultView>, reply: GoneReply) {
        self.gone.push(Gone {
            views,
            deadline: deadline(GONE_WAIT),
            reply,
        });
    }

    /// Answers everybody whose condition holds or whose time is over, and drops those who no longer listen.
    pub(super) fn answer(&mut self, store: &Store, observed: &Observed) {
        let now = Instant::now();
        for waiter in self.applied.extract_if(.., |w| {
            w.reply.is_closed() || is_applied(w, store) || w.deadline <= now
        }) {
            // A caller that has gone needs no answer.
            let _ = waiter.reply.send(applied_view(&waiter.name, waiter.run, store));
        }
        let held: BTreeSet<&FaultName> = observed
            .rules
            .values()
            .filter(|rule| !rule.cleared)
            .map(|rule| &rule.fault)
            .collect();
        let stays = |name: &FaultName| held.contains(name) && !store.active.contains_key(name);
        let stuck = |w: &Gone| {
            w.views
                .iter()
                .map(|view| &view.fault.name)
                .find(|name| stays(name))
                .cloned()
        };
        for waiter in self
            .gone
            .extract_if(.., |w| w.deadline <= now || stuck(w).is_none())
        {
            let result = match stuck(&waiter) {
                None => Ok(waiter.views),
                Some(name) => Err(EngineError::Internal(still_there(&name, observed))),
            };
            waiter.reply.send(result);
        }
    }

    /// The next moment at which somebody's patience ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let applied = self.applied.iter().map(|w| w.deadline);
        applied.chain(self.gone.iter().map(|w| w.deadline)).min()
    }
}

/// As far away as the clock reaches, where the sum doesn't fit.
fn deadline(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait)
        .unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}

fn is_applied(waiter: &Applied, store: &Store) -> bool {
    store
        .active
        .get(&waiter.name)
        .filter(|active| active.run == waiter.run)
        .is_none_or(|active| {
            view::is_settled(&active.targets) && (active.slot.is_some() || active.exhausted.is_none())
        })
}

fn applied_view(name: &FaultName, run: Run, store: &Store) -> Result<FaultView, EngineError> {
    let active = store
        .active
        .get(name)
        .filter(|a| a.run == run)
        .map(|a| a.view(None));
    let ended = || {
        store
            .ended
            .get(name)
            .filter(|e| e.run == run)
            .map(|e| e.view.clone())
    };
    active
        .or_else(ended)
        .ok_or_else(|| EngineError::NotFound(name.clone()))
}

fn still_there(name: &FaultName, observed: &Observed) -> String {
    let reason = observed
        .rules
        .values()
        .filter(|rule| rule.fault == *name)
        .find_map(|rule| rule.failure.as_ref())
        .or_else(|| {
            observed
                .targets
                .values()
                .find_map(|target| target.slots_failure.as_ref())
        })
        .map_or("the kernel's tables could not be changed yet", |failure| {
            failure.reason.as_str()
        });
    format!(
        "{name} is deleted, but still in the kernel: {reason}; it is tried again, and the fault ends at its expiry at the latest"
    )
}
