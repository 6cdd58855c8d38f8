//! Processes that end: by force, in good order, under load; and one that was only asleep.

use std::time::Duration;

use super::relay::Way;
use super::stage::{BROKER, NORTH, SOUTH, Setup, play, within};

const SOON: Duration = Duration::from_secs(90);
const GOING_AWAY: u16 = 1001;

fn bodies(letter: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{letter}{nth}")).collect()
}

/// The other side hears nothing of it: no end of the connection, no reset.
#[test]
fn a_power_cut_at_the_broker() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        let sent = bodies("a", 40);
        for (nth, body) in sent.iter().enumerate() {
            if nth % 10 == 5 {
                stage.cut_power(BROKER).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
                stage.give_power(BROKER).await;
            }
            ada.send("bob", body, body).await;
        }
        bob.receives(&sent, 2 * SOON).await;
        assert_eq!(watch.left(), [""; 0]);
    });
}

#[test]
fn a_power_cut_at_a_host() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = bob.watch();
        watch.is_watching().await;
        let sent = bodies("a", 40);
        for (nth, body) in sent.iter().enumerate() {
            ada.send("bob", body, body).await;
            if nth % 10 == 5 {
                // Rows are in its outbox, and some are on their way.
                stage.cut_power(NORTH).await;
                tokio::time::sleep(Duration::from_secs(20)).await;
                stage.give_power(NORTH).await;
            }
        }
        bob.receives(&sent, 2 * SOON).await;
        assert_eq!(watch.left(), [""; 0], "twenty seconds are within the grace");
    });
}

/// Every connection is told, everything that waits is committed, and only then is it over.
#[test]
fn shutdown_in_order() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        ada.send("bob", "a", "before").await;
        bob.receives(&["before".to_owned()], SOON).await;
        let took = stage.stop(BROKER).await;
        assert!(
            took < Duration::from_secs(5),
            "it waited for nobody: {took:?}"
        );
        assert_eq!(
            stage.relay.closes(NORTH, GOING_AWAY),
            2,
            "ada's, and her member's"
        );
        assert_eq!(stage.relay.closes(SOUTH, GOING_AWAY), 2);
        stage.disks[0].set_pace(|pace| pace.commit = Duration::from_millis(500));
        ada.send("bob", "b", "while it is away").await;
        let took = stage.stop(NORTH).await;
        assert!(
            took < Duration::from_secs(5),
            "it waited for nobody: {took:?}"
        );
        stage.start(BROKER).await;
        stage.start(NORTH).await;
        bob.receives(&["before".to_owned(), "while it is away".to_owned()], SOON)
            .await;
    });
}

/// Stopped again and again while both sides send: it ends in time, and nothing is lost or doubled.
#[test]
fn drain_under_load() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        let (from_ada, from_bob) = (bodies("a", 120), bodies("b", 120));
        let sending = async {
            let north = async {
                for body in &from_ada {
                    ada.send("bob", body, body).await;
                }
            };
            let south = async {
                for body in &from_bob {
                    bob.send("ada", body, body).await;
                }
            };
            tokio::join!(north, south);
        };
        let stopping = async {
            for host in [BROKER, NORTH, BROKER, SOUTH] {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let took = stage.stop(host).await;
                assert!(took < Duration::from_secs(8), "{host} took {took:?}");
                stage.start(host).await;
            }
        };
        tokio::join!(sending, stopping);
        bob.receives(&from_ada, 2 * SOON).await;
        ada.receives(&from_bob, 2 * SOON).await;
        assert_eq!(watch.left(), [""; 0]);
    });
}

/// Its clock went on, its timers did not: it has to look at the clock, not to wait for a timer.
#[test]
fn suspend() {
    /// The longest that anybody sleeps without looking, the dial, and some of the network.
    const LOOKS_WITHIN: Duration = Duration::from_secs(12);
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        stage.relay.set(SOUTH, Way::Refuse);
        stage.relay.cut(SOUTH);
        // Until it waits long between two dials, or would.
        tokio::time::sleep(Duration::from_secs(40)).await;
        for _ in 0..12 {
            let dials = stage.relay.dials(SOUTH);
            stage.suspend_south(Duration::from_secs(60));
            within("it looks, and dials", LOOKS_WITHIN, async || {
                stage.relay.dials(SOUTH) > dials
            })
            .await;
        }
        stage.relay.set(SOUTH, Way::Pass);
        stage.suspend_south(Duration::from_secs(60));
        ada.send("bob", "a", "good morning").await;
        bob.receives(&["good morning".to_owned()], SOON).await;
    });
}
