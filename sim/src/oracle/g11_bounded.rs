//! G11: whatever a remote side can grow has a limit, and is within it after every step.

use bowline_core::limits::FRAME_BYTES;

use super::{Oracle, View};
use crate::clock::Moment;
use crate::record::Record;

/// Of packets, which the network counts and the mesh does not.
const HEADS_BYTES: u64 = 2_048;

#[derive(Default)]
pub struct Bounded;

impl Oracle for Bounded {
    fn name(&self) -> &'static str {
        "g11_bounded"
    }

    fn see(&mut self, _: Moment, record: &Record, view: &View) -> Result<(), String> {
        match record {
            Record::Sizes { sizes, .. } => {
                for (name, size, most) in sizes {
                    if size > most {
                        return Err(format!("{name}: {size}, and at most {most}"));
                    }
                }
                Ok(())
            }
            Record::Sent {
                queued_bytes,
                frame,
                ..
            } => {
                // Deliveries are paced by half of it, so that there is room for what is live.
                let paced = view.limits.queued_bytes / 2 + HEADS_BYTES;
                // Live events to whoever does not know `event` are pushes too, and no deliveries.
                let is_event = frame.starts_with(b"{\"type\":\"push\",\"subtype\":\"system\"");
                let is_delivery = frame.starts_with(b"{\"type\":\"push\"") && !is_event;
                if is_delivery && *queued_bytes > paced {
                    return Err(format!(
                        "a delivery is pushed behind {queued_bytes} bytes, and at most {paced}"
                    ));
                }
                // One frame may go over; frames say their length, packets have a head.
                let most = view.limits.queued_bytes + 2 * FRAME_BYTES as u64;
                if *queued_bytes > most {
                    return Err(format!(
                        "{queued_bytes} bytes are queued to one connection, and at most {most}"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
