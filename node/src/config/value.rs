//! What a setting may say: kinds of values, how they are written, and the rule each keeps.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use crate::logging::evnode_level;

/// The longest duration a setting takes: a year. Longer ones overflow clocks.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The kind of a value, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A duration as Go writes it: `350ms`, `1.5s`, `1h30m`, `0`.
    Duration,
    /// A whole number from zero.
    Count,
    /// A number of bytes, also with `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`.
    Bytes,
    /// A number with a fraction.
    Fraction,
    /// Text.
    Text,
    /// A YAML list, or text with commas.
    List,
}

impl Kind {
    /// How the documentation names the kind and its unit.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Duration => "duration",
            Self::Count => "number",
            Self::Bytes => "bytes",
            Self::Fraction => "fraction",
            Self::Text => "text",
            Self::List => "list",
        }
    }
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A duration.
    Duration(Duration),
    /// A count, or a number of bytes.
    Number(u64),
    /// A fraction.
    Fraction(f64),
    /// Text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

impl Value {
    /// Reads a value; the error says what is expected.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Bool => parse_bool(text).map(Self::Bool),
            Kind::Duration => parse_duration(text).map(Self::Duration),
            Kind::Count => number(text).map(Self::Number),
            Kind::Bytes => parse_bytes(text).map(Self::Number),
            Kind::Fraction => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Self::Fraction(value)),
                _ => Err("must be a number like 0.8".to_owned()),
            },
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Self::List(items.map(str::to_owned).collect()))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Duration(value) => f.write_str(&show_duration(*value)),
            Self::Number(value) => value.fmt(f),
            Self::Fraction(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
            Self::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// What a value has to keep beyond its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anything of its kind.
    Any,
    /// More than zero.
    Positive,
    /// At least so much.
    AtLeast(u64),
    /// At least so much, and at most so much.
    Between(u64, u64),
    /// From zero to one.
    Share,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Not empty.
    NotEmpty,
    /// `host:port`.
    Listen,
    /// `host:port`, or empty for off.
    ListenOrOff,
    /// An HTTP or WebSocket URL, or empty.
    Url,
    /// A JSON object, or empty.
    Json,
    /// A libp2p multiaddr, or empty.
    MultiaddrOrOff,
    /// A log level of ev-node or directives of `tracing`.
    LogLevel,
    /// Directives of `tracing`, or empty.
    LogFilter,
}

impl Rule {
    /// The rule in words, as errors and documentation give it.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Positive => "must be more than zero".to_owned(),
            Self::AtLeast(least) => format!("must be at least {least}"),
            Self::Between(least, most) => format!("must be at least {least} and at most {most}"),
            Self::Share => "must lie between 0 and 1".to_owned(),
            Self::OneOf(choices) => format!("must be one of: {}", choices.join(", ")),
            Self::NotEmpty => "must not be empty".to_owned(),
            Self::Listen => "must be host:port, like 127.0.0.1:7331".to_owned(),
            Self::ListenOrOff => "must be host:port, like 127.0.0.1:9090, or empty for off".to_owned(),
            Self::Url => "must be a URL that starts with http://, https://, ws:// or wss://".to_owned(),
            Self::Json => "must be a JSON object, or empty".to_owned(),
            Self::MultiaddrOrOff => {
                "must be a multiaddr, like /ip4/0.0.0.0/tcp/7676, or empty for off".to_owned()
            }
            Self::LogLevel => {
                "must be trace, debug, info, warn, error, fatal, panic, disabled, or directives like info,openraft=warn".to_owned()
            }
            Self::LogFilter => "must be directives like info,openraft=warn, or empty".to_owned(),
        }
    }

    /// Whether a value keeps the rule.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Positive, Value::Duration(value)) => !value.is_zero(),
            (Self::Positive, Value::Number(value)) => *value > 0,
            (Self::AtLeast(least), Value::Number(value)) => *value >= least,
            (Self::Between(least, most), Value::Number(value)) => (least..=most).contains(value),
            (Self::Share, Value::Fraction(value)) => (0.0..=1.0).contains(value),
            (_, Value::Text(text)) => self.holds_for_text(text),
            _ => true,
        }
    }

    fn holds_for_text(self, text: &str) -> bool {
        match self {
            Self::OneOf(choices) => choices.contains(&text),
            Self::NotEmpty => !text.is_empty(),
            Self::Listen => is_host_port(text),
            Self::ListenOrOff => text.is_empty() || is_host_port(text),
            Self::Url => text.is_empty() || is_url(text),
            Self::Json => text.is_empty() || serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok(),
            Self::MultiaddrOrOff => text.is_empty() || (text.starts_with('/') && text.len() > 1),
            Self::LogLevel => evnode_level(text).is_some() || is_filter(text),
            Self::LogFilter => text.is_empty() || is_filter(text),
            Self::Any | Self::Positive | Self::AtLeast(_) | Self::Between(..) | Self::Share => true,
        }
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "1" | "t" | "T" => Ok(true),
        "false" | "False" | "FALSE" | "0" | "f" | "F" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "must be a whole number from zero".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "must be a duration like 350ms, 1.5s or 1h30m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let signed: SignedDuration = text.parse().map_err(|_| EXPECTED.to_owned())?;
    let duration = Duration::try_from(signed).map_err(|_| "must not be negative".to_owned())?;
    if duration > LONGEST { Err("must be at most 8760h (a year)".to_owned()) } else { Ok(duration) }
}

/// Writes a duration so that ev-node and this program read it again.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    format!("{signed:#}").replace(' ', "")
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let found = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?.trim_end(), *size)));
    let (digits, size) = found.unwrap_or((text, 1));
    let count = digits.parse::<u64>().ok();
    count
        .and_then(|count| count.checked_mul(size))
        .ok_or_else(|| "must be a number of bytes, like 1048576 or 64MiB".to_owned())
}

/// A host may be empty, as in Go: then it is every address of the machine.
#[must_use]
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.contains(['/', ' ', '[', ']', ':', ',', '@']);
    (bracketed || plain) && port.parse::<u16>().is_ok()
}

/// An address to ask at for one that was bound.
#[must_use]
pub fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://");
    scheme.is_some_and(|(scheme, rest)| {
        matches!(scheme, "http" | "https" | "ws" | "wss") && !rest.is_empty() && !rest.contains([' ', '\n'])
    })
}

fn is_filter(text: &str) -> bool {
    EnvFilter::builder().parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_bound_is_asked_on_this_machine() {
        for (bound, asked) in [
            (":7331", "127.0.0.1:7331"),
            ("0.0.0.0:7331", "127.0.0.1:7331"),
            ("[::]:7331", "[::1]:7331"),
            ("10.0.0.1:7331", "10.0.0.1:7331"),
        ] {
            assert_eq!(reachable(bound), asked);
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let read = |text| parse_duration(text).unwrap();
        assert_eq!(read("350ms"), Duration::from_millis(350));
        assert_eq!(read("1.5s"), Duration::from_millis(1500));
        assert_eq!(read("1h30m"), Duration::from_secs(5400));
        assert_eq!(read("1m0s"), Duration::from_secs(60));
        assert_eq!(read("1h0m0s"), Duration::from_secs(3600));
        assert_eq!(read("100µs"), Duration::from_micros(100));
        assert_eq!(read("0"), Duration::ZERO);
        for bad in ["", "1", "-1s", "s", "1 fortnight", "9000h", "999999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shown_duration_is_read_again() {
        for millis in [0, 1, 70, 1_000, 61_001, 5_400_000, 90_000_000] {
            let duration = Duration::from_millis(millis);
            let shown = show_duration(duration);
            assert_eq!(parse_duration(&shown), Ok(duration), "{shown}");
        }
    }

    #[test]
    fn bytes_take_units_and_do_not_overflow() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("5 MB"), Ok(5_000_000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for bad in ["", "MiB", "-1", "1.5MiB", "99999999999999GiB", "7 bytes"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        for good in ["127.0.0.1:7331", ":26660", "localhost:1", "[::1]:80"] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in ["", "7331", "localhost", "localhost:", "localhost:99999", "http://a:1", "::1:80", "a b:1"]
        {
            assert!(!is_host_port(bad), "{bad}");
        }
    }
}
