//! `outbox`.

use bowline_broker::exit::Failure;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::{Output, Table, short_key, text};
use super::{caller, query};

#[derive(Args, Debug)]
pub(super) struct OutboxArgs {
    /// Only rows in this state.
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// At most this many, oldest first.
    #[arg(long, default_value_t = 200)]
    limit: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Pending,
    Inflight,
    Done,
    Dead,
    Aborted,
}

pub(super) async fn run(args: OutboxArgs, output: Output) -> Result<(), Failure> {
    let status = args.status.map(|status| match status {
        Status::Pending => "pending",
        Status::Inflight => "inflight",
        Status::Done => "done",
        Status::Dead => "dead",
        Status::Aborted => "aborted",
    });
    let path = query(&[
        ("status", status.map(str::to_owned)),
        ("limit", Some(args.limit.to_string())),
    ]);
    let answer = caller()?.get(&format!("/v1/outbox{path}")).await?;
    let mut table = Table::new(["ID", "TO", "STATE", "ATTEMPTS", "WHY"]);
    for row in answer["rows"].as_array().into_iter().flatten() {
        table.row([
            text(row, "id"),
            recipient(row),
            standing(row).to_owned(),
            text(row, "attempts"),
            text(row, "last_error"),
        ]);
    }
    let human = if table.is_empty() {
        "nothing here".into()
    } else {
        table.render()
    };
    output.say(human, &answer)
}

/// No rung that was not reached: `sent` only once the broker has it durably.
fn standing(row: &Value) -> &str {
    match (row["status"].as_str(), row["state"].as_str()) {
        (Some("inflight"), Some("queued")) => "queued, on its way",
        (_, Some("accepted")) => "sent",
        (_, state) => state.unwrap_or_default(),
    }
}

fn recipient(row: &Value) -> String {
    match text(row, "to") {
        to if to.len() == 64 => short_key(&to),
        to => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sent_is_said_only_of_what_the_broker_has() {
        for (status, state, said) in [
            ("pending", "queued", "queued"),
            ("inflight", "queued", "queued, on its way"),
            ("done", "accepted", "sent"),
            ("done", "delivered", "delivered"),
            ("done", "seen", "seen"),
            ("dead", "dead", "dead"),
            ("dead", "expired", "expired"),
        ] {
            assert_eq!(standing(&json!({ "status": status, "state": state })), said);
        }
    }
}
