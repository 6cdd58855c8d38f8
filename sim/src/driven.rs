//! A machine and its one timer, driven as core's `machine` says a driver must, with the contract
//! asserted on the way.

use bowline_core::machine::Machine;

use crate::clock::Moment;
use crate::fault_mark::FaultMark;
use crate::kernel::{Kernel, NodeEvent, NodeId};
use crate::random::Purpose;
use crate::tape::Recorder;

/// A machine that says more than this at once is in a loop.
const OUTPUTS_AT_ONCE: usize = 1_000_000;

pub struct Driven<M: Machine> {
    pub machine: M,
    node: NodeId,
    slot: Option<u64>,
    armed: Option<Moment>,
    said: usize,
    timer_late_most_us: u64,
    spurious_per_mille: u64,
    recorder: Option<Recorder<M>>,
}

/// How the timers of a run behave.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub late_most_us: u64,
    pub spurious_per_mille: u64,
}

impl<M: Machine> Driven<M> {
    pub fn new(machine: M, node: NodeId, slot: Option<u64>, timing: Timing) -> Self {
        Self {
            machine,
            node,
            slot,
            armed: None,
            said: 0,
            timer_late_most_us: timing.late_most_us,
            spurious_per_mille: timing.spurious_per_mille,
            recorder: None,
        }
    }

    #[must_use]
    pub fn recorded(mut self, recorder: Option<Recorder<M>>) -> Self {
        self.recorder = recorder;
        self
    }

    /// The caller drains with [`Self::output`] next, to the end.
    pub fn input(&mut self, k: &Kernel, input: M::Input) {
        self.said = 0;
        let now = k.clock(self.node);
        if let Some(recorder) = &self.recorder {
            recorder.input(now, &input);
        }
        self.machine.handle_input(now, input);
    }

    /// A timer event came. The caller drains next.
    pub fn timer(&mut self, k: &mut Kernel) {
        self.said = 0;
        if self.armed.is_some_and(|at| at <= k.now) {
            self.armed = None;
        }
        let now = k.clock(self.node);
        let Some(timeout) = self.machine.poll_timeout() else {
            return;
        };
        if timeout.at <= now.mono {
            if let Some(recorder) = &self.recorder {
                recorder.timeout(now);
            }
            self.machine.handle_timeout(now);
            if let Some(next) = self.machine.poll_timeout() {
                assert!(
                    next.at > now.mono,
                    "after handle_timeout({:?}) {:?} is still due at {:?}",
                    now.mono,
                    next.why,
                    next.at
                );
            }
            return;
        }
        let draw = k.random.draw(Purpose::Spurious, self.node as u64, k.now.0);
        if draw % 1000 >= self.spurious_per_mille {
            return;
        }
        k.fault_marks.hit(FaultMark::SpuriousTimeout);
        self.machine.handle_timeout(now);
        assert!(
            self.machine.poll_output().is_none(),
            "a spurious time-out at {:?} made an output; the next was due at {:?} for {:?}",
            now.mono,
            timeout.at,
            timeout.why
        );
        let after = self.machine.poll_timeout().map(|next| next.at);
        assert_eq!(
            after,
            Some(timeout.at),
            "a spurious time-out moved the deadline of {:?}",
            timeout.why
        );
    }

    /// The next output; at the end the timer is armed again.
    pub fn output(&mut self, k: &mut Kernel) -> Option<M::Output> {
        if let Some(output) = self.machine.poll_output() {
            self.said += 1;
            assert!(
                self.said < OUTPUTS_AT_ONCE,
                "a machine does not come to an end"
            );
            if let Some(recorder) = &self.recorder {
                recorder.output(k.clock(self.node), &output);
            }
            return Some(output);
        }
        self.arm(k);
        None
    }

    fn arm(&mut self, k: &mut Kernel) {
        let Some(timeout) = self.machine.poll_timeout() else {
            return;
        };
        let due = k.clocks[self.node].moment_of(timeout.at).max(k.now);
        if self
            .armed
            .is_some_and(|armed| armed <= due.plus_us(self.timer_late_most_us))
        {
            return;
        }
        let of = (self.node as u64) << 32 ^ self.slot.unwrap_or(u64::MAX >> 32);
        let late = k.random.draw(Purpose::TimerLate, of, due.0) % (self.timer_late_most_us + 1);
        let at = due.plus_us(late);
        self.armed = Some(at);
        let incarnation = k.incarnation(self.node);
        k.tell_at(at, self.node, incarnation, NodeEvent::Timer(self.slot));
    }
}
