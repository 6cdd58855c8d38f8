//! A program behind a daemon: it has a session, sends, reads its mail from an event stream, and
//! knows that a call without an answer is neither done nor undone.
//!
//! It decides nothing about sockets: what it wants is a list of [`Want`]s that its host carries out.

use bowline_core::host::io::SseEvent;
use bowline_core::host::ipc::{
    Answer, Call, InboxQuery, OutboxQuery, Request, SendRequest, SessionOpen, Subscribe,
    Token as Auth,
};
use bowline_core::id::{ClientMessageId, InboxSeq, PubKey, SessionId, SubscriberId};
use bowline_core::wire::Priority;

use crate::record::{Token, UserCall};

/// Answers that are "not now" or "unknown" are asked for again after this.
const RETRY_MS: u64 = 1_500;

pub struct User {
    pub index: usize,
    /// By its slug.
    mesh: &'static str,
    /// Between a deliberate end and its coming back it wants nothing.
    wanted: bool,
    token: Option<String>,
    pubkey: Option<PubKey>,
    opening: bool,
    sends: Vec<UserSend>,
    follows: Option<SubscriberId>,
    seen: InboxSeq,
    deaf: bool,
    unread: usize,
}

struct UserSend {
    key: Option<String>,
    /// What the daemon calls it, once it has accepted it.
    id: Option<String>,
    to: String,
    body: String,
    token: Token,
    priority: Priority,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Asked, and nothing is known.
    Unknown,
    Accepted,
    Refused,
}

/// What a user wants of its host.
pub enum Want {
    Call(UserCall, Call),
    Subscribe(SubscriberId, Subscribe),
    Unsubscribe(SubscriberId),
    /// So many events were read.
    Read(SubscriberId, usize),
    Again(Again, u64),
}

/// An appointment of a user with itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    Open,
    Follow,
    Hear,
    Send(usize),
}

impl User {
    #[must_use]
    pub fn new(index: usize, mesh: &'static str) -> Self {
        Self {
            index,
            mesh,
            wanted: true,
            token: None,
            pubkey: None,
            opening: false,
            sends: Vec::new(),
            follows: None,
            seen: InboxSeq(0),
            deaf: false,
            unread: 0,
        }
    }

    #[must_use]
    pub fn name_of(index: usize) -> String {
        format!("user-{index}")
    }

    #[must_use]
    pub fn pubkey(&self) -> Option<PubKey> {
        self.pubkey
    }

    pub fn open(&mut self) -> Vec<Want> {
        if self.opening || self.token.is_some() || !self.wanted {
            return Vec::new();
        }
        self.opening = true;
        let open = SessionOpen {
            session_id: Some(SessionId::from(format!("session-{}", self.index))),
            mesh: Some(self.mesh.into()),
            display_name: Self::name_of(self.index),
            pid: None,
            cwd: None,
            role: None,
            groups: Vec::new(),
            take_over: false,
        };
        let call = Call {
            token: Auth::Absent,
            request: Request::SessionOpen(open),
        };
        vec![Want::Call(UserCall::Open, call)]
    }

    pub fn end(&mut self, back_after_ms: u64) -> Vec<Want> {
        if self.token.is_none() {
            return Vec::new();
        }
        self.wanted = false;
        let end = self.call(Request::SessionEnd { session: None });
        let mut wants = vec![
            Want::Call(UserCall::End, end),
            Want::Again(Again::Open, back_after_ms),
        ];
        self.token = None;
        wants.extend(self.follows.take().map(Want::Unsubscribe));
        wants
    }

    pub fn send(
        &mut self,
        to: String,
        token: Token,
        bytes: usize,
        priority: Priority,
        key: Option<String>,
    ) -> Vec<Want> {
        self.sends.push(UserSend {
            key,
            id: None,
            to,
            body: token.body(bytes),
            token,
            priority,
            state: State::Unknown,
        });
        self.ask(self.sends.len() - 1)
    }

    /// Asks for an earlier send once more, or for another one under its key, with this number.
    pub fn repeat(&mut self, nth: usize, altered: Option<u64>) -> Vec<Want> {
        let keyed: Vec<usize> = (0..self.sends.len())
            .filter(|at| self.sends[*at].key.is_some())
            .collect();
        let Some(at) = keyed.get(nth % keyed.len().max(1)).copied() else {
            return Vec::new();
        };
        let Some(nth) = altered else {
            return self.ask(at);
        };
        let send = &self.sends[at];
        // To whom the first one was for: where that was never accepted, this one may be.
        let token = Token { nth, ..send.token };
        let call = self.send_call(&send.to, &token.body(8), send.priority, send.key.as_deref());
        let call_of = UserCall::Send {
            key: send.key.clone(),
            token,
            altered: Some(send.token),
        };
        if self.token.is_none() {
            return Vec::new();
        }
        vec![Want::Call(call_of, call)]
    }

    pub fn look(&self) -> Vec<Want> {
        if self.token.is_none() {
            return Vec::new();
        }
        let inbox = Request::Inbox(InboxQuery::default());
        let outbox = Request::Outbox(OutboxQuery::default());
        let peers = Request::Peers {
            mesh: None,
            all: false,
        };
        vec![
            Want::Call(UserCall::Health, self.call(Request::Health)),
            Want::Call(UserCall::Inbox, self.call(inbox)),
            Want::Call(UserCall::Outbox, self.call(outbox)),
            Want::Call(UserCall::Peers, self.call(peers)),
        ]
    }

    /// As `bowline up` asks.
    #[must_use]
    pub fn up() -> Vec<Want> {
        let call = Call {
            token: Auth::Absent,
            request: Request::RetryUplinks,
        };
        vec![Want::Call(UserCall::Up, call)]
    }

    /// Reads what is unread; that it was read is said when it has come.
    pub fn read(&self) -> Vec<Want> {
        if self.token.is_none() {
            return Vec::new();
        }
        let unread = Request::Inbox(InboxQuery {
            unread: true,
            ..InboxQuery::default()
        });
        vec![Want::Call(UserCall::Unread, self.call(unread))]
    }

    /// Asks where one of its messages is, by the id that it got for it.
    pub fn explain(&self, nth: usize) -> Vec<Want> {
        let named: Vec<&String> = self
            .sends
            .iter()
            .filter_map(|send| send.id.as_ref())
            .collect();
        let Some(id) = named.get(nth % named.len().max(1)) else {
            return Vec::new();
        };
        if self.token.is_none() {
            return Vec::new();
        }
        let message = Request::Message {
            id: (*id).clone(),
            mesh: None,
        };
        vec![Want::Call(UserCall::Explain, self.call(message))]
    }

    /// Asks with a token that nobody has.
    #[must_use]
    pub fn come_as_a_stranger(new: SubscriberId) -> Vec<Want> {
        let token = || Auth::Bearer("a token that nobody has".into());
        let call = Call {
            token: token(),
            request: Request::Inbox(InboxQuery::default()),
        };
        let subscribe = Subscribe {
            token: token(),
            last_event_id: Some(InboxSeq(0)),
            all: true,
            mesh: None,
        };
        vec![
            Want::Call(UserCall::Stranger, call),
            Want::Subscribe(new, subscribe),
        ]
    }

    /// Takes its event stream up where it stopped, on a stream of its own.
    pub fn follow(&mut self, new: SubscriberId) -> Vec<Want> {
        let mut wants: Vec<Want> = self
            .follows
            .take()
            .map(Want::Unsubscribe)
            .into_iter()
            .collect();
        if self.token.is_none() {
            return wants;
        }
        self.follows = Some(new);
        self.unread = 0;
        wants.push(Want::Subscribe(
            new,
            Subscribe {
                token: self.auth(),
                last_event_id: Some(self.seen),
                all: false,
                mesh: None,
            },
        ));
        wants
    }

    pub fn be_deaf(&mut self, for_ms: u64) -> Vec<Want> {
        self.deaf = true;
        vec![Want::Again(Again::Hear, for_ms)]
    }

    pub fn hear(&mut self) -> Vec<Want> {
        self.deaf = false;
        let unread = std::mem::take(&mut self.unread);
        let read = |subscriber| Want::Read(subscriber, unread);
        self.follows
            .filter(|_| unread > 0)
            .map(read)
            .into_iter()
            .collect()
    }

    /// Asks again for what it does not know.
    pub fn again(&mut self, what: Again, new: SubscriberId) -> Vec<Want> {
        match what {
            Again::Open => {
                self.wanted = true;
                self.open()
            }
            Again::Follow if self.follows.is_none() => self.follow(new),
            Again::Follow => Vec::new(),
            Again::Hear => self.hear(),
            Again::Send(at) if self.sends[at].state == State::Unknown => self.ask(at),
            Again::Send(_) => Vec::new(),
        }
    }

    /// `None`: no answer came, and nothing is known.
    pub fn answered(&mut self, call: &UserCall, answer: Option<&Answer>) -> Vec<Want> {
        let refused = answer.is_some_and(|answer| answer.status == 401);
        if refused && *call != UserCall::Stranger {
            self.token = None;
            let mut wants = vec![Want::Again(Again::Open, RETRY_MS)];
            if let UserCall::Send { token, .. } = call {
                wants.extend(self.ask_later(token));
            }
            return wants;
        }
        match call {
            UserCall::Open => self.opened(answer),
            UserCall::Send {
                altered: None,
                token,
                ..
            } => self.send_answered(token, answer),
            UserCall::Unread => self.has_read(answer),
            UserCall::Send { .. }
            | UserCall::End
            | UserCall::Inbox
            | UserCall::Seen(_)
            | UserCall::Explain
            | UserCall::Outbox
            | UserCall::Peers
            | UserCall::Up
            | UserCall::Health
            | UserCall::Stranger => Vec::new(),
        }
    }

    /// True where the event counts as read at once.
    pub fn told(&mut self, subscriber: SubscriberId, event: &SseEvent) -> bool {
        if self.follows != Some(subscriber) {
            return false;
        }
        if let Some(id) = event.id {
            self.seen = self.seen.max(id);
        }
        if self.deaf {
            self.unread += 1;
        }
        !self.deaf
    }

    /// The stream is over, or was not granted.
    pub fn stream_ended(
        &mut self,
        subscriber: SubscriberId,
        refused: Option<&Answer>,
    ) -> Vec<Want> {
        if self.follows != Some(subscriber) {
            return Vec::new();
        }
        self.follows = None;
        if refused.is_some_and(|answer| answer.status == 401) {
            self.token = None;
            return vec![Want::Again(Again::Open, RETRY_MS)];
        }
        vec![Want::Again(Again::Follow, RETRY_MS)]
    }

    /// What still keeps it from being content, in words.
    #[must_use]
    pub fn unmet(&self) -> Option<String> {
        let me = self.index;
        if self.token.is_none() {
            return Some(format!("user {me} has no session"));
        }
        if self.follows.is_none() {
            return Some(format!("user {me} has no event stream"));
        }
        let unknown = self
            .sends
            .iter()
            .find(|send| send.state == State::Unknown && send.key.is_some())?;
        Some(format!(
            "user {me} does not know what became of its send {:?}",
            unknown.key
        ))
    }

    #[must_use]
    pub fn has_session(&self) -> bool {
        self.token.is_some()
    }

    fn opened(&mut self, answer: Option<&Answer>) -> Vec<Want> {
        self.opening = false;
        let again = || vec![Want::Again(Again::Open, RETRY_MS)];
        let Some(answer) = answer.filter(|answer| answer.status / 100 == 2) else {
            return again();
        };
        let text = |name: &str| answer.body.get(name)?.as_str().map(str::to_owned);
        let (Some(token), Some(pubkey)) = (text("token"), text("pubkey")) else {
            return again();
        };
        self.token = Some(token);
        self.pubkey = pubkey.parse().ok();
        let mut wants = vec![Want::Again(Again::Follow, 1)];
        for at in 0..self.sends.len() {
            if self.sends[at].state == State::Unknown && self.sends[at].key.is_some() {
                wants.push(Want::Again(Again::Send(at), 1));
            }
        }
        wants
    }

    fn has_read(&self, answer: Option<&Answer>) -> Vec<Want> {
        let rows = answer.and_then(|answer| answer.body["messages"].as_array());
        let seqs = rows
            .into_iter()
            .flatten()
            .filter_map(|row| row["seq"].as_u64());
        let ids: Vec<InboxSeq> = seqs.map(InboxSeq).collect();
        if ids.is_empty() || self.token.is_none() {
            return Vec::new();
        }
        let seen = Request::InboxSeen { ids: ids.clone() };
        vec![Want::Call(UserCall::Seen(ids), self.call(seen))]
    }

    fn send_answered(&mut self, token: &Token, answer: Option<&Answer>) -> Vec<Want> {
        let Some(at) = self.sends.iter().position(|send| send.token == *token) else {
            return Vec::new();
        };
        let send = &mut self.sends[at];
        match answer.map(|answer| answer.status) {
            Some(200 | 202) => {
                send.state = State::Accepted;
                let id = answer.and_then(|answer| answer.body["id"].as_str());
                send.id = id.map(str::to_owned);
                Vec::new()
            }
            None | Some(429 | 503 | 507) => {
                // Unknown, and the daemon says under which id: asking for that one is safe.
                let id = answer.and_then(|answer| answer.body["error"]["id"].as_str());
                if send.key.is_none() {
                    send.key = id.map(str::to_owned);
                }
                self.ask_later(token)
            }
            Some(_) => {
                if send.state == State::Unknown {
                    send.state = State::Refused;
                }
                Vec::new()
            }
        }
    }

    /// Under its key, and only with a key: without one a second asking would be a second message.
    fn ask_later(&self, token: &Token) -> Vec<Want> {
        let at = self.sends.iter().position(|send| send.token == *token);
        let at = at.filter(|at| self.sends[*at].key.is_some());
        at.map(|at| Want::Again(Again::Send(at), RETRY_MS))
            .into_iter()
            .collect()
    }

    fn ask(&self, at: usize) -> Vec<Want> {
        if self.token.is_none() {
            return Vec::new();
        }
        let send = &self.sends[at];
        let call = self.send_call(&send.to, &send.body, send.priority, send.key.as_deref());
        let call_of = UserCall::Send {
            key: send.key.clone(),
            token: send.token,
            altered: None,
        };
        vec![Want::Call(call_of, call)]
    }

    fn send_call(&self, to: &str, body: &str, priority: Priority, key: Option<&str>) -> Call {
        self.call(Request::Send {
            send: SendRequest {
                to: to.into(),
                body: body.into(),
                priority: Some(priority),
                meta: None,
                reply_to_id: None,
                mesh: None,
            },
            id: key.map(ClientMessageId::from),
        })
    }

    fn call(&self, request: Request) -> Call {
        Call {
            token: self.auth(),
            request,
        }
    }

    fn auth(&self) -> Auth {
        self.token.clone().map_or(Auth::Absent, Auth::Bearer)
    }
}
