//! Who is slower than the others.

use std::time::Duration;

use bowline_core::limits::Limits;
use serde_json::json;

use super::frames::Frame;
use super::relay::Way;
use super::stage::{BROKER, NORTH, SOUTH, Setup, play, within};

const SOON: Duration = Duration::from_secs(90);

/// A disk that is slow to look things up holds up the one who makes it look, in the one's own
/// socket: the broker does not take what it cannot work on.
#[test]
fn backpressure() {
    const FLOOD_BYTES: usize = 8 * 1024 * 1024;
    const ONE_BYTES: usize = 16 * 1024;
    /// What is held, what both kernels hold, and what is between them.
    const TAKEN_MOST: usize = 3 * 1024 * 1024;
    let setup = Setup {
        broker: Limits {
            // Each new id is looked up.
            dedupe_cache: 0,
            ..Limits::default()
        },
        ..Setup::default()
    };
    play(setup, async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        stage
            .broker_disk
            .set_pace(|pace| pace.load = Duration::from_secs(3));
        let before = stage.relay.taken(NORTH);
        let mut flood = Vec::new();
        for nth in 0..FLOOD_BYTES / ONE_BYTES {
            let send = json!({
                "type": "send",
                "id": format!("flood-{nth}"),
                "client_message_id": format!("flood-{nth}"),
                "targetSpec": "0".repeat(64),
                "priority": "next",
                "nonce": "A".repeat(32),
                "ciphertext": "A".repeat(ONE_BYTES),
                "seal": "x1",
            });
            flood.extend(Frame::text(true, &send.to_string()).encode());
        }
        stage.relay.inject(NORTH, flood);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let taken = stage.relay.taken(NORTH) - before;
        assert!(taken < TAKEN_MOST, "{taken} bytes were taken");
        // Others are not held up.
        bob.send("ada", "b", "through").await;
        stage
            .broker_disk
            .set_pace(|pace| pace.load = Duration::from_millis(1));
        within("it goes on", SOON, async || {
            stage.relay.taken(NORTH) - before >= FLOOD_BYTES
        })
        .await;
        ada.receives(&["through".to_owned()], SOON).await;
    });
}

/// Who does not read what happens is cut off, comes back, and has missed no mail; nobody else
/// notices.
#[test]
fn a_slow_consumer() {
    const CHANGES: usize = 600;
    let setup = Setup {
        broker: Limits {
            queued_bytes: 32 * 1024,
            ring_events: 100,
            ..Limits::default()
        },
        ..Setup::default()
    };
    play(setup, async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        stage.relay.set(SOUTH, Way::StopDown);
        let dials = stage.relay.dials(NORTH);
        let connections = turmoil::established_tcp_stream_count_on(BROKER);
        let change = |nth: usize| {
            let (title, bio) = (nth.to_string(), "x".repeat(500));
            let profile = json!({ "title": title, "bio": bio });
            let set =
                json!({ "type": "set_profile", "profile": profile, "title": title, "bio": bio });
            Frame::text(true, &set.to_string())
        };
        for nth in 0..CHANGES {
            stage.relay.inject(NORTH, change(nth).encode());
            // Longer than a commit: what was not told yet is told as what it has become.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sent: Vec<String> = (0..60).map(|nth| format!("{nth}")).collect();
        for body in &sent {
            ada.send("bob", body, body).await;
        }
        // Not because of a heartbeat: those have not had the time.
        within(
            "the broker cuts both off",
            Duration::from_secs(10),
            async || turmoil::established_tcp_stream_count_on(BROKER) == connections - 2,
        )
        .await;
        stage.relay.set(SOUTH, Way::Pass);
        // Behind a full window the network keeps the end of a connection to itself.
        stage.relay.cut(SOUTH);
        bob.receives(&sent, SOON).await;
        assert_eq!(
            stage.relay.dials(NORTH),
            dials,
            "the sender's connections held"
        );
        assert_eq!(watch.left(), [""; 0]);
    });
}
