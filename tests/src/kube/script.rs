//! What the server does other than answer well, and what it was asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::resources::{Place, Verb};

/// What becomes of a request instead of its answer, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is answered with this status, and with a `Retry-After` of seconds if there is one.
    Refuse { code: u16, retry_after: Option<u32> },
    /// It is answered after this long.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// The connection breaks after the answer's head.
    BreakOff,
}

/// Which requests an effect is for: all of them, unless limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    effect: Effect,
    verb: Option<Verb>,
    resource: Option<String>,
    /// Requests that it is for from now on; `None`: until the script is cleared.
    times: Option<usize>,
}

impl Rule {
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            verb: None,
            resource: None,
            times: None,
        }
    }

    /// Only requests with this verb.
    #[must_use]
    pub fn verb(self, verb: Verb) -> Self {
        Self {
            verb: Some(verb),
            ..self
        }
    }

    /// Only requests for this resource, by its plural.
    #[must_use]
    pub fn resource(self, plural: &str) -> Self {
        Self {
            resource: Some(plural.to_owned()),
            ..self
        }
    }

    /// Only the next so many.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    fn is_for(&self, place: &Place, verb: Verb) -> bool {
        self.times != Some(0)
            && self.verb.is_none_or(|wanted| wanted == verb)
            && self
                .resource
                .as_ref()
                .is_none_or(|wanted| wanted == place.resource.plural)
    }
}

/// A request for a resource, and how it was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub at: Instant,
    pub verb: Verb,
    /// The plural.
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
    pub query: BTreeMap<String, String>,
    /// `Null` where there was none.
    pub body: Value,
    /// 0: not answered yet.
    pub code: u16,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
    records: Vec<Recorded>,
}

impl Script {
    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The effects of all rules that are for a request, in their order.
    pub(super) fn effects(&mut self, place: &Place, verb: Verb) -> Vec<Effect> {
        let mut effects = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.is_for(place, verb)) {
            rule.times = rule.times.map(|times| times - 1);
            effects.push(rule.effect);
        }
        effects
    }

    /// Returns where its answer is to be noted.
    pub(super) fn record(&mut self, record: Recorded) -> usize {
        self.records.push(record);
        self.records.len() - 1
    }

    pub(super) fn answered(&mut self, index: usize, code: u16) {
        if let Some(record) = self.records.get_mut(index) {
            record.code = code;
        }
    }

    pub(super) fn records(&self) -> Vec<Recorded> {
        self.records.clone()
    }
}
