//! Connections of which one end is gone, or is not there yet.

use std::time::Duration;

use super::relay::Way;
use super::stage::{SOUTH, Setup, play, within};

/// By now a silent connection was noticed: the silence, the ping, the time to answer it; and it was
/// dialled again.
const NOTICED_WITHIN: Duration = Duration::from_secs(80);
const SOON: Duration = Duration::from_secs(60);

#[test]
fn half_open_towards_the_broker() {
    half_open(Way::SwallowUp);
}

#[test]
fn half_open_towards_the_daemon() {
    half_open(Way::SwallowDown);
}

/// One direction goes on, the other leads nowhere: noticed, dialled anew, and nobody has left.
fn half_open(way: Way) {
    play(Setup::default(), async move |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        let dials = stage.relay.dials(SOUTH);
        stage.relay.set(SOUTH, way);
        ada.send("bob", "a", "into the dark").await;
        // He says nothing himself, for whose answer he would wait.
        within("it is dialled again", NOTICED_WITHIN, async || {
            stage.relay.dials(SOUTH) > dials
        })
        .await;
        stage.relay.set(SOUTH, Way::Pass);
        bob.send("ada", "b", "out of the dark").await;
        bob.receives(&["into the dark".to_owned()], SOON).await;
        ada.receives(&["out of the dark".to_owned()], SOON).await;
        assert_eq!(watch.left(), [""; 0]);
    });
}

#[test]
fn a_dial_that_hangs() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        stage.relay.set(SOUTH, Way::Hang);
        stage.relay.cut(SOUTH);
        let dials = stage.relay.dials(SOUTH);
        within(
            "it is given up, and tried again",
            NOTICED_WITHIN,
            async || stage.relay.dials(SOUTH) >= dials + 4,
        )
        .await;
        ada.send("bob", "a", "later").await;
        stage.relay.set(SOUTH, Way::Pass);
        bob.receives(&["later".to_owned()], SOON).await;
    });
}

/// What was dialled and given up comes to life beside what was dialled after it.
#[test]
fn a_dial_that_succeeds_twice() {
    play(Setup::default(), async |stage| {
        let (ada, bob) = stage.ada_and_bob().await;
        let watch = ada.watch();
        watch.is_watching().await;
        let other = stage.relay.oldest(SOUTH);
        for round in 0..2 {
            let dials = stage.relay.dials(SOUTH);
            stage.relay.set(SOUTH, Way::Hang);
            stage.relay.cut_latest(SOUTH);
            within("a dial hangs, and another", NOTICED_WITHIN, async || {
                stage.relay.dials(SOUTH) >= dials + 2
            })
            .await;
            stage.relay.set(SOUTH, Way::Pass);
            let (to, from) = (format!("a{round}"), format!("b{round}"));
            ada.send("bob", &to, &to).await;
            bob.send("ada", &from, &from).await;
            let upto = |letter: &str| -> Vec<String> {
                (0..=round).map(|nth| format!("{letter}{nth}")).collect()
            };
            bob.receives(&upto("a"), SOON).await;
            ada.receives(&upto("b"), SOON).await;
        }
        assert!(!other.is_finished(), "the host's other connection held");
        assert_eq!(watch.left(), [""; 0]);
    });
}
