//! What the WebSocket layer makes of bytes.

use std::time::Duration;

use bowline_core::limits::FRAME_BYTES;

use super::frames::head;
use super::relay::Way;
use super::stage::{NORTH, SOUTH, Setup, play, within};

const SOON: Duration = Duration::from_secs(60);
/// Longer than anything that may be said before the hello was taken.
const LARGE_BYTES: usize = 40_000;

#[test]
fn bytes_that_come_one_by_one() {
    play(Setup::default(), async |stage| {
        stage.relay.set(NORTH, Way::OneByOne);
        stage.relay.set(SOUTH, Way::OneByOne);
        let (ada, bob) = stage.ada_and_bob().await;
        let dials = stage.relay.dials(NORTH);
        let bodies: Vec<String> = (0..5).map(|n| format!("{n} {}", "x".repeat(300))).collect();
        for (n, body) in bodies.iter().enumerate() {
            ada.send("bob", &format!("a{n}"), body).await;
        }
        bob.receives(&bodies, SOON).await;
        assert_eq!(stage.relay.dials(NORTH), dials, "each connection held");
    });
}

#[test]
fn messages_in_fragments() {
    play(Setup::default(), async |stage| {
        stage.relay.set(NORTH, Way::Fragments);
        stage.relay.set(SOUTH, Way::Fragments);
        let (ada, bob) = stage.ada_and_bob().await;
        let bodies = ["short".to_owned(), "x".repeat(LARGE_BYTES)];
        for (n, body) in bodies.iter().enumerate() {
            ada.send("bob", &format!("a{n}"), body).await;
        }
        bob.receives(&bodies, SOON).await;
        assert_eq!(stage.relay.closes(NORTH, 1009), 0);
    });
}

/// It is refused by what it says it is, before its bytes have come.
#[test]
fn an_oversized_message() {
    const TEXT: u8 = 1;
    const TOO_BIG: u16 = 1009;
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = bob.watch();
        watch.is_watching().await;
        stage
            .relay
            .inject(NORTH, head(true, TEXT, true, FRAME_BYTES + 1));
        within("it is told that this is too big", SOON, async || {
            stage.relay.closes(NORTH, TOO_BIG) == 1
        })
        .await;
        ada.send("bob", "after", "after").await;
        bob.receives(&["after".to_owned()], SOON).await;
        assert_eq!(
            watch.left(),
            [""; 0],
            "its connection slipped, its session did not"
        );
    });
}
