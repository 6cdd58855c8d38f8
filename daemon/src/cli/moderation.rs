//! `kick`, `ban`, `unban`, `bans`: for admins of a mesh.

use bowline_broker::exit::{Exit, Failure};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::output::{Output, Table, printable, short_key, text};
use super::{member, query};

#[derive(Args, Debug)]
pub(super) struct KickArgs {
    /// A name, a key, or a member's id. Only a key or id reaches a control plane, and with it the
    /// whole host.
    #[arg(required_unless_present_any = ["stale", "all"], conflicts_with_all = ["stale", "all"])]
    target: Option<String>,
    /// Everybody who said nothing for so long: 300s, 30m, 2h.
    #[arg(long, value_name = "TIME", value_parser = duration_ms, conflicts_with = "all")]
    stale: Option<u64>,
    /// Everybody but this host.
    #[arg(long)]
    all: bool,
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct BanArgs {
    /// A name, a key, or a member's id. The whole member is meant: its host and all its sessions.
    target: String,
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct BansArgs {
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
}

pub(super) async fn kick(args: KickArgs, output: Output) -> Result<(), Failure> {
    let body = json!({
        "target": args.target,
        "stale_ms": args.stale,
        "all": args.all,
        "mesh": args.mesh,
    });
    let answer = member()?.post("/v1/kick", &body).await?.body;
    let kicked = names(&answer["kicked"]);
    let mut human = match (kicked.as_str(), answer["more"].as_u64()) {
        ("", _) => "nobody was there to be kicked".to_owned(),
        (kicked, None | Some(0)) => format!("kicked {kicked}"),
        (kicked, Some(more)) => format!("kicked {kicked} and {more} more"),
    };
    let skipped = names(&answer["skipped_control_plane"]);
    if !skipped.is_empty() {
        human += &format!("\nleft the control planes of {skipped}: name a key to kick one");
    }
    output.say(human, &answer)
}

pub(super) async fn ban(args: BanArgs, output: Output) -> Result<(), Failure> {
    let body = json!({ "target": args.target, "mesh": args.mesh });
    let answer = member()?.post("/v1/bans", &body).await?.body;
    let banned = text(&answer, "banned");
    output.say(
        format!("banned {banned}; take it back with `bowline unban {banned}`"),
        &answer,
    )
}

pub(super) async fn unban(args: BanArgs, output: Output) -> Result<(), Failure> {
    let mut path = String::from("/v1/bans/");
    // A segment of the path, encoded like a value.
    path += query(&[("", Some(args.target))]).trim_start_matches("?=");
    path += &query(&[("mesh", args.mesh)]);
    let answer = member()?.call(Method::DELETE, &path, None, &[]).await?.body;
    let unbanned = text(&answer, "unbanned");
    output.say(
        format!("{unbanned} is no longer banned; `bowline up` there brings it back"),
        &answer,
    )
}

pub(super) async fn bans(args: BansArgs, output: Output) -> Result<(), Failure> {
    let path = format!("/v1/bans{}", query(&[("mesh", args.mesh)]));
    let answer = member()?.get(&path).await?;
    let mut table = Table::new(["NAME", "KEY", "SINCE"]);
    for ban in answer["bans"].as_array().into_iter().flatten() {
        table.row([
            text(ban, "name"),
            short_key(&text(ban, "pubkey")),
            text(ban, "banned_at"),
        ]);
    }
    let human = if table.is_empty() {
        "nobody is banned".into()
    } else {
        table.render()
    };
    output.say(human, &answer)
}

/// Uplinks that had stopped are tried again: what `up` means for a daemon that runs. One of an
/// older version knows nothing of it, and goes on as it is.
pub(super) async fn retry_uplinks(daemon: &crate::client::Daemon) -> Result<Value, Failure> {
    match daemon.post("/v1/uplinks/retry", &json!({})).await {
        Ok(answer) => Ok(answer.body["retried"].clone()),
        Err(failure) if failure.exit == Exit::NotFound => Ok(Value::Null),
        Err(failure) => Err(failure),
    }
}

fn names(list: &Value) -> String {
    let names: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(printable)
        .collect();
    names.join(", ")
}

fn duration_ms(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a time: 300s, 30m, 2h");
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(bad)?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(unit_ms).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_unit() {
        assert_eq!(duration_ms("300s"), Ok(300_000));
        assert_eq!(duration_ms("30m"), Ok(1_800_000));
        assert_eq!(duration_ms("2h"), Ok(7_200_000));
        for bad in [
            "",
            "s",
            "30",
            "-1m",
            "1.5h",
            "1d",
            "é",
            "99999999999999999999s",
        ] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_others_cannot_move_the_cursor() {
        assert_eq!(names(&json!(["bob", "a\u{1b}[2J"])), "bob, a\u{fffd}[2J");
        assert_eq!(names(&Value::Null), "");
    }
}
