//! Telemetry: log lines and the thread that writes them.
//!
//! 1. All lines go to stderr, as JSON unless that is a terminal.
//! 2. A request never waits for a log line: lines go to a bounded buffer in memory, which one thread writes out.
//!    Lines that do not fit are dropped and counted.
//! 3. Lines name a request only by terms of the configuration and the catalogue, never by its query, fields or body,
//!    apart from its request id and its trace id.
//!    Its path appears only if the catalogue lacks the operation: escaped, truncated and without long segments.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::metrics::process::ProcessMeters;

pub mod access;
pub mod sink;
mod trace_id;
mod written_time;

pub use sink::Sink;
pub use trace_id::TraceId;

/// Starts logging for the process. The returned [`Sink`] also accepts access lines, and buffers all lines until a
/// thread writes them ([`Sink::write_to`]).
///
/// # Errors
/// When `level` is not a level or a list of directives, or when logging is already started.
pub fn start(format: LogFormat, level: &str, meters: Arc<ProcessMeters>) -> anyhow::Result<Sink> {
    let sink = Sink::new(meters);
    let filter = EnvFilter::try_new(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink.clone());
    let started = match resolve(format) {
        Form::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        Form::Human => builder.with_ansi(false).with_target(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    Ok(sink)
}

/// The form of log lines, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Human,
}

/// Resolves `format` for this process's stderr.
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
    type Writer = sink::AppendedLine;

    fn make_writer(&'a self) -> sink::AppendedLine {
        sink::AppendedLine::new(self.clone())
    }
}
