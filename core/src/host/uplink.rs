//! Uplinks: one for each mesh's member (its control plane) and one for each session, each with its
//! own identity. When to dial, what a close means, how far its stream was seen.
//!
//! | how it ended | what follows |
//! |---|---|
//! | `session_replaced` on the current connection | dial after 30 s; three in five minutes: stop |
//! | 1001, 1006, 1011, 1012, 1013, 4008, no connection, anything unlisted | dial with backoff, resume |
//! | `expired` `timestamp_skew` `replayed` | dial with backoff, the clock corrected |
//! | `unauthorized` `bad_signature` and the like, 4010 to 4012 | stop, try again hourly |
//! | 4001, 4002 | stop; of a control plane: all uplinks of its mesh |
//!
//! **A connection that is not the current one of an uplink is nobody's**: what it still says, and
//! its end, change nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use core::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::context::{Context, Identity, Why};
use super::io::{LogLevel, Output};
use super::unsuited::Unsuited;
use crate::crypto::fingerprint::Form;
use crate::id::{ConnId, MeshId, PeerKey};
use crate::limits::{
    PONG_WITHIN, REDIAL_AFTER_REFUSAL, REDIAL_AFTER_REPLACED, REDIAL_MOST, REPLACED_AT_MOST,
    REPLACED_WITHIN,
};
use crate::link::dial::Backoff;
use crate::link::{DialPlan, Down};
use crate::mark::Mark;
use crate::time::{Mono, Wall};
use crate::wire::broker::{HelloAck, Resumed, StreamAt};
use crate::wire::client::Resume;
use crate::wire::feature::{Features, RECEIPTS};
use crate::wire::version::encode_client_in;
use crate::wire::{ClientFrame, Close, HelloCode, ProtocolVersion};

/// The dials of a host that starts are spread over this.
const START_SPREAD: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Uplinks {
    by_identity: BTreeMap<Identity, Uplink>,
    /// Current connections only.
    by_conn: BTreeMap<ConnId, Identity>,
    /// Every dial of which the `Down` is still to come.
    undone: BTreeSet<ConnId>,
    last_conn: ConnId,
    /// The broker's clock minus ours, in ms.
    clock_offset_ms: BTreeMap<MeshId, i64>,
}

/// Why the sessions of a member that was kicked or banned have no uplink.
pub(super) const PUT_OUT: &str = "this member was put out of the mesh";

struct Uplink {
    state: State,
    backoff: Backoff,
    /// What was seen of its stream; a hello resumes from here.
    stream: Option<StreamAt>,
    /// When it was replaced, lately.
    replaced: VecDeque<Mono>,
    /// A clock was corrected and no hello was taken since: the next correction waits its turn.
    corrected: bool,
    reason: String,
    /// It stopped because the two could not agree.
    unsuited: Option<Unsuited>,
    since: Wall,
    /// Kicked or banned: nothing of its mesh is dialled for a program that comes, until somebody asks
    /// for it.
    put_out: bool,
    /// Nothing more is taken from its broker: the inbox has no room. Sending goes on.
    deaf: bool,
    /// Its broker keeps receipts, takes `seen` and answers `explain`.
    receipts: bool,
}

enum State {
    Waiting,
    Dialing {
        conn: ConnId,
    },
    Up {
        conn: ConnId,
        version: ProtocolVersion,
        /// How its broker is told fingerprints.
        form: Form,
        /// Bytes given to the socket's queue, and bytes of them that left it.
        given: u64,
        gone: u64,
        probe: Option<Probe>,
    },
    Stopped,
}

/// A ping of ours: the other side has 10 s from the moment it left.
struct Probe {
    n: u64,
    /// It has left when this many bytes have.
    ends_at: u64,
    /// `gone` when the time was last started: a queue that moves is not dead.
    gone_then: u64,
}

/// What `hello_ack` told of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumption {
    /// What was missed follows.
    Seamless,
    /// Something may have been missed: take a snapshot.
    Gap,
    /// The two sides do not agree on what was seen.
    Mismatch,
}

/// What the end of a connection means for others than its uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Of the current connection.
    Current {
        who: Identity,
        /// Kicked or banned as a member.
        whole_mesh: bool,
    },
    /// Of one that was replaced or hung up.
    Past,
}

/// What is due when a probe has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeOverdue {
    NotProbing,
    /// The ping is still queued, but the queue moves.
    Moving,
    Dead,
}

/// One line of `status`.
pub(super) struct Shown<'a> {
    pub(super) identity: &'a Identity,
    pub(super) state: &'static str,
    pub(super) reason: &'a str,
    pub(super) unsuited: Option<&'a Unsuited>,
    pub(super) since: Wall,
}

impl Uplinks {
    /// From now on there is to be an uplink of this identity. One that had stopped tries again; a
    /// session's not as long as its member is put out.
    pub(super) fn want(&mut self, ctx: &mut Context, who: &Identity) {
        let with_its_mesh = self.is_put_out(who);
        if let Some(uplink) = self.by_identity.get_mut(who) {
            if matches!(uplink.state, State::Stopped) && !with_its_mesh {
                uplink.replaced.clear();
                uplink.put_out = false;
                uplink.wait(ctx, who, Duration::ZERO, "asked for");
            }
            return;
        }
        let spread = u64::try_from(START_SPREAD.as_micros()).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(ctx.entropy.below(spread));
        let mut uplink = Uplink {
            state: State::Waiting,
            backoff: Backoff::default(),
            stream: None,
            replaced: VecDeque::new(),
            corrected: false,
            reason: String::new(),
            unsuited: None,
            since: ctx.now.wall,
            put_out: false,
            deaf: false,
            receipts: false,
        };
        if with_its_mesh {
            uplink.stop(ctx, PUT_OUT);
        } else {
            uplink.wait(ctx, who, wait, "starting");
        }
        self.by_identity.insert(who.clone(), uplink);
    }

    /// There is to be none any more. `bye` ends the lease; without it the broker waits.
    pub(super) fn drop_uplink(&mut self, ctx: &mut Context, who: &Identity, bye: bool) {
        if bye {
            self.send(ctx, who, &ClientFrame::Bye);
        }
        self.hang_up(ctx, who, Close::new(Close::NORMAL, "bye"));
        self.by_identity.remove(who);
        for why in [Why::Dial(who.clone()), Why::Probe(who.clone())] {
            ctx.timers.cancel(&why);
        }
    }

    /// `Why::Dial` is due: the caller has the plan.
    pub(super) fn dial(&mut self, ctx: &mut Context, who: &Identity, mut plan: DialPlan) {
        let Some(uplink) = self.by_identity.get_mut(who) else {
            return;
        };
        if !matches!(uplink.state, State::Waiting | State::Stopped) {
            return;
        }
        plan.resume = uplink.stream.map(|at| Resume {
            epoch: at.epoch,
            count: at.count,
        });
        plan.clock_offset_ms = self.clock_offset_ms.get(&who.mesh).copied().unwrap_or(0);
        let conn = self.last_conn.next();
        self.last_conn = conn;
        self.undone.insert(conn);
        self.by_conn.insert(conn, who.clone());
        uplink.state = State::Dialing { conn };
        uplink.since = ctx.now.wall;
        ctx.out.push(Output::Dial {
            conn,
            plan: Box::new(plan),
        });
    }

    /// `None`: not the current connection of any uplink.
    pub(super) fn up(
        &mut self,
        ctx: &mut Context,
        conn: ConnId,
        ack: &HelloAck,
    ) -> Option<(Identity, Resumption)> {
        let who = self.by_conn.get(&conn)?.clone();
        let uplink = self.by_identity.get_mut(&who)?;
        if !matches!(uplink.state, State::Dialing { .. }) {
            return None;
        }
        // Its link has judged both: neither side goes on otherwise.
        let version = ack.protocol_version.and_then(ProtocolVersion::of);
        let form = ack.features.as_ref().map(Features::fingerprint_form);
        uplink.state = State::Up {
            conn,
            version: version.unwrap_or(ProtocolVersion::V1),
            form: form.unwrap_or(Form::Two),
            given: 0,
            gone: 0,
            probe: None,
        };
        uplink.since = ctx.now.wall;
        uplink.reason.clear();
        uplink.unsuited = None;
        uplink.corrected = false;
        uplink.deaf = false;
        let features = ack.features.as_ref();
        uplink.receipts = features.is_some_and(|features| features.0.contains_key(RECEIPTS));
        uplink.backoff.up(ctx.now.mono);
        ctx.mark(Mark::UplinkUp);
        let before = uplink.stream;
        uplink.stream = ack.stream;
        let resumption = match (ack.resumed, before, ack.stream) {
            (Some(Resumed::Hit), Some(before), Some(now)) if before == now => Resumption::Seamless,
            (Some(Resumed::Hit), _, _) => Resumption::Mismatch,
            _ => Resumption::Gap,
        };
        Some((who, resumption))
    }

    pub(super) fn ended(&mut self, ctx: &mut Context, conn: ConnId, down: &Down) -> Ended {
        self.undone.remove(&conn);
        let Some(who) = self.by_conn.remove(&conn) else {
            return Ended::Past;
        };
        let Some(uplink) = self.by_identity.get_mut(&who) else {
            return Ended::Past;
        };
        ctx.timers.cancel(&Why::Probe(who.clone()));
        if let State::Up { .. } = uplink.state {
            ctx.mark(Mark::UplinkDown);
        }
        let reason = reason_of(down);
        let mut whole_mesh = false;
        match verdict(down) {
            Verdict::Replaced => {
                ctx.mark(Mark::UplinkReplaced);
                uplink.replaced_again(ctx, &who, &reason);
            }
            Verdict::Again(at_least) => {
                let wait = uplink
                    .backoff
                    .down(ctx.now.mono, &mut ctx.entropy)
                    .max(at_least);
                uplink.wait(ctx, &who, wait, &reason);
            }
            Verdict::ClockWrong(broker_time) => {
                let first = !core::mem::replace(&mut uplink.corrected, true);
                let wait = match broker_time {
                    Some(theirs) => {
                        ctx.mark(Mark::UplinkClockCorrected);
                        let offset = i128::from(theirs.0) - i128::from(ctx.now.wall.0);
                        let offset = i64::try_from(offset).unwrap_or(0);
                        self.clock_offset_ms.insert(who.mesh.clone(), offset);
                        if first {
                            Duration::ZERO
                        } else {
                            uplink.backoff.down(ctx.now.mono, &mut ctx.entropy)
                        }
                    }
                    None => uplink.backoff.down(ctx.now.mono, &mut ctx.entropy),
                };
                uplink.wait(ctx, &who, wait, &reason);
            }
            Verdict::Refused => {
                ctx.log(LogLevel::Warn, alloc::format!("uplink refused: {reason}"));
                uplink.stop(ctx, &reason);
                uplink.unsuited = Unsuited::of(down);
                ctx.after(Why::Dial(who.clone()), REDIAL_AFTER_REFUSAL);
            }
            Verdict::Out => {
                ctx.mark(Mark::UplinkPutOut);
                ctx.log(LogLevel::Warn, alloc::format!("uplink put out: {reason}"));
                uplink.stop(ctx, &reason);
                uplink.put_out = true;
                whole_mesh = matches!(who.peer, PeerKey::Member(_));
            }
        }
        Ended::Current { who, whole_mesh }
    }

    /// Ends the connection from here and dials again with backoff.
    pub(super) fn redial(&mut self, ctx: &mut Context, who: &Identity, close: Close) {
        let reason = close.reason.clone();
        if !self.hang_up(ctx, who, close) {
            return;
        }
        if let Some(uplink) = self.by_identity.get_mut(who) {
            let wait = uplink.backoff.down(ctx.now.mono, &mut ctx.entropy);
            uplink.wait(ctx, who, wait, &reason);
        }
    }

    /// The two sides count differently: the next hello asks for nothing to be resumed.
    pub(super) fn mismatch(&mut self, ctx: &mut Context, who: &Identity) {
        ctx.mark(Mark::UplinkMismatch);
        ctx.log(
            LogLevel::Warn,
            "the count of a stream does not match: starting it anew".into(),
        );
        if let Some(uplink) = self.by_identity.get_mut(who) {
            uplink.stream = None;
        }
        self.redial(ctx, who, Close::new(Close::NORMAL, "stream_mismatch"));
    }

    /// The mesh's control plane was kicked or banned, and this is a session behind it.
    fn is_put_out(&self, who: &Identity) -> bool {
        let is_member = |who: &Identity| matches!(who.peer, PeerKey::Member(_));
        let mut alike = self.by_identity.iter();
        !is_member(who)
            && alike
                .any(|(other, uplink)| uplink.put_out && other.mesh == who.mesh && is_member(other))
    }

    /// Stops without another try.
    pub(super) fn stop(&mut self, ctx: &mut Context, who: &Identity, reason: &str) {
        self.hang_up(ctx, who, Close::new(Close::NORMAL, reason));
        ctx.timers.cancel(&Why::Dial(who.clone()));
        if let Some(uplink) = self.by_identity.get_mut(who) {
            uplink.stop(ctx, reason);
        }
    }

    /// A live event of the stream came. Every one counts, whoever listens.
    pub(super) fn counted(&mut self, who: &Identity) {
        let uplink = self.by_identity.get_mut(who);
        if let Some(at) = uplink.and_then(|uplink| uplink.stream.as_mut()) {
            at.count += 1;
        }
    }

    pub(super) fn agrees(&self, who: &Identity, at: &StreamAt) -> bool {
        self.by_identity
            .get(who)
            .is_some_and(|uplink| uplink.stream.as_ref() == Some(at))
    }

    /// Whose current connection this is.
    pub(super) fn whose(&self, conn: ConnId) -> Option<&Identity> {
        self.by_conn.get(&conn)
    }

    pub(super) fn conn(&self, who: &Identity) -> Option<ConnId> {
        match self.by_identity.get(who)?.state {
            State::Up { conn, .. } => Some(conn),
            _ => None,
        }
    }

    /// Up, at a broker that keeps receipts.
    pub(super) fn takes_receipts(&self, who: &Identity) -> bool {
        let uplink = self.by_identity.get(who);
        uplink.is_some_and(|uplink| uplink.receipts && matches!(uplink.state, State::Up { .. }))
    }

    /// When it is dialled next, where that is known: ISO 8601.
    pub(super) fn next_dial(&self, ctx: &Context, who: &Identity) -> Option<String> {
        let at = ctx.wall_of(&Why::Dial(who.clone()))?;
        Some(at.iso8601().to_string())
    }

    /// How fingerprints are said on its connection.
    pub(super) fn form(&self, who: &Identity) -> Option<Form> {
        match self.by_identity.get(who)?.state {
            State::Up { form, .. } => Some(form),
            _ => None,
        }
    }

    /// Up, and with less than half of what may be queued on it.
    pub(super) fn has_room(&self, ctx: &Context, who: &Identity) -> bool {
        match self.by_identity.get(who).map(|uplink| &uplink.state) {
            Some(State::Up { given, gone, .. }) => {
                given - gone <= ctx.config.limits.queued_bytes / 2
            }
            _ => false,
        }
    }

    /// Over the identity's own connection or not at all: there is no other way out.
    pub(super) fn send(
        &mut self,
        ctx: &mut Context,
        who: &Identity,
        frame: &ClientFrame,
    ) -> Option<ConnId> {
        let State::Up {
            conn,
            version,
            given,
            ..
        } = &mut self.by_identity.get_mut(who)?.state
        else {
            return None;
        };
        let frame: Bytes = encode_client_in(*version, frame);
        *given += frame.len() as u64;
        ctx.out.push(Output::Send { conn: *conn, frame });
        Some(*conn)
    }

    /// True if the connection has room now.
    pub(super) fn sent(&mut self, ctx: &mut Context, conn: ConnId, bytes: u64) -> Option<Identity> {
        let who = self.by_conn.get(&conn)?.clone();
        let State::Up {
            given, gone, probe, ..
        } = &mut self.by_identity.get_mut(&who)?.state
        else {
            return None;
        };
        let before = *gone;
        *gone = gone.saturating_add(bytes).min(*given);
        if probe
            .as_ref()
            .is_some_and(|probe| before < probe.ends_at && *gone >= probe.ends_at)
        {
            ctx.after(Why::Probe(who.clone()), PONG_WITHIN);
        }
        Some(who)
    }

    /// Asks the other side for a sign of life, unless that is under way.
    pub(super) fn probe(&mut self, ctx: &mut Context, who: &Identity) {
        let n = ctx.entropy.next_u64() >> 12;
        let Some(State::Up { probe: None, .. }) = self.by_identity.get(who).map(|u| &u.state)
        else {
            return;
        };
        self.send(ctx, who, &ClientFrame::Ping { n: Some(n) });
        if let Some(State::Up {
            given, gone, probe, ..
        }) = self.by_identity.get_mut(who).map(|u| &mut u.state)
        {
            *probe = Some(Probe {
                n,
                ends_at: *given,
                gone_then: *gone,
            });
            ctx.after(Why::Probe(who.clone()), PONG_WITHIN);
        }
    }

    /// True if this answers a probe.
    pub(super) fn pong(&mut self, ctx: &mut Context, who: &Identity, n: Option<u64>) -> bool {
        let Some(State::Up { probe, .. }) = self.by_identity.get_mut(who).map(|u| &mut u.state)
        else {
            return false;
        };
        if probe.as_ref().is_none_or(|probe| Some(probe.n) != n) {
            return false;
        }
        *probe = None;
        ctx.timers.cancel(&Why::Probe(who.clone()));
        true
    }

    pub(super) fn probe_overdue(&mut self, ctx: &mut Context, who: &Identity) -> ProbeOverdue {
        let Some(State::Up {
            gone,
            probe: Some(probe),
            ..
        }) = self.by_identity.get_mut(who).map(|u| &mut u.state)
        else {
            return ProbeOverdue::NotProbing;
        };
        if *gone < probe.ends_at && *gone > probe.gone_then {
            probe.gone_then = *gone;
            ctx.after(Why::Probe(who.clone()), PONG_WITHIN);
            return ProbeOverdue::Moving;
        }
        ProbeOverdue::Dead
    }

    /// Takes nothing more from its broker until the next connection.
    pub(super) fn deafen(&mut self, who: &Identity) {
        if let Some(uplink) = self.by_identity.get_mut(who) {
            uplink.deaf = true;
            uplink.reason = "storage_full".into();
        }
    }

    pub(super) fn is_deaf(&self, who: &Identity) -> bool {
        self.by_identity.get(who).is_some_and(|uplink| uplink.deaf)
    }

    pub(super) fn deaf(&self) -> alloc::vec::Vec<Identity> {
        self.by_identity
            .iter()
            .filter(|(_, uplink)| uplink.deaf)
            .map(|(who, _)| who.clone())
            .collect()
    }

    /// Hangs up and dials at once, with a new hello: what was not acknowledged comes again, oldest
    /// first.
    pub(super) fn renew(&mut self, ctx: &mut Context, who: &Identity, reason: &str) {
        if !self.hang_up(ctx, who, Close::new(Close::NORMAL, reason)) {
            return;
        }
        if let Some(uplink) = self.by_identity.get_mut(who) {
            uplink.deaf = false;
            uplink.wait(ctx, who, Duration::ZERO, reason);
        }
    }

    /// All connections close; leases stay.
    pub(super) fn go_away(&mut self, ctx: &mut Context) {
        let all: alloc::vec::Vec<_> = self.by_identity.keys().cloned().collect();
        for who in all {
            self.hang_up(ctx, &who, Close::new(Close::GOING_AWAY, "going_away"));
            ctx.timers.cancel(&Why::Dial(who.clone()));
            if let Some(uplink) = self.by_identity.get_mut(&who) {
                uplink.stop(ctx, "stopping");
            }
        }
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.by_identity.keys()
    }

    /// Dials whose `Down` has not come.
    pub(super) fn undone(&self) -> usize {
        self.undone.len()
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.by_identity.iter().map(|(identity, uplink)| Shown {
            identity,
            state: match uplink.state {
                State::Waiting => "waiting",
                State::Dialing { .. } => "dialing",
                State::Up { .. } => "up",
                State::Stopped => "stopped",
            },
            reason: &uplink.reason,
            unsuited: uplink.unsuited.as_ref(),
            since: uplink.since,
        })
    }

    /// Forgets the connection; its `Down` will be of the past. False if there was none.
    fn hang_up(&mut self, ctx: &mut Context, who: &Identity, close: Close) -> bool {
        let Some(uplink) = self.by_identity.get_mut(who) else {
            return false;
        };
        let conn = match uplink.state {
            State::Dialing { conn } => conn,
            State::Up { conn, .. } => {
                ctx.mark(Mark::UplinkDown);
                conn
            }
            State::Waiting | State::Stopped => return false,
        };
        ctx.timers.cancel(&Why::Probe(who.clone()));
        self.by_conn.remove(&conn);
        uplink.state = State::Stopped;
        ctx.out.push(Output::Hangup { conn, close });
        true
    }
}

impl Uplink {
    fn wait(&mut self, ctx: &mut Context, who: &Identity, wait: Duration, reason: &str) {
        self.state = State::Waiting;
        self.unsuited = None;
        self.reason = reason.into();
        self.since = ctx.now.wall;
        ctx.after(Why::Dial(who.clone()), wait);
    }

    fn stop(&mut self, ctx: &Context, reason: &str) {
        self.state = State::Stopped;
        self.unsuited = None;
        self.reason = reason.into();
        self.since = ctx.now.wall;
    }

    /// Two hosts with one key must not duel.
    fn replaced_again(&mut self, ctx: &mut Context, who: &Identity, reason: &str) {
        let now = ctx.now.mono;
        self.replaced.push_back(now);
        while self
            .replaced
            .front()
            .is_some_and(|at| now.since(*at) > REPLACED_WITHIN)
        {
            self.replaced.pop_front();
        }
        if self.replaced.len() >= REPLACED_AT_MOST {
            ctx.log(
                LogLevel::Error,
                "an uplink was replaced again and again: is its key used elsewhere?".into(),
            );
            self.stop(ctx, "session_replaced: its key is in use elsewhere");
            return;
        }
        self.wait(ctx, who, REDIAL_AFTER_REPLACED, reason);
    }
}

/// What the end of the current connection means for its uplink.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Replaced,
    /// With backoff, and not before.
    Again(Duration),
    ClockWrong(Option<Wall>),
    Refused,
    Out,
}

fn verdict(down: &Down) -> Verdict {
    match down {
        Down::DialFailed { .. } => Verdict::Again(Duration::ZERO),
        Down::Refused {
            code, broker_time, ..
        } => refusal(code, *broker_time),
        Down::FeatureMismatch(_) => Verdict::Refused,
        Down::Closed(close) => match close.code {
            Close::NORMAL if close.reason == "session_replaced" => Verdict::Replaced,
            Close::TRY_AGAIN => Verdict::Again(retry_after(&close.reason)),
            Close::POLICY => refusal(&close.reason, None),
            Close::KICKED | Close::BANNED => Verdict::Out,
            Close::FEATURE_UNAVAILABLE
            | Close::FEATURE_PARAM_INVALID
            | Close::FEATURE_PARAM_BELOW_FLOOR => Verdict::Refused,
            _ => Verdict::Again(Duration::ZERO),
        },
    }
}

fn refusal(code: &str, broker_time: Option<Wall>) -> Verdict {
    match HelloCode::parse(code) {
        Some(HelloCode::TimestampSkew) => Verdict::ClockWrong(broker_time),
        // An attestation minted by a clock that is wrong expires early or late.
        Some(HelloCode::Expired | HelloCode::TtlTooLong | HelloCode::Replayed) => {
            Verdict::ClockWrong(broker_time)
        }
        Some(HelloCode::Revoked) => Verdict::Out,
        Some(
            HelloCode::Unauthorized
            | HelloCode::BadSignature
            | HelloCode::BadSessionPubkey
            | HelloCode::BadParentPubkey
            | HelloCode::AttestationMismatch
            | HelloCode::ParentMemberIdMismatch
            | HelloCode::Malformed,
        ) => Verdict::Refused,
        Some(HelloCode::Capacity) | None => Verdict::Again(Duration::ZERO),
    }
}

/// `{"retryAfterMs":n}` in the reason of a 1013, within reason.
fn retry_after(reason: &str) -> Duration {
    let ms = serde_json::from_str::<Value>(reason)
        .ok()
        .and_then(|value| value.get("retryAfterMs").and_then(Value::as_u64));
    Duration::from_millis(ms.unwrap_or(0)).min(REDIAL_MOST)
}

fn reason_of(down: &Down) -> String {
    if let Some(unsuited) = Unsuited::of(down) {
        return unsuited.reason();
    }
    match down {
        Down::DialFailed { detail } => alloc::format!("no connection: {detail}"),
        Down::Refused { code, message, .. } => alloc::format!("{code}: {message}"),
        Down::FeatureMismatch(close) | Down::Closed(close) => {
            alloc::format!("closed {} {}", close.code, close.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> Verdict {
        verdict(&Down::Closed(Close::new(code, reason)))
    }

    fn refused(code: &str) -> Verdict {
        verdict(&Down::Refused {
            code: code.into(),
            message: String::new(),
            broker_time: None,
        })
    }

    #[test]
    fn every_end_has_its_row_in_the_table() {
        let again = || Verdict::Again(Duration::ZERO);
        assert_eq!(closed(1000, "session_replaced"), Verdict::Replaced);
        for code in [1000, 1001, 1006, 1009, 1011, 1012, 1013, 4008, 4999] {
            assert_eq!(closed(code, "whatever"), again(), "{code}");
        }
        for code in ["expired", "timestamp_skew", "replayed"] {
            assert_eq!(closed(1008, code), Verdict::ClockWrong(None), "{code}");
            assert_eq!(refused(code), Verdict::ClockWrong(None), "{code}");
        }
        for code in ["unauthorized", "bad_signature", "malformed"] {
            assert_eq!(closed(1008, code), Verdict::Refused, "{code}");
            assert_eq!(refused(code), Verdict::Refused, "{code}");
        }
        for code in [4010, 4011, 4012] {
            assert_eq!(closed(code, "{}"), Verdict::Refused, "{code}");
        }
        assert_eq!(closed(4001, "kicked"), Verdict::Out);
        assert_eq!(closed(4002, "banned"), Verdict::Out);
        assert_eq!(refused("revoked"), Verdict::Out);
        assert_eq!(refused("capacity"), again());
        assert_eq!(refused("from_the_future"), again());
    }

    #[test]
    fn no_code_of_a_hello_is_forgotten() {
        for code in HelloCode::ALL {
            let unknown = matches!(refused(code.as_str()), Verdict::Again(_));
            assert_eq!(unknown, code == HelloCode::Capacity, "{code:?}");
        }
    }

    #[test]
    fn a_broker_cannot_ask_for_ever() {
        assert_eq!(retry_after("{\"retryAfterMs\":1500}").as_millis(), 1_500);
        assert_eq!(retry_after("{\"retryAfterMs\":1e30}"), Duration::ZERO);
        let most = alloc::format!("{{\"retryAfterMs\":{}}}", u64::MAX);
        assert_eq!(retry_after(&most), REDIAL_MOST);
        assert_eq!(retry_after("soon"), Duration::ZERO);
    }
}
