//! Who is here, as it is told: one projection of lease transitions, as events and as lists.

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use super::lease::Lease;
use super::peer::Peer;
use super::stream::EncodedEvent;
use crate::id::{MeshId, MessageId, PubKey, Role};
use crate::store::mesh::PeerRow;
use crate::time::{Mono, Wall};
use crate::wire::Suite;
use crate::wire::broker::{Event, EventData, EventKind, Peer as ListedPeer, PeerState};
use crate::wire::client::Group;
use crate::wire::encode::{encode_event, encode_event_plain};

/// Told to those entitled once its transaction is durable.
#[derive(Debug)]
pub struct Announcement {
    pub kind: EventKind,
    pub about: PeerRow,
    pub member_pubkey: PubKey,
}

impl Announcement {
    /// Serialised once for everybody. `id` and `told_at`: what the dialect's push asks for.
    #[must_use]
    pub fn encode(&self, mesh: &MeshId, id: &MessageId, told_at: Wall) -> Arc<EncodedEvent> {
        let registration = &self.about.registration;
        let plain = Event {
            kind: self.kind,
            data: EventData {
                name: display_name(&self.about),
                pubkey: self.about.pubkey,
                member_pubkey: Some(self.member_pubkey),
                role: Some(self.about.role.as_str().into()),
                groups: (self.kind != EventKind::PeerLeft)
                    .then(|| registration.about.groups.clone()),
                summary: registration.summary.clone(),
                profile: registration.profile.clone(),
                suites: None,
            },
        };
        let opens = Suite::opened_by(&registration.capabilities);
        let mut event = plain.clone();
        event.data.suites = Some(opens.iter().map(|suite| suite.as_str().into()).collect());
        Arc::new(EncodedEvent {
            plain: encode_event_plain(mesh, id, told_at, &plain),
            live1: encode_event(&event),
        })
    }

    /// Is `observer` told? Not the one it is about; of a hidden peer only its own member.
    /// The coming and going of control planes is told to nobody.
    #[must_use]
    pub fn is_for(&self, observer: &PeerRow) -> bool {
        let own_member = observer.member == self.about.member;
        let hidden = !self.about.registration.visible
            && matches!(
                self.kind,
                EventKind::PeerJoined | EventKind::PeerLeft | EventKind::ProfileUpdated
            );
        self.about.role != Role::ControlPlane
            && observer.key != self.about.key
            && (!hidden || own_member)
    }
}

/// A name for people: as registered, else the start of the key.
#[must_use]
pub fn display_name(row: &PeerRow) -> String {
    row.registration
        .about
        .display_name
        .clone()
        .unwrap_or_else(|| short_name(&row.pubkey))
}

/// The start of a key, for those who gave no name.
#[must_use]
pub fn short_name(pubkey: &PubKey) -> String {
    pubkey.to_string().chars().take(8).collect()
}

/// A peer as a listing shows it. `bowline`: to a client that asked for features.
#[must_use]
pub fn listed(peer: &Peer, member_pubkey: PubKey, now: Mono, bowline: bool) -> Option<ListedPeer> {
    let row = peer.row.as_ref()?;
    let registration = &row.registration;
    let about = &registration.about;
    let (state, away_ms) = match &peer.lease {
        Lease::Live(_) => (PeerState::Live, None),
        Lease::Grace { since, .. } => (
            PeerState::Grace,
            Some(u64::try_from(now.since(*since).as_millis()).unwrap_or(u64::MAX)),
        ),
        // Its leaving is not durable yet: until it is told, it is away.
        Lease::Gone => (PeerState::Grace, None),
    };
    Some(ListedPeer {
        pubkey: row.pubkey,
        member_pubkey,
        display_name: display_name(row),
        status: registration.status,
        summary: registration.summary.clone(),
        groups: about.groups.clone(),
        session_id: registration.session_id.clone().unwrap_or_else(|| "".into()),
        connected_at: row.joined_at.iso8601().to_string(),
        cwd: about.cwd.clone(),
        peer_role: row.role.as_str().into(),
        hostname: about.hostname.clone(),
        peer_type: about.peer_type.clone(),
        channel: about.channel.clone(),
        model: about.model.clone(),
        stats: peer.stats.clone(),
        visible: Some(registration.visible),
        profile: registration.profile.clone(),
        state: bowline.then_some(state),
        away_ms: away_ms.filter(|_| bowline),
        attestation: registration.attestation.clone().filter(|_| bowline),
        capabilities: bowline.then(|| registration.capabilities.clone()),
    })
}

/// Adds or replaces a group. False where there is no room.
pub fn join_group(groups: &mut alloc::vec::Vec<Group>, group: Group, most: usize) -> bool {
    if let Some(own) = groups.iter_mut().find(|own| own.name == group.name) {
        *own = group;
        return true;
    }
    let room = groups.len() < most;
    if room {
        groups.push(group);
    }
    room
}
