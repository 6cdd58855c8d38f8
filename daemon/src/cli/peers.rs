//! `peers`.

use bowline_broker::exit::Failure;
use clap::Args;
use serde_json::Value;

use super::output::{Output, Table, age, short_key, text};
use super::{caller, query};

#[derive(Args, Debug)]
pub(super) struct PeersArgs {
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
    /// Control planes too.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: PeersArgs, output: Output) -> Result<(), Failure> {
    let path = query(&[
        ("mesh", args.mesh),
        ("all", args.all.then(|| "1".to_owned())),
    ]);
    let answer = caller()?.get(&format!("/v1/peers{path}")).await?;
    let mut table = Table::new(["NAME", "STATE", "STATUS", "ROLE", "KEY", "MESH", "SUMMARY"]);
    for peer in answer["peers"].as_array().into_iter().flatten() {
        table.row([
            text(peer, "name"),
            state(peer),
            text(peer, "status"),
            text(peer, "role"),
            short_key(&text(peer, "pubkey")),
            text(peer, "mesh"),
            text(peer, "summary"),
        ]);
    }
    let human = if table.is_empty() {
        "nobody is here; open a session with `bowline session run --name NAME -- CMD`".into()
    } else {
        table.render()
    };
    output.say(human, &answer)
}

/// `live`, or `away 12s` for one in grace: it is still here, and nobody was told otherwise.
fn state(peer: &Value) -> String {
    match (peer["state"].as_str(), peer["away_ms"].as_u64()) {
        (Some("grace"), Some(away)) => format!("away {}", age(away)),
        (Some("grace"), None) => "away".to_owned(),
        _ => text(peer, "state"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn grace_is_shown_as_away_with_its_age() {
        assert_eq!(
            state(&json!({"state": "grace", "away_ms": 12_300})),
            "away 12s"
        );
        assert_eq!(state(&json!({"state": "live"})), "live");
    }
}
