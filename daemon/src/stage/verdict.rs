//! What became of the messages: lost, doubled, out of order.

use std::collections::{BTreeMap, BTreeSet};

use bowline_core::wire::Priority;

use super::party::Mail;

/// What a daemon said that it had accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    pub id: String,
    pub priority: Priority,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub sent: usize,
    pub delivered: usize,
    pub lost: usize,
    pub duplicates: usize,
    /// Within a lane: one sender, one recipient, one priority. Lanes overtake each other.
    pub out_of_order: usize,
}

impl Verdict {
    /// `sent`: in the order in which the sender's daemon accepted it; `inbox`: all that the recipient
    /// has; only what `sender` sent counts. What could not be opened, or came under another priority
    /// than it was sent under, counts as lost.
    #[must_use]
    pub fn of(sender: &str, sent: &[Accepted], inbox: &[Mail]) -> Self {
        let place: BTreeMap<&str, usize> = sent
            .iter()
            .enumerate()
            .map(|(place, accepted)| (accepted.id.as_str(), place))
            .collect();
        let from_sender: Vec<_> = inbox
            .iter()
            .filter(|mail| mail.sender == sender && mail.body.is_some())
            .collect();
        // Each body was sent once, so a body that is there twice is a duplicate whatever its id.
        let bodies: BTreeSet<_> = from_sender.iter().map(|mail| &mail.body).collect();
        let places: Vec<usize> = from_sender
            .iter()
            .filter_map(|mail| {
                let place = *place.get(mail.id.as_str())?;
                (mail.priority == Some(sent[place].priority)).then_some(place)
            })
            .collect();
        let delivered = places.iter().collect::<BTreeSet<_>>().len();
        let out_of_order = |lane: Priority| {
            let of_lane = places.iter().filter(|place| sent[**place].priority == lane);
            let of_lane: Vec<_> = of_lane.collect();
            of_lane.windows(2).filter(|pair| pair[0] > pair[1]).count()
        };
        Self {
            sent: sent.len(),
            delivered,
            lost: sent.len() - delivered,
            duplicates: from_sender.len() - bodies.len(),
            out_of_order: [Priority::Now, Priority::Next, Priority::Low]
                .map(out_of_order)
                .iter()
                .sum(),
        }
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            duplicates: self.duplicates + other.duplicates,
            out_of_order: self.out_of_order + other.out_of_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Priority::{Low, Next, Now};

    fn inbox(mail: &[(&str, Priority)]) -> Vec<Mail> {
        let one = |(id, priority): &(&str, Priority)| Mail {
            seq: 0,
            sender: "s".into(),
            id: (*id).into(),
            priority: Some(*priority),
            body: Some(format!("body of {id}")),
        };
        mail.iter().map(one).collect()
    }

    fn accepted(sent: &[(&str, Priority)]) -> Vec<Accepted> {
        let one = |(id, priority): &(&str, Priority)| Accepted {
            id: (*id).into(),
            priority: *priority,
        };
        sent.iter().map(one).collect()
    }

    fn verdict_by_lane(sent: &[(&str, Priority)], received: &[(&str, Priority)]) -> Verdict {
        Verdict::of("s", &accepted(sent), &inbox(received))
    }

    fn verdict(sent: &[&'static str], received: &[&'static str]) -> Verdict {
        let next = |ids: &[&'static str]| ids.iter().map(|id| (*id, Next)).collect::<Vec<_>>();
        verdict_by_lane(&next(sent), &next(received))
    }

    #[test]
    fn all_in_order_is_all_delivered() {
        let verdict = verdict(&["a", "b"], &["a", "b"]);
        assert_eq!((verdict.delivered, verdict.lost), (2, 0));
        assert_eq!((verdict.duplicates, verdict.out_of_order), (0, 0));
    }

    #[test]
    fn each_mistake_is_counted_as_what_it_is() {
        assert_eq!(verdict(&["a", "b"], &["a"]).lost, 1);
        assert_eq!(verdict(&["a", "b"], &["a", "a", "b"]).duplicates, 1);
        assert_eq!(verdict(&["a", "b", "c"], &["b", "a", "c"]).out_of_order, 1);
        let late = verdict(&["a", "b"], &["a", "b", "a"]);
        assert_eq!((late.duplicates, late.out_of_order), (1, 1), "{late:?}");
    }

    #[test]
    fn lanes_overtake_each_other_and_each_keeps_its_order() {
        let sent = [("a", Low), ("b", Now), ("c", Low), ("d", Now)];
        let overtaken = verdict_by_lane(&sent, &[("b", Now), ("d", Now), ("a", Low), ("c", Low)]);
        assert_eq!((overtaken.delivered, overtaken.out_of_order), (4, 0));
        let swapped = verdict_by_lane(&sent, &[("c", Low), ("b", Now), ("a", Low), ("d", Now)]);
        assert_eq!((swapped.delivered, swapped.out_of_order), (4, 1));
    }

    #[test]
    fn what_came_under_another_priority_is_not_what_was_sent() {
        let relabelled = verdict_by_lane(&[("a", Low)], &[("a", Now)]);
        assert_eq!((relabelled.delivered, relabelled.lost), (0, 1));
    }

    #[test]
    fn what_cannot_be_opened_or_is_of_others_does_not_count_as_delivered() {
        let sent = accepted(&[("a", Next)]);
        let mut received = inbox(&[("a", Next)]);
        assert_eq!(Verdict::of("t", &sent, &received).lost, 1);
        received[0].body = None;
        assert_eq!(Verdict::of("s", &sent, &received).lost, 1);
    }
}
