//! `status`.

use bowline_broker::exit::Failure;

use super::member;
use super::output::{Output, Table, text};

pub(super) async fn run(output: Output) -> Result<(), Failure> {
    let health = member()?.get("/v1/health").await?;
    let mut uplinks = Table::new(["MESH", "UPLINK", "NAME", "STATE", "SINCE", "WHY"]);
    for uplink in health["uplinks"].as_array().into_iter().flatten() {
        uplinks.row([
            text(uplink, "mesh"),
            text(uplink, "kind"),
            text(uplink, "name"),
            text(uplink, "state"),
            text(uplink, "since"),
            text(uplink, "reason"),
        ]);
    }
    let summary = format!(
        "daemon {} is running; store {}; {} queued, {} of them on their way",
        text(&health, "version"),
        text(&health["store"], "state"),
        text(&health["outbox"], "open"),
        text(&health["outbox"], "inflight"),
    );
    let advice: String = health["uplinks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|uplink| uplink["next"].is_string())
        .map(|uplink| {
            format!(
                "\n{} {} has stopped: {}\n  {}",
                text(uplink, "mesh"),
                text(uplink, "name"),
                text(uplink, "reason"),
                text(uplink, "next"),
            )
        })
        .collect();
    let human = if uplinks.is_empty() {
        format!(
            "{summary}\nno mesh yet: make one with `bowline mesh create`, or join one with \
             `bowline join LINK`"
        )
    } else {
        format!("{summary}\n\n{}{advice}", uplinks.render())
    };
    output.say(human, &health)
}
