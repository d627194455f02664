//! What goes to standard error: lines for people, lines with time and level, or JSON.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::report::Usage;

/// How and how much is logged.
#[derive(Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArguments {
    /// Form of the log on standard error: plain lines, text with time and level, or json, one object a line [default: plain,
    /// or what DDAS_LOG says, such as DDAS_LOG=json,debug].
    #[arg(long, global = true, value_enum, value_name = "FORM")]
    log: Option<LogForm>,

    /// Least level that is logged: error, warn, info, debug or off [default: info, or what DDAS_LOG says].
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Messages alone.
    Plain,
    /// Time, level and message.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

/// The variable that says what the flags do not.
const VARIABLE: &str = "DDAS_LOG";

static FORM: OnceLock<LogForm> = OnceLock::new();
/// The bar that is on the screen: lines go above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

impl LogArguments {
    /// Begins to log. Once in a process.
    pub(crate) fn start(&self) -> Result<(), Usage> {
        let (form, level) = self.resolve(std::env::var(VARIABLE).unwrap_or_default().trim())?;
        let _ = FORM.set(form);
        let level = match level {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let log = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(|| AboveBar);
        // A second logger in a process would be an error; there is one.
        let _ = match form {
            LogForm::Json => tracing::subscriber::set_global_default(
                log.json()
                    .flatten_event(true)
                    .with_target(false)
                    .with_current_span(false)
                    .with_span_list(false)
                    .finish(),
            ),
            _ => tracing::subscriber::set_global_default(
                log.event_format(Lines {
                    time: form == LogForm::Text,
                })
                .finish(),
            ),
        };
        Ok(())
    }

    /// Flags first, then the variable, then what is usual.
    fn resolve(&self, variable: &str) -> Result<(LogForm, LogLevel), Usage> {
        let (mut form, mut level) = (LogForm::Plain, LogLevel::Info);
        let words = variable.split(',').map(str::trim);
        for word in words.filter(|word| !word.is_empty()) {
            match (
                LogForm::from_str(word, true),
                LogLevel::from_str(word, true),
            ) {
                (Ok(found), _) => form = found,
                (_, Ok(found)) => level = found,
                _ => {
                    return Err(Usage(format!(
                        "{VARIABLE}={variable}: expected a form (plain, text, json), a level (off, error, warn, info, debug) \
                         or both, such as json,debug; found {word:?}"
                    )));
                }
            }
        }
        Ok((self.log.unwrap_or(form), self.log_level.unwrap_or(level)))
    }
}

/// The form of the log; plain before it has begun.
pub(crate) fn form() -> LogForm {
    FORM.get().copied().unwrap_or(LogForm::Plain)
}

/// Puts a bar on the screen, or takes it off: what is logged goes above it.
pub(crate) fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Standard error, above the bar if there is one. That it cannot be written is no reason to stop, nor to say so: there is
/// no other place to say it.
struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || {
            let _ = io::stderr().lock().write_all(bytes);
        };
        match &*BAR.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages in lines. They say everything that the fields of an event say; JSON is for programs.
struct Lines {
    time: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.time {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level:<5} ")?;
        } else {
            match level {
                Level::ERROR => writer.write_str("error: ")?,
                Level::WARN => writer.write_str("warning: ")?,
                _ => (),
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(writer, "{}", message.0)
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_variable_and_both_before_what_is_usual() {
        let none = LogArguments {
            log: None,
            log_level: None,
        };
        let is = |found: Result<(LogForm, LogLevel), Usage>, form, level| {
            found.is_ok_and(|found| found == (form, level))
        };
        assert!(is(none.resolve(""), LogForm::Plain, LogLevel::Info));
        assert!(is(
            none.resolve("json, DEBUG"),
            LogForm::Json,
            LogLevel::Debug
        ));
        assert!(is(none.resolve("warn"), LogForm::Plain, LogLevel::Warn));
        let both = LogArguments {
            log: Some(LogForm::Text),
            log_level: Some(LogLevel::Error),
        };
        assert!(is(
            both.resolve("json,debug"),
            LogForm::Text,
            LogLevel::Error
        ));
        let error = none.resolve("loud").err().map(|error| error.to_string());
        assert!(
            error.is_some_and(
                |error| error.contains("DDAS_LOG=loud") && error.contains("json,debug")
            )
        );
    }
}
