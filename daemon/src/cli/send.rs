//! `send`.

use std::io::Read;
use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::json;

use super::caller;
use super::output::{Output, text};
use super::wait::{Follow, Goal, Watch};

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    /// A name, a key, or the first characters of one (4 or more).
    to: String,
    /// The text, or - to read it from standard input.
    body: String,
    /// Names this message: repeated with the same id it is never sent twice.
    #[arg(long)]
    id: Option<String>,
    /// `now` also reaches those who are at work or do not want to be disturbed.
    #[arg(long, value_enum, default_value_t = Priority::Next)]
    priority: Priority,
    /// The message that this answers, by its message id.
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,
    /// Which mesh, where several are joined.
    #[arg(long)]
    mesh: Option<String>,
    /// Wait until it has come so far, and print how it gets there.
    #[arg(long, value_enum, value_name = "RUNG")]
    wait: Option<Goal>,
    /// Wait no longer than this; without it, as long as it takes.
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Priority {
    Now,
    Next,
    Low,
}

pub(super) async fn run(args: SendArgs, output: Output) -> Result<(), Failure> {
    let body = if args.body == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| {
                Failure::new(Exit::Usage, "bad_body", format!("standard input: {error}"))
                    .next("a body is UTF-8 text")
            })?;
        text
    } else {
        args.body
    };
    let request = json!({
        "to": args.to,
        "body": body,
        "priority": match args.priority {
            Priority::Now => "now",
            Priority::Next => "next",
            Priority::Low => "low",
        },
        "reply_to_id": args.reply_to,
        "mesh": args.mesh,
    });
    let headers: Vec<_> = args
        .id
        .iter()
        .map(|id| ("idempotency-key", id.as_str()))
        .collect();
    let daemon = caller()?;
    // Before it is sent: what happens to it from then on is told.
    let watch = match args.wait {
        Some(goal) => Some((goal, Watch::begin(&daemon).await?)),
        None => None,
    };
    let answer = daemon
        .call(Method::POST, "/v1/send", Some(&request), &headers)
        .await?;
    let id = text(&answer.body, "id");
    // What is true now: it is durable here, and not yet known to be at the broker.
    let human = match answer.status {
        202 => format!("queued {id}"),
        _ => format!("sent before, {id}: nothing was sent again"),
    };
    output.say(human, &answer.body)?;
    let Some((goal, watch)) = watch else {
        return Ok(());
    };
    let within = args.timeout.map(Duration::from_secs);
    let follow = Follow::new(&daemon, output, &answer, goal);
    follow.up(watch, within).await
}
