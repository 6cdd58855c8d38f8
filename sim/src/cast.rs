//! Who plays in a mesh of a run: members, puppets, and the keys that they have for its whole length.

use std::rc::Rc;
use std::sync::Arc;

use bowline_core::crypto::real::RealCrypto;
use bowline_core::crypto::stand_in::StandIn;
use bowline_core::crypto::{Crypto, SecretKey};
use bowline_core::id::{MemberId, MeshId, PeerKey, PubKey, Role};
use bowline_core::store::mesh::{MemberRole, MemberRow};
use bowline_core::time::Wall;

use crate::clock::WALL_AT_START_MS;
use crate::plan::Profile;
use crate::random::{Purpose, Random};

pub const BROKER_URL: &str = "ws://broker.sim:7900/ws";
/// Of each mesh that a run can have.
pub const MESH_SLUGS: [&str; 2] = ["knots", "bends"];
/// A key that nobody has.
pub const STRANGER: PubKey = PubKey([0x5a; 32]);

/// The meshes of a run, counted.
pub type MeshIndex = usize;

pub struct Cast {
    pub index: MeshIndex,
    pub mesh: MeshId,
    pub slug: &'static str,
    pub crypto: Arc<dyn Crypto>,
    pub owner: SecretKey,
    /// One for each host, then one for each puppet. Hosts are members of every mesh.
    pub members: Vec<Member>,
    /// Which of them is an admin: that of the first puppet that acts here.
    pub admin: Option<usize>,
    /// All of them, as they would be here; each acts in its own mesh only.
    pub puppets: Vec<Puppet>,
}

pub struct Member {
    pub id: MemberId,
    pub secret: SecretKey,
    pub pubkey: PubKey,
}

pub struct Puppet {
    pub role: Role,
    /// Its own, or for a control plane its member's.
    pub secret: SecretKey,
    pub pubkey: PubKey,
    pub key: Arc<PeerKey>,
    /// Of a session that never holds a lease: it only ever sends.
    pub silent: SecretKey,
    pub silent_key: Arc<PeerKey>,
}

/// # Panics
/// If there is no such mesh in this run.
#[must_use]
pub fn index_of(casts: &[Rc<Cast>], mesh: &MeshId) -> MeshIndex {
    let index = casts.iter().position(|cast| cast.mesh == *mesh);
    index.expect("a mesh of this run")
}

impl Cast {
    #[must_use]
    pub fn of(profile: &Profile, random: &Random, index: MeshIndex) -> Self {
        let slug = MESH_SLUGS[index];
        let crypto: Arc<dyn Crypto> = if profile.real_crypto {
            Arc::new(RealCrypto)
        } else {
            Arc::new(StandIn)
        };
        let secret_of = |of: u64| {
            let of = (index as u64) << 32 ^ of;
            SecretKey::from_bytes(random.bytes32(Purpose::Key, of))
        };
        let members: Vec<Member> = (0..profile.clients())
            .map(|client| {
                let secret = secret_of(client as u64);
                Member {
                    id: MemberId::from(match index {
                        0 => format!("member-{client}"),
                        _ => format!("member-{client}-of-{slug}"),
                    }),
                    pubkey: crypto.public_key(&secret),
                    secret,
                }
            })
            .collect();
        let puppets = (0..profile.puppets)
            .map(|puppet| {
                // The first two are sessions: somebody has to be told things.
                let role = match puppet {
                    2 => Role::ControlPlane,
                    3 => Role::Service,
                    _ => Role::Session,
                };
                let member = &members[profile.hosts + puppet];
                let secret = match role {
                    Role::ControlPlane => member.secret.clone(),
                    _ => secret_of(1_000 + puppet as u64),
                };
                let pubkey = crypto.public_key(&secret);
                let silent = secret_of(2_000 + puppet as u64);
                Puppet {
                    role,
                    secret,
                    pubkey,
                    key: Arc::new(match role {
                        Role::ControlPlane => PeerKey::Member(member.id.clone()),
                        _ => PeerKey::Session(pubkey),
                    }),
                    silent_key: Arc::new(PeerKey::Session(crypto.public_key(&silent))),
                    silent,
                }
            })
            .collect();
        Self {
            index,
            mesh: MeshId::from(format!("mesh-of-{slug}")),
            slug,
            crypto,
            owner: secret_of(u64::MAX),
            admin: (0..profile.puppets)
                .find(|puppet| profile.mesh_of(profile.users() + puppet) == index)
                .map(|puppet| profile.hosts + puppet),
            members,
            puppets,
        }
    }

    /// As the broker's store knows them from the beginning.
    #[must_use]
    pub fn member_rows(&self) -> Vec<MemberRow> {
        self.members
            .iter()
            .enumerate()
            .map(|(nth, member)| MemberRow {
                id: member.id.clone(),
                pubkey: member.pubkey,
                display_name: member.id.to_string(),
                role: if self.admin == Some(nth) {
                    MemberRole::Admin
                } else {
                    MemberRole::Member
                },
                joined_at: Wall(WALL_AT_START_MS),
                revoked_at: None,
            })
            .collect()
    }

    /// The puppet with this key.
    #[must_use]
    pub fn puppet_of(&self, key: &PeerKey) -> Option<usize> {
        self.puppets.iter().position(|puppet| *puppet.key == *key)
    }
}
