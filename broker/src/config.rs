//! What `serve` is told, and the limits that can be set by name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bowline_core::limits::Limits;
use bowline_core::wire::ProtocolVersion;
use bowline_core::wire::feature::Features;
use clap::Args;
use serde_json::Value;

use crate::log::LogFormat;

/// `bowline-broker serve` and `bowline broker serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address and port of the one listener: WebSocket and HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7900")]
    pub listen: SocketAddr,

    /// Directory of the database. Created where absent; held by one broker at a time.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Set a limit, for example `lease_grace=2s`. Can be repeated.
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit, long_help = LIMITS_HELP)]
    pub limits: Vec<Limit>,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// For tests: the highest version of the protocol that is spoken.
    #[arg(long, hide = true, value_parser = parse_version, default_value = "1")]
    pub protocol_version: ProtocolVersion,

    /// For tests of what clients make of it: these parameters are said in the place of what this
    /// broker can do, NAME=null that there is no such feature. Can be repeated.
    #[arg(long = "offer", hide = true, value_parser = parse_offer)]
    pub offers: Vec<(String, Value)>,
}

impl ServeArgs {
    /// The defaults of production with the given ones in their place.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut limits = Limits::default();
        for limit in &self.limits {
            (limit.set)(&mut limits, limit.value);
        }
        Settings {
            limits,
            version: self.protocol_version,
            offered_instead: Features(self.offers.iter().cloned().collect()),
        }
    }
}

/// How a broker is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub limits: Limits,
    /// The highest that it speaks.
    pub version: ProtocolVersion,
    /// Said in the place of what it can do.
    pub offered_instead: Features,
}

impl From<Limits> for Settings {
    fn from(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }
}

/// For `--protocol-version`.
///
/// # Errors
/// If this program knows no such version.
pub fn parse_version(text: &str) -> Result<ProtocolVersion, String> {
    let version = text.parse().ok().and_then(ProtocolVersion::of);
    version.ok_or_else(|| format!("no version of the protocol is called {text}: 1 or 2"))
}

fn parse_offer(text: &str) -> Result<(String, Value), String> {
    let (name, params) = text
        .split_once('=')
        .ok_or("an offer is NAME=JSON, for example sealing=null")?;
    let params = serde_json::from_str(params).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), params))
}

/// One parsed `--limit`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Milliseconds or a plain number, as `set` takes it.
    value: u64,
    set: fn(&mut Limits, u64),
}

#[derive(Clone, Copy)]
enum Unit {
    /// `500ms`, `2s`, `5m`, `1h`, `7d`.
    Time,
    /// A whole number; saturates at the width of its field.
    Number,
}

macro_rules! limit_table {
    ($($name:ident: $unit:ident),* $(,)?) => {
        const TABLE: &[(&str, Unit, fn(&mut Limits, u64))] = &[$((
            stringify!($name),
            Unit::$unit,
            |limits, value| limits.$name = limit_table!(@$unit value),
        ),)*];
    };
    (@Time $value:ident) => { Duration::from_millis($value) };
    (@Number $value:ident) => { $value.try_into().unwrap_or(!0) };
}

limit_table! {
    lease_grace: Time,
    claim: Time,
    window_messages: Number,
    queued_bytes: Number,
    inline_bytes: Number,
    ring_events: Number,
    ring_bytes: Number,
    sends_per_second: Number,
    sends_burst: Number,
    owed_messages: Number,
    owed_bytes: Number,
    look_ups_per_second: Number,
    look_ups_burst: Number,
    dedupe_cache: Number,
    dedupe_retention_days: Number,
    undelivered_for: Time,
    owed_in_memory: Number,
}

const LIMITS_HELP: &str = "\
Set a limit. Can be repeated. Times are like 500ms, 2s, 5m, 1h or 7d, the others whole numbers.
  lease_grace            how long a peer may be away before it has left (90s)
  claim                  how long a push waits for its acknowledgement (30s)
  window_messages        unacknowledged pushes a connection (256)
  queued_bytes           bytes queued on a connection before pacing (1048576)
  inline_bytes           base64 characters of a ciphertext (65536)
  ring_events            live events kept for a reconnect (500)
  ring_bytes             bytes of them (1048576)
  sends_per_second       sends of one peer (200), with sends_burst (1000)
  owed_messages          messages owed to one recipient (10000), and owed_bytes of them (67108864)
  look_ups_per_second    dedupe look-ups of one peer (500), with look_ups_burst (1000)
  dedupe_cache           dedupe entries kept in memory (262144)
  dedupe_retention_days  days a message id is remembered (30)
  undelivered_for        how long a message waits for its recipient (7d)
  owed_in_memory         owed deliveries of one recipient kept in memory (512)";

fn parse_limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a limit is NAME=VALUE, for example lease_grace=2s")?;
    let (_, unit, set) = TABLE
        .iter()
        .find(|(known, _, _)| *known == name)
        .ok_or_else(|| {
            let names: Vec<_> = TABLE.iter().map(|(name, _, _)| *name).collect();
            format!("no limit is called {name}; known are {}", names.join(", "))
        })?;
    let value = match unit {
        Unit::Time => parse_ms(value)?,
        Unit::Number => value
            .parse()
            .map_err(|_| format!("{name} is a whole number, not {value}"))?,
    };
    Ok(Limit { value, set: *set })
}

fn parse_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("a time is like 500ms, 2s, 5m, 1h or 7d, not {text}");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> Limits {
        let mut limits = Limits::default();
        for text in texts {
            let limit = parse_limit(text).unwrap();
            (limit.set)(&mut limits, limit.value);
        }
        limits
    }

    #[test]
    fn limits_are_set_by_name_in_their_own_units() {
        let set = limits(&["lease_grace=2s", "claim=500ms", "window_messages=3"]);
        assert_eq!(set.lease_grace, Duration::from_secs(2));
        assert_eq!(set.claim, Duration::from_millis(500));
        assert_eq!(set.window_messages, 3);
        assert_eq!(limits(&[]), Limits::default());
    }

    #[test]
    fn a_wrong_limit_says_what_would_be_right() {
        assert!(
            parse_limit("lease_grace")
                .unwrap_err()
                .contains("NAME=VALUE")
        );
        assert!(parse_limit("grace=2s").unwrap_err().contains("lease_grace"));
        assert!(parse_limit("claim=2").unwrap_err().contains("500ms"));
        assert!(
            parse_limit("window_messages=x")
                .unwrap_err()
                .contains("whole number")
        );
        assert!(parse_limit("claim=99999999999999999d").is_err());
    }

    #[test]
    fn every_limit_is_in_the_help() {
        for (name, _, _) in TABLE {
            assert!(LIMITS_HELP.contains(name), "{name} is not documented");
        }
    }
}
