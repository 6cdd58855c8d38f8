//! A peer's stream of live events: counted, with the last ones kept, so that a new connection
//! continues where the old one stopped. Numbers are implicit: each event adds one on both sides.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bytes::Bytes;

use crate::id::Epoch;
use crate::wire::client::Resume;

/// A live event, serialised once for everybody who gets it.
#[derive(Debug)]
pub struct EncodedEvent {
    /// For `live1` clients.
    pub live1: Bytes,
    /// For the others: a push with `subtype: "system"`.
    pub plain: Bytes,
}

impl EncodedEvent {
    fn weight(&self) -> usize {
        self.live1.len() + self.plain.len()
    }
}

#[derive(Debug)]
pub struct Stream {
    epoch: Epoch,
    /// The number of the last event; the first has 1.
    count: u64,
    /// The last events, the newest at the back.
    ring: VecDeque<Arc<EncodedEvent>>,
    ring_bytes: usize,
}

/// Where a connection continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    /// Events after this number follow.
    Hit {
        at: u64,
    },
    /// What was asked for is not in the ring, or was another lease's.
    Miss {
        at: u64,
    },
    Fresh {
        at: u64,
    },
}

impl Stream {
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            count: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
        }
    }

    pub fn append(&mut self, event: Arc<EncodedEvent>, most_events: usize, most_bytes: usize) {
        self.count += 1;
        self.ring_bytes += event.weight();
        self.ring.push_back(event);
        while self.ring.len() > most_events || self.ring_bytes > most_bytes {
            let Some(oldest) = self.ring.pop_front() else {
                return;
            };
            self.ring_bytes -= oldest.weight();
        }
    }

    #[must_use]
    pub fn resume(&self, resume: Option<Resume>) -> Continue {
        let Some(resume) = resume else {
            return Continue::Fresh { at: self.count };
        };
        let held = self.lost()..=self.count;
        if resume.epoch == self.epoch && held.contains(&resume.count) {
            Continue::Hit { at: resume.count }
        } else {
            Continue::Miss { at: self.count }
        }
    }

    /// The event with this number, if the ring holds it.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Arc<EncodedEvent>> {
        let index = number.checked_sub(self.lost() + 1)?;
        self.ring.get(usize::try_from(index).ok()?)
    }

    /// The number of the last event that fell out of the ring, 0 before the first.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.count - self.ring.len() as u64
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn ring_events(&self) -> usize {
        self.ring.len()
    }

    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn event(n: u64) -> Arc<EncodedEvent> {
        let text: Bytes = alloc::format!("{n:08}").into();
        Arc::new(EncodedEvent {
            live1: text.clone(),
            plain: text,
        })
    }

    proptest! {
        /// Whoever resumes at what it has seen gets exactly what came after, or is told `miss`.
        #[test]
        fn resume_continues_without_gap_or_repeat(
            total in 0u64..40, seen in 0u64..45, most in 0usize..12, other_epoch in any::<bool>(),
        ) {
            let mut stream = Stream::new(Epoch([1; 16]));
            for n in 1..=total {
                stream.append(event(n), most, usize::MAX);
            }
            let epoch = Epoch([if other_epoch { 2 } else { 1 }; 16]);
            let held = total.saturating_sub(most as u64)..=total;
            match stream.resume(Some(Resume { epoch, count: seen })) {
                Continue::Hit { at } => {
                    prop_assert!(!other_epoch && held.contains(&seen));
                    prop_assert_eq!(at, seen);
                    let replay: Vec<_> =
                        (at + 1..=total).map(|n| stream.get(n).map(|e| e.live1.clone())).collect();
                    let expected: Vec<_> = (seen + 1..=total).map(|n| Some(event(n).live1.clone())).collect();
                    prop_assert_eq!(replay, expected);
                }
                Continue::Miss { at } => {
                    prop_assert!(other_epoch || !held.contains(&seen));
                    prop_assert_eq!(at, total);
                }
                Continue::Fresh { .. } => prop_assert!(false, "something was asked for"),
            }
            prop_assert!(stream.get(0).is_none() && stream.get(total + 1).is_none());
            prop_assert!(stream.ring_events() <= most);
        }

        #[test]
        fn the_ring_is_bounded_in_bytes(sizes in prop::collection::vec(0usize..100, 0..40)) {
            let mut stream = Stream::new(Epoch([0; 16]));
            for size in sizes {
                let text: Bytes = alloc::vec![b'x'; size].into();
                stream.append(Arc::new(EncodedEvent { live1: text, plain: Bytes::new() }), 500, 150);
                prop_assert!(stream.ring_bytes() <= 150);
            }
        }
    }
}
