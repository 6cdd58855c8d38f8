//! A host: its daemon (a `Host`, a `ClientLink` for each uplink, a driver of its database) and the
//! programs that use it over the IPC. The daemon dies and stops; the programs live on, and ask again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bowline_core::host::io::{self, HttpOutcome, SseEvent};
use bowline_core::host::ipc::{Answer, Call, Request};
use bowline_core::host::{Host, Sizes};
use bowline_core::id::{InboxSeq, MeshId, OutboxSeq, PeerKey, PubKey, RequestId, SubscriberId};
use bowline_core::limits::{
    DIRECTORY_PEERS, EVENT_STREAMS, HELD_PUSHES, IPC_REQUESTS, LOOK_UPS_AT_ONCE, Limits,
    UNPERSISTED_TXNS,
};
use bowline_core::mark::Marks;
use bowline_core::store::TxnId;
use bowline_core::store::host::{Image, MeshRow, Op};
use bowline_core::time::Wall;

use crate::cast::{self, Cast, MeshIndex};
use crate::client_shell::{ClientShell, FromLink};
use crate::clock::{Moment, WALL_AT_START_MS};
use crate::driven::{Driven, Timing};
use crate::kernel::{Halt, Kernel, NodeEvent, NodeId};
use crate::plan::{Action, Profile, StepId};
use crate::random::{Purpose, Stream};
use crate::record::{Record, Token, UserCall};
use crate::store::{Driver, Said, Shared, StoreFault};
use crate::tape::Recorder;
use crate::user::{Again, User, Want};
use crate::world::{Node, NodeRole, machine_seed, same_durable};

/// Something came over the IPC.
const IPC: u64 = 1;
/// Something goes to the programs.
const TO_USERS: u64 = 2;
/// Somebody types `bowline up`.
pub const UP: u64 = 3;
/// When all is healed, and what the broker before said may still be under way at first.
const UP_AFTER_HEALING_S: [u64; 3] = [1, 20, 60];
/// From here on: a program's appointment with itself.
const AGAIN: u64 = 16;

pub struct HostNode {
    node: NodeId,
    index: usize,
    /// By mesh.
    casts: Vec<Rc<Cast>>,
    profile: Profile,
    limits: Limits,
    store: Shared<Image>,
    process: Option<Process>,
    users: Vec<User>,
    next_subscriber: u64,
    /// Streams that were asked for with a token that nobody has.
    strangers: BTreeSet<SubscriberId>,
    appointments: BTreeMap<u64, (usize, Again)>,
    next_appointment: u64,
    /// To the programs, in order.
    to_users: VecDeque<(usize, ToUser)>,
    to_users_at: Moment,
    /// In which mesh each row is.
    outbox: BTreeMap<OutboxSeq, MeshIndex>,
    inbox: BTreeMap<InboxSeq, MeshIndex>,
    ipc: Stream,
    healed: bool,
}

struct Process {
    host: Driven<Host>,
    driver: Driver<Image>,
    shell: ClientShell,
    /// Asked and not answered yet.
    asked: BTreeMap<RequestId, (usize, UserCall)>,
    next_request: u64,
    streams: BTreeMap<SubscriberId, usize>,
    from_users: VecDeque<FromUser>,
    from_users_at: Moment,
    /// It has finished what it was asked to.
    stopped: bool,
}

enum FromUser {
    Call(usize, UserCall, Call),
    Input(io::Input),
}

enum ToUser {
    Answered(UserCall, Answer),
    Lost(UserCall),
    Event(SubscriberId, SseEvent),
    StreamEnded(SubscriberId, Option<Answer>),
}

impl HostNode {
    #[must_use]
    pub fn new(
        node: NodeId,
        index: usize,
        casts: Vec<Rc<Cast>>,
        profile: Profile,
        limits: Limits,
        store: Shared<Image>,
        ipc: Stream,
    ) -> Self {
        let first = index * profile.sessions_per_host;
        let users = (first..first + profile.sessions_per_host)
            .map(|user| User::new(user, casts[profile.mesh_of(user)].slug))
            .collect();
        Self {
            node,
            index,
            casts,
            profile,
            limits,
            store,
            process: None,
            users,
            next_subscriber: 0,
            strangers: BTreeSet::new(),
            appointments: BTreeMap::new(),
            next_appointment: AGAIN,
            to_users: VecDeque::new(),
            to_users_at: Moment(0),
            outbox: BTreeMap::new(),
            inbox: BTreeMap::new(),
            ipc,
            healed: false,
        }
    }

    /// What this host has on its disk before the run begins: it has joined this mesh.
    #[must_use]
    pub fn joined(cast: &Cast, profile: &Profile, host: usize) -> Op {
        let member = &cast.members[host];
        Op::MeshPut(Box::new(MeshRow {
            id: cast.mesh.clone(),
            slug: cast.slug.into(),
            broker_url: cast::BROKER_URL.into(),
            policy: if profile.ages.open { "open" } else { "sealed" }.into(),
            display_name: format!("host-{host}"),
            member_id: member.id.clone(),
            member_secret: member.secret.clone(),
            owner_pubkey: cast.crypto.public_key(&cast.owner),
            owner_secret: None,
            mesh_root_key: String::new(),
            joined_at: Wall(WALL_AT_START_MS),
        }))
    }

    fn timing(&self) -> Timing {
        Timing {
            late_most_us: self.profile.timer_late_most_us,
            spurious_per_mille: self.profile.spurious_per_mille,
        }
    }

    fn config(&self) -> io::Config {
        io::Config {
            limits: self.limits.clone(),
            terms: self.profile.ages.host(self.index).terms(),
            machine_token_sha256: [7; 32],
            hostname: format!("host-{}", self.index),
            version: "sim",
        }
    }

    fn input(&mut self, k: &mut Kernel, input: io::Input) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.host.input(k, input);
        self.drain(k);
    }

    fn drain(&mut self, k: &mut Kernel) {
        let node = self.node;
        loop {
            let Some(process) = &mut self.process else {
                return;
            };
            let Some(output) = process.host.output(k) else {
                break;
            };
            match output {
                io::Output::Dial { conn, plan } => {
                    let key = match &plan.session {
                        Some(session) => {
                            let crypto = &self.casts[0].crypto;
                            PeerKey::Session(crypto.public_key(&session.secret))
                        }
                        None => PeerKey::Member(plan.member_id.clone()),
                    };
                    let mesh = cast::index_of(&self.casts, &plan.mesh);
                    process.shell.dial(k, conn, mesh, Arc::new(key), plan);
                }
                io::Output::Send { conn, frame } => process.shell.send(k, conn, frame),
                io::Output::Hangup { conn, close } => process.shell.hang_up(k, conn, close),
                io::Output::Persist(txn) => process.driver.submit(k, txn),
                io::Output::Load { load, what } => process.driver.load(k, load, what),
                io::Output::Answer { request, answer } => {
                    if let Some((user, call)) = process.asked.remove(&request) {
                        self.tell_user(k, user, ToUser::Answered(call, answer));
                    }
                }
                io::Output::SubscribeRefused { subscriber, answer } => {
                    if let Some(user) = process.streams.remove(&subscriber) {
                        self.tell_user(k, user, ToUser::StreamEnded(subscriber, Some(answer)));
                    }
                }
                io::Output::Event { subscriber, event } if self.strangers.contains(&subscriber) => {
                    let event = event.event;
                    k.record(Record::ToldStranger { node, event });
                }
                io::Output::Event { subscriber, event } => {
                    if let Some(user) = process.streams.get(&subscriber).copied() {
                        self.tell_user(k, user, ToUser::Event(subscriber, event));
                    }
                }
                io::Output::EndEvents { subscriber } => {
                    if let Some(user) = process.streams.remove(&subscriber) {
                        self.tell_user(k, user, ToUser::StreamEnded(subscriber, None));
                    }
                }
                io::Output::Http { request, .. } => {
                    // The broker's HTTP endpoints are not part of this world.
                    let outcome = HttpOutcome::Failed {
                        detail: "no route".into(),
                    };
                    let done = io::Input::HttpDone { request, outcome };
                    self.hear_user(k, FromUser::Input(done));
                }
                io::Output::Log { level, message } => k.record(Record::Log {
                    node,
                    level,
                    message,
                }),
                io::Output::Stopped => process.stopped = true,
            }
        }
        if let Some(process) = &self.process {
            let sizes = sizes(&process.host.machine.sizes(), &self.limits);
            k.record(Record::Sizes { node, sizes });
        }
    }

    fn on_link(&mut self, k: &mut Kernel, queue: u64) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some((conn, said)) = process.shell.arrived(k, queue) else {
            return;
        };
        let input = match said {
            FromLink::Up(ack) => io::Input::Up { conn, ack },
            FromLink::Frame(frame) => io::Input::Frame { conn, frame },
            FromLink::Down(down) => io::Input::Down { conn, down },
            FromLink::Sent(bytes) => io::Input::Sent { conn, bytes },
        };
        self.input(k, input);
    }

    fn store_said(&mut self, k: &mut Kernel, said: Said<Image>) {
        match said {
            Said::Nothing => {}
            Said::Event(event) => self.input(k, io::Input::Store(event)),
            Said::Fenced => k.halt(self.node, Halt::Fenced),
            Said::Broken(what) => k.halt(self.node, Halt::Broken(what)),
        }
    }

    /// Shown to each mesh as far as it is of that mesh.
    fn committed(&mut self, k: &mut Kernel, committed: Vec<(TxnId, Vec<Op>)>) {
        let node = self.node;
        for (txn, all) in committed {
            let mut by_mesh: Vec<Vec<Op>> = self.casts.iter().map(|_| Vec::new()).collect();
            for op in all {
                let mesh = self.mesh_of(&op);
                by_mesh[mesh].push(op);
            }
            for (mesh, ops) in by_mesh.into_iter().enumerate() {
                k.record_in(mesh, Record::HostCommitted { node, txn, ops });
            }
        }
    }

    fn mesh_of(&mut self, op: &Op) -> MeshIndex {
        let of = |id: &MeshId| cast::index_of(&self.casts, id);
        match op {
            Op::MeshPut(row) => of(&row.id),
            Op::MeshDelete(id) | Op::PeerForget { mesh: id, .. } => of(id),
            Op::SessionPut(row) => of(&row.mesh),
            Op::PeerPut(row) => of(&row.mesh),
            Op::OutboxPut(row) => {
                let mesh = of(&row.mesh);
                self.outbox.insert(row.seq, mesh);
                mesh
            }
            Op::InboxPut(row) => {
                let mesh = of(&row.mesh);
                self.inbox.insert(row.seq, mesh);
                mesh
            }
            Op::OutboxState { seq, .. } => self.outbox.get(seq).copied().unwrap_or_default(),
            Op::InboxSeen { seq, .. } | Op::SeenOwed { seq } | Op::SeenTold { seq } => {
                self.inbox.get(seq).copied().unwrap_or_default()
            }
            Op::Receipt { mesh, .. } => of(mesh),
        }
    }

    /// Carries out what a program wants.
    fn grant(&mut self, k: &mut Kernel, user: usize, wants: Vec<Want>) {
        for want in wants {
            match want {
                Want::Call(call_of, call) => {
                    if let UserCall::Send { token, altered, .. } = &call_of {
                        let asked = Record::Asked {
                            node: self.node,
                            user: self.users[user].index,
                            token: *token,
                            altered: *altered,
                        };
                        self.record_of(k, user, asked);
                    }
                    if let UserCall::Seen(ids) = &call_of {
                        let looked_at = Record::LookedAt {
                            node: self.node,
                            user: self.users[user].index,
                            ids: ids.clone(),
                        };
                        self.record_of(k, user, looked_at);
                    }
                    if self.process.is_none() {
                        // Nobody listens at the socket.
                        self.tell_user(k, user, ToUser::Lost(call_of));
                        continue;
                    }
                    self.hear_user(k, FromUser::Call(user, call_of, call));
                }
                Want::Subscribe(subscriber, subscribe) => {
                    let followed = Record::Followed {
                        node: self.node,
                        user: self.users[user].index,
                        after: subscribe.last_event_id,
                    };
                    self.record_of(k, user, followed);
                    let Some(process) = &mut self.process else {
                        self.tell_user(k, user, ToUser::StreamEnded(subscriber, None));
                        continue;
                    };
                    process.streams.insert(subscriber, user);
                    let subscribe = Box::new(subscribe);
                    let input = io::Input::Subscribe {
                        subscriber,
                        subscribe,
                    };
                    self.hear_user(k, FromUser::Input(input));
                }
                Want::Unsubscribe(subscriber) => {
                    if let Some(process) = &mut self.process
                        && process.streams.remove(&subscriber).is_some()
                    {
                        let input = io::Input::Unsubscribed { subscriber };
                        self.hear_user(k, FromUser::Input(input));
                    }
                }
                Want::Read(subscriber, events) => {
                    let input = io::Input::SubscriberSent { subscriber, events };
                    self.hear_user(k, FromUser::Input(input));
                }
                Want::Again(again, ms) => {
                    self.next_appointment += 1;
                    self.appointments
                        .insert(self.next_appointment, (user, again));
                    let event = NodeEvent::Beside(self.next_appointment);
                    k.tell_later(ms * 1_000, self.node, event);
                }
            }
        }
    }

    fn hear_user(&mut self, k: &mut Kernel, what: FromUser) {
        let soon = k.now.plus_us(self.ipc.magnitude(20, 3_000));
        let Some(process) = &mut self.process else {
            return;
        };
        process.from_users.push_back(what);
        process.from_users_at = process.from_users_at.max(soon);
        let incarnation = k.incarnation(self.node);
        let at = process.from_users_at;
        k.tell_at(at, self.node, incarnation, NodeEvent::Process(IPC));
    }

    fn tell_user(&mut self, k: &mut Kernel, user: usize, what: ToUser) {
        let soon = k.now.plus_us(self.ipc.magnitude(20, 3_000));
        self.to_users.push_back((user, what));
        self.to_users_at = self.to_users_at.max(soon);
        let incarnation = k.incarnation(self.node);
        let at = self.to_users_at;
        k.tell_at(at, self.node, incarnation, NodeEvent::Beside(TO_USERS));
    }

    fn over_ipc(&mut self, k: &mut Kernel) {
        let Some(process) = &mut self.process else {
            return;
        };
        let input = match process.from_users.pop_front() {
            Some(FromUser::Call(user, call_of, call)) => {
                if matches!(call.request, Request::RetryUplinks) {
                    k.record(Record::TriedAgain { node: self.node });
                }
                process.next_request += 1;
                let request = RequestId(process.next_request);
                process.asked.insert(request, (user, call_of));
                io::Input::Ipc {
                    request,
                    call: Box::new(call),
                }
            }
            Some(FromUser::Input(input)) => input,
            None => return,
        };
        self.input(k, input);
    }

    fn tell_programs(&mut self, k: &mut Kernel) {
        let Some((at, what)) = self.to_users.pop_front() else {
            return;
        };
        let node = self.node;
        let user = self.users[at].index;
        let wants = match what {
            ToUser::Answered(call, answer) => {
                let wants = self.users[at].answered(&call, Some(&answer));
                if call == UserCall::Open
                    && let Some(pubkey) = self.users[at].pubkey()
                {
                    k.addresses.insert(user, pubkey);
                    self.record_of(k, at, Record::Opened { node, user, pubkey });
                }
                let answered = Record::Answered {
                    node,
                    user,
                    call,
                    answer,
                };
                self.record_of(k, at, answered);
                wants
            }
            ToUser::Lost(call) => {
                let wants = self.users[at].answered(&call, None);
                self.record_of(k, at, Record::Unanswered { node, user, call });
                wants
            }
            ToUser::Event(subscriber, event) => {
                let read = self.users[at].told(subscriber, &event);
                let told = Record::Told {
                    node,
                    user,
                    subscriber,
                    event,
                };
                self.record_of(k, at, told);
                if read {
                    vec![Want::Read(subscriber, 1)]
                } else {
                    Vec::new()
                }
            }
            ToUser::StreamEnded(subscriber, refused) => {
                self.users[at].stream_ended(subscriber, refused.as_ref())
            }
        };
        self.grant(k, at, wants);
    }

    /// What one of its programs does or sees belongs to the mesh of its session.
    fn record_of(&self, k: &mut Kernel, user: usize, record: Record) {
        k.record_in(self.profile.mesh_of(self.users[user].index), record);
    }

    fn subscriber(&mut self) -> SubscriberId {
        self.next_subscriber += 1;
        SubscriberId(self.next_subscriber)
    }

    fn user_send(&mut self, k: &mut Kernel, id: StepId, at: usize, action: &Action) {
        let Action::UserSend {
            to,
            bytes,
            priority,
            keyed,
            ..
        } = action
        else {
            return;
        };
        let users = self.profile.users();
        let (name, pubkey): (String, Option<PubKey>) = match to.checked_sub(users) {
            None => (User::name_of(*to), k.addresses.get(to).copied()),
            Some(puppet) => {
                // One of another mesh is a stranger here, like one who is nowhere.
                let cast = &self.casts[self.profile.mesh_of(*to)];
                let pubkey = cast.puppets.get(puppet).map(|puppet| puppet.pubkey);
                let stranger = pubkey.is_none();
                let pubkey = pubkey.unwrap_or(cast::STRANGER);
                let name = if stranger {
                    pubkey.to_string()
                } else {
                    format!("puppet-{puppet}")
                };
                (name, Some(pubkey))
            }
        };
        let by_name = k
            .random
            .draw(Purpose::Ipc, u64::from(id.0), 0)
            .is_multiple_of(2);
        let to_text = match pubkey {
            Some(pubkey) if !by_name => pubkey.to_string(),
            _ => name,
        };
        let token = Token {
            sender: self.users[at].index,
            recipient: *to,
            nth: u64::from(id.0),
        };
        let key = keyed.then(|| format!("k{}", id.0));
        let wants = self.users[at].send(to_text, token, *bytes, *priority, key);
        self.grant(k, at, wants);
    }
}

/// Each size with its limit, as core's `host::status` names them.
fn sizes(sizes: &Sizes, limits: &Limits) -> Vec<(&'static str, u64, u64)> {
    let of = |name, size: usize, most: usize| (name, size as u64, most as u64);
    vec![
        of(
            "outbox remembered",
            sizes.outbox_remembered,
            limits.dedupe_cache + 2 * UNPERSISTED_TXNS,
        ),
        of(
            "inbox remembered",
            sizes.inbox_remembered,
            limits.dedupe_cache + 2 * UNPERSISTED_TXNS,
        ),
        of("held pushes", sizes.held_pushes, HELD_PUSHES),
        of("directory peers", sizes.directory_peers, DIRECTORY_PEERS),
        of("subscribers", sizes.subscribers, EVENT_STREAMS),
        of(
            "subscriber behind",
            sizes.subscriber_behind,
            2 * limits.subscriber_events + 1,
        ),
        of("open requests", sizes.open_requests, 2 * IPC_REQUESTS),
        of("look-ups", sizes.look_ups, 2 * LOOK_UPS_AT_ONCE),
        of("unpersisted", sizes.unpersisted_txns, 4 * UNPERSISTED_TXNS),
    ]
}

impl Node for HostNode {
    fn start(&mut self, k: &mut Kernel) {
        let profile = self.profile.host_store.clone();
        let (driver, recovered) = Driver::start(&self.store, profile, self.node, 0, k);
        let config = self.config();
        let seed = machine_seed(&k.random, self.node, k.incarnation(self.node));
        let crypto = Arc::clone(&self.casts[0].crypto);
        let began = k.clock(self.node);
        let begin = move || {
            let (config, recovered) = (config.clone(), recovered.clone());
            Host::new(config, seed, Arc::clone(&crypto), recovered, began)
        };
        let host = Driven::new(begin(), self.node, None, self.timing());
        let tapes = k.tapes.as_ref();
        let host = host.recorded(tapes.map(|tapes| Recorder::new(&tapes.hosts, began, begin)));
        let shell = ClientShell::new(
            self.node,
            Arc::clone(&self.casts[0].crypto),
            self.timing(),
            self.profile.hop_most_us,
        );
        self.process = Some(Process {
            host,
            driver,
            shell,
            asked: BTreeMap::new(),
            next_request: 0,
            streams: BTreeMap::new(),
            from_users: VecDeque::new(),
            from_users_at: Moment(0),
            stopped: false,
        });
        self.drain(k);
        for at in 0..self.users.len() {
            let wants = self.users[at].open();
            self.grant(k, at, wants);
        }
    }

    fn stop(&mut self, k: &mut Kernel) {
        let Some(process) = self.process.take() else {
            return;
        };
        k.marks.add(process.host.machine.marks());
        let mut marks = Marks::default();
        process.shell.marks(&mut marks);
        k.marks.add(&marks);
        let mut ops = Vec::new();
        process.driver.crash(k, &mut ops);
        self.committed(k, ops);
        // What was on its way to the programs and not in their sockets is lost.
        let under_way = std::mem::take(&mut self.to_users);
        for (user, what) in under_way {
            let lost = match what {
                ToUser::Answered(call, _) | ToUser::Lost(call) => ToUser::Lost(call),
                ToUser::Event(..) => continue,
                ended @ ToUser::StreamEnded(..) => ended,
            };
            self.tell_user(k, user, lost);
        }
        for (user, call) in process.asked.into_values() {
            self.tell_user(k, user, ToUser::Lost(call));
        }
        for from in process.from_users {
            if let FromUser::Call(user, call, _) = from {
                self.tell_user(k, user, ToUser::Lost(call));
            }
        }
        for (subscriber, user) in process.streams {
            self.tell_user(k, user, ToUser::StreamEnded(subscriber, None));
        }
    }

    fn begin_stop(&mut self, k: &mut Kernel) {
        self.input(k, io::Input::Stop);
    }

    fn is_done(&self) -> bool {
        let process = self.process.as_ref();
        process.is_none_or(|process| process.stopped && process.driver.in_flight() == 0)
    }

    fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn role(&self) -> NodeRole {
        NodeRole::Host
    }

    fn on(&mut self, k: &mut Kernel, event: NodeEvent) {
        if let Some(process) = &mut self.process
            && process.shell.on(k, &event)
        {
            return;
        }
        match event {
            NodeEvent::Timer(None) => {
                if let Some(process) = &mut self.process {
                    process.host.timer(k);
                    self.drain(k);
                }
            }
            NodeEvent::Hop { queue, .. } => self.on_link(k, queue),
            NodeEvent::Committed { .. } => {
                let Some(process) = &mut self.process else {
                    return;
                };
                let mut ops = Vec::new();
                let said = process.driver.committed(k, &mut ops);
                self.committed(k, ops);
                self.store_said(k, said);
            }
            NodeEvent::Loaded { nth, .. } => {
                let Some(process) = &mut self.process else {
                    return;
                };
                let said = process.driver.loaded(k, nth);
                self.store_said(k, said);
            }
            NodeEvent::Process(_) => self.over_ipc(k),
            NodeEvent::Beside(TO_USERS) => self.tell_programs(k),
            // Whichever program asks, it asks as the member.
            NodeEvent::Beside(UP) => self.grant(k, 0, User::up()),
            NodeEvent::Beside(nth) => {
                if let Some((user, again)) = self.appointments.remove(&nth) {
                    let new = self.subscriber();
                    let wants = self.users[user].again(again, new);
                    self.grant(k, user, wants);
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, k: &mut Kernel, id: StepId, action: &Action) {
        let (Action::UserSend { user, .. }
        | Action::UserRepeat { user, .. }
        | Action::UserFollow { user }
        | Action::UserDeaf { user, .. }
        | Action::UserLook { user }
        | Action::UserRead { user }
        | Action::UserExplain { user, .. }
        | Action::UserStranger { user }
        | Action::UserEnd { user, .. }) = action
        else {
            return;
        };
        let at = user % self.profile.sessions_per_host;
        let wants = match action {
            Action::UserSend { .. } => return self.user_send(k, id, at, action),
            Action::UserRepeat { nth, altered, .. } => {
                self.users[at].repeat(*nth, altered.then_some(u64::from(id.0)))
            }
            Action::UserFollow { .. } => {
                let new = self.subscriber();
                self.users[at].follow(new)
            }
            Action::UserDeaf { for_ms, .. } => self.users[at].be_deaf(*for_ms),
            Action::UserLook { .. } => self.users[at].look(),
            Action::UserRead { .. } => self.users[at].read(),
            Action::UserExplain { nth, .. } => self.users[at].explain(*nth),
            Action::UserStranger { .. } => {
                let new = self.subscriber();
                self.strangers.insert(new);
                User::come_as_a_stranger(new)
            }
            Action::UserEnd { back_after_ms, .. } => self.users[at].end(*back_after_ms),
            _ => return,
        };
        self.grant(k, at, wants);
    }

    fn set_store_fault(&mut self, _: &mut Kernel, fault: Option<StoreFault>) {
        self.store.borrow_mut().fault = fault;
    }

    fn in_flight(&self) -> usize {
        self.process
            .as_ref()
            .map_or(0, |process| process.driver.in_flight())
    }

    fn heal(&mut self, k: &mut Kernel) {
        self.healed = true;
        // The broker has been put right.
        if self.profile.ages.brokers_differ() {
            for after_s in UP_AFTER_HEALING_S {
                k.tell_later(after_s * 1_000_000, self.node, NodeEvent::Beside(UP));
            }
        }
        for at in 0..self.users.len() {
            let wants = self.users[at].hear();
            self.grant(k, at, wants);
            if !self.users[at].has_session() {
                self.grant(k, at, vec![Want::Again(Again::Open, 100)]);
            }
        }
    }

    fn unmet(&self, _: &Kernel) -> Option<String> {
        let process = self.process.as_ref()?;
        if let Some(unmet) = self.users.iter().find_map(User::unmet) {
            return Some(unmet);
        }
        let depth = process.host.machine.outbox_depth();
        if depth > 0 {
            return Some(format!(
                "host {} has {depth} unsettled outbox rows",
                self.index
            ));
        }
        let in_flight = process.driver.in_flight() + process.driver.loads_in_flight();
        (in_flight > 0).then(|| {
            format!(
                "the store of host {} has {in_flight} things in hand",
                self.index
            )
        })
    }

    fn check_recovery(&self, k: &Kernel) -> Result<(), String> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let held = self.store.borrow();
        let recovered = held.image.recover(held.owner);
        drop(held);
        let crypto = Arc::clone(&self.casts[0].crypto);
        let config = self.config();
        let again = Host::new(config, [0; 32], crypto, recovered, k.clock(self.node));
        let name = format!("host {}", self.index);
        same_durable(&name, &process.host.machine.durable(), &again.durable())
    }

    fn marks(&self, into: &mut Marks) {
        let Some(process) = &self.process else { return };
        into.add(process.host.machine.marks());
        process.shell.marks(into);
    }
}
