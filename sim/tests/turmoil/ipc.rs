//! Programs that are gone before they have their answer, or that never read it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use bowline_core::limits::Limits;

use super::stage::{Setup, play, within};

const SOON: Duration = Duration::from_secs(60);

/// Gone in the middle of the body: nothing was done. Gone behind it: it was done, once.
#[test]
fn an_ipc_client_gone_mid_request() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        // The answer waits for the disk, and has nobody left to go to.
        stage.disks[0].set_pace(|pace| pace.commit = Duration::from_millis(300));
        let body = r#"{"to":"bob","body":"once"}"#;
        let request = |id: &str, length: usize| {
            let token = ada.daemon.token();
            format!(
                "POST /v1/send HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\n\
                 content-type: application/json\r\nidempotency-key: {id}\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
        };
        let mut half = ada.daemon.connect().await;
        half.write_all(request("half", body.len() + 1).as_bytes())
            .await
            .expect("it reads");
        drop(half);
        let mut whole = ada.daemon.connect().await;
        whole
            .write_all(request("whole", body.len()).as_bytes())
            .await
            .expect("it reads");
        // Under way: it has arrived, and is not committed yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(whole);
        bob.receives(&["once".to_owned()], SOON).await;
        ada.send("bob", "whole", "once").await;
        ada.send("bob", "after", "after").await;
        bob.receives(&["once".to_owned(), "after".to_owned()], SOON)
            .await;
    });
}

/// It is let go when it is too far behind; what it did not read is still in the inbox.
#[test]
fn an_event_stream_that_nobody_reads() {
    let setup = Setup {
        hosts: Limits {
            subscriber_events: 16,
            ..Limits::default()
        },
        ..Setup::default()
    };
    play(setup, async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n\r\n",
            bob.daemon.token()
        );
        let mut deaf = bob.daemon.connect().await;
        deaf.write_all(request.as_bytes()).await.expect("it reads");
        let read = bob.watch();
        read.is_watching().await;
        let sent: Vec<String> = (0..150)
            .map(|nth| format!("{nth} {}", "x".repeat(8_000)))
            .collect();
        for (nth, body) in sent.iter().enumerate() {
            ada.send("bob", &format!("a{nth}"), body).await;
        }
        bob.receives(&sent, SOON).await;
        let mut told = Vec::new();
        within("the stream has its end", SOON, async || {
            deaf.read_to_end(&mut told).await.is_ok()
        })
        .await;
        let told = String::from_utf8_lossy(&told);
        assert!(
            told.contains("event: gap"),
            "it was told that it missed something"
        );
        let messages = told.matches("event: message").count();
        assert!(messages < sent.len(), "{messages} were kept for it");
    });
}
