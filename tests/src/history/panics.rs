//! What a panic in a history's thread said.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    /// The first panic of this thread, while it is listened to.
    static FIRST: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
    /// The node whose turn it is on this thread.
    static NODE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// It is a node's turn, or nobody's.
pub(crate) fn turn_of(node: Option<usize>) {
    NODE.set(node);
}

static HOOK: Once = Once::new();

/// From now on the first panic of this thread is kept, and none of its panics are printed.
pub(super) fn listen() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("a panic without words").to_owned();
            let place = panic.location().map_or_else(String::new, |place| format!(" ({place})"));
            let node = NODE.get().map_or_else(String::new, |node| format!(" in n{node}"));
            let kept = FIRST.with_borrow_mut(|first| match first {
                None => false,
                Some(kept) => {
                    kept.get_or_insert(text + &place + &node);
                    true
                }
            });
            if !kept {
                before(panic);
            }
        }));
    });
    FIRST.set(Some(None));
    NODE.set(None);
}

/// What the first panic since `listen` said.
pub(super) fn first() -> Option<String> {
    FIRST.with_borrow(|first| first.clone().flatten())
}
