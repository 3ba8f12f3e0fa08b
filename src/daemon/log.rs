//! How the server's log is written: lines of text for people, or an object a line for programs.

use std::fmt;
use std::io;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::config::LogFormat;

/// What such fields say stands in the message as well: they are for programs.
const FOR_PROGRAMS: &str = "http.";

/// Writes what is logged from now on to stderr.
pub fn start(format: LogFormat) {
    // A log that can't be written, as on a full disk, is lost; telling that on stderr, the log itself, would panic.
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Text => log.fmt_fields(Text).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
}

/// The message, then the other fields with their names.
struct Text;

impl<'writer> FormatFields<'writer> for Text {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_begun: false, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_begun: bool,
    result: fmt::Result,
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() || field.name().starts_with(FOR_PROGRAMS) {
            return;
        }
        let blank = if std::mem::replace(&mut self.is_begun, true) { " " } else { "" };
        self.result = match field.name() {
            "message" => write!(self.writer, "{blank}{value:?}"),
            name => write!(self.writer, "{blank}{}={value:?}", name.trim_start_matches("r#")),
        };
    }
}
