//! What each step was asked and what was measured.

use anyhow::Result;
use serde::Serialize;

use super::scene::Scene;
use crate::ui::Step;

/// One step's work.
pub(super) type Act<'a> = fn(&mut Scene<'a>, &Step) -> Result<Outcome>;

/// What a step finds.
pub(super) struct Outcome {
    pub(super) asked: String,
    pub(super) measured: String,
    pub(super) ok: bool,
}

/// The document that `--json` prints.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    steps: Vec<Line>,
    ok: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    asked: String,
    measured: String,
    ok: bool,
}

impl Report {
    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }

    /// The demo ended before its last step.
    pub(super) fn cut_short(&mut self) {
        self.ok = false;
    }

    /// Shows a step while it runs and notes what became of it. Faults that it leaves are deleted.
    pub(super) fn run<'a>(&mut self, name: &'static str, act: Act<'a>, scene: &mut Scene<'a>) {
        let step = Step::start(name);
        let outcome = act(scene, &step).unwrap_or_else(|error| Outcome {
            asked: "the step can be carried out".to_owned(),
            measured: format!("{error:#}"),
            ok: false,
        });
        scene.clear();
        let detail = format!(
            "asked: {}\n{:>40}measured: {}",
            outcome.asked, "", outcome.measured
        );
        if outcome.ok {
            step.done_untimed(&detail);
        } else {
            step.failed(&detail);
        }
        let first = self.steps.is_empty();
        self.ok = outcome.ok && (first || self.ok);
        self.steps.push(Line {
            name,
            asked: outcome.asked,
            measured: outcome.measured,
            ok: outcome.ok,
        });
    }
}
