//! What several daemons answered, and what went wrong with the others.

use std::collections::BTreeMap;

use crate::error::{CliError, Exit};
use crate::view::{Merged, NodeError, OnNode};

/// Nodes that a message names.
const NAMED: usize = 5;

/// In the order of the nodes' names.
pub(crate) struct Answers<T> {
    pub(crate) answered: Vec<(String, T)>,
    pub(crate) failed: Vec<(String, CliError)>,
}

impl<T> Answers<T> {
    pub(crate) fn new(answers: impl IntoIterator<Item = (String, Result<T, CliError>)>) -> Self {
        let mut all = Self {
            answered: Vec::new(),
            failed: Vec::new(),
        };
        for (node, answer) in answers {
            match answer {
                Ok(answer) => all.answered.push((node, answer)),
                Err(error) => all.failed.push((node, error)),
            }
        }
        all.answered.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.failed.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    pub(crate) fn total(&self) -> usize {
        self.answered.len() + self.failed.len()
    }

    /// A fault is on some nodes only: that the others don't know it is no failure, as long as anybody does.
    pub(crate) fn forgive_absence(mut self) -> Self {
        if !self.answered.is_empty() {
            self.failed.retain(|(_, error)| !error.is_absence());
        }
        self
    }

    /// The documents of all nodes, under `key`, and the errors beside them.
    pub(crate) fn merged<D>(
        self,
        key: &'static str,
        documents: impl Fn(T) -> Vec<D>,
    ) -> (Merged<D>, Outcome) {
        let total = self.total();
        let mut items = Vec::new();
        for (node, answer) in self.answered {
            let on_node = |document| OnNode {
                node: node.clone(),
                document,
            };
            items.extend(documents(answer).into_iter().map(on_node));
        }
        let outcome = Outcome {
            failed: self.failed,
            total,
        };
        let errors = outcome.errors();
        (Merged { key, items, errors }, outcome)
    }
}

/// Whom something went wrong with, of how many.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) failed: Vec<(String, CliError)>,
    pub(crate) total: usize,
}

impl Outcome {
    fn errors(&self) -> Vec<NodeError> {
        let error = |(node, error): &(String, CliError)| NodeError {
            node: node.clone(),
            message: error.to_string(),
        };
        self.failed.iter().map(error).collect()
    }

    /// Reports what went wrong, once for all nodes that say the same. `effect`: what that means; may be empty.
    ///
    /// # Errors
    /// Anything did. With the code of the failures where nothing but these came about, and all are alike; else 1.
    pub(crate) fn finish(self, effect: &'static str) -> Result<(), CliError> {
        self.tell();
        let exit = self.exit();
        self.end(effect, exit)
    }

    /// The same where each failure has been told as it came.
    pub(crate) fn finish_told(self) -> Result<(), CliError> {
        let exit = self.exit();
        self.end("", exit)
    }

    /// The same where a refusal kept all nodes from doing anything: the code is the refusal's.
    pub(crate) fn refused(self, effect: &'static str) -> Result<(), CliError> {
        self.tell();
        let mut codes = self.failed.iter().map(|(_, error)| error.exit_code());
        let exit = codes.find(|exit| *exit != Exit::NotReachable);
        let exit = exit.unwrap_or_else(|| self.exit());
        self.end(effect, exit)
    }

    fn tell(&self) {
        for line in self.lines() {
            eprintln!("error: {line}");
        }
    }

    fn exit(&self) -> Exit {
        let mut codes = self.failed.iter().map(|(_, error)| error.exit_code());
        match codes.next() {
            Some(first) if self.failed.len() == self.total && codes.all(|code| code == first) => first,
            _ => Exit::Failed,
        }
    }

    fn end(self, effect: &'static str, exit: Exit) -> Result<(), CliError> {
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(CliError::Nodes {
            failed: self.failed.len(),
            total: self.total,
            effect,
            exit,
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut by_message: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (node, error) in &self.failed {
            by_message.entry(error.to_string()).or_default().push(node);
        }
        let mut groups: Vec<(String, Vec<&str>)> = by_message.into_iter().collect();
        groups.sort_by(|(_, a), (_, b)| a.cmp(b));
        let line = |(message, nodes): (String, Vec<&str>)| format!("{}: {message}", named(&nodes));
        groups.into_iter().map(line).collect()
    }
}

/// `node a`, `nodes a, b`, `nodes a, b, c, d, e and 7 more`.
fn named(nodes: &[&str]) -> String {
    let shown = nodes[..nodes.len().min(NAMED)].join(", ");
    match nodes.len() {
        1 => format!("node {shown}"),
        count if count <= NAMED => format!("nodes {shown}"),
        count => format!("nodes {shown} and {} more", count - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn absent() -> CliError {
        CliError::status("getting cut", Status::not_found("no fault named cut"))
    }

    fn unreachable() -> CliError {
        CliError::Pod {
            place: "the pod sabot/x".to_owned(),
            why: "it is Pending".to_owned(),
        }
    }

    fn answers(parts: Vec<(&str, Result<u32, CliError>)>) -> Answers<u32> {
        Answers::new(parts.into_iter().map(|(node, answer)| (node.to_owned(), answer)))
    }

    #[test]
    fn answers_and_errors_stand_in_the_order_of_their_nodes() {
        let all = answers(vec![("c", Ok(3)), ("b", Err(unreachable())), ("a", Ok(1))]);
        let (merged, outcome) = all.merged("numbers", |number| vec![number, number + 10]);
        let json = serde_json::to_value(
            merged
                .items
                .iter()
                .map(|i| (&i.node, i.document))
                .collect::<Vec<_>>(),
        );
        let expected = serde_json::json!([["a", 1], ["a", 11], ["c", 3], ["c", 13]]);
        assert_eq!(json.expect("it is JSON"), expected);
        assert_eq!(merged.errors[0].node, "b");
        assert!(merged.errors[0].message.contains("it is Pending"));
        let error = outcome.finish("").expect_err("one failed");
        assert_eq!(error.to_string(), "1 of 3 nodes failed");
        assert_eq!(error.exit_code(), Exit::Failed, "a part of them");
    }

    #[test]
    fn the_code_is_the_failures_own_where_all_are_alike() {
        for (parts, exit) in [
            (
                vec![("a", Err(unreachable())), ("b", Err(unreachable()))],
                Exit::NotReachable,
            ),
            (
                vec![("a", Err(unreachable())), ("b", Err(absent()))],
                Exit::Failed,
            ),
        ] {
            let (_, outcome) = answers(parts).forgive_absence().merged("x", |x| vec![x]);
            assert_eq!(outcome.finish("").expect_err("all failed").exit_code(), exit);
        }
    }

    #[test]
    fn absence_is_a_failure_where_nobody_knows_the_fault() {
        let some = answers(vec![("a", Ok(1)), ("b", Err(absent()))]).forgive_absence();
        assert!(some.failed.is_empty() && some.answered.len() == 1);
        let none = answers(vec![("a", Err(absent())), ("b", Err(absent()))]).forgive_absence();
        assert_eq!(none.failed.len(), 2);
    }

    #[test]
    fn nodes_that_say_the_same_share_a_line() {
        let nodes = ["a", "b", "c", "d", "e", "f", "g"];
        let mut parts: Vec<_> = nodes.map(|node| (node, Err(unreachable()))).into();
        parts.push(("h", Err(absent())));
        let (_, outcome) = answers(parts).merged("x", |x| vec![x]);
        assert_eq!(
            outcome.lines(),
            [
                "nodes a, b, c, d, e and 2 more: can't reach sabotd in the pod sabot/x: it is Pending",
                "node h: getting cut: no fault named cut",
            ]
        );
    }
}
