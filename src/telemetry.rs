//! Telemetry: log lines, and who writes them.
//!
//! 1. Everything goes to stderr, as JSON when that is not a terminal.
//! 2. A request never waits for a log line: lines go to a bounded buffer in memory, one thread writes it, and what does
//!    not fit is dropped and counted.
//! 3. Of a request, a line says what the configuration and the catalogue call things; never a query, a field or a body.
//!    The path stands only in lines about operations that the catalogue lacks: escaped, cut and without its long
//!    segments.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::metrics::process::ProcessMeters;

pub mod access;
pub mod sink;

pub use sink::Sink;

/// Starts logging for the process; what it returns takes access lines too, and keeps all until it has a thread that
/// writes them ([`Sink::write_to`]).
///
/// # Errors
/// When `level` is not a level or list of directives, or logging was started before.
pub fn start(format: LogFormat, level: &str, meters: Arc<ProcessMeters>) -> anyhow::Result<Sink> {
    let sink = Sink::new(meters);
    let filter = EnvFilter::try_new(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink.clone());
    let started = match resolve(format) {
        Form::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        Form::Human => builder.with_ansi(false).with_target(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    Ok(sink)
}

/// The form of lines, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// What `format` means on this stderr.
#[must_use]
pub fn resolve(format: LogFormat) -> Form {
    match format {
        LogFormat::Json => Form::Json,
        LogFormat::Human => Form::Human,
        LogFormat::Auto if std::io::stderr().is_terminal() => Form::Human,
        LogFormat::Auto => Form::Json,
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = sink::Line;

    fn make_writer(&'a self) -> sink::Line {
        sink::Line::new(self.clone())
    }
}
