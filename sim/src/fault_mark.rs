//! Marks of the simulator's own: which faults a run really got to.

macro_rules! fault_marks {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum FaultMark { $($(#[$doc])* $name,)* }

        impl FaultMark {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

fault_marks! {
    // connections
    ConnectionReset,
    ConnectionFin,
    HalfOpenBoth,
    HalfOpenUp,
    HalfOpenDown,
    CloseReportedLate,
    Stalled,
    StalledOneWay,
    DialRefused,
    DialHanging,
    DialLate,
    OutageNearGrace,
    // processes
    BrokerCrashed,
    HostCrashed,
    CrashWithTransactionsInFlight,
    CrashLostAllInFlight,
    CrashKeptSomeInFlight,
    CrashKeptAllInFlight,
    PowerCut,
    CrashedAfterSend,
    BrokerStopped,
    HostStopped,
    KilledDuringDrain,
    HostSlept,
    BrokerPaused,
    HostPaused,
    SecondOwner,
    Fenced,
    // clocks
    WallStepped,
    // stores
    StoreUnavailable,
    StoreFull,
    StoreSlow,
    CommitUnheard,
    WatermarkFound,
    // timers
    SpuriousTimeout,
    // load
    ReconnectStorm,
    Flooded,
    LargestFrame,
    // ages
    TwoVersions,
    BrokerUnsuited,
    ClientUpdated,
    // the world
    TwoMeshes,
}

/// How often each was hit.
#[derive(Clone, Debug)]
pub struct FaultMarks([u64; FaultMark::ALL.len()]);

impl Default for FaultMarks {
    fn default() -> Self {
        Self([0; FaultMark::ALL.len()])
    }
}

impl FaultMarks {
    pub fn hit(&mut self, mark: FaultMark) {
        self.0[mark as usize] += 1;
    }

    #[must_use]
    pub fn get(&self, mark: FaultMark) -> u64 {
        self.0[mark as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
