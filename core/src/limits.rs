//! Every number that matters, in one place, with its unit in its name.
//!
//! Constants are part of the protocol or of the design; [`Limits`] holds those that an operator,
//! a test or the simulator sets.

use core::time::Duration;

/// Heartbeat, both ends: silence after which a ping is sent.
pub const PING_AFTER: Duration = Duration::from_secs(25);
/// How long the other side has to answer a ping, from the moment it left.
pub const PONG_WITHIN: Duration = Duration::from_secs(10);
/// How long a ping may wait for the socket to take it, while nothing comes in either.
pub const PING_LEAVES_WITHIN: Duration = Duration::from_secs(10);
/// At the broker, from TCP accept to the hello.
pub const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a hello that comes at a bad moment waits for its answer.
pub const HELLO_ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// A plain client that was put out by another socket on its key comes back within this.
pub const DUEL_WITHIN: Duration = Duration::from_secs(60);
/// Hellos of a mesh that wait; more are answered at once.
pub const HELLOS_WAITING: usize = 1_024;
/// At the client, from the begin of the dial to the `hello_ack`: a broker may take 4 s for it.
pub const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// How far a hello's timestamp may be from the broker's clock.
pub const HELLO_SKEW: Duration = Duration::from_secs(60);
/// How long a hello is remembered so that its repeat is refused: twice the skew.
pub const SEEN_HELLO_FOR: Duration = Duration::from_secs(120);
pub const SEEN_HELLOS_PER_MESH: usize = 65_536;
/// Owner-signed requests within that time.
pub const SIGNED_REQUESTS: usize = 16_384;
/// Inputs of all connections that may wait for a mesh before their senders do: what is under way to
/// it when it says that it wants no more.
pub const INPUTS_WAITING: usize = 1_024;
/// Held between a hello and the mesh's answer to it, and behind a look-up.
pub const HELD_FRAMES_AT_HELLO: usize = 16;
pub const HELD_BYTES_AT_HELLO: usize = 64 * 1024;
pub const HELD_FRAMES_BEHIND_LOOK_UP: usize = 64;
pub const HELD_BYTES_BEHIND_LOOK_UP: usize = 256 * 1024;
/// Texts in a row that are not JSON objects with a string `type`, after which the link closes.
pub const GARBAGE_IN_A_ROW: u32 = 20;

pub const ATTESTATION_MINTED_FOR: Duration = Duration::from_secs(12 * 3600);
pub const ATTESTATION_REFUSED_BEYOND: Duration = Duration::from_secs(24 * 3600);

/// A frame received after the handshake.
pub const FRAME_BYTES: usize = 512 * 1024;
/// A frame received before the handshake.
pub const HELLO_FRAME_BYTES: usize = 8 * 1024;
/// A reply to a Bowline client ends here, with `next`.
pub const REPLY_BYTES: usize = 192 * 1024;

pub const NAME_BYTES: usize = 64;
pub const SUMMARY_BYTES: usize = 512;
pub const STATUS_TEXT_BYTES: usize = 256;
pub const ID_BYTES: usize = 128;
/// What a program may say of where it runs: cut.
pub const PATH_BYTES: usize = 1_024;
pub const HOSTNAME_BYTES: usize = 255;
/// `set_stats`, serialised: kept in memory and shown in lists.
pub const STATS_BYTES: usize = 4 * 1024;
pub const PROFILE_CAPABILITIES: usize = 32;
pub const PEERS_PAGE: usize = 250;
pub const MENTIONS: usize = 16;

/// Redial: 1, 2, 4, 8, 16, 30 s with full jitter.
pub const REDIAL_FIRST: Duration = Duration::from_secs(1);
pub const REDIAL_MOST: Duration = Duration::from_secs(30);
/// A connection that held this long starts the schedule anew.
pub const REDIAL_RESET_AFTER: Duration = Duration::from_secs(60);
/// After `session_replaced` on the current connection; three times in five minutes: stop.
pub const REDIAL_AFTER_REPLACED: Duration = Duration::from_secs(30);
pub const REPLACED_AT_MOST: usize = 3;
pub const REPLACED_WITHIN: Duration = Duration::from_secs(300);
/// After a refusal that will not mend by itself.
pub const REDIAL_AFTER_REFUSAL: Duration = Duration::from_secs(3600);

/// Outbox drain: min(30 s, 500 ms · 2^attempt) ± 50 %.
pub const DRAIN_BACKOFF_FIRST: Duration = Duration::from_millis(500);
pub const DRAIN_BACKOFF_MOST: Duration = Duration::from_secs(30);
pub const DRAIN_ATTEMPTS: u32 = 25;
/// How long a `send` may go without its `ack` before the link is probed.
pub const SEND_ACK_WITHIN: Duration = Duration::from_secs(15);

/// The longest wait that a broker's `retryAfterMs` can ask of a daemon.
pub const DEFERRAL_MOST: Duration = Duration::from_secs(300);
/// A page of a snapshot of a mesh's peers is asked for again after this.
pub const SNAPSHOT_PAGE_WITHIN: Duration = Duration::from_secs(15);
/// Pushes of one identity that wait for the look-up of one before them; beyond, the daemon hangs up
/// and what it did not acknowledge comes again. Above what a broker may leave unacknowledged.
pub const HELD_PUSHES: usize = 1_024;
pub const HELD_PUSH_BYTES: usize = 32 * 1024 * 1024;
/// Look-ups that a daemon's store is asked at once before new accepts are `busy`.
pub const LOOK_UPS_AT_ONCE: usize = 1_024;
/// Peers that a daemon keeps of a mesh, present or not; beyond, the absent are forgotten oldest first.
pub const DIRECTORY_PEERS: usize = 20_000;
/// Under this much free disk a daemon takes nothing new.
pub const DISK_FREE_LEAST: u64 = 256 * 1024 * 1024;

/// An accept, or its repeat, that is not durable by then is answered `outcome_unknown`, and stands.
pub const ACCEPT_DURABLE_WITHIN: Duration = Duration::from_secs(10);
/// A daemon's request to a broker's HTTP endpoints: longer than the broker takes to say that the
/// outcome is open.
pub const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// What a `busy` refusal asks for.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a refusal asks for that only somebody else can mend.
pub const STORAGE_FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
pub const RECIPIENT_FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Unpersisted transactions a machine keeps before new accepts are `busy`.
pub const UNPERSISTED_TXNS: usize = 4_096;
pub const UNPERSISTED_BYTES: usize = 64 * 1024 * 1024;
/// Backoff of a stalled store: the first, and the longest.
pub const STORE_RETRY_FIRST: Duration = Duration::from_millis(100);
pub const STORE_RETRY_MOST: Duration = Duration::from_secs(5);

/// An owner that runs this much later than its earliest deadline was stopped, not slow.
pub const OWNER_LATE: Duration = Duration::from_secs(5);
/// Every lease gets at least this after an owner's start or stall.
pub const GRACE_AFTER_START: Duration = Duration::from_secs(90);

/// Redelivery after the first claim (30 s ⚙): then these, then every 5 min.
pub const REDELIVER_AFTER: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(240),
    Duration::from_secs(300),
];

/// The count of a stream travels at least this often while there is traffic.
pub const STREAM_CHECK_EVERY: Duration = Duration::from_secs(25);

pub const MESHES: usize = 10_000;
pub const PEERS_PER_MESH: usize = 10_000;
pub const SESSIONS_PER_MEMBER: usize = 256;
pub const CONNECTIONS_PER_PEER: usize = 32;
pub const GROUPS_PER_PEER: usize = 32;
pub const MEMBERS_PER_MESH: usize = 10_000;
/// A peer that held a lease this recently can be written to while it is away.
pub const KNOWN_ABSENT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
pub const KNOWN_ABSENT_PER_MESH: usize = 100_000;
pub const SESSION_KEYS_PER_MEMBER_A_DAY: u32 = 1_000;
pub const HANDSHAKES: usize = 1_024;
pub const IPC_REQUESTS: usize = 64;
pub const EVENT_STREAMS: usize = 32;
/// Events an SSE subscriber may be behind before it is told `gap`.
pub const SUBSCRIBER_EVENTS: usize = 1_024;
/// Rows of a page over the IPC, where nothing is said, and the most.
pub const PAGE_ROWS: usize = 100;
pub const PAGE_ROWS_MOST: usize = 500;
/// Messages that one `seen` names, over the IPC and over the wire.
pub const SEEN_IDS: usize = 1_000;
pub const SEEN_IDS_PER_FRAME: usize = 100;
pub const WORKING_LAPSES_AFTER: Duration = Duration::from_secs(600);

/// The numbers that can be set, all of them with the defaults of production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub lease_grace: Duration,
    pub claim: Duration,
    pub window_messages: usize,
    pub queued_bytes: u64,
    pub inline_bytes: usize,
    pub ring_events: usize,
    pub ring_bytes: usize,
    pub sends_per_second: u32,
    pub sends_burst: u32,
    pub owed_messages: usize,
    pub owed_bytes: usize,
    pub look_ups_per_second: u32,
    pub look_ups_burst: u32,
    /// Durable dedupe entries kept in memory as a cache.
    pub dedupe_cache: usize,
    pub dedupe_retention_days: u32,
    pub undelivered_for: Duration,
    pub outbox_rows_per_session: usize,
    /// How far an event stream of the IPC may be behind before it is told `gap`.
    pub subscriber_events: usize,
    /// Owed deliveries of one recipient kept in memory; the rest is paged in from the store.
    pub owed_in_memory: usize,
    /// Bytes of inbox and of outbox each, beyond which the daemon is `storage_full`.
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_grace: Duration::from_secs(90),
            claim: Duration::from_secs(30),
            window_messages: 256,
            queued_bytes: 1024 * 1024,
            inline_bytes: 64 * 1024,
            ring_events: 500,
            ring_bytes: 1024 * 1024,
            sends_per_second: 200,
            sends_burst: 1_000,
            owed_messages: 10_000,
            owed_bytes: 64 * 1024 * 1024,
            look_ups_per_second: 500,
            look_ups_burst: 1_000,
            dedupe_cache: 262_144,
            dedupe_retention_days: 30,
            undelivered_for: Duration::from_secs(7 * 24 * 3600),
            outbox_rows_per_session: 10_000,
            subscriber_events: SUBSCRIBER_EVENTS,
            owed_in_memory: 512,
            disk_bytes: 5 * 1024 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// How long an outbox row is tried: the broker must still know its id by then.
    #[must_use]
    pub fn outbox_max_age(&self) -> Duration {
        let retention = Duration::from_secs(u64::from(self.dedupe_retention_days) * 24 * 3600);
        retention - Duration::from_secs(24 * 3600).max(retention / 10)
    }
}
