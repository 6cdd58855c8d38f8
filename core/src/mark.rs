//! Marks: each interesting branch says that it was taken.
//!
//! A sweep of the simulator that misses one fails, because a simulator that never gets there
//! proves nothing. Outside the simulator a mark costs an increment.

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mark { $($(#[$doc])* $name,)* }

        impl Mark {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

marks! {
    // link
    LinkPinged,
    LinkSilent,
    LinkHelloTimedOut,
    LinkHelloRefused,
    LinkHeldFrames,
    // negotiation
    VersionLowered,
    VersionRefused,
    RequireNotMet,
    BrokerUnsuited,
    FingerprintForm1,
    FingerprintFormKept,
    // lease, presence, stream
    LeaseJoined,
    LeaseReattached,
    LeaseReplaced,
    LeaseAdded,
    LeaseGraceBegun,
    LeaseGraceExpired,
    LeaseGraceRestarted,
    LeaseBye,
    LateClose,
    // moderation and quiet connections
    LeaseKicked,
    KickedInGrace,
    KickToldLate,
    ControlPlaneSkipped,
    Disconnected,
    MemberBanned,
    MemberUnbanned,
    MailToBanned,
    ModerationForbidden,
    QuietAttached,
    QuietReplaced,
    QuietFrameRefused,
    HelloReplayed,
    HelloSkewed,
    ResumeHit,
    ResumeHitWithReplay,
    ResumeMiss,
    ResumeFresh,
    RingOverrun,
    ReplayPaced,
    StreamChecked,
    SlowConsumer,
    // accept and dedupe
    Accepted,
    AcceptBusy,
    AcceptOutcomeUnknown,
    DedupeHitFresh,
    DedupeHitDurable,
    DedupeMissFirst,
    DedupeLookedUpFound,
    DedupeLookedUpAbsent,
    FingerprintConflict,
    RateLimited,
    RecipientFull,
    StorageFull,
    LookUpStalled,
    LimiterGaveBack,
    // receipts, retention, questions
    SettledDelivered,
    SettledSeen,
    SettledExpired,
    ExpiryLeftToClaim,
    ReceiptTold,
    ReceiptReplayed,
    SeenAgain,
    MessageStatusTold,
    ExplainedReady,
    ExplainedClaimed,
    ExplainedSettled,
    MessageNotFound,
    MessagePrefixAmbiguous,
    TargetUnknown,
    FramesHeldBehindLookUp,
    // delivery
    Pushed,
    PushedAgain,
    WorkingLapsed,
    HeldByStatus,
    /// Sealed by a suite that the recipient does not open.
    SuiteRefused,
    /// Two sockets of a plain client put each other out.
    HelloWaits,
    ClaimExpired,
    AckedUnclaimed,
    AckIgnored,
    WindowFull,
    DeliveryPaced,
    BacklogPaged,
    BacklogPassedOver,
    // store
    GateReleased,
    GateAbandoned,
    StalledEntered,
    StalledLeft,
    TxnsResent,
    OwnerStalled,
    Recovered,
    // host
    SendAccepted,
    SendDuplicate,
    SendConflict,
    SendLookedUpFound,
    SendLookedUpAbsent,
    SendBusy,
    DrainStarted,
    DrainAcked,
    DrainDuplicate,
    DrainDeferred,
    DrainDead,
    DrainRetried,
    DrainTimedOut,
    InflightRecovered,
    InboxInserted,
    InboxDuplicateFresh,
    InboxDuplicateDurable,
    InboxUndecryptable,
    SealedInBox,
    BoxOpened,
    SuiteLearnt,
    UplinkUp,
    UplinkDown,
    UplinkReplaced,
    UplinkPutOut,
    UplinkAskedFor,
    UplinkClockCorrected,
    UplinkMismatch,
    PresenceFromSnapshot,
    SubscriberGap,
    ReceiptTaken,
    ReceiptRepeated,
    SeenSaid,
    SeenTaken,
    ExplainAsked,
    ExplainAnswered,
}

/// How often each mark was hit.
#[derive(Clone)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    #[must_use]
    pub fn get(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine += theirs;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Mark, u64)> + '_ {
        Mark::ALL.iter().map(|mark| (*mark, self.get(*mark)))
    }
}

impl core::fmt::Debug for Marks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .filter(|(_, n)| *n > 0)
                    .map(|(m, n)| (m.name(), n)),
            )
            .finish()
    }
}
