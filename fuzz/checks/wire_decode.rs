//! What holds for any bytes from a socket or a pasted link. Run by the fuzzer on bytes that it makes
//! up, and by a test of `bowline-core` on the committed corpus.

use bowline_core::crypto::invite::InviteToken;
use bowline_core::wire::{
    BrokerFrame, ClientFrame, decode_broker, decode_client, encode_broker, encode_client,
};

/// # Panics
/// If a reader does, or if what was read, written and read again is not the same.
pub fn wire_decode(bytes: &[u8]) {
    if let Ok(frame) = decode_client(bytes) {
        let again = decode_client(&encode_client(&frame)).expect("what was read can be written");
        assert!(again == frame || holds_numbers_of_others(&frame));
    }
    match decode_broker(bytes) {
        Ok(BrokerFrame::Unknown) | Err(_) => {}
        Ok(frame) => {
            let again =
                decode_broker(&encode_broker(&frame)).expect("what was read can be written");
            assert!(
                again == frame
                    || matches!(frame, BrokerFrame::HelloAck(_) | BrokerFrame::PeersList(_))
            );
        }
    }
    if let Ok(link) = str::from_utf8(bytes)
        && let Ok(invite) = InviteToken::decode(link)
    {
        assert_eq!(InviteToken::decode(&invite.link()), Ok(invite));
    }
}

/// JSON of others, whose floats may lose their last bit each time.
fn holds_numbers_of_others(frame: &ClientFrame) -> bool {
    matches!(
        frame,
        ClientFrame::SetStats { .. } | ClientFrame::Hello(_) | ClientFrame::SessionHello(_)
    )
}
