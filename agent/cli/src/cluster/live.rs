//! What goes on: events, changes and rates of all nodes, as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Stdout};
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::{self, LocalBoxStream, SelectAll};
use sabot_proto::sabot::v1;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use super::Fleet;
use super::answers::{Answers, Outcome};
use crate::args::Format;
use crate::client::Client;
use crate::commands::watch::{REDRAW, Scope, State};
use crate::commands::{events as one_events, top as one_top, watch as one_watch};
use crate::error::CliError;
use crate::output::Output;
use crate::render;
use crate::screen::{FALLBACK_SIZE, Screen};
use crate::view::{EventDoc, OnNode, TopDoc, WatchDoc};

/// A node's, each with its name.
type Messages<T> = LocalBoxStream<'static, (String, Result<T, CliError>)>;

/// Streams of several nodes, merged. A node whose stream ends is reported, and the others go on.
struct Followed<T> {
    nodes: BTreeSet<String>,
    streams: SelectAll<Messages<T>>,
    outcome: Outcome,
}

enum Next<T> {
    /// A node's.
    Message(String, T),
    /// A node is no longer followed.
    Loss,
}

impl<T: 'static> Followed<T> {
    async fn open(
        fleet: &Fleet,
        what: &'static str,
        open: impl AsyncFn(&Client) -> Result<Streaming<T>, CliError>,
    ) -> Self {
        let connected = fleet.connect_all().await;
        let total = connected.total();
        let Answers { answered, failed } = connected;
        let open = &open;
        let opened = answered
            .into_iter()
            .map(|(node, client)| async move { (node, open(&client).await.map(|stream| (client, stream))) });
        let opened = Answers::new(join_all(opened).await);
        let mut followed = Self {
            nodes: BTreeSet::new(),
            streams: SelectAll::new(),
            outcome: Outcome {
                failed: Vec::new(),
                total,
            },
        };
        for (node, error) in failed.into_iter().chain(opened.failed) {
            lose(&mut followed.outcome, node, error);
        }
        for (node, (client, stream)) in opened.answered {
            followed.streams.push(told(what, node.clone(), client, stream));
            followed.nodes.insert(node);
        }
        followed
    }

    /// What comes next; `None` once no node is left.
    async fn next(&mut self) -> Option<Next<T>> {
        match self.streams.next().await? {
            (node, Ok(message)) => Some(Next::Message(node, message)),
            (node, Err(error)) => {
                self.nodes.remove(&node);
                lose(&mut self.outcome, node, error);
                Some(Next::Loss)
            }
        }
    }

    /// The width of a column of their names.
    fn width(&self) -> usize {
        self.nodes.iter().map(String::len).max().unwrap_or_default()
    }
}

/// Told at once: whoever follows wants to know now what is missing.
fn lose(outcome: &mut Outcome, node: String, error: CliError) {
    eprintln!("error: node {node}: {error}");
    outcome.failed.push((node, error));
}

/// A stream that says whose it is, holds its connection, and ends with the reason of its end.
fn told<T: 'static>(what: &'static str, node: String, client: Client, stream: Streaming<T>) -> Messages<T> {
    let messages = stream::unfold(Some((client, stream)), move |open| async move {
        let (client, mut stream) = open?;
        let status = match stream.message().await {
            Ok(Some(message)) => return Some((Ok(message), Some((client, stream)))),
            Ok(None) => Status::unavailable("sabotd stopped"),
            Err(status) => status,
        };
        Some((Err(client.failure(what.to_owned(), status).await), None))
    });
    messages.map(move |message| (node.clone(), message)).boxed_local()
}

/// Lines begin with the node, in a column of its own.
fn line(node: &str, width: usize, text: &str) -> String {
    format!("{node:<width$}  {text}")
}

/// Until Ctrl-C, or until no daemon is left.
pub(super) async fn events(
    fleet: &Fleet,
    output: Output,
    request: v1::WatchEventsRequest,
) -> Result<(), CliError> {
    let open = async |client: &Client| one_events::open(client, request.clone()).await;
    let mut followed = Followed::open(fleet, "watching events", open).await;
    let width = followed.width();
    loop {
        let next = tokio::select! {
            next = followed.next() => next,
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        let (node, message) = match next {
            Some(Next::Message(node, message)) => (node, message),
            Some(Next::Loss) => continue,
            None => return followed.outcome.finish_told(),
        };
        let mut document = EventDoc::try_from(message.event.unwrap_or_default())?;
        // The same name stands beside it already.
        document.node.clear();
        let on = OnNode { node, document };
        output.item(&on, |on| line(&on.node, width, &render::event_line(&on.document)))?;
    }
}

/// Until Ctrl-C; where certain faults are followed, until they have ended on all nodes that know them.
pub(super) async fn watch(
    fleet: &Fleet,
    output: Output,
    scope: &Scope,
    every: Duration,
) -> Result<(), CliError> {
    let open = async |client: &Client| one_watch::open(client, scope, every).await;
    let mut followed = Followed::open(fleet, "watching faults", open).await;
    let width = followed.width();
    let mut states: BTreeMap<_, _> = followed
        .nodes
        .iter()
        .map(|node| (node.clone(), State::new(scope)))
        .collect();
    let mut display = Display::new(output)?;
    loop {
        let next = tokio::select! {
            next = followed.next() => next,
            () = display.tick() => {
                display.draw(&states)?;
                continue;
            }
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        states.retain(|node, _| followed.nodes.contains(node));
        match next {
            Some(Next::Message(node, message)) => {
                let document = WatchDoc::try_from(message)?;
                if !scope.wants(&document) {
                    continue;
                }
                if let Some(state) = states.get_mut(&node) {
                    // That a node doesn't know a fault is an error only where no node does, which is seen at the end.
                    let _absent = state.take(&document);
                }
                display.show(OnNode { node, document }, width, &states)?;
            }
            Some(Next::Loss) => {}
            None => return followed.outcome.finish_told(),
        }
        if states.values().all(State::is_over) {
            return over(&states, scope, followed.outcome);
        }
    }
}

fn over(states: &BTreeMap<String, State<'_>>, scope: &Scope, outcome: Outcome) -> Result<(), CliError> {
    if let Scope::Faults(faults) = scope
        && !states.is_empty()
    {
        let is_known = |fault| states.values().any(|state| state.get(fault).is_some());
        if let Some(missing) = faults.iter().find(|fault| !is_known(fault)) {
            return Err(CliError::Failed(format!("no fault named {missing} on any node")));
        }
    }
    outcome.finish_told()
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

    fn show(
        &mut self,
        item: OnNode<WatchDoc>,
        width: usize,
        states: &BTreeMap<String, State<'_>>,
    ) -> Result<(), CliError> {
        match self {
            Self::Live { .. } => self.draw(states),
            Self::Lines(output) => output.item(&item, |on| {
                let text = render::watch_line(&on.document, SystemTime::now());
                line(&on.node, width, &text)
            }),
        }
    }

    fn draw(&mut self, states: &BTreeMap<String, State<'_>>) -> Result<(), CliError> {
        if let Self::Live { screen, .. } = self {
            let faults = states.iter().flat_map(|(node, state)| {
                state.faults().map(|fault| OnNode {
                    node: node.clone(),
                    document: fault.clone(),
                })
            });
            let faults: Vec<_> = faults.collect();
            let table = render::faults_on_nodes(&faults, SystemTime::now());
            screen.draw(&table, crossterm::terminal::size().unwrap_or(FALLBACK_SIZE))?;
        }
        Ok(())
    }
}

/// A node, its daemon, and what its counters were.
struct Watched {
    node: String,
    client: Client,
    earlier: v1::GetSnapshotResponse,
}

/// Until Ctrl-C, or so many intervals, or until no daemon is left.
pub(super) async fn top(
    fleet: &Fleet,
    output: Output,
    every: Duration,
    count: Option<u64>,
) -> Result<(), CliError> {
    let (mut watched, mut outcome) = first_look(fleet).await;
    let mut screen = match output.is_live() {
        true => Some(Screen::new(io::stdout())?),
        false => None,
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut left = count;
    while left != Some(0) && !watched.is_empty() {
        tokio::select! {
            _ = ticks.tick() => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
        let tops = look(&mut watched, &mut outcome).await;
        show(output, screen.as_mut(), &tops)?;
        left = left.map(|left| left - 1);
    }
    outcome.finish_told()
}

/// Everybody's counters as they are now; who doesn't tell them isn't watched.
async fn first_look(fleet: &Fleet) -> (Vec<Watched>, Outcome) {
    let connected = fleet.connect_all().await;
    let mut outcome = Outcome {
        failed: Vec::new(),
        total: connected.total(),
    };
    let looked = connected.answered.into_iter().map(|(node, client)| async move {
        let earlier = one_top::snapshot(&client).await;
        (node, earlier.map(|earlier| (client, earlier)))
    });
    let looked = Answers::new(join_all(looked).await);
    for (node, error) in connected.failed.into_iter().chain(looked.failed) {
        lose(&mut outcome, node, error);
    }
    let watched = looked
        .answered
        .into_iter()
        .map(|(node, (client, earlier))| Watched {
            node,
            client,
            earlier,
        });
    (watched.collect(), outcome)
}

/// What has happened on each node since the last look.
async fn look(watched: &mut Vec<Watched>, outcome: &mut Outcome) -> Vec<OnNode<TopDoc>> {
    let asked = watched.drain(..).map(|watched| async move {
        let later = one_top::snapshot(&watched.client).await;
        (watched, later)
    });
    let mut tops = Vec::new();
    for (one, later) in join_all(asked).await {
        match later {
            Ok(later) => {
                tops.push(OnNode {
                    node: one.node.clone(),
                    document: TopDoc::between(&one.earlier, &later),
                });
                watched.push(Watched {
                    earlier: later,
                    ..one
                });
            }
            Err(error) => lose(outcome, one.node, error),
        }
    }
    tops
}

fn show(
    output: Output,
    screen: Option<&mut Screen<Stdout>>,
    tops: &[OnNode<TopDoc>],
) -> Result<(), CliError> {
    match (screen, output.format) {
        (Some(screen), _) => {
            let size = crossterm::terminal::size().unwrap_or(FALLBACK_SIZE);
            Ok(screen.draw(&render::top_on_nodes(tops), size)?)
        }
        (None, Format::Table) => output.remark(&format!("{}\n", render::top_on_nodes(tops))),
        (None, Format::Json | Format::Yaml) => {
            for top in tops {
                output.item(top, |_| String::new())?;
            }
            Ok(())
        }
    }
}
