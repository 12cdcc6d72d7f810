//! The daemon's own log, to stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log-level: `{filter}` is not a filter: {source}")]
    Filter {
        filter: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("a logger is already in place: {0}")]
    Taken(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends every event that the filter lets through to stderr, for people or as one JSON object a line.
///
/// # Errors
/// A malformed filter, or a logger that is already in place.
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| LoggingError::Filter {
        filter: config.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Files and journals are read with other programs than terminals.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::Taken)
}
