//! What a panic in a history's thread said.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// The first panic of this thread, while it is listened to.
    static FIRST: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From now on the first panic of this thread is kept, and none of its panics are printed.
pub(super) fn listen() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or("a panic without words").to_owned();
            let place = panic.location().map_or_else(String::new, |place| format!(" ({place})"));
            let kept = FIRST.with_borrow_mut(|first| match first {
                None => false,
                Some(kept) => {
                    kept.get_or_insert(text + &place);
                    true
                }
            });
            if !kept {
                before(panic);
            }
        }));
    });
    FIRST.set(Some(None));
}

/// What the first panic since `listen` said.
pub(super) fn first() -> Option<String> {
    FIRST.with_borrow(|first| first.clone().flatten())
}
