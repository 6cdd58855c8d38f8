//! A hello signed, and a hello verified: the two ends of one handshake.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use super::{DialPlan, SessionIdentity, VerifiedHello};
use crate::crypto::attestation::{Attestation, AttestationError, Form};
use crate::crypto::{Crypto, canonical};
use crate::id::{PeerKey, Role};
use crate::limits::HELLO_SKEW;
use crate::time::Wall;
use crate::wire::client::Offer;
use crate::wire::feature::{ATTEST1, FEATURES1};
use crate::wire::{ClientFrame, HelloCode, MemberHello, ProtocolVersion, SessionHello};

/// Why a hello is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: HelloCode,
    pub(super) message: String,
    /// With `timestamp_skew`, so that the client can correct itself.
    pub(super) broker_time: Option<Wall>,
}

impl Refusal {
    pub(super) fn new(code: HelloCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            broker_time: None,
        }
    }
}

/// What a hello is measured against.
pub(super) struct Verifier<'a> {
    pub(super) crypto: &'a dyn Crypto,
    pub(super) now: Wall,
    /// Hellos stamped before it may have been seen and forgotten.
    pub(super) started: Wall,
    /// What a connection with this client goes on in.
    pub(super) version: ProtocolVersion,
}

impl Verifier<'_> {
    pub(super) fn member(&self, hello: MemberHello) -> Result<VerifiedHello, Refusal> {
        let timestamp = Wall(hello.timestamp);
        self.check_timestamp(timestamp, &hello.offer)?;
        let signed =
            canonical::member_hello(&hello.mesh_id, &hello.member_id, &hello.pubkey, timestamp);
        if !self
            .crypto
            .verify(&hello.pubkey, signed.as_bytes(), &hello.signature)
        {
            return Err(not_signed("the member"));
        }
        Ok(VerifiedHello {
            mesh: hello.mesh_id,
            key: PeerKey::Member(hello.member_id.clone()),
            role: Role::ControlPlane,
            member_pubkey: hello.pubkey,
            member_id: Some(hello.member_id),
            pubkey: hello.pubkey,
            session_pubkey: hello.session_pubkey,
            attestation: None,
            session_id: hello.session_id,
            about: hello.about,
            offer: hello.offer,
            version: self.version,
            timestamp,
            signature: hello.signature,
        })
    }

    pub(super) fn session(&self, hello: SessionHello) -> Result<VerifiedHello, Refusal> {
        let timestamp = Wall(hello.timestamp);
        self.check_timestamp(timestamp, &hello.offer)?;
        let form = attestation_form(&hello)?;
        let (parent, session) = (&hello.parent_member_pubkey, &hello.session_pubkey);
        let role = hello
            .parent_attestation
            .verify(self.crypto, parent, session, &form, self.now)
            .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        let signed = canonical::session_hello(&hello.mesh_id, parent, session, timestamp);
        if !self
            .crypto
            .verify(session, signed.as_bytes(), &hello.signature)
        {
            return Err(not_signed("the session"));
        }
        Ok(VerifiedHello {
            mesh: hello.mesh_id,
            key: PeerKey::Session(hello.session_pubkey),
            role,
            member_pubkey: hello.parent_member_pubkey,
            member_id: hello.parent_member_id,
            pubkey: hello.session_pubkey,
            session_pubkey: None,
            attestation: Some(hello.parent_attestation),
            session_id: hello.session_id,
            about: hello.about,
            offer: hello.offer,
            version: self.version,
            timestamp,
            signature: hello.signature,
        })
    }

    /// One of ours is not taken ahead of its time: after a restart it would be younger than the
    /// start, and be taken again. Its client corrects its clock by the answer. A plain client
    /// cannot, so that its hello is taken.
    fn check_timestamp(&self, timestamp: Wall, offer: &Offer) -> Result<(), Refusal> {
        let ours = offer.capabilities.has(FEATURES1);
        let message = if timestamp.distance(self.now) > HELLO_SKEW {
            "the hello's timestamp is too far from the broker's clock"
        } else if ours && timestamp > self.now {
            "the hello's timestamp is ahead of the broker's clock"
        } else if timestamp < self.started {
            "the hello is from before this start of the broker"
        } else {
            return Ok(());
        };
        Err(Refusal {
            broker_time: Some(self.now),
            ..Refusal::new(HelloCode::TimestampSkew, message)
        })
    }
}

/// Signed anew for every connection, with a fresh attestation: what was minted for an earlier one
/// may have expired while this daemon ran.
pub(super) fn sign(plan: &DialPlan, crypto: &dyn Crypto, now: Wall) -> ClientFrame {
    let now = Wall(now.0.saturating_add_signed(plan.clock_offset_ms));
    let offer = Offer {
        protocol_version: Some(plan.terms.version.number()),
        capabilities: plan.terms.capabilities.clone(),
        resume: plan.resume.filter(|_| !plan.quiet),
        quiet: plan.quiet,
        receipts: plan.receipts,
        require: plan.terms.require.clone(),
    };
    match &plan.session {
        None => sign_as_member(plan, offer, crypto, now),
        Some(session) => sign_as_session(plan, session, offer, crypto, now),
    }
}

fn sign_as_member(plan: &DialPlan, offer: Offer, crypto: &dyn Crypto, now: Wall) -> ClientFrame {
    let pubkey = crypto.public_key(&plan.member_secret);
    let signed = canonical::member_hello(&plan.mesh, &plan.member_id, &pubkey, now);
    ClientFrame::Hello(Box::new(MemberHello {
        mesh_id: plan.mesh.clone(),
        member_id: plan.member_id.clone(),
        pubkey,
        session_pubkey: None,
        session_id: plan.session_id.clone(),
        about: plan.about.clone(),
        offer,
        timestamp: now.0,
        signature: crypto.sign(&plan.member_secret, signed.as_bytes()),
    }))
}

fn sign_as_session(
    plan: &DialPlan,
    session: &SessionIdentity,
    offer: Offer,
    crypto: &dyn Crypto,
    now: Wall,
) -> ClientFrame {
    let parent = crypto.public_key(&plan.member_secret);
    let pubkey = crypto.public_key(&session.secret);
    let form = if plan.terms.capabilities.has(ATTEST1) {
        Form::Bowline {
            mesh: plan.mesh.clone(),
            role: session.role,
        }
    } else {
        Form::Dialect
    };
    let signed = canonical::session_hello(&plan.mesh, &parent, &pubkey, now);
    ClientFrame::SessionHello(Box::new(SessionHello {
        mesh_id: plan.mesh.clone(),
        parent_member_id: Some(plan.member_id.clone()),
        parent_member_pubkey: parent,
        session_pubkey: pubkey,
        parent_attestation: Attestation::mint(crypto, &plan.member_secret, pubkey, &form, now),
        session_id: plan.session_id.clone(),
        role: Some(session.role.as_str().into()),
        about: plan.about.clone(),
        offer,
        timestamp: now.0,
        signature: crypto.sign(&session.secret, signed.as_bytes()),
    }))
}

/// A plain client's attestation says nothing of a role, and what its hello says of one is nothing.
fn attestation_form(hello: &SessionHello) -> Result<Form, Refusal> {
    if !hello.offer.capabilities.has(ATTEST1) {
        return Ok(Form::Dialect);
    }
    let role = match hello.role.as_deref() {
        None | Some("session") => Role::Session,
        Some("service") => Role::Service,
        Some(_) => {
            let error = AttestationError::Mismatch;
            return Err(Refusal::new(error.code(), error.to_string()));
        }
    };
    Ok(Form::Bowline {
        mesh: hello.mesh_id.clone(),
        role,
    })
}

fn not_signed(by: &str) -> Refusal {
    Refusal::new(
        HelloCode::BadSignature,
        alloc::format!("the hello is not signed by {by}"),
    )
}
