//! What became of the messages: lost, doubled, out of order.

use std::collections::{BTreeMap, BTreeSet};

use super::party::Mail;

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub sent: usize,
    pub delivered: usize,
    pub lost: usize,
    pub duplicates: usize,
    pub out_of_order: usize,
}

impl Verdict {
    /// `sent`: the ids in the order in which the sender's daemon accepted them; `inbox`: all that
    /// the recipient has; only what `sender` sent counts. What could not be opened counts as lost.
    #[must_use]
    pub fn of(sender: &str, sent: &[String], inbox: &[Mail]) -> Self {
        let place: BTreeMap<&str, usize> = sent
            .iter()
            .enumerate()
            .map(|(place, id)| (id.as_str(), place))
            .collect();
        let from_sender: Vec<_> = inbox
            .iter()
            .filter(|mail| mail.sender == sender && mail.body.is_some())
            .collect();
        let distinct: BTreeSet<_> = from_sender.iter().map(|mail| mail.id.as_str()).collect();
        // Each body was sent once, so a body that is there twice is a duplicate whatever its id.
        let bodies: BTreeSet<_> = from_sender.iter().map(|mail| &mail.body).collect();
        let delivered = sent
            .iter()
            .filter(|id| distinct.contains(id.as_str()))
            .count();
        let places: Vec<_> = from_sender
            .iter()
            .filter_map(|mail| place.get(mail.id.as_str()))
            .collect();
        Self {
            sent: sent.len(),
            delivered,
            lost: sent.len() - delivered,
            duplicates: from_sender.len() - bodies.len(),
            out_of_order: places.windows(2).filter(|pair| pair[0] > pair[1]).count(),
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

    fn inbox(ids: &[&str]) -> Vec<Mail> {
        let mail = |id: &&str| Mail {
            seq: 0,
            sender: "s".into(),
            id: (*id).into(),
            body: Some(format!("body of {id}")),
        };
        ids.iter().map(mail).collect()
    }

    fn verdict(sent: &[&str], received: &[&str]) -> Verdict {
        let sent: Vec<_> = sent.iter().map(|id| (*id).to_owned()).collect();
        Verdict::of("s", &sent, &inbox(received))
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
    }

    #[test]
    fn what_cannot_be_opened_or_is_of_others_does_not_count_as_delivered() {
        let mut received = inbox(&["a"]);
        received[0].body = None;
        assert_eq!(Verdict::of("s", &["a".into()], &received).lost, 1);
        assert_eq!(Verdict::of("t", &["a".into()], &inbox(&["a"])).lost, 1);
    }
}
