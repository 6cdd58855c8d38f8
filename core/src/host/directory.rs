//! Who is known in a mesh, by name and key, and who of them our sessions were last told is here.
//!
//! One source for each mesh: the stream of its control plane. What it missed is made up by a snapshot;
//! the difference to what our sessions were told is what they are told (G6). **An event that says
//! what they were told already is not told again**, so that each sees joins and leaves in turn,
//! whichever way we learned of them.
//!
//! Deliberately absent: control planes as presence. Their coming and going is told to nobody.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::context::{Context, Promise, Why};
use crate::id::{MeshId, PubKey};
use crate::limits::{DIRECTORY_PEERS, NAME_BYTES, PEERS_PAGE, SNAPSHOT_PAGE_WITHIN};
use crate::mark::Mark;
use crate::store::host::{DirectoryRow, Op};
use crate::wire::audience::AudienceKey;
use crate::wire::broker::{Event, EventKind, Peer, PeersList};
use crate::wire::client::ReqId;
use crate::wire::decode::cut;
use crate::wire::{ClientFrame, Suite};

const CONTROL_PLANE: &str = "control-plane";
/// A key's prefix names a peer from this many characters on.
const PREFIX_AT_LEAST: usize = 4;
/// Near names that an error shows.
const NEAR_NAMES: usize = 5;

#[derive(Default)]
pub(super) struct Directory {
    meshes: BTreeMap<MeshId, Known>,
    last_snapshot: u64,
}

#[derive(Default)]
struct Known {
    peers: BTreeMap<PubKey, DirectoryRow>,
    /// What opens mail to keys that are no peers of `peers`: members'. Learnt anew after a restart.
    others: BTreeMap<PubKey, Suite>,
    /// Something may have been missed.
    stale: bool,
    snapshot: Option<Snapshot>,
}

/// The mesh as of now, page by page; events that come between pages are worked into it.
struct Snapshot {
    number: u64,
    after: Option<String>,
    here: BTreeMap<PubKey, DirectoryRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Joined,
    Left,
    Updated,
}

impl ChangeKind {
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Joined => "peer_joined",
            Self::Left => "peer_left",
            Self::Updated => "profile_updated",
        }
    }
}

/// What sessions are told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) peer: DirectoryRow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) pubkey: PubKey,
    pub(super) present: bool,
}

/// What a `to` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Key(PubKey),
    Unknown { near: Vec<Candidate> },
    Ambiguous(Vec<Candidate>),
}

impl Directory {
    /// But for when each was last seen: that alone is not worth a commit.
    pub(super) fn durable(&self) -> String {
        let rows = self.meshes.values().flat_map(|known| known.peers.values());
        rows.map(|row| {
            alloc::format!(
                "{} {} of {}: {} {} present {} opens {:?}\n",
                row.mesh,
                row.pubkey,
                row.member_pubkey,
                row.name,
                row.role,
                row.present,
                row.suite
            )
        })
        .collect()
    }

    pub(super) fn recover(rows: Vec<DirectoryRow>) -> Self {
        let mut directory = Self::default();
        for row in rows {
            let known = directory.meshes.entry(row.mesh.clone()).or_default();
            known.peers.insert(row.pubkey, row);
        }
        directory
    }

    /// A live event of the control plane's stream.
    pub(super) fn event(&mut self, ctx: &mut Context, mesh: &MeshId, event: &Event) {
        let data = &event.data;
        let role = data.role.as_deref().unwrap_or("session");
        let known = self.meshes.entry(mesh.clone()).or_default();
        let before = known.peers.get(&data.pubkey);
        let mut row = DirectoryRow {
            mesh: mesh.clone(),
            pubkey: data.pubkey,
            member_pubkey: data
                .member_pubkey
                .or(before.map(|row| row.member_pubkey))
                .unwrap_or(data.pubkey),
            name: data.name.clone(),
            role: role.into(),
            present: before.is_some_and(|row| row.present),
            last_seen: ctx.now.wall,
            suite: match &data.suites {
                Some(names) => Suite::best_of(names),
                None => before.and_then(|row| row.suite),
            },
        };
        cut(&mut row.name, NAME_BYTES);
        let here = match event.kind {
            EventKind::PeerJoined | EventKind::PeerVisible => true,
            EventKind::PeerLeft | EventKind::PeerHidden => false,
            EventKind::ProfileUpdated => row.present,
        };
        row.present = here && role != CONTROL_PLANE;
        if let Some(snapshot) = &mut known.snapshot {
            if row.present {
                snapshot.here.insert(row.pubkey, row.clone());
            } else {
                snapshot.here.remove(&row.pubkey);
            }
        }
        let updated = (event.kind == EventKind::ProfileUpdated && row.present).then(|| Change {
            kind: ChangeKind::Updated,
            peer: row.clone(),
        });
        let change = known.put(ctx, row).or(updated);
        tell(ctx, mesh, change.into_iter().collect());
    }

    /// The stream did not continue where it stopped.
    pub(super) fn missed(&mut self, mesh: &MeshId) {
        self.meshes.entry(mesh.clone()).or_default().stale = true;
    }

    /// The control plane is up: what to ask, if anything is to be made up for. A snapshot that was
    /// under way on an earlier connection starts anew.
    pub(super) fn connected(&mut self, ctx: &mut Context, mesh: &MeshId) -> Option<ClientFrame> {
        let known = self.meshes.entry(mesh.clone()).or_default();
        known.stale |= known.snapshot.take().is_some();
        if !known.stale {
            return None;
        }
        self.last_snapshot += 1;
        known.stale = false;
        known.snapshot = Some(Snapshot {
            number: self.last_snapshot,
            after: None,
            here: BTreeMap::new(),
        });
        known.ask(ctx, mesh)
    }

    /// Meshes of which something was missed and nothing was asked since.
    pub(super) fn to_make_up(&self) -> Vec<MeshId> {
        let missed = |known: &Known| known.stale && known.snapshot.is_none();
        self.meshes
            .iter()
            .filter(|(_, known)| missed(known))
            .map(|(mesh, _)| mesh.clone())
            .collect()
    }

    /// The page that was asked for last, once more.
    pub(super) fn ask_again(&mut self, ctx: &mut Context, mesh: &MeshId) -> Option<ClientFrame> {
        self.meshes.get(mesh)?.ask(ctx, mesh)
    }

    /// A page of a listing: `None` if it is not of the snapshot under way. What to ask next, if
    /// there is more.
    pub(super) fn page(
        &mut self,
        ctx: &mut Context,
        mesh: &MeshId,
        page: &PeersList,
    ) -> Option<Option<ClientFrame>> {
        let known = self.meshes.get_mut(mesh)?;
        let snapshot = known.snapshot.as_mut()?;
        if page.req_id != Some(snapshot.req_id()) {
            return None;
        }
        for peer in &page.peers {
            if peer.peer_role == CONTROL_PLANE {
                if let Some(suite) = suite_of(peer) {
                    note(&mut known.others, peer.pubkey, suite);
                }
                continue;
            }
            if snapshot.here.len() >= DIRECTORY_PEERS {
                continue;
            }
            let row = row_of(ctx, mesh, peer);
            snapshot.here.insert(row.pubkey, row);
        }
        // A page that does not lead on would be asked for for ever.
        let leads_on = page.next.is_some() && page.next != snapshot.after;
        if leads_on && !page.peers.is_empty() {
            snapshot.after.clone_from(&page.next);
            return Some(known.ask(ctx, mesh));
        }
        ctx.timers.cancel(&Why::Snapshot(mesh.clone()));
        known.finish(ctx, mesh);
        Some(None)
    }

    /// Peers that were seen in passing, on somebody's listing: their names resolve from now on.
    /// Says nothing of who is here.
    pub(super) fn noticed(&mut self, ctx: &mut Context, mesh: &MeshId, peers: &[Peer]) {
        let known = self.meshes.entry(mesh.clone()).or_default();
        for peer in peers {
            if peer.peer_role == CONTROL_PLANE || known.peers.contains_key(&peer.pubkey) {
                continue;
            }
            let mut row = row_of(ctx, mesh, peer);
            row.present = false;
            known.put(ctx, row);
        }
    }

    /// What to seal with for `key`. Whoever nobody told of is one of ours: where that is wrong, the
    /// broker refuses and tells.
    pub(super) fn suite(&self, mesh: &MeshId, key: &PubKey) -> Suite {
        let known = self.meshes.get(mesh);
        let of_peer = known.and_then(|known| known.peers.get(key)?.suite);
        let of_other = || known.and_then(|known| known.others.get(key).copied());
        of_peer.or_else(of_other).unwrap_or(Suite::X1)
    }

    /// The broker refused what was not sealed for those it goes to.
    pub(super) fn told_suites(&mut self, ctx: &mut Context, mesh: &MeshId, all: &[AudienceKey]) {
        let known = self.meshes.entry(mesh.clone()).or_default();
        for told in all {
            let Some(suite) = Suite::best_of(&told.suites) else {
                continue;
            };
            ctx.mark(Mark::SuiteLearnt);
            match known.peers.get_mut(&told.key) {
                Some(row) if row.suite != Some(suite) => {
                    row.suite = Some(suite);
                    ctx.persist(Op::PeerPut(row.clone()));
                }
                Some(_) => {}
                None => note(&mut known.others, told.key, suite),
            }
        }
    }

    /// By exact name, whole key, or a key's prefix. `own`: sessions of this host, which may not have
    /// been seen by the broker yet. `me` is nobody's target.
    pub(super) fn resolve(
        &self,
        mesh: &MeshId,
        to: &str,
        me: &PubKey,
        own: &[Candidate],
    ) -> Resolved {
        if let Ok(key) = to.parse() {
            return Resolved::Key(key);
        }
        let all = self.candidates(mesh, me, own);
        let named: Vec<&Candidate> = all.values().filter(|peer| peer.name == to).collect();
        let here: Vec<&Candidate> = named.iter().copied().filter(|peer| peer.present).collect();
        for group in [here, named] {
            match group.as_slice() {
                [] => {}
                [one] => return Resolved::Key(one.pubkey),
                several => return Resolved::Ambiguous(several.iter().copied().cloned().collect()),
            }
        }
        if is_prefix(to) {
            let lower = to.to_ascii_lowercase();
            let keyed: Vec<&Candidate> = all
                .iter()
                .filter(|(hex, _)| hex.starts_with(&lower))
                .map(|(_, peer)| peer)
                .collect();
            match keyed.as_slice() {
                [] => {}
                [one] => return Resolved::Key(one.pubkey),
                several => return Resolved::Ambiguous(several.iter().copied().cloned().collect()),
            }
        }
        let near = near(to, all.values());
        Resolved::Unknown { near }
    }

    /// Who is here, as our sessions were told.
    pub(super) fn present(&self, mesh: &MeshId) -> impl Iterator<Item = &DirectoryRow> {
        self.known(mesh).filter(|row| row.present)
    }

    pub(super) fn known(&self, mesh: &MeshId) -> impl Iterator<Item = &DirectoryRow> {
        self.meshes
            .get(mesh)
            .into_iter()
            .flat_map(|known| known.peers.values())
    }

    pub(super) fn by_name(&self, mesh: &MeshId, name: &str) -> Option<PubKey> {
        self.known(mesh)
            .filter(|row| row.name == name)
            .max_by_key(|row| (row.present, row.last_seen))
            .map(|row| row.pubkey)
    }

    /// The largest of the meshes.
    pub(super) fn len(&self) -> usize {
        self.meshes
            .values()
            .map(|known| known.peers.len())
            .max()
            .unwrap_or(0)
    }

    /// By key in hex, so that a peer seen in two ways is one.
    fn candidates(
        &self,
        mesh: &MeshId,
        me: &PubKey,
        own: &[Candidate],
    ) -> BTreeMap<String, Candidate> {
        let known = self
            .known(mesh)
            .filter(|row| row.role != CONTROL_PLANE)
            .map(|row| Candidate {
                name: row.name.clone(),
                pubkey: row.pubkey,
                present: row.present,
            });
        // Our own sessions last: their names and states are known better here.
        known
            .chain(own.iter().cloned())
            .filter(|peer| peer.pubkey != *me)
            .map(|peer| (alloc::format!("{}", peer.pubkey), peer))
            .collect()
    }
}

impl Known {
    /// Keeps `row`; what sessions are to be told of it.
    fn put(&mut self, ctx: &mut Context, row: DirectoryRow) -> Option<Change> {
        let before = self.peers.get(&row.pubkey);
        let was_here = before.is_some_and(|row| row.present);
        let renamed = before.is_some_and(|before| before.name != row.name);
        let resealed = before.is_some_and(|before| before.suite != row.suite);
        let kind = match (was_here, row.present) {
            (false, true) => Some(ChangeKind::Joined),
            (true, false) => Some(ChangeKind::Left),
            (true, true) if renamed => Some(ChangeKind::Updated),
            _ => None,
        };
        // Being seen again is not worth a write.
        if kind.is_some() || renamed || resealed || before.is_none() {
            ctx.persist(Op::PeerPut(row.clone()));
        }
        self.peers.insert(row.pubkey, row.clone());
        self.forget_oldest(ctx);
        kind.map(|kind| Change { kind, peer: row })
    }

    fn forget_oldest(&mut self, ctx: &mut Context) {
        if self.peers.len() <= DIRECTORY_PEERS {
            return;
        }
        let oldest = self
            .peers
            .values()
            .filter(|row| !row.present)
            .min_by_key(|row| row.last_seen)
            .map(|row| (row.mesh.clone(), row.pubkey));
        if let Some((mesh, pubkey)) = oldest {
            self.peers.remove(&pubkey);
            ctx.persist(Op::PeerForget { mesh, pubkey });
        }
    }

    fn ask(&self, ctx: &mut Context, mesh: &MeshId) -> Option<ClientFrame> {
        let snapshot = self.snapshot.as_ref()?;
        ctx.after(Why::Snapshot(mesh.clone()), SNAPSHOT_PAGE_WITHIN);
        Some(ClientFrame::ListPeers {
            after: snapshot.after.clone(),
            limit: u32::try_from(PEERS_PAGE).ok(),
            req_id: Some(snapshot.req_id()),
        })
    }

    /// The difference between what sessions were told and what is.
    fn finish(&mut self, ctx: &mut Context, mesh: &MeshId) {
        let Some(snapshot) = self.snapshot.take() else {
            return;
        };
        let gone: Vec<DirectoryRow> = self
            .peers
            .values()
            .filter(|row| row.present && !snapshot.here.contains_key(&row.pubkey))
            .map(|row| DirectoryRow {
                present: false,
                ..row.clone()
            })
            .collect();
        let changes: Vec<Change> = gone
            .into_iter()
            .chain(snapshot.here.into_values())
            .filter_map(|row| self.put(ctx, row))
            .collect();
        if !changes.is_empty() {
            ctx.mark(Mark::PresenceFromSnapshot);
        }
        tell(ctx, mesh, changes);
    }
}

impl Snapshot {
    fn req_id(&self) -> ReqId {
        ReqId(alloc::format!("s{}", self.number))
    }
}

/// Telling waits until what was told is durable: a host that crashed in between would tell it twice.
fn tell(ctx: &mut Context, mesh: &MeshId, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    ctx.promise(Promise::Presence {
        mesh: mesh.clone(),
        changes,
    });
}

fn row_of(ctx: &Context, mesh: &MeshId, peer: &Peer) -> DirectoryRow {
    let mut name = peer.display_name.clone();
    cut(&mut name, NAME_BYTES);
    DirectoryRow {
        mesh: mesh.clone(),
        pubkey: peer.pubkey,
        member_pubkey: peer.member_pubkey,
        name,
        role: peer.peer_role.clone(),
        present: true,
        last_seen: ctx.now.wall,
        suite: suite_of(peer),
    }
}

fn suite_of(peer: &Peer) -> Option<Suite> {
    let opens = Suite::opened_by(peer.capabilities.as_ref()?);
    opens.first().copied()
}

/// Keeps no more than it keeps of peers.
fn note(others: &mut BTreeMap<PubKey, Suite>, key: PubKey, suite: Suite) {
    others.insert(key, suite);
    if others.len() > DIRECTORY_PEERS {
        others.pop_first();
    }
}

fn is_prefix(text: &str) -> bool {
    text.len() >= PREFIX_AT_LEAST && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names that start alike or differ by little, nearest first.
fn near<'a>(to: &str, all: impl Iterator<Item = &'a Candidate>) -> Vec<Candidate> {
    let wanted = to.to_lowercase();
    let tolerated = (wanted.chars().count() / 3).max(1);
    let mut ranked: Vec<(usize, &Candidate)> = all
        .filter_map(|peer| {
            let name = peer.name.to_lowercase();
            let alike = !wanted.is_empty()
                && !name.is_empty()
                && (name.starts_with(&wanted) || wanted.starts_with(&name));
            let distance = if alike { 0 } else { edits(&wanted, &name) };
            (distance <= tolerated).then_some((distance, peer))
        })
        .collect();
    ranked.sort_by(|(a, one), (b, other)| {
        (a, !one.present, &one.name, one.pubkey).cmp(&(
            b,
            !other.present,
            &other.name,
            other.pubkey,
        ))
    });
    ranked
        .into_iter()
        .take(NEAR_NAMES)
        .map(|(_, peer)| peer.clone())
        .collect()
}

/// Levenshtein's distance, of names, which are short.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            let substituted = diagonal + usize::from(x != *y);
            row[j + 1] = substituted.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        let one = |(n, name): (usize, &&str)| Candidate {
            name: String::from(*name),
            pubkey: PubKey([u8::try_from(n).unwrap() + 1; 32]),
            present: true,
        };
        names.iter().enumerate().map(one).collect()
    }

    fn resolve(to: &str, names: &[&str]) -> Resolved {
        let mesh = MeshId::from("m");
        Directory::default().resolve(&mesh, to, &PubKey([0; 32]), &candidates(names))
    }

    #[test]
    fn a_name_a_key_and_the_beginning_of_a_key_resolve() {
        let key = PubKey([2; 32]);
        assert_eq!(resolve("bob", &["ann", "bob"]), Resolved::Key(key));
        assert_eq!(resolve("0202", &["ann", "bob"]), Resolved::Key(key));
        // Too short to be a beginning.
        assert!(matches!(
            resolve("020", &["ann", "bob"]),
            Resolved::Unknown { .. }
        ));
        // Nobody here knows this key; the broker decides.
        let unknown = alloc::format!("{}", PubKey([9; 32])).to_uppercase();
        assert_eq!(resolve(&unknown, &[]), Resolved::Key(PubKey([9; 32])));
        // A name goes before a key's beginning.
        assert_eq!(
            resolve("0202", &["0202", "bob"]),
            Resolved::Key(PubKey([1; 32]))
        );
        assert!(
            matches!(resolve("bob", &["bob", "bob"]), Resolved::Ambiguous(both) if both.len() == 2)
        );
    }

    #[test]
    fn near_names_are_few_and_nearest_first() {
        let near = |to, names: &[&str]| match resolve(to, names) {
            Resolved::Unknown { near } => {
                near.into_iter().map(|peer| peer.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(near("reviewr", &["builder", "reviewer"]), ["reviewer"]);
        assert_eq!(near("bui", &["builder", "boy"]), ["builder"]);
        assert!(near("zzzz", &["builder", ""]).is_empty());
        let many = ["bob1", "bob2", "bob3", "bob4", "bob5", "bob6"];
        assert_eq!(near("bob", &many).len(), NEAR_NAMES);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}
