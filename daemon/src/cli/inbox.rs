//! `inbox`: prints messages, and marks what it printed as seen.

use std::time::Duration;

use bowline_broker::exit::{Exit, Failure};
use clap::Args;
use serde_json::{Value, json};

use super::output::{Output, printable, short_key, text};
use super::{caller, query};
use crate::client::Daemon;

#[derive(Args, Debug)]
pub(super) struct InboxArgs {
    /// Go on with what arrives, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// Do not mark what is printed as seen.
    #[arg(long)]
    peek: bool,
    /// Only what was not seen yet.
    #[arg(long)]
    unread: bool,
    /// Only from this sender: a name or a key.
    #[arg(long)]
    from: Option<String>,
}

const PAGE: usize = 200;
/// How long `--follow` waits before it looks for a daemon that went away.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn run(args: InboxArgs, output: Output) -> Result<(), Failure> {
    let daemon = caller()?;
    let mut last = 0;
    let printed = print_pages(&daemon, &args, output, &mut last).await?;
    if !args.follow {
        if printed == 0 && !output.json {
            output.note(if args.unread {
                "nothing unread"
            } else {
                "nothing here yet"
            });
        }
        return Ok(());
    }
    loop {
        match follow(&daemon, &args, output, &mut last).await {
            Ok(()) => {}
            Err(failure) if failure.exit == Exit::NoDaemon => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(COME_BACK_AFTER).await;
    }
}

/// Prints what is there beyond `last`, page by page. How many that were.
async fn print_pages(
    daemon: &Daemon,
    args: &InboxArgs,
    output: Output,
    last: &mut u64,
) -> Result<usize, Failure> {
    let mut printed = 0;
    loop {
        let path = query(&[
            ("after", Some(last.to_string())),
            ("limit", Some(PAGE.to_string())),
            ("unread", args.unread.then(|| "1".to_owned())),
            ("from", args.from.clone()),
        ]);
        let page = daemon.get(&format!("/v1/inbox{path}")).await?;
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            print_message(message, output)?;
            *last = message["seq"].as_u64().unwrap_or(0).max(*last);
        }
        mark_seen(daemon, args, &messages).await?;
        printed += messages.len();
        if page["next"].is_null() {
            return Ok(printed);
        }
    }
}

/// Until the stream ends: the daemon went, or it told of a gap.
async fn follow(
    daemon: &Daemon,
    args: &InboxArgs,
    output: Output,
    last: &mut u64,
) -> Result<(), Failure> {
    let mut events = daemon.events("", Some(*last)).await?;
    while let Some(event) = events.next().await? {
        let (Some(seq), "message") = (event.id, event.kind.as_str()) else {
            continue;
        };
        if args.from.is_some() {
            // Whom a name means is the daemon's to say: ask for what it holds.
            print_pages(daemon, args, output, last).await?;
            continue;
        }
        print_message(&event.data, output)?;
        *last = seq.max(*last);
        mark_seen(daemon, args, std::slice::from_ref(&event.data)).await?;
    }
    Ok(())
}

async fn mark_seen(daemon: &Daemon, args: &InboxArgs, messages: &[Value]) -> Result<(), Failure> {
    let unseen: Vec<_> = messages
        .iter()
        .filter(|message| message["seen_at"].is_null())
        .filter_map(|message| message["seq"].as_u64())
        .collect();
    if args.peek || unseen.is_empty() {
        return Ok(());
    }
    daemon
        .post("/v1/inbox/seen", &json!({ "ids": unseen }))
        .await?;
    Ok(())
}

fn print_message(message: &Value, output: Output) -> Result<(), Failure> {
    let from = &message["from"];
    let sender = match text(from, "name") {
        name if name.is_empty() => short_key(&text(from, "pubkey")),
        name => name,
    };
    // The text alone is bound to its sender; id, priority and reply-to are the broker's word.
    let seal = match message["seal"].as_str() {
        Some("box") => " (box)",
        _ => "",
    };
    let body = match message["body"].as_str() {
        Some(body) => printable(body),
        None => "[cannot be opened: it was sealed for another key]".to_owned(),
    };
    let unread = if message["seen_at"].is_null() {
        "*"
    } else {
        " "
    };
    let human = format!(
        "{unread} {}  {sender}{seal}: {body}",
        text(message, "sent_at")
    );
    output.say(human, message)
}
