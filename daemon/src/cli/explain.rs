//! `explain`: how far a message came, and why it is there, in words.

use bowline_broker::exit::Failure;
use clap::Args;
use console::measure_text_width;
use serde_json::Value;

use super::output::{Output, short_key, text};
use super::{caller, encoded, query};

/// What a terminal surely shows in a line.
const COLUMNS: usize = 80;

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// The id that `send` gave, the id of a message of the inbox, or the first 8 characters of one.
    id: String,
    /// Which mesh, where an id is known in several.
    #[arg(long)]
    mesh: Option<String>,
}

pub(super) async fn run(args: ExplainArgs, output: Output) -> Result<(), Failure> {
    let path = format!("/v1/messages/{}", encoded(&args.id));
    let mesh = query(&[("mesh", args.mesh)]);
    let message = caller()?.get(&format!("{path}{mesh}")).await?;
    output.say(describe(&message), &message)
}

/// Where `message` stands, in one sentence or two.
pub(super) fn standing(message: &Value) -> String {
    let why = &message["why"];
    let waits_for = why["waits_for"].as_str().unwrap_or_default();
    let sentence = match why["said_by"].as_str() {
        Some("broker") => said_by_broker(message, waits_for),
        _ => said_by_host(message, waits_for),
    };
    sentence.unwrap_or_else(|| ended(message))
}

/// Its head, its ladder, and why it is where it is.
fn describe(message: &Value) -> String {
    let mut lines = wrapped(&head(message), "  ");
    for rung in message["ladder"].as_array().into_iter().flatten() {
        lines.push(rung_line(rung));
    }
    lines.extend(wrapped(&standing(message), ""));
    let why = &message["why"];
    let due = match (text(why, "next_at"), waits_for_nobody(why)) {
        (at, false) if !at.is_empty() => Some(format!("next try: {at}")),
        _ => None,
    };
    let attempt = why["attempt"].as_u64().filter(|attempt| *attempt > 0);
    let attempt = attempt.map(|attempt| match why["said_by"].as_str() {
        Some("broker") => format!("pushed so far: {attempt}"),
        _ => format!("attempts: {attempt}"),
    });
    lines.extend(attempt);
    lines.extend(due);
    lines.join("\n")
}

/// One rung: what, when, and why where it is an end.
pub(super) fn rung_line(rung: &Value) -> String {
    let reason = match text(rung, "reason") {
        reason if reason.is_empty() => reason,
        reason => format!("  {reason}"),
    };
    let line = format!("  {:<10} {}{reason}", text(rung, "rung"), text(rung, "at"));
    line.trim_end().to_owned()
}

fn head(message: &Value) -> String {
    let id = text(message, "id");
    let other = match message["direction"].as_str() {
        Some("received") => format!("from {}", sender(message)),
        _ => format!("to {}", recipient(message)),
    };
    format!(
        "{id} {other}, priority {}, mesh {}",
        text(message, "priority"),
        text(message, "mesh")
    )
}

fn sender(message: &Value) -> String {
    match text(&message["from"], "name") {
        name if name.is_empty() => short_key(&text(&message["from"], "pubkey")),
        name => name,
    }
}

fn recipient(message: &Value) -> String {
    match text(message, "to") {
        to if to.len() == 64 => short_key(&to),
        to => to,
    }
}

/// `None`: it waits for nothing.
fn said_by_host(message: &Value, waits_for: &str) -> Option<String> {
    let why = &message["why"];
    let code = text(why, "code");
    Some(match waits_for {
        "disk" => "waiting for this host's disk: it is not durable yet".to_owned(),
        "uplink" => format!("waiting for the sender's uplink, which is {}", uplink(why)),
        "turn" => format!(
            "waiting for its turn: {} before it, to the same peer and of the same priority",
            why["behind"]
        ),
        "deferral" => format!("not now: the broker answered `{code}`{}", meaning(&code)),
        "retry" => format!("the last attempt failed: {code}"),
        "acknowledgement" => "on its way: waiting for the broker's acknowledgement".to_owned(),
        "connection" => "waiting for room on the sender's connection".to_owned(),
        "reader" => match message["direction"].as_str() {
            Some("received") => "in this inbox, and not read yet".to_owned(),
            _ => format!("in the inbox of {}, and not read yet", recipient(message)),
        },
        "broker" => {
            let error = match text(why, "error") {
                error if error.is_empty() => error,
                error => format!(" It answered `{error}`."),
            };
            format!(
                "the broker has it; what it waits for there is not known: the sender's uplink is \
                 {}.{error}",
                uplink(why)
            )
        }
        _ => return None,
    })
}

fn said_by_broker(message: &Value, waits_for: &str) -> Option<String> {
    let why = &message["why"];
    let name = recipient(message);
    Some(match waits_for {
        "reattach" => format!(
            "waiting for reattach: {name} has no connection; it is pushed when {name} is back"
        ),
        "status" => format!(
            "held by status: {name} takes only `now` while it is `working` or `dnd`, and this is \
             `{}`; it goes as soon as {name} is idle",
            text(message, "priority")
        ),
        "suite" => format!("held: the client of {name} cannot open how this is sealed"),
        "acknowledgement" => {
            let holder = match text(why, "holder") {
                key if key.is_empty() => name.clone(),
                key => format!("{name} ({})", short_key(&key)),
            };
            format!("claimed: pushed to {holder}, which has not acknowledged it yet")
        }
        "window" => format!("waiting for {name} to acknowledge some of what it was pushed before"),
        "connection" => format!("waiting for room on the connection of {name}"),
        "turn" => format!("waiting for its turn: older messages go to {name} first"),
        "unknown" => "unknown: the broker does not know this message, or no longer".to_owned(),
        _ => return None,
    })
}

fn ended(message: &Value) -> String {
    let ladder = message["ladder"].as_array();
    let last = ladder.and_then(|ladder| ladder.last());
    let reason = last.map(|rung| text(rung, "reason")).unwrap_or_default();
    let name = recipient(message);
    match message["state"].as_str().unwrap_or_default() {
        "seen" if message["direction"] == "received" => "read".to_owned(),
        "seen" => format!("read by {name}"),
        "delivered" => format!("in the inbox of {name}, and not read yet"),
        "expired" => format!("expired: {name} did not take it in time; it will not be delivered"),
        "dead" => format!("dead: {reason}; it will not be delivered"),
        "aborted" => "aborted: it will not be sent".to_owned(),
        other => other.to_owned(),
    }
}

fn waits_for_nobody(why: &Value) -> bool {
    matches!(
        why["waits_for"].as_str(),
        None | Some("nothing" | "reader" | "unknown")
    )
}

fn uplink(why: &Value) -> String {
    let uplink = &why["uplink"];
    match (text(uplink, "state"), text(uplink, "reason")) {
        (state, _) if state.is_empty() => "not there: its session has ended".to_owned(),
        (state, reason) if reason.is_empty() => state,
        (state, reason) => format!("{state} ({reason})"),
    }
}

fn meaning(code: &str) -> &'static str {
    match code {
        "rate_limited" => ": this sender sends too fast",
        "busy" => ": it has too much to do",
        "storage_full" => ": its disk is full",
        "recipient_full" => ": the recipient is owed as much as is kept for it",
        "outcome_unknown" => ": it may have it already; it is asked again under the same id",
        _ => "",
    }
}

/// Lines of at most [`COLUMNS`], but for words that are longer; `indent` begins all but the first.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let width = measure_text_width(&line) + 1 + measure_text_width(word);
        if !line.trim().is_empty() && width > COLUMNS {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        }
        if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(state: &str, why: Value) -> Value {
        json!({
            "direction": "sent", "id": "01JD3Z9M5T0000000000000000", "to": "bob",
            "priority": "next", "mesh": "team", "state": state,
            "ladder": [
                { "rung": "queued", "at": "2026-11-21T09:00:00.000Z" },
                { "rung": "accepted", "at": "2026-11-21T09:00:00.120Z", "reason": null },
            ],
            "why": why,
        })
    }

    fn by_broker(waits_for: &str) -> Value {
        json!({
            "said_by": "broker", "waits_for": waits_for, "attempt": 2,
            "holder": "ab".repeat(32), "next_at": "2026-11-21T09:01:00.000Z",
        })
    }

    #[test]
    fn each_reason_has_its_words_and_fits_a_terminal() {
        let uplink = json!({
            "said_by": "host", "waits_for": "uplink", "attempt": 0,
            "next_at": "2026-11-21T09:00:04.000Z",
            "uplink": { "state": "waiting", "reason": "no connection: connection refused" },
        });
        let expired = json!({ "said_by": "host", "waits_for": "nothing" });
        for (state, why, word) in [
            ("accepted", by_broker("status"), "held by status: bob"),
            (
                "accepted",
                by_broker("acknowledgement"),
                "claimed: pushed to bob (abababababab)",
            ),
            (
                "accepted",
                by_broker("reattach"),
                "waiting for reattach: bob",
            ),
            ("accepted", by_broker("window"), "waiting for bob"),
            ("accepted", by_broker("turn"), "older messages"),
            ("accepted", by_broker("suite"), "cannot open"),
            ("accepted", by_broker("unknown"), "unknown: the broker"),
            (
                "queued",
                uplink,
                "waiting for the sender's uplink, which is waiting (no",
            ),
            ("expired", expired, "expired: bob did not take it in time"),
        ] {
            let told = describe(&message(state, why));
            let flat = told.replace('\n', " ");
            assert!(flat.contains(word), "{word}: {told}");
            assert!(told.lines().all(|line| line.len() <= COLUMNS), "{told}");
        }
    }

    #[test]
    fn the_ladder_stands_between_the_head_and_the_reason() {
        let told = describe(&message("accepted", by_broker("acknowledgement")));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "01JD3Z9M5T0000000000000000 to bob, priority next, mesh team",
                "  queued     2026-11-21T09:00:00.000Z",
                "  accepted   2026-11-21T09:00:00.120Z",
                "claimed: pushed to bob (abababababab), which has not acknowledged it yet",
                "pushed so far: 2",
                "next try: 2026-11-21T09:01:00.000Z",
            ]
        );
    }

    #[test]
    fn a_reason_of_an_end_is_said() {
        let mut dead = message("dead", json!({ "said_by": "host", "waits_for": "nothing" }));
        dead["ladder"][1] = json!({ "rung": "dead", "at": "x", "reason": "forbidden" });
        let told = describe(&dead);
        assert!(told.contains("  dead       x  forbidden\n"), "{told}");
        assert!(
            told.ends_with("dead: forbidden; it will not be delivered"),
            "{told}"
        );
    }

    #[test]
    fn long_text_is_broken_between_words() {
        let text = "word ".repeat(40);
        let lines = wrapped(&text, "  ");
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| line.len() <= COLUMNS));
        assert!(lines[1].starts_with("  word"));
        assert_eq!(wrapped("one", "  "), ["one"]);
    }
}
