//! What a machine was told in a run and what it said: enough to tell it the same again, under
//! another driver.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use bowline_core::host::Host;
use bowline_core::machine::Machine;
use bowline_core::mesh::Mesh;
use bowline_core::time::Now;

/// The lives of all owners in a run, in the order in which they began.
#[derive(Clone, Default)]
pub struct Tapes {
    pub meshes: Reel<Mesh>,
    pub hosts: Reel<Host>,
}

pub type Reel<M> = Rc<RefCell<Vec<Rc<RefCell<Life<M>>>>>>;

/// From the start of a process to its end.
pub struct Life<M: Machine> {
    pub began: Now,
    /// The machine as it was then.
    pub begin: Box<dyn Fn() -> M>,
    pub events: Vec<Taped<M::Input>>,
}

pub enum Taped<I> {
    Input(Now, I),
    Timeout(Now),
    /// In words: outputs are compared and never used.
    Output(Now, String),
}

/// A driver's hand on the tape.
pub struct Recorder<M: Machine> {
    life: Rc<RefCell<Life<M>>>,
    copy: fn(&M::Input) -> M::Input,
    words: fn(&M::Output) -> String,
}

impl<M: Machine> Recorder<M>
where
    M::Input: Clone,
    M::Output: Debug,
{
    /// A life begins.
    pub fn new(reel: &Reel<M>, began: Now, begin: impl Fn() -> M + 'static) -> Self {
        let life = Rc::new(RefCell::new(Life {
            began,
            begin: Box::new(begin),
            events: Vec::new(),
        }));
        reel.borrow_mut().push(Rc::clone(&life));
        Self {
            life,
            copy: M::Input::clone,
            words: |output| format!("{output:?}"),
        }
    }
}

impl<M: Machine> Recorder<M> {
    pub fn input(&self, now: Now, input: &M::Input) {
        self.add(Taped::Input(now, (self.copy)(input)));
    }

    pub fn timeout(&self, now: Now) {
        self.add(Taped::Timeout(now));
    }

    pub fn output(&self, now: Now, output: &M::Output) {
        self.add(Taped::Output(now, (self.words)(output)));
    }

    fn add(&self, event: Taped<M::Input>) {
        self.life.borrow_mut().events.push(event);
    }
}
