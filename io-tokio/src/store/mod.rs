//! Store drivers: they commit what a machine emits and read what it asks for.
//!
//! The rules of the owner row, the watermark and of stalls are in [`bowline_core::store`]; a driver
//! has none of its own.

use bowline_core::id::LoadId;
use bowline_core::store::Txn;

/// The driver behind a machine. Neither call waits; what comes of it arrives as
/// [`bowline_core::store::Event`]s through the callback given at the opening.
pub trait Store<Op, Load>: Send + 'static {
    fn persist(&mut self, txn: Txn<Op>);
    fn load(&mut self, load: LoadId, what: Load);
}
