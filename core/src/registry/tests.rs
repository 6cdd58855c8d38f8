//! The registry, and the requests that an owner signs, as their shell sees them.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::crypto::invite::{InviteTerms, InviteToken};
use crate::crypto::stand_in::StandIn;
use crate::crypto::{SecretKey, canonical};
use crate::id::{InviteId, PubKey};
use crate::mesh::{Request, Response, http};
use crate::store::mesh::MemberRole;
use crate::store::registry::{Image, Policy};
use crate::store::{Owner, Stall, Term, Txn, TxnId};
use crate::time::{Mono, Wall};

const EPOCH: Wall = Wall(1_700_000_000_000);

fn at(seconds: u64) -> Now {
    Now {
        mono: Mono(seconds * 1_000_000),
        wall: EPOCH + Duration::from_secs(seconds),
    }
}

fn owner(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn pubkey(byte: u8) -> PubKey {
    StandIn.public_key(&owner(byte))
}

fn sign(by: u8, text: &str) -> Value {
    json!(StandIn.sign(&owner(by), text.as_bytes()))
}

fn body(slug: &str, by: u8, policy: &str, seconds: u64) -> Value {
    let timestamp = at(seconds).wall;
    let text = canonical::mesh(slug, &pubkey(by), policy, timestamp);
    json!({
        "slug": slug, "owner_pubkey": pubkey(by), "policy": policy, "timestamp": timestamp,
        "signature": sign(by, &text),
    })
}

struct Shell {
    registry: Registry,
    image: Image,
    requests: u64,
}

impl Shell {
    fn new() -> Self {
        Self::over(Image::default(), Owner::default())
    }

    fn over(image: Image, owner: Owner) -> Self {
        let entropy = Entropy::from_seed([7; 32]);
        Self {
            registry: Registry::new(image.recover(owner), entropy, Arc::new(StandIn)),
            image,
            requests: 0,
        }
    }

    fn drain(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.registry.poll_output()).collect()
    }

    fn ask(&mut self, seconds: u64, body: &Value) -> Vec<Output> {
        self.requests += 1;
        let input = Input::Create {
            request: RequestId(self.requests),
            body: body.to_string().into(),
            allowed: true,
        };
        self.registry.handle_input(at(seconds), input);
        self.drain()
    }

    fn store(&mut self, seconds: u64, event: Event<Loaded>) -> Vec<Output> {
        self.registry.handle_input(at(seconds), Input::Store(event));
        self.drain()
    }

    fn fire(&mut self, seconds: u64) -> Vec<Output> {
        self.registry.handle_timeout(at(seconds));
        self.drain()
    }

    fn commit(&mut self, seconds: u64, txn: &Txn<Op>) -> Vec<Output> {
        txn.ops.iter().for_each(|op| self.image.apply(op));
        self.store(seconds, Event::Persisted { upto: txn.id })
    }

    /// Asks, and commits at once what is to be persisted.
    fn made(&mut self, seconds: u64, body: &Value) -> (u16, Value) {
        let mut outputs = self.ask(seconds, body);
        if let [Output::Persist(txn)] = &outputs[..] {
            let txn = txn.share();
            outputs = self.commit(seconds, &txn);
        }
        answer(&outputs)
    }
}

fn answer(outputs: &[Output]) -> (u16, Value) {
    let Some(Output::Answer { answer, .. }) = outputs.last() else {
        panic!("{outputs:?}");
    };
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

fn error_of((status, body): (u16, Value)) -> (u16, String) {
    assert_eq!(body["ok"], false);
    (status, body["error"].as_str().unwrap().into())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_string())
}

#[test]
fn a_mesh_is_answered_for_only_when_it_is_durable() {
    let mut shell = Shell::new();
    let outputs = shell.ask(0, &body("demo", 1, "sealed", 0));
    let [Output::Persist(txn)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let txn = txn.share();
    let outputs = shell.commit(1, &txn);
    let [Output::Open(row), Output::Answer { .. }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(row.slug, "demo");
    assert_eq!(row.owner_pubkey, pubkey(1));
    assert_eq!(row.policy, Policy::Sealed);
    let (status, answered) = answer(&outputs);
    assert_eq!((status, &answered["mesh_id"]), (200, &json!(row.id)));
    assert_eq!(shell.registry.poll_timeout(), None);
}

#[test]
fn the_same_owner_gets_the_same_mesh_and_nobody_else_the_slug() {
    let mut shell = Shell::new();
    let (_, first) = shell.made(0, &body("demo", 1, "open", 0));
    let (status, again) = shell.made(1, &body("demo", 1, "open", 1));
    assert_eq!((status, &again), (200, &first));
    assert_eq!(
        error_of(shell.made(2, &body("demo", 2, "open", 2))),
        refused(409, "slug_taken")
    );
    assert_eq!(
        error_of(shell.made(3, &body("demo", 1, "sealed", 3))),
        refused(409, "slug_taken")
    );

    // And after a restart.
    let owner = Owner {
        term: Term(2),
        last_txn: TxnId(1),
    };
    let mut shell = Shell::over(shell.image, owner);
    assert_eq!(shell.made(4, &body("demo", 1, "open", 4)), (200, first));
    assert_eq!(shell.registry.meshes().count(), 1);
}

#[test]
fn a_repeat_waits_for_the_first() {
    let mut shell = Shell::new();
    let first = shell.ask(0, &body("demo", 1, "sealed", 0));
    let [Output::Persist(txn)] = &first[..] else {
        panic!("{first:?}");
    };
    assert!(shell.ask(1, &body("demo", 1, "sealed", 1)).is_empty());
    let txn = txn.share();
    let outputs = shell.commit(2, &txn);
    assert!(matches!(
        outputs[..],
        [
            Output::Open(_),
            Output::Answer { .. },
            Output::Answer { .. }
        ]
    ));
}

#[test]
fn only_whoever_may_makes_meshes() {
    let mut shell = Shell::new();
    let body = body("demo", 1, "sealed", 0);
    let input = Input::Create {
        request: RequestId(1),
        body: body.to_string().into(),
        allowed: false,
    };
    shell.registry.handle_input(at(0), input);
    let outputs = shell.drain();
    assert_eq!(error_of(answer(&outputs)), refused(403, "forbidden"));
    assert_eq!(shell.made(0, &body).0, 200, "the refusal did not burn it");
}

#[test]
fn what_is_not_a_signed_request_is_refused() {
    let mut shell = Shell::new();
    let mut error = |seconds: u64, body: &Value| error_of(shell.made(seconds, body));
    for slug in ["", "Demo", "a b", "a|b", "ä", &"a".repeat(65)] {
        assert_eq!(
            error(0, &body(slug, 1, "sealed", 0)),
            refused(400, "bad_request"),
            "{slug:?}"
        );
    }
    assert_eq!(
        error(0, &body("demo", 1, "secret", 0)),
        refused(400, "bad_request")
    );
    assert_eq!(error(0, &json!([])), refused(400, "bad_request"));
    let mut forged = body("demo", 1, "sealed", 0);
    forged["policy"] = json!("open");
    assert_eq!(error(0, &forged), refused(403, "bad_signature"));
    assert_eq!(
        error(61, &body("demo", 1, "sealed", 0)),
        refused(400, "timestamp_skew")
    );
    assert_eq!(
        error(0, &body("demo", 1, "sealed", 61)),
        refused(400, "timestamp_skew")
    );
}

#[test]
fn each_signature_is_good_once() {
    let mut shell = Shell::new();
    let body = body("demo", 1, "sealed", 60);
    assert_eq!(shell.made(0, &body).0, 200);
    assert_eq!(error_of(shell.made(1, &body)), refused(409, "replayed"));
    // As long as its timestamp would do, though it was the earliest to be honoured.
    assert_eq!(error_of(shell.made(119, &body)), refused(409, "replayed"));
    assert_eq!(
        error_of(shell.made(121, &body)),
        refused(400, "timestamp_skew")
    );
}

#[test]
fn a_store_that_stalls_is_asked_again_and_the_asker_is_told() {
    let mut shell = Shell::new();
    let outputs = shell.ask(0, &body("demo", 1, "sealed", 0));
    assert!(matches!(outputs[..], [Output::Persist(_)]));
    let stalled = Event::Stalled(Stall::Unavailable);
    assert!(shell.store(0, stalled.clone()).is_empty());
    assert_eq!(
        error_of(shell.made(0, &body("other", 1, "sealed", 0))),
        refused(503, "busy")
    );
    for second in 1..=9 {
        let again = shell.fire(second);
        if let [Output::Persist(txn)] = &again[..] {
            assert_eq!(txn.id, TxnId(1));
            shell.store(second, stalled.clone());
        }
    }
    let outputs = shell.fire(10);
    assert_eq!(error_of(answer(&outputs)), refused(503, "outcome_unknown"));
    shell.store(10, stalled);

    // It stands: durable after all, the mesh is run, and asked again it is the same.
    let Some(txn) = (11..30).find_map(|second| match &shell.fire(second)[..] {
        [Output::Persist(txn)] => Some(txn.share()),
        _ => None,
    }) else {
        panic!("never sent again");
    };
    let outputs = shell.commit(30, &txn);
    let [Output::Open(row)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let row = row.clone();
    let (status, body) = shell.made(31, &body("demo", 1, "sealed", 31));
    assert_eq!((status, &body["mesh_id"]), (200, &json!(row.id)));
}

#[test]
fn a_spurious_time_out_changes_nothing() {
    let mut shell = Shell::new();
    shell.ask(0, &body("demo", 1, "sealed", 0));
    let due = shell.registry.poll_timeout();
    assert!(shell.fire(0).is_empty());
    assert_eq!(shell.registry.poll_timeout(), due);
}

mod requests_to_a_mesh {
    use super::*;

    fn owner_of(mesh: &MeshId) -> Option<PubKey> {
        (mesh.as_str() == "m1").then(|| pubkey(1))
    }

    fn invite(by: u8, mesh: &str) -> InviteToken {
        let terms = InviteTerms {
            mesh_id: mesh.into(),
            mesh_slug: "demo".into(),
            broker_url: "ws://127.0.0.1:7900/ws".into(),
            expires_at_s: at(3_600).wall.0 / 1_000,
            mesh_root_key: "k".into(),
            role: MemberRole::Member,
        };
        InviteToken::sign(&StandIn, &owner(by), terms).unwrap()
    }

    fn join_body(invite: &InviteToken) -> Value {
        json!({
            "invite_token": invite.encode(), "invite_payload": invite,
            "peer_pubkey": pubkey(3), "display_name": "alice",
        })
    }

    fn join(body: &Value, seconds: u64) -> Result<http::Asked, (u16, &'static str)> {
        http::join(body.to_string().as_bytes(), &StandIn, at(seconds), owner_of)
            .map_err(|refusal| (refusal.status, refusal.code))
    }

    #[test]
    fn a_good_invite_becomes_a_join() {
        let token = invite(1, "m1");
        for with_payload in [true, false] {
            let mut body = join_body(&token);
            if !with_payload {
                body.as_object_mut().unwrap().remove("invite_payload");
            }
            let (mesh, request) = join(&body, 0).unwrap();
            assert_eq!(mesh, "m1".into());
            let Request::Join {
                invite,
                pubkey: joining,
                display_name,
            } = request
            else {
                panic!("{request:?}");
            };
            assert_eq!(*invite, token);
            assert_eq!((joining, display_name.as_str()), (pubkey(3), "alice"));
        }
    }

    #[test]
    fn each_bad_invite_has_its_code() {
        let code = |body: &Value, seconds: u64| join(body, seconds).map(drop).unwrap_err();
        let good = join_body(&invite(1, "m1"));
        assert_eq!(code(&good, 3_601), (400, "invite_expired"));
        assert_eq!(
            code(&join_body(&invite(2, "m1")), 0),
            (400, "invite_owner_mismatch")
        );
        assert_eq!(
            code(&join_body(&invite(1, "m2")), 0),
            (400, "mesh_not_found")
        );

        let mut forged = invite(1, "m1");
        forged.role = MemberRole::Admin;
        assert_eq!(code(&join_body(&forged), 0), (400, "invite_bad_signature"));

        let mut crossed = good.clone();
        crossed["invite_payload"]["mesh_id"] = json!("m2");
        assert_eq!(code(&crossed, 0), (400, "invite_mesh_mismatch"));

        let mut damaged = good.clone();
        damaged["invite_token"] = json!("abc");
        assert_eq!(code(&damaged, 0), (400, "invite_bad_signature"));

        let mut nul = good.clone();
        nul["display_name"] = json!("a\0");
        assert_eq!(code(&nul, 0), (400, "bad_request"));
        assert_eq!(code(&json!({}), 0), (400, "bad_request"));
        let mut huge = good;
        huge["x"] = json!("x".repeat(20_000));
        assert_eq!(code(&huge, 0), (413, "payload_too_large"));
    }

    #[test]
    fn a_long_name_is_cut_and_not_refused() {
        let mut body = join_body(&invite(1, "m1"));
        body["display_name"] = json!("é".repeat(100));
        match join(&body, 0) {
            Ok((_, Request::Join { display_name, .. })) => {
                assert_eq!(display_name, "é".repeat(32));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_owner_registers_and_revokes() {
        let id: InviteId = invite(1, "m1").id();
        let now = at(5);
        let expires_at_s = at(3_600).wall.0 / 1_000;
        let register = |by: u8, mesh: &str| {
            let text = canonical::invite_registration(&mesh.into(), &id, 3, expires_at_s, now.wall);
            let body = json!({
                "mesh_id": mesh, "invite_id": id, "uses": 3, "expires_at": expires_at_s,
                "timestamp": now.wall, "signature": sign(by, &text),
            });
            Bytes::from(body.to_string())
        };
        let revoke = |by: u8| {
            let text = canonical::invite_revocation(&"m1".into(), &id, now.wall);
            let body = json!({
                "mesh_id": "m1", "timestamp": now.wall, "signature": sign(by, &text),
            });
            Bytes::from(body.to_string())
        };
        let mut once = SignedOnce::default();
        let mut registered = |body: &Bytes| {
            http::register_invite(body, &StandIn, &mut once, now, owner_of)
                .map_err(|refusal| (refusal.status, refusal.code))
        };
        assert_eq!(
            registered(&register(2, "m1")).unwrap_err(),
            (403, "bad_signature")
        );
        assert_eq!(
            registered(&register(1, "m2")).unwrap_err(),
            (404, "mesh_not_found")
        );
        let (_, request) = registered(&register(1, "m1")).unwrap();
        assert!(matches!(
            request,
            Request::RegisterInvite { uses: 3, expires_at, .. } if expires_at == at(3_600).wall
        ));
        assert_eq!(
            registered(&register(1, "m1")).unwrap_err(),
            (409, "replayed")
        );

        let mut revoked = |id: &str, by: u8| {
            http::revoke_invite(id, &revoke(by), &StandIn, &mut once, now, owner_of)
                .map_err(|refusal| (refusal.status, refusal.code))
        };
        assert_eq!(revoked("abc", 1).unwrap_err(), (400, "bad_request"));
        assert_eq!(revoked(id.as_str(), 2).unwrap_err(), (403, "bad_signature"));
        assert_eq!(
            revoked(&"0".repeat(64), 1).unwrap_err(),
            (403, "bad_signature"),
            "the id is signed"
        );
        let (_, request) = revoked(id.as_str(), 1).unwrap();
        assert!(matches!(request, Request::RevokeInvite { id: revoked } if revoked == id));
    }

    #[test]
    fn answers_are_json() {
        let answered = |response: Response| {
            let answer = http::answer(&response);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            (answer.status, body)
        };
        let joined = |already_member: bool| Response::Joined {
            member: "p1".into(),
            already_member,
        };
        assert_eq!(
            answered(joined(false)),
            (200, json!({"ok": true, "memberId": "p1"}))
        );
        assert_eq!(
            answered(joined(true)),
            (
                200,
                json!({"ok": true, "memberId": "p1", "alreadyMember": true})
            )
        );
        let refused = |code: &'static str| {
            let (status, body) = answered(Response::Refused { code, message: "m" });
            assert_eq!(body, json!({"ok": false, "error": code, "message": "m"}));
            status
        };
        assert_eq!(refused("invite_exhausted"), 400);
        assert_eq!(refused("busy"), 503);
    }
}
