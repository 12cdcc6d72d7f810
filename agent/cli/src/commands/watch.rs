//! Following faults.

use std::collections::BTreeMap;
use std::io::{self, Stdout};
use std::time::{Duration, SystemTime};

use sabot_proto::convert::duration_to_proto;
use sabot_proto::sabot::v1;
use tokio::time::{Interval, interval};
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::error::CliError;
use crate::name::FaultRef;
use crate::output::Output;
use crate::render;
use crate::screen::{FALLBACK_SIZE, Screen};
use crate::view::{ChangeDoc, FaultDoc, WatchDoc};

const WHAT: &str = "watching faults";
/// Between drawings, beside those for changes: the remaining time moves.
pub(crate) const REDRAW: Duration = Duration::from_millis(500);

/// Whom to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These, until all of them have ended.
    Faults(Vec<FaultRef>),
    /// All that there are, or those of one namespace, until Ctrl-C.
    All { namespace: Option<String> },
}

pub(super) async fn run(
    client: &Client,
    output: Output,
    name: Option<&str>,
    namespace: Option<String>,
    every: Duration,
) -> Result<(), CliError> {
    follow(client, output, &scope(name, namespace)?, every).await
}

pub(crate) fn scope(name: Option<&str>, namespace: Option<String>) -> Result<Scope, CliError> {
    Ok(match name {
        Some(name) => Scope::Faults(vec![FaultRef::parse(name, namespace.as_deref())?]),
        None => Scope::All { namespace },
    })
}

pub(crate) async fn open(
    client: &Client,
    scope: &Scope,
    every: Duration,
) -> Result<Streaming<v1::WatchFaultsResponse>, CliError> {
    client
        .answer(WHAT, client.faults().watch_faults(scope.request(every)))
        .await
}

pub(super) async fn follow(
    client: &Client,
    output: Output,
    scope: &Scope,
    every: Duration,
) -> Result<(), CliError> {
    let mut stream = open(client, scope, every).await?;
    let mut state = State::new(scope);
    let mut display = Display::new(output)?;
    loop {
        let message = tokio::select! {
            message = stream.message() => message.map_err(|s| CliError::status(WHAT, s))?,
            () = display.tick() => {
                display.draw(&state)?;
                continue;
            }
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        let Some(message) = message else {
            return Err(CliError::status(WHAT, Status::unavailable("sabotd stopped")));
        };
        let item = WatchDoc::try_from(message)?;
        if !scope.wants(&item) {
            continue;
        }
        state.take(&item)?;
        display.show(&item, &state)?;
        if state.is_over() {
            return Ok(());
        }
    }
}

impl Scope {
    fn request(&self, every: Duration) -> v1::WatchFaultsRequest {
        let (namespace, name) = match self {
            Self::Faults(faults) => match faults.as_slice() {
                [only] => (Some(only.namespace.clone()), Some(only.name.clone())),
                _ => (None, None),
            },
            Self::All { namespace } => (namespace.clone(), None),
        };
        v1::WatchFaultsRequest {
            namespace,
            name,
            include_counters: true,
            counters_interval: Some(duration_to_proto(every)),
        }
    }

    pub(crate) fn wants(&self, item: &WatchDoc) -> bool {
        match (self, &item.fault) {
            (Self::Faults(faults), Some(fault)) => faults.contains(&reference(fault)),
            _ => true,
        }
    }
}

pub(crate) fn reference(fault: &FaultDoc) -> FaultRef {
    FaultRef {
        namespace: fault.metadata.namespace.clone(),
        name: fault.metadata.name.clone(),
    }
}

/// What is known of the faults that are followed.
pub(crate) struct State<'a> {
    scope: &'a Scope,
    faults: BTreeMap<(String, String), FaultDoc>,
    synced: bool,
}

impl<'a> State<'a> {
    pub(crate) fn new(scope: &'a Scope) -> Self {
        Self {
            scope,
            faults: BTreeMap::new(),
            synced: false,
        }
    }

    pub(crate) fn take(&mut self, item: &WatchDoc) -> Result<(), CliError> {
        if item.change == ChangeDoc::Synced {
            self.synced = true;
            return self.check_presence();
        }
        let Some(fault) = &item.fault else {
            return Ok(());
        };
        let FaultRef { namespace, name } = reference(fault);
        let key = (namespace, name);
        // Whoever follows certain faults wants to see how they ended.
        if item.change == ChangeDoc::Deleted && matches!(self.scope, Scope::All { .. }) {
            self.faults.remove(&key);
        } else {
            self.faults.insert(key, fault.clone());
        }
        Ok(())
    }

    pub(crate) fn faults(&self) -> impl Iterator<Item = &FaultDoc> {
        self.faults.values()
    }

    pub(crate) fn get(&self, fault: &FaultRef) -> Option<&FaultDoc> {
        self.faults.get(&(fault.namespace.clone(), fault.name.clone()))
    }

    fn check_presence(&self) -> Result<(), CliError> {
        let Scope::Faults(wanted) = self.scope else {
            return Ok(());
        };
        match wanted.iter().find(|f| self.get(f).is_none()) {
            None => Ok(()),
            Some(missing) => Err(CliError::Failed(format!("no fault named {missing}"))),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        let Scope::Faults(wanted) = self.scope else {
            return false;
        };
        self.synced
            && wanted
                .iter()
                .all(|f| self.get(f).is_none_or(|f| f.status.phase.is_ended()))
    }
}

/// A table that is redrawn in place on a terminal, a line for each change elsewhere.
enum Display {
    Live { screen: Screen<Stdout>, ticks: Interval },
    Lines(Output),
}

impl Display {
    fn new(output: Output) -> Result<Self, CliError> {
        if !output.is_live() {
            return Ok(Self::Lines(output));
        }
        Ok(Self::Live {
            screen: Screen::new(io::stdout())?,
            ticks: interval(REDRAW),
        })
    }

    async fn tick(&mut self) {
        match self {
            Self::Live { ticks, .. } => {
                ticks.tick().await;
            }
            Self::Lines(_) => std::future::pending().await,
        }
    }

    fn show(&mut self, item: &WatchDoc, state: &State<'_>) -> Result<(), CliError> {
        match self {
            Self::Live { .. } => self.draw(state),
            Self::Lines(output) => output.item(item, |i| render::watch_line(i, SystemTime::now())),
        }
    }

    fn draw(&mut self, state: &State<'_>) -> Result<(), CliError> {
        if let Self::Live { screen, .. } = self {
            let table = render::fault_table(state.faults.values(), SystemTime::now());
            screen.draw(&table, crossterm::terminal::size().unwrap_or(FALLBACK_SIZE))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixtures;
    use crate::view::Phase;

    fn named(name: &str, phase: Phase) -> FaultDoc {
        let mut fault = fixtures::fault();
        fault.metadata.name = name.into();
        fault.status.phase = phase;
        fault
    }

    fn item(change: ChangeDoc, fault: Option<FaultDoc>) -> WatchDoc {
        WatchDoc { change, fault }
    }

    fn scope(names: &[&str]) -> Scope {
        let faults = names.iter().map(|n| FaultRef {
            namespace: "team-a".into(),
            name: (*n).into(),
        });
        Scope::Faults(faults.collect())
    }

    #[test]
    fn a_watch_of_faults_ends_with_the_last_of_them() {
        let scope = scope(&["one", "two"]);
        let mut state = State::new(&scope);
        let mut take = |change, fault| {
            state.take(&item(change, fault)).expect("all are there");
            state.is_over()
        };
        assert!(!take(ChangeDoc::Added, Some(named("one", Phase::Expired))));
        assert!(!take(ChangeDoc::Added, Some(named("two", Phase::Injected))));
        assert!(!take(ChangeDoc::Synced, None));
        assert!(!take(ChangeDoc::Counters, Some(named("two", Phase::Injected))));
        assert!(take(ChangeDoc::Deleted, Some(named("two", Phase::Deleted))));
        assert_eq!(state.faults.len(), 2, "their ends stay visible");
    }

    #[test]
    fn a_fault_that_does_not_exist_is_an_error() {
        let scope = scope(&["gone"]);
        let mut state = State::new(&scope);
        let error = state
            .take(&item(ChangeDoc::Synced, None))
            .expect_err("it isn't there");
        assert_eq!(error.to_string(), "no fault named team-a/gone");
    }

    #[test]
    fn a_watch_of_all_forgets_what_is_deleted_and_goes_on() {
        let scope = Scope::All { namespace: None };
        let mut state = State::new(&scope);
        for change in [
            item(ChangeDoc::Synced, None),
            item(ChangeDoc::Added, Some(named("one", Phase::Injected))),
            item(ChangeDoc::Deleted, Some(named("one", Phase::Deleted))),
        ] {
            state.take(&change).expect("no fault is required");
            assert!(!state.is_over());
        }
        assert!(state.faults.is_empty());
    }

    #[test]
    fn only_the_faults_that_are_followed_are_shown() {
        let one = scope(&["one"]);
        assert_eq!(one.request(REDRAW).name.as_deref(), Some("one"));
        let two = scope(&["one", "two"]);
        assert_eq!(two.request(REDRAW).name, None);
        let of = |name| item(ChangeDoc::Added, Some(named(name, Phase::Injected)));
        assert!(two.wants(&of("one")) && !two.wants(&of("three")));
        assert!(two.wants(&item(ChangeDoc::Synced, None)));
    }
}
