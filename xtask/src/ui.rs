//! What people see on standard error: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A heading over the steps that follow, with the minutes and seconds since the first one.
pub(crate) fn heading(text: &str) {
    let seconds = STARTED.elapsed().as_secs();
    eprintln!("[{:02}:{:02}] {text}", seconds / 60, seconds % 60);
}

/// One step that is over as soon as it is known.
pub(crate) fn found(title: &str, detail: &str) {
    eprintln!("{}", line("ok", title, detail));
}

/// One thing that is missing or wrong.
pub(crate) fn missing(title: &str, detail: &str) {
    eprintln!("{}", line("--", title, detail));
}

/// One step that takes a while.
pub(crate) struct Step {
    title: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    pub(crate) fn start(title: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{}", line("..", title, ""));
        }
        Self {
            title: title.to_owned(),
            started: Instant::now(),
            bar,
        }
    }

    /// What the step is doing now; shown on terminals alone.
    pub(crate) fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    pub(crate) fn done(self, detail: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.end("ok", &format!("{detail} ({seconds:.1} s)"));
    }

    /// For steps whose length says nothing.
    pub(crate) fn done_untimed(self, detail: &str) {
        self.end("ok", detail);
    }

    pub(crate) fn failed(self, detail: &str) {
        self.end("!!", detail);
    }

    fn end(self, mark: &str, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}", line(mark, &self.title, detail));
    }
}

fn line(mark: &str, title: &str, detail: &str) -> String {
    format!("  {mark} {title:<34} {detail}").trim_end().to_owned()
}
