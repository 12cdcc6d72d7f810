//! The standard output, in the format that was asked for.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::Format;
use crate::error::CliError;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// A whole document; `table` renders it for people.
    pub(crate) fn document<T: Serialize>(
        self,
        document: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => table(document),
            Format::Json => serde_json::to_string_pretty(document).map_err(io::Error::other)?,
            Format::Yaml => serde_norway::to_string(document).map_err(io::Error::other)?,
        };
        line(text.trim_end())
    }

    /// One of a stream of documents: one line of JSON, one document of YAML, or what `line` makes of it.
    pub(crate) fn item<T: Serialize>(
        self,
        item: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => text(item),
            Format::Json => serde_json::to_string(item).map_err(io::Error::other)?,
            Format::Yaml => format!(
                "---\n{}",
                serde_norway::to_string(item).map_err(io::Error::other)?
            ),
        };
        line(text.trim_end())
    }

    /// Something for people that has no place in a document.
    pub(crate) fn remark(self, text: &str) -> Result<(), CliError> {
        match self.format {
            Format::Table => line(text),
            Format::Json | Format::Yaml => Ok(()),
        }
    }

    /// Tables can be redrawn in place.
    pub(crate) fn is_live(self) -> bool {
        self.format == Format::Table && io::stdout().is_terminal()
    }
}

/// Unlike `println!` it doesn't panic when the reader is gone.
fn line(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}
