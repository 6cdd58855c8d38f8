//! What a sealed message is bound to, as bytes.
//!
//! Six fields, always all of them and in this order, each behind its length in bytes (64 bits,
//! big-endian): mesh id, sender key (32 raw bytes), recipient key (32 raw bytes), client message id,
//! priority as on the wire, reply-to (empty where there is none: no message id is empty). Length
//! prefixes make it unambiguous whatever the ids hold.

use alloc::vec::Vec;

use super::SealContext;

/// Stands before the associated data in HKDF's info, so that no two suites share a key.
pub(super) const SUITE_X1: &[u8] = b"x1";

pub(super) fn of(context: &SealContext<'_>) -> Vec<u8> {
    let fields: [&[u8]; 6] = [
        context.mesh.as_str().as_bytes(),
        &context.sender.0,
        &context.recipient.0,
        context.client_message_id.as_str().as_bytes(),
        context.priority.as_str().as_bytes(),
        context.reply_to.map_or(&[], |id| id.as_str().as_bytes()),
    ];
    let length = fields
        .iter()
        .map(|field| size_of::<u64>() + field.len())
        .sum();
    let mut bytes = Vec::with_capacity(length);
    fields.iter().for_each(|field| push(&mut bytes, field));
    bytes
}

pub(super) fn length_prefixed(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<u64>() + field.len());
    push(&mut bytes, field);
    bytes
}

fn push(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
    bytes.extend_from_slice(field);
}
