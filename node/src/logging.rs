//! Logs go to stderr, data to stdout. Neither panics when nobody reads any more.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

use crate::config::Log;
use crate::exit::ExitError;

/// The level of `tracing` for a level of ev-node.
#[must_use]
pub fn evnode_level(level: &str) -> Option<&'static str> {
    Some(match level.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" | "" => "info",
        "warn" | "warning" => "warn",
        "error" | "fatal" | "panic" => "error",
        "disabled" | "none" | "off" => "off",
        _ => return None,
    })
}

/// The directives of a configuration, in the order in which they count.
///
/// Libraries that log every message start at `warn`, below what the configuration says of them.
#[must_use]
pub fn directives(log: &Log) -> String {
    let level = evnode_level(&log.level).unwrap_or(&log.level);
    let quiet = match level {
        "info" => ",openraft=warn,hyper=warn,h2=warn,tower=warn",
        "debug" => ",openraft=info,hyper=info,h2=info,tower=info",
        _ => "",
    };
    let filter = if log.filter.is_empty() { String::new() } else { format!(",{}", log.filter) };
    format!("{level}{quiet}{filter}")
}

/// Starts logging to stderr. Only the first call of a process has an effect.
///
/// # Errors
///
/// A configuration error when the directives cannot be read.
pub fn start(log: &Log) -> Result<(), ExitError> {
    let filter = EnvFilter::builder().parse(directives(log));
    let filter = filter.map_err(|error| {
        ExitError::config(format!("log.level and log.filter cannot be read together: {error}"))
    })?;
    let subscriber =
        Subscriber::builder().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    // A second subscriber of one process is refused: the first stays.
    let _ = if log.json {
        tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
    } else {
        use std::io::IsTerminal;
        tracing::subscriber::set_global_default(subscriber.with_ansi(io::stderr().is_terminal()).finish())
    };
    Ok(())
}

/// Writes data to stdout. A reader who has gone is no failure: nobody misses the rest.
///
/// # Errors
///
/// When stdout cannot be written for another reason, like a full disk.
pub fn print(text: &str) -> Result<(), ExitError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ExitError::other(format!("stdout cannot be written: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line for a person to stderr. When nobody reads, nothing happens.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_ev_node_become_levels_of_ours() {
        for (theirs, ours) in [("fatal", "error"), ("panic", "error"), ("disabled", "off"), ("WARN", "warn")]
        {
            assert_eq!(evnode_level(theirs), Some(ours));
        }
        assert_eq!(evnode_level("info,openraft=debug"), None);
    }

    #[test]
    fn what_the_operator_says_comes_last_and_wins() {
        let log = Log { filter: "openraft=trace".to_owned(), ..Log::default() };
        let directives = directives(&log);
        assert!(directives.starts_with("info,") && directives.ends_with(",openraft=trace"));
        assert!(EnvFilter::builder().parse(directives).is_ok());
    }
}
