//! Real processes and what happens to them: a broker, daemons, sessions that send and watch, and a
//! network that cuts. For `quickstart`, and for the soak of the simulator.

mod child;
mod hello;
mod party;
mod proxy;
mod running;
mod signals;
mod verdict;
mod watcher;

pub use child::{Broker, Host};
pub use hello::Who;
pub use party::{Mail, Party};
pub use proxy::{Mode, Proxy};
pub use running::{Death, Ended, Running};
pub use signals::Signals;
pub use verdict::{Accepted, Verdict};
pub use watcher::{Counts, Watcher};
