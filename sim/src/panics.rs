//! A panic of a machine is a violation like any other: caught, quiet, and with its place.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics are not printed: whoever catches one says what it was.
pub fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string);
            PLACE.with(|kept| *kept.borrow_mut() = place);
        }));
    });
}

#[must_use]
pub fn text(payload: &(dyn Any + Send)) -> String {
    let words = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without words".into());
    match PLACE.with(|kept| kept.borrow_mut().take()) {
        Some(place) => format!("{words} ({place})"),
        None => words,
    }
}
