//! Ping after 25 s without inbound, 10 s to answer, counted from the moment the ping left.

use super::Why;
use crate::limits::{PING_AFTER, PING_LEAVES_WITHIN, PONG_WITHIN};
use crate::time::Mono;
use crate::timers::TimerQueue;

/// Something came in, or the heartbeat begins, or begins anew.
pub(super) fn alive(timers: &mut TimerQueue<Why>, now: Mono) {
    timers.cancel(&Why::Pong);
    timers.set(Why::Ping, now + PING_AFTER);
}

/// [`Why::Ping`] is due and a ping goes out. A socket that does not even take it is as silent as
/// one that does not answer.
pub(super) fn pinged(timers: &mut TimerQueue<Why>, now: Mono) {
    timers.set(Why::Pong, now + PING_LEAVES_WITHIN);
}

/// The ping was handed to the socket. If something came in meanwhile, nothing is waited for.
pub(super) fn ping_left(timers: &mut TimerQueue<Why>, now: Mono) {
    if timers.get(&Why::Pong).is_some() {
        timers.set(Why::Pong, now + PONG_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const T0: Mono = Mono(0);

    fn at(seconds: u64) -> Mono {
        T0 + Duration::from_secs(seconds)
    }

    fn due(timers: &TimerQueue<Why>) -> Option<(Mono, Why)> {
        timers.next().map(|timeout| (timeout.at, timeout.why))
    }

    #[test]
    fn the_time_for_a_pong_begins_when_the_ping_left() {
        let mut timers = TimerQueue::default();
        alive(&mut timers, T0);
        assert_eq!(due(&timers), Some((at(25), Why::Ping)));
        timers.pop_due(at(25));
        pinged(&mut timers, at(25));
        assert_eq!(due(&timers), Some((at(35), Why::Pong)));
        ping_left(&mut timers, at(33));
        assert_eq!(due(&timers), Some((at(43), Why::Pong)));
        alive(&mut timers, at(40));
        assert_eq!(due(&timers), Some((at(65), Why::Ping)));
    }

    #[test]
    fn a_ping_that_leaves_after_its_answer_waits_for_nothing() {
        let mut timers = TimerQueue::default();
        pinged(&mut timers, T0);
        alive(&mut timers, at(1));
        ping_left(&mut timers, at(2));
        assert_eq!(due(&timers), Some((at(26), Why::Ping)));
    }
}
