//! Violations, gathered so that all of them are reported at once.

use std::fmt;
use std::time::Duration;

/// A value that is longer than this is cut in the message, so that an answer stays small.
const VALUE_LIMIT: usize = 120;

/// One thing wrong with a fault as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, as `spec.peers[0].cidr`.
    pub field: String,
    /// What was given; empty when nothing was.
    pub value: String,
    /// What would have been accepted.
    pub allowed: String,
}

impl Violation {
    /// The message without the field: what was given and what is allowed.
    pub fn description(&self) -> String {
        if self.value.is_empty() {
            format!("nothing given; allowed: {}", self.allowed)
        } else {
            format!("`{}` given; allowed: {}", self.value, self.allowed)
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description())
    }
}

#[derive(Debug, Default)]
pub(super) struct Report(Vec<Violation>);

impl Report {
    pub(super) fn add(
        &mut self,
        field: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) {
        self.0.push(Violation {
            field: field.into(),
            value: clipped(value.to_string()),
            allowed: allowed.into(),
        });
    }

    /// For a field that is absent, or empty.
    pub(super) fn missing(&mut self, field: impl Into<String>, allowed: impl Into<String>) {
        self.add(field, "", allowed);
    }

    /// Says so unless exactly one of the named fields is given.
    pub(super) fn exactly_one(&mut self, field: &str, given: &[(&str, bool)]) -> bool {
        let names = |wanted: fn(&(&str, bool)) -> bool| {
            given
                .iter()
                .copied()
                .filter(wanted)
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if given.iter().filter(|(_, given)| *given).count() == 1 {
            return true;
        }
        let allowed = format!("exactly one of {}", names(|_| true));
        self.add(field, names(|(_, given)| *given), allowed);
        false
    }

    /// What a word stands for, the first choice where none is given. `None` only when a violation was reported.
    pub(super) fn choice<T: Clone>(
        &mut self,
        field: &str,
        given: Option<&str>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let chosen = match given {
            None => choices.first(),
            Some(word) => choices.iter().find(|(name, _)| *name == word),
        };
        if let (None, Some(word)) = (chosen, given) {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let allowed = match names.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => names.concat(),
            };
            self.add(field, word, allowed);
        }
        chosen.map(|(_, choice)| choice.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.0
    }
}

/// As people write it.
pub(super) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn clipped(mut value: String) -> String {
    if value.len() > VALUE_LIMIT {
        let end = (0..=VALUE_LIMIT)
            .rev()
            .find(|&i| value.is_char_boundary(i))
            .unwrap_or(0);
        value.truncate(end);
        value.push('…');
    }
    value
}
